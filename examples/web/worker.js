// A model in a thread of its own: messages { id, verb, values } come in, { id, result } or { id, error } go out, and
// while it learns { done, of, loss }.

import init, { Model, Tuner } from "./electret.js";

// A module that returns a v128: what does not know simd128 refuses it.
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);
const STRATEGY = "head+lora:8:4:all";

let model;
let mine;

const verbs = {
  async open({ scalar }) {
    const kind = WebAssembly.validate(SIMD) && !scalar ? "simd" : "scalar";
    await init({ module_or_path: new URL(`./electret-${kind}.wasm`, import.meta.url) });
    const file = await fetch(new URL("./electret-tiny.electret", import.meta.url));
    if (!file.ok) throw new Error(`the model: ${file.status} ${file.statusText}`);
    model = new Model(new Uint8Array(await file.arrayBuffer()));
    return { name: model.name, kernels: model.kernels, passed: model.selfTest() };
  },

  detect({ text }) {
    const began = performance.now();
    const tokens = model.detect(text);
    const milliseconds = performance.now() - began;
    return { milliseconds, tokens: tokens.map(({ text, start, end, replaced }) => ({ text, start, end, replaced })) };
  },

  use({ adapter }) {
    mine?.free();
    mine = adapter ? model.withAdapter(adapter) : undefined;
  },

  classify({ text }) {
    return (mine ?? model).classify(text).map(({ label, probability }) => ({ label, probability }));
  },

  learn({ labels, texts, truths, epochs, state }) {
    const tuner = new Tuner(model, labels, STRATEGY, state);
    const loss = tuner.learn(texts, truths, epochs, (done, of, loss) => postMessage({ done, of, loss }));
    return { loss, adapter: tuner.adapter(), state: tuner.state() };
  },
};

onmessage = async ({ data: { id, verb, values } }) => {
  try {
    postMessage({ id, result: await verbs[verb](values) });
  } catch (error) {
    postMessage({ id, error: error.message ?? String(error) });
  }
};
