// The page in headless Chromium: `node examples/web/test.mjs CHROMIUM WANT [SCREENSHOT]`, where WANT holds the lines of
// tests/bindings/agree.sh. Needs playwright-core in target/node, and the page in target/web.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, resolve } from "node:path";

const { chromium } = createRequire(resolve("target/node/package.json"))("playwright-core");

const [executablePath, want, screenshot] = process.argv.slice(2);
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm" };
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

const [, program] = readFileSync("examples/web/README.md", "utf8").match(/```html\n(.*?)```/s);

const server = createServer((request, response) => {
  const path = new URL(request.url, "http://localhost").pathname;
  if (path === "/program.html") return response.writeHead(200, { "content-type": "text/html" }).end(program);
  const file = join("target/web", path === "/" ? "index.html" : path);
  try {
    const bytes = readFileSync(file);
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" }).end(bytes);
  } catch {
    response.writeHead(404).end();
  }
}).listen(0);
const address = `http://localhost:${server.address().port}/`;

const browser = await chromium.launch({ executablePath, args: FLAGS });
const context = await browser.newContext({ viewport: { width: 900, height: 1250 } });
const page = await context.newPage();
const mistakes = [];
page.on("pageerror", (error) => mistakes.push(error.message));

async function open(path = "") {
  await page.goto(address + path);
  await page.waitForSelector("body[data-ready]");
}

const bits = (value) => new Uint32Array(Float32Array.of(value).buffer)[0].toString(16).padStart(8, "0");
const lines = (kind) => readFileSync(want, "utf8").split("\n").filter((line) => line.startsWith(kind));

// What the worker says, bit for bit, with and without simd128.
for (const query of ["", "?scalar"]) {
  await open(query);
  const kernels = await page.textContent("#about");
  assert.match(kernels, query ? /kernels scalar;/ : /kernels wasm-simd128;/);
  assert.match(kernels, /gives the bits it was made with/);
  const found = await page.evaluate(async (scalar) => {
    const { Worked } = await import("./model.js");
    const text = "He opened the door and walked table the room.";
    return (await new Worked({ scalar }).ask("detect", { text })).tokens;
  }, query !== "");
  assert.deepEqual(found.map(({ start, end, replaced }) => `detect ${start} ${end} ${bits(replaced)}`), lines("detect"));
}
console.log("the bits of the command, with simd128 and without");

// The program of README.md.
await page.goto(address + "program.html");
await page.waitForFunction(() => document.querySelector("#said").textContent === "table does not belong; a question");
console.log("the README's program");

// A wrong word is underlined as one types, an emoji before it or not.
await open();
await page.fill("#text", "🦊 He opened the door and walked table the room.");
await page.waitForFunction(() => [...document.querySelectorAll("#marks mark")].some((mark) => mark.textContent === "table"));
assert.match(await page.textContent("#suspects"), /Suspect: .*table \d+ %/);
await page.fill("#text", "   ");
await page.waitForFunction(() => document.querySelector("#suspects").textContent === "Nothing to read.");
await page.fill("#text", "word ".repeat(20_000));
await page.waitForFunction(() => /^.*62 tokens, /.test(document.querySelector("#suspects").textContent));
await page.fill("#text", "He opened the door and walked table the room.");

// Mistakes are said where they are made.
const samples = await page.inputValue("#examples");
await page.fill("#examples", "ham: hello\nwhat is this");
await page.click("#learn");
await page.waitForFunction(() => document.querySelector("#learned").textContent.startsWith("line 2: begin it with"));
await page.fill("#examples", samples);

// A cancelled round leaves nothing; a finished one changes the verdict, and a reload keeps it.
await page.click("#learn");
await page.click("#cancel");
await page.waitForFunction(() => /^Cancelled/.test(document.querySelector("#learned").textContent));
assert.equal(await page.locator(".bar").count(), 0);
const verdict = () => page.locator(".bar").first().innerText();
async function learn() {
  await page.click("#learn");
  await page.waitForFunction(() => /^Learned from/.test(document.querySelector("#learned").textContent), null, { timeout: 120_000 });
}
await learn();
assert.match(await verdict(), /spam/);
await page.fill("#question", "see you at dinner tonight");
await page.waitForFunction(() => document.querySelector(".bar span").textContent === "ham");
const [, share] = (await verdict()).match(/(\d+) %/);
console.log(`learned in the page: ham ${share} %`);
if (screenshot) await page.screenshot({ path: screenshot });

// Other examples, and the verdict is another one.
await page.fill("#examples", samples.replaceAll("ham:", "?:").replaceAll("spam:", "ham:").replaceAll("?:", "spam:"));
await learn();
await page.waitForFunction(() => document.querySelector(".bar span").textContent === "spam");
const kept = await verdict();
await page.reload();
await page.waitForSelector("body[data-ready]");
await page.fill("#question", "see you at dinner tonight");
await page.waitForFunction(() => document.querySelector(".bar"));
assert.equal(await verdict(), kept);
assert.match(await page.textContent("#learned"), /is still here/);
console.log("and kept through a reload");

// Without a connection the page works as before.
await page.evaluate(() => navigator.serviceWorker.ready);
await page.reload();
server.close();
server.closeAllConnections();
await context.setOffline(true);
await open();
assert.match(await page.textContent("#suspects"), /Suspect: table/);
await page.click("#forget");
await page.waitForFunction(() => document.querySelector("#learned").textContent === "Forgotten.");
console.log("and works offline");

assert.deepEqual(mistakes, []);
await browser.close();
