"""Detectors of different vocabularies on the same words, some of which a generator has replaced: area under the ROC curve.

    electret corpus build … -o corpus/ --vocab vocab.txt && electret export run/ --corpus corpus/ --generator -o generator/
    python tests/pytorch/detectors.py corpus/ generator/ small.electret models/electret-tiny.electret

The first segments of 1,500 held-out examples, 30 words each; 15 % of the words are drawn anew from the generator, words of one piece
by words of one piece. A word is as suspect as the most suspect of its pieces. Also precision and recall of those at 0.5 or more.
ELECTRET names the command.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy
import torch
from transformers import ElectraForMaskedLM

corpus, generator, models = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
vocabulary = (corpus / "vocab.txt").read_text(encoding="utf-8").splitlines()
record = 2 + json.loads((corpus / "corpus.json").read_text())["sequence"]
records = numpy.fromfile(corpus / "heldout.u16", dtype=numpy.uint16).reshape(-1, record)
network = ElectraForMaskedLM.from_pretrained(generator).eval()
random.seed(7)
torch.manual_seed(7)


def words_of(ids):
    """Words as lists of pieces."""
    words = []
    for piece in (vocabulary[id] for id in ids):
        if piece.startswith("##") and words:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words[:30]


def corrupt(words):
    """The words as text, and which are not what they were; nothing, if there are too few words of one piece."""
    whole = [place for place, pieces in enumerate(words) if len(pieces) == 1 and pieces[0].isalpha()]
    if len(whole) < 8:
        return None
    chosen = sorted(random.sample(whole, max(1, len(words) * 15 // 100)))
    masked = ["[CLS]"] + [piece for at, pieces in enumerate(words) for piece in (["[MASK]"] if at in chosen else pieces)] + ["[SEP]"]
    ids = torch.tensor([[vocabulary.index(piece) for piece in masked]])
    with torch.no_grad():
        drawn = torch.distributions.Categorical(logits=network(ids).logits[0]).sample().tolist()
    samples = [vocabulary[drawn[at]] for at, piece in enumerate(masked) if piece == "[MASK]"]
    text = ["".join(piece.removeprefix("##") for piece in pieces) for pieces in words]
    for at, sample in zip(chosen, samples):
        text[at] = sample if sample.isalpha() else text[at]
    return text, [at in chosen and text[at] != words[at][0] for at in range(len(words))]


def area(scores, replaced):
    """Under the ROC curve, ties counting half."""
    values, inverse, counts = numpy.unique(scores, return_inverse=True, return_counts=True)
    ranks = (numpy.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = replaced.sum()
    return (ranks[replaced].sum() - positive * (positive + 1) / 2) / (positive * (len(scores) - positive))


examples = []
for row in random.sample(range(len(records)), len(records)):
    ids = records[row, 3 : records[row, 1] + 1]
    if len(ids) >= 20 and not vocabulary[ids[0]].startswith("##") and (example := corrupt(words_of(ids))):
        examples.append(example)
    if len(examples) == 1500:
        break

lines = "".join(" ".join(text) + "\n" for text, _ in examples)
for model in models:
    command = [os.environ.get("ELECTRET", "target/release/electret"), "detect", "--model", model, "--truncate", "--json", "-"]
    answers = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    scores, replaced = [], []
    for (text, labels), answer in zip(examples, answers, strict=True):
        start = 0
        tokens = json.loads(answer)["tokens"]
        for word, label in zip(text, labels):
            end = start + len(word.encode())
            inside = [token["replaced"] for token in tokens if start <= token["start"] and token["end"] <= end]
            if inside:  # else the model takes no texts as long as this
                scores.append(max(inside))
                replaced.append(label)
            start = end + 1
    scores, replaced = numpy.array(scores), numpy.array(replaced)
    draws = [numpy.random.default_rng(seed).integers(0, len(scores), len(scores)) for seed in range(200)]
    low, high = numpy.percentile([area(scores[draw], replaced[draw]) for draw in draws], [2.5, 97.5])
    marked = scores >= 0.5
    print(
        f"{model}: {len(scores)} words, {100 * replaced.mean():.1f} % replaced, AUC {area(scores, replaced):.4f} ({low:.4f} to "
        f"{high:.4f}); from 0.5 on precision {replaced[marked].mean():.3f}, recall {marked[replaced].mean():.3f}"
    )
