// The page's side of worker.js: each verb a promise.

export class Worked {
  #worker;
  #waiting = new Map();
  #last = 0;

  // `progress(done, of, loss)` is called while the model learns; `scalar` asks for the kernels without simd128.
  constructor({ progress = () => {}, scalar = false } = {}) {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }) => {
      if (data.id === undefined) return progress(data.done, data.of, data.loss);
      const { resolve, reject } = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      data.error === undefined ? resolve(data.result) : reject(new Error(data.error));
    };
    this.#worker.onerror = (event) => this.#refuse(event.message ?? "the worker could not start");
    this.about = this.#send("open", { scalar });
    this.about.catch(() => {}); // whoever asks hears of it
  }

  async ask(verb, values) {
    await this.about;
    return this.#send(verb, values);
  }

  #send(verb, values) {
    const id = ++this.#last;
    this.#worker.postMessage({ id, verb, values });
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  // Whatever was under way is over, and left no trace.
  end(reason) {
    this.#worker.terminate();
    this.#refuse(reason);
  }

  #refuse(reason) {
    for (const { reject } of this.#waiting.values()) reject(new Error(reason));
    this.#waiting.clear();
  }
}
