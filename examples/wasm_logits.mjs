// Runs a module made of wasm_logits.rs and compares its logits with those of every other machine.
import { readFileSync } from "node:fs";

const hex = (value) => BigInt.asUintN(64, value).toString(16).padStart(16, "0");
for (const path of process.argv.slice(2)) {
  const { instance } = await WebAssembly.instantiate(readFileSync(path), {});
  const { logits_hash, expected } = instance.exports;
  const start = performance.now();
  const [found, wanted] = [logits_hash(), expected()].map(hex);
  console.log(`${path}: ${found} in ${(performance.now() - start).toFixed(1)} ms`);
  if (found !== wanted) {
    console.error(`expected ${wanted}`);
    process.exit(1);
  }
}
