// Keeps the page for when there is no connection. What is newer on the server is taken first.

const CACHE = "electret";
const FILES = [
  "./", "./index.html", "./style.css", "./page.js", "./model.js", "./worker.js", "./store.js", "./electret.js",
  "./electret-simd.wasm", "./electret-scalar.wasm", "./electret-tiny.electret", "./messages.tsv",
];

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(newest(event.request));
});

async function newest(request) {
  const cache = await caches.open(CACHE);
  try {
    const found = await fetch(request);
    if (found.ok) await cache.put(request, found.clone());
    return found;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}
