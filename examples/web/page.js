// One page: a text that is read along, and a lesson that is kept.

import { Worked } from "./model.js";
import * as store from "./store.js";

const SUSPECT = 0.5;
const EPOCHS = 20;

const scalar = new URLSearchParams(location.search).has("scalar");
const reader = new Worked({ scalar });
const $ = (id) => document.getElementById(id);
let lesson;

function said(place, ...parts) {
  $(place).classList.remove("refused");
  $(place).replaceChildren(...parts);
}

function refused(place, error) {
  $(place).replaceChildren(error.message);
  $(place).classList.add("refused");
}

function element(name, text, classes = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = classes;
  return made;
}

const percent = (p) => `${Math.round(p * 100)} %`;

// Reads the text along: an answer that comes late is for a text that is gone.
async function read() {
  const text = $("text").value;
  if (!text.trim()) return said("marks"), said("suspects", "Nothing to read.");
  try {
    const { tokens, milliseconds } = await reader.ask("detect", { text });
    if (text !== $("text").value) return;
    const suspects = tokens.filter(({ replaced }) => replaced >= SUSPECT);
    const marks = [];
    let done = 0;
    for (const { start, end } of suspects) {
      marks.push(text.slice(done, start), element("mark", text.slice(start, end)));
      done = end;
    }
    said("marks", ...marks, text.slice(done), "\n");
    const names = suspects.flatMap(({ text, replaced }) => [element("b", text), ` ${percent(replaced)}. `]);
    const time = `${tokens.length} tokens, ${milliseconds.toFixed(1)} ms.`;
    said("suspects", ...(names.length ? ["Suspect: ", ...names] : ["Nothing stands out. "]), time);
  } catch (error) {
    said("marks");
    refused("suspects", error);
  }
}

async function judge() {
  const text = $("question").value;
  if (!lesson || !text.trim()) return said("verdict");
  try {
    const scores = await reader.ask("classify", { text });
    const bars = scores.map(({ label, probability }) => {
      const bar = element("div", "", "bar");
      const share = element("i", "");
      share.style.setProperty("--share", `${probability * 100}%`);
      bar.append(element("span", label), share, element("span", percent(probability)));
      return bar;
    });
    said("verdict", ...bars);
  } catch (error) {
    refused("verdict", error);
  }
}

// The examples as they stand in the text area, or an error that names the line.
function examples(labels) {
  const lines = $("examples").value.split("\n").map((line, index) => [line.trim(), index + 1]);
  const found = lines.filter(([line]) => line).map(([line, number]) => {
    const [label, ...rest] = line.split(":");
    const text = rest.join(":").trim();
    if (!labels.includes(label.trim()) || !text) {
      throw new Error(`line ${number}: begin it with “${labels[0]}:” or “${labels[1]}:”`);
    }
    return { label: label.trim(), text };
  });
  for (const label of labels) {
    if (!found.some((example) => example.label === label)) throw new Error(`there is no example of “${label}” yet`);
  }
  return found;
}

async function learn() {
  const labels = [$("label-a").value.trim(), $("label-b").value.trim()];
  let learner;
  try {
    if (!labels[0] || !labels[1] || labels[0] === labels[1]) throw new Error("the two kinds need names of their own");
    const taught = examples(labels);
    const progress = (done, of) => ($("progress").value = done / of);
    // A thread of its own, so that reading goes on, and cancelling is ending it.
    learner = new Worked({ progress, scalar });
    busy(true, () => learner.end("Cancelled; nothing was learned."));
    const goesOn = lesson?.labels.join("\n") === labels.join("\n");
    const { loss, adapter, state } = await learner.ask("learn", {
      labels,
      texts: taught.map(({ text }) => text),
      truths: taught.map(({ label }) => label),
      epochs: EPOCHS,
      state: goesOn ? lesson.state : undefined,
    });
    await keep({ labels, adapter, state, count: taught.length });
    said("learned", `Learned from ${taught.length} examples, mean loss ${loss.toFixed(3)}, and kept in this browser.`);
  } catch (error) {
    refused("learned", error);
  } finally {
    learner?.end("done");
    busy(false);
  }
}

function busy(is, cancel) {
  $("learn").disabled = is;
  $("forget").disabled = is;
  $("cancel").hidden = !is;
  $("progress").hidden = !is;
  $("progress").value = 0;
  $("cancel").onclick = cancel;
}

async function keep(learned) {
  await store.save(learned);
  await use(learned);
}

async function use(learned) {
  await reader.ask("use", { adapter: learned?.adapter });
  lesson = learned;
  await judge();
}

async function forget() {
  await store.forget();
  await use(undefined);
  said("learned", "Forgotten.");
}

// What was learned may be another model's than the page has by now; then it is learned anew.
async function recall(kept) {
  [$("label-a").value, $("label-b").value] = kept.labels;
  try {
    await use(kept);
    said("learned", `What was learned from ${kept.count} examples is still here.`);
  } catch (error) {
    refused("learned", error);
  }
}

// The messages that come with the page, a line each.
async function samples() {
  const file = await fetch("./messages.tsv");
  const [, ...rows] = (await file.text()).trim().split("\n");
  return rows.map((row) => row.replace("\t", ": ")).join("\n");
}

async function start() {
  try {
    $("examples").value = await samples();
    const { name, kernels, passed } = await reader.about;
    const test = passed ? "its self-test gives the bits it was made with" : "its self-test FAILED";
    said("about", `${name}, kernels ${kernels}; ${test}.`);
    await read();
    const kept = await store.load();
    if (kept) await recall(kept);
    document.body.dataset.ready = "true";
  } catch (error) {
    refused("about", error);
  }
  // Without a connection the page comes from the cache.
  await navigator.serviceWorker?.register("./offline.js");
}

$("text").addEventListener("input", read);
$("question").addEventListener("input", judge);
$("learn").addEventListener("click", learn);
$("forget").addEventListener("click", forget);
start();
