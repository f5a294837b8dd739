// Runs modules made of wasm_logits.rs: their logits must be those of every other machine, and models given after them must
// give the results that they carry.
import { readFileSync } from "node:fs";

const fail = (message) => {
  console.error(message);
  process.exit(1);
};
const hex = (value) => BigInt.asUintN(64, value).toString(16).padStart(16, "0");
const paths = process.argv.slice(2);
const models = paths.filter((path) => path.endsWith(".electret"));
for (const path of paths.filter((path) => !models.includes(path))) {
  const { instance } = await WebAssembly.instantiate(readFileSync(path), {});
  const { logits_hash, expected, room, proven, memory } = instance.exports;
  const start = performance.now();
  const [found, wanted] = [logits_hash(), expected()].map(hex);
  console.log(`${path}: ${found} in ${(performance.now() - start).toFixed(1)} ms`);
  if (found !== wanted) fail(`expected ${wanted}`);
  for (const model of models) {
    const file = readFileSync(model);
    const at = room(file.length);
    new Uint8Array(memory.buffer, at, file.length).set(file);
    const results = proven(at, file.length);
    if (results === 0) fail(`${model}: other bits than it was converted with`);
    console.log(`${model}: ${results} results, the same bits`);
  }
}
