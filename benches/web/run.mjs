// Least times of many runs, in turns: `node benches/web/run.mjs CHROMIUM`.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, resolve } from "node:path";

const { chromium } = createRequire(resolve("target/node/package.json"))("playwright-core");
const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const ROOTS = { web: "target/web", peers: "target/peers", ort: "target/node/node_modules/onnxruntime-web/dist" };
const FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"];

const server = createServer((request, response) => {
  const [, root, ...path] = new URL(request.url, "http://localhost").pathname.split("/");
  try {
    const bytes = ROOTS[root] ? readFileSync([ROOTS[root], ...path].join("/")) : "<!doctype html>";
    response.writeHead(200, { "content-type": TYPES[extname(request.url)] ?? "text/html" }).end(bytes);
  } catch {
    response.writeHead(404).end();
  }
}).listen(0);

async function measure(lengths) {
  const { default: init, Model } = await import("/web/electret.js");
  await init({ module_or_path: "/web/electret-simd.wasm" });
  const ort = await import("/ort/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/ort/";
  const bytes = async (path) => new Uint8Array(await (await fetch(path)).arrayBuffer());
  const electret = new Model(await bytes("/peers/small.electret"));
  const [int8, f32] = await Promise.all(
    ["int8", "f32"].map(async (kind) => ort.InferenceSession.create(await bytes(`/peers/${kind}.onnx`))),
  );
  const rows = [];
  for (const tokens of lengths) {
    const ids = Array.from({ length: tokens }, (_, index) => 5 + ((index * 37) % 30_000));
    const text = ids.slice(0, tokens - 2).map((id) => `piece${id}`).join(" ");
    const input_ids = new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, tokens]);
    const runs = {
      electret: () => electret.detect(text),
      int8: () => int8.run({ input_ids }),
      f32: () => f32.run({ input_ids }),
    };
    const least = { electret: Infinity, int8: Infinity, f32: Infinity };
    if (electret.detect(text).length !== tokens - 2) throw new Error("another number of tokens");
    for (let round = 0; round < 40; round++) {
      for (const [name, run] of Object.entries(runs)) {
        const began = performance.now();
        await run();
        least[name] = Math.min(least[name], performance.now() - began);
      }
    }
    rows.push({ tokens, ...least });
  }
  return rows;
}

const browser = await chromium.launch({ executablePath: process.argv[2], args: FLAGS });
const page = await browser.newPage();
await page.goto(`http://localhost:${server.address().port}/`);
console.log("tokens  electret int8  onnxruntime-web int8  onnxruntime-web f32   (ms; ratio electret / theirs)");
for (const { tokens, electret, int8, f32 } of await page.evaluate(measure, [8, 16, 32, 128])) {
  const beside = (theirs) => `${theirs.toFixed(2)} (${(electret / theirs).toFixed(2)})`;
  console.log(`${String(tokens).padStart(6)}  ${electret.toFixed(2).padStart(13)}  ${beside(int8).padStart(20)}  ${beside(f32).padStart(19)}`);
}
await browser.close();
server.close();
