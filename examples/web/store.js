// What was learned, in this browser's IndexedDB: { labels, adapter, state, count }, replaced whole or not at all.

const KEY = "lesson";

function transaction(mode, work) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("electret", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("kept");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const under = opening.result.transaction("kept", mode);
      const request = work(under.objectStore("kept"));
      under.oncomplete = () => resolve(request.result);
      under.onabort = () => reject(under.error);
    };
  });
}

export const load = () => transaction("readonly", (kept) => kept.get(KEY));
export const save = (lesson) => transaction("readwrite", (kept) => kept.put(lesson, KEY));
export const forget = () => transaction("readwrite", (kept) => kept.delete(KEY));
