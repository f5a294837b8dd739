"""A hundred joint steps again in PyTorch and transformers: the same weights, batches, masks and sampling.

    ELECTRET_PYTORCH=target/hundred cargo test --release --features train --test pretraining -- hundred --nocapture
    python tests/pytorch/pretraining.py target/hundred

Samples are taken by the same numbers from 0 to 1, one a chosen position. Says how far each step's losses are from
ours (`curve.tsv`), and how many tokens a second both do. ELECTRET_CORPUS and ELECTRET_PRESET choose another corpus and
another size than the test's own.
"""

import sys
import time
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from networks import networks

folder = Path(sys.argv[1])
weights = load_file(folder / "initial.safetensors")
drawn = load_file(folder / "drawn.safetensors")
run = tomllib.loads((folder / "run.toml").read_text())
lines = (folder / "curve.tsv").read_text().splitlines()
columns = lines[0].split("\t")
ours = [dict(zip(columns, map(float, line.split("\t")))) for line in lines[1:]]


def load(model, rename):
    named = {rename(name): value for name, value in weights.items() if rename(name)}
    missing, unexpected = model.load_state_dict(named, strict=False)
    assert not unexpected and all("position_ids" in name or "lm_head.weight" in name for name in missing), (missing, unexpected)


def of_generator(name):
    if name.startswith("generator."):
        return "electra." + name.removeprefix("generator.")
    return name if name.startswith(("electra.embeddings.", "generator_")) else None


def of_discriminator(name):
    return name if name.startswith(("electra.", "discriminator_")) else None


generator, discriminator, parameters = networks({name: value.shape for name, value in weights.items()}, dropout=0.0)
load(generator, of_generator)
load(discriminator, of_discriminator)
moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
adam, objective = run["adam"], run["objective"]


def step(index):
    """One step; its losses."""
    of = lambda name: drawn[f"{index:03}.{name}"]
    original, masked, types = (of(name).long() for name in ("original", "masked", "types"))
    real = 1 - of("padding")
    chosen, uniform = of("chosen").long(), of("uniform")
    hidden = generator.electra(masked, attention_mask=real, token_type_ids=types)[0]
    rows = hidden.reshape(-1, hidden.shape[-1])[chosen]
    logits = generator.generator_lm_head(generator.generator_predictions(rows))
    targets = original.flatten()[chosen]
    mlm = F.cross_entropy(logits, targets)
    with torch.no_grad():
        below = logits.softmax(1).cumsum(1) <= uniform[:, None]
        samples = below.sum(1).clamp(max=logits.shape[1] - 1)
        corrupted = original.flatten().clone()
        # Of several samples at one position the first counts.
        for position, sample in reversed(list(zip(chosen.tolist(), samples.tolist()))):
            corrupted[position] = sample
        corrupted = corrupted.view_as(original)
    found = discriminator(corrupted, attention_mask=real, token_type_ids=types).logits
    losses = F.binary_cross_entropy_with_logits(found, (corrupted != original).float(), reduction="none")
    rtd = (losses * real).sum() / real.sum()
    for parameter in parameters:
        parameter.grad = None
    (objective["gen_weight"] * mlm + objective["disc_weight"] * rtd).backward()
    torch.nn.utils.clip_grad_norm_(parameters, adam["clip_norm"])
    number = index + 1
    rate = adam["learning_rate"] * min(1, number / adam["warmup_steps"]) * (1 - number / run["steps"])
    with torch.no_grad():
        for parameter, (first, second) in zip(parameters, moments):
            first.lerp_(parameter.grad, 1 - adam["beta_1"])
            second.lerp_(parameter.grad ** 2, 1 - adam["beta_2"])
            direction = first / (second.sqrt() + adam["epsilon"])
            if parameter.ndim == 2:
                direction += adam["weight_decay"] * parameter
            parameter -= rate * direction
    return mlm.item(), rtd.item(), int(real.sum())


worst, tokens, started = [0.0, 0.0], 0, time.time()
for index, line in enumerate(ours):
    mlm, rtd, count = step(index)
    tokens += count
    for place, (theirs, name) in enumerate(((mlm, "mlm_loss"), (rtd, "disc_loss"))):
        worst[place] = max(worst[place], abs(theirs - line[name]) / abs(theirs))
    if index % 20 == 0 or index + 1 == len(ours):
        print(f"step {index + 1:3}: PyTorch {mlm:.6f} {rtd:.6f}, electret {line['mlm_loss']:.6f} {line['disc_loss']:.6f}")
seconds = time.time() - started
speed = sum(line["tokens_per_second"] for line in ours) / len(ours)
print(f"{len(ours)} steps: losses differ by at most {worst[0]:.2e} (generator) and {worst[1]:.2e} (discriminator)")
print(f"PyTorch {tokens / seconds:.0f} tokens/s on {torch.get_num_threads()} threads, electret {speed:.0f}: {speed * seconds / tokens:.2f} of it")
sys.exit(max(worst) > 0.01)
