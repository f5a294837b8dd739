"""Tokens a second of ELECTRA's joint step in PyTorch and transformers: eager or compiled, f32 or bf16.

    python benches/train/pytorch.py RUN --steps 20 [--compile] [--bf16] [--device cuda]

RUN is a folder of `electret pretrain`: its settings, its corpus's shape and the networks' sizes are taken from there. All
sequences are of full length.
"""

import argparse
import json
import sys
import time
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/pytorch"))
from networks import networks

parser = argparse.ArgumentParser()
parser.add_argument("run", type=Path)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--compile", action="store_true")
parser.add_argument("--bf16", action="store_true")
parser.add_argument("--device", default="cpu")
options = parser.parse_args()

run = tomllib.loads((options.run / "run.toml").read_text())
corpus = json.loads((options.run / "corpus.json").read_text())
checkpoint = sorted(options.run.glob("step-*.safetensors"))[-1]
shapes = {}
with safe_open(checkpoint, "pt") as file:
    for name in file.keys():
        shapes[name] = file.get_slice(name).get_shape()

device = torch.device(options.device)
generator, discriminator, parameters = networks(shapes, run["dropout"])
generator.to(device)
discriminator.to(device)
optimizer = torch.optim.AdamW(parameters, lr=1e-4, eps=1e-6, weight_decay=0.01, fused=device.type == "cuda")
size, length, words = run["batch_size"], corpus["sequence"], corpus["vocab_size"]
chosen = max(1, int(length * run["objective"]["mask_prob"]))


def losses(original):
    positions = torch.rand(size, length, device=device).topk(chosen).indices
    masked = original.scatter(1, positions, 4)
    hidden = generator.electra(masked)[0]
    rows = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
    logits = generator.generator_lm_head(generator.generator_predictions(rows))
    mlm = F.cross_entropy(logits.flatten(0, 1).float(), original.gather(1, positions).flatten())
    noise = -torch.log(-torch.log(torch.rand_like(logits, dtype=torch.float32) + 1e-9) + 1e-9)
    corrupted = original.scatter(1, positions, (logits.detach() + noise).argmax(-1))
    found = discriminator(corrupted).logits
    rtd = F.binary_cross_entropy_with_logits(found.float(), (corrupted != original).float())
    return mlm + run["objective"]["disc_weight"] * rtd


forward = torch.compile(losses) if options.compile else losses


def step():
    original = torch.randint(5, words, (size, length), device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
        loss = forward(original)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss


def wait(loss):
    loss.item()


for _ in range(3):
    wait(step())
started = time.time()
for _ in range(options.steps):
    loss = step()
wait(loss)
print(f"{options.steps * size * length / (time.time() - started):.0f}")
