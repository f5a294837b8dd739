"""The fine-tuning recipe of `electret finetune` again in PyTorch and transformers, to compare scores with.

    python tests/pytorch/finetune.py FOLDER TRAIN.tsv DEV.tsv --epochs 5 --seq 48 --seeds 1,2,3

Classification from a folder with ELECTRA's weights: batch 32, Adam without bias correction (epsilon 1e-6), layer-wise
decay of the learning rate, gradients clipped at 1, dropout 0.1, google-research/electra's schedule.
"""

import argparse
import random
import statistics
import time

import torch
import torch.nn.functional as F
from transformers import BertTokenizerFast, ElectraForSequenceClassification

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("train")
parser.add_argument("dev")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--seq", type=int, default=128)
parser.add_argument("--rate", type=float, default=3e-4)
parser.add_argument("--layer-decay", type=float, default=0.8)
parser.add_argument("--seeds", default="1")
options = parser.parse_args()


def read(path):
    rows = [line.split("\t") for line in open(path, encoding="utf-8").read().splitlines()[1:] if line]
    return [row[0] for row in rows], [row[1] for row in rows]


tokenizer = BertTokenizerFast(f"{options.folder}/vocab.txt", do_lower_case=True)
train_labels, train_texts = read(options.train)
dev_labels, dev_texts = read(options.dev)
names = sorted(set(train_labels))


def encode(texts):
    return tokenizer(texts, truncation=True, max_length=options.seq)["input_ids"]


def batch(rows):
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, (torch.arange(width)[None] < torch.tensor([len(row) for row in rows])[:, None]).long()


train_ids, dev_ids = encode(train_texts), encode(dev_texts)
train_targets = torch.tensor([names.index(label) for label in train_labels])
dev_targets = torch.tensor([names.index(label) for label in dev_labels])
scores = []
for seed in map(int, options.seeds.split(",")):
    torch.manual_seed(seed)
    random.seed(seed)
    model = ElectraForSequenceClassification.from_pretrained(options.folder, num_labels=len(names))
    layers = model.config.num_hidden_layers

    def depth(name):
        if not name.startswith("electra."):
            return layers + 2
        return int(name.split(".")[3]) + 1 if name.startswith("electra.encoder") else 0

    parameters = [(p, options.layer_decay ** (layers + 2 - depth(name)), torch.zeros_like(p), torch.zeros_like(p))
                  for name, p in model.named_parameters()]
    steps = options.epochs * -(-len(train_ids) // 32)
    number, started = 0, time.time()
    for epoch in range(options.epochs):
        model.train()
        order = list(range(len(train_ids)))
        random.shuffle(order)
        for start in range(0, len(order), 32):
            chosen = order[start:start + 32]
            ids, mask = batch([train_ids[index] for index in chosen])
            model.zero_grad()
            F.cross_entropy(model(ids, attention_mask=mask).logits, train_targets[chosen]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            number += 1
            rate = options.rate * min(1, number / max(1, int(steps * 0.1))) * (1 - number / steps)
            with torch.no_grad():
                for parameter, share, first, second in parameters:
                    if parameter.grad is not None:
                        first.lerp_(parameter.grad, 0.1)
                        second.lerp_(parameter.grad ** 2, 0.001)
                        parameter -= rate * share * first / (second.sqrt() + 1e-6)
    seconds = time.time() - started
    model.eval()
    with torch.no_grad():
        right = 0
        for start in range(0, len(dev_ids), 64):
            ids, mask = batch(dev_ids[start:start + 64])
            right += (model(ids, attention_mask=mask).logits.argmax(1) == dev_targets[start:start + 64]).sum().item()
    scores.append(right / len(dev_ids))
    print(f"seed {seed}: accuracy {scores[-1]:.4f}, {seconds:.0f} s", flush=True)
if len(scores) > 1:
    print(f"mean {statistics.mean(scores):.4f}, deviation {statistics.stdev(scores):.4f}")
