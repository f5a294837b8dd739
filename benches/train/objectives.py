"""ELECTRA beside masks alone and what the paper's ablation has between them, at a size that two cores train in an evening.

    python3 benches/train/objectives.py WORK --tasks FOLDER --corpus TEXT… [--only mlm electra] [--device tch] [--steps 25000]

An encoder of 2 layers × 64 is pre-trained by each objective on the same text and fine-tuned with many seeds on three tasks: FOLDER has
trec6, sst2 and ud_ewt_upos as CONTRIBUTING.md describes. Printed are the mean of each, and its difference from masks alone with
the 95 % interval of Student's t over the seeds: of fine-tuning, so that the sampling of one pre-training and of the test set is not in it.

WORK keeps all that was done: it is not done again, and a run that was interrupted goes on. Two processes with another --only share two
cores (OMP_NUM_THREADS=1); a last call without one prints the table. The command is $ELECTRET, or target/release/electret, with feature
train (tch for --device tch).
"""

import argparse
import json
import os
import subprocess
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).resolve().parent
ELECTRET = os.environ.get("ELECTRET", str(HERE / "../../target/release/electret"))

WIDTH, LAYERS, VOCABULARY, SEQUENCE, MASKED = 64, 2, 4096, 64, 0.15
SHAPE = {
    "embedding_size": WIDTH,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 4 * WIDTH,
}
# At this width a generator of a quarter predicts nothing: generator and discriminator are one encoder with two heads.
ONE_ENCODER = ["--set", "generator.size=1.0", "--set", "generator.sharing=all"]


def electra_by_masks() -> float:
    """How much more ELECTRA multiplies for a token than masks alone do."""
    layers = LAYERS * (12 * WIDTH * WIDTH + 2 * SEQUENCE * WIDTH)
    words = MASKED * (WIDTH * WIDTH + WIDTH * VOCABULARY)
    detects = WIDTH * WIDTH + WIDTH
    return (2 * layers + words + detects) / (layers + words)


# Name: share of the steps, what it is trained by.
RUNS = {
    "mlm": (1.0, ["--objective", "mlm"]),
    "electra": (1.0, ["--objective", "electra", *ONE_ENCODER, "--set", "objective.disc_weight=5"]),
    "mlm-equal-flops": (electra_by_masks(), ["--objective", "mlm"]),
    "electra-15": (1.0, ["--objective", "electra-15", *ONE_ENCODER, "--set", "objective.disc_weight=5"]),
    "replace-mlm": (1.0, ["--objective", "replace-mlm", *ONE_ENCODER]),
    "all-tokens-mlm": (1.0, ["--objective", "all-tokens-mlm", *ONE_ENCODER]),
}
# Name: examples to learn, examples to score, lines to learn, epochs, learning rate, seeds. The fewer examples tell
# models apart, the more seeds.
TASKS = {
    "TREC-6": ("trec6/train.tsv", "trec6/test.tsv", None, 5, "1e-3", 20),
    "SST-2": ("sst2/train.tsv", "sst2/dev.tsv", 15_001, 3, "1e-3", 8),
    "UD-EWT": ("ud_ewt_upos/train.conll", "ud_ewt_upos/test.conll", None, 2, "2e-3", 3),
}
# Student's t, two-sided 95 %, by degrees of freedom.
T = {2: 4.303, 7: 2.365, 19: 2.093}


def electret(*words: object) -> None:
    subprocess.run([ELECTRET, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def pretrain(run: Path, args: argparse.Namespace) -> None:
    """The run that this folder is named for, and its encoder in `folder` there."""
    if (run / "folder").exists():
        return
    share, objective = RUNS[run.name]
    corpus, steps = args.work / "corpus", round(share * args.steps)
    shape = [word for key, value in SHAPE.items() for word in ("--set", f"shape.{key}={value}")]
    electret("pretrain", corpus, "-o", run, "--steps", steps, "--batch-size", 64, "--learning-rate", "2e-3",
             "--warmup-steps", 500, "--dropout", 0, "--seed", args.seed, "--device", args.device, *shape, *objective)
    encoder = ["--generator"] if objective[1] == "mlm" else []
    electret("export", run, "--corpus", corpus, "-o", run / "folder", *encoder)


def scores(run: Path, task: str) -> list[float]:
    """The main metric after the last epoch of each seed, or nothing as long as not all have been learned."""
    record = run / task / "finetune.json"
    seeds = json.loads(record.read_text())["seeds"] if record.exists() else []
    return [seed["dev"][-1][0]["value"] for seed in seeds] if len(seeds) == TASKS[task][-1] else []


def finetune(run: Path, task: str, args: argparse.Namespace) -> None:
    """What a run has learned put to a task, seed by seed."""
    if scores(run, task):
        return
    train, test, lines, epochs, rate, seeds = TASKS[task]
    learn = args.tasks / train
    if lines:
        learn = run / learn.name
        learn.write_text("".join((args.tasks / train).open().readlines()[:lines]))
    electret("finetune", run / "folder", "--train", learn, "--dev", args.tasks / test, "-o", run / task, "--epochs", epochs,
             "--learning-rate", rate, "--seq", SEQUENCE, "--seeds", ",".join(map(str, range(1, seeds + 1))),
             "--device", args.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, nargs="+", required=True)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN", help=", ".join(RUNS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=1, help="of pre-training")
    args = parser.parse_args()
    if not (args.work / "corpus" / "corpus.json").exists():
        electret("corpus", "build", *args.corpus, "-o", args.work / "corpus", "--seq", SEQUENCE, "--vocab-size", VOCABULARY)

    print(f"{'':16} {'TASK':8} seeds   mean   minus masks alone")
    runs = args.work / f"seed-{args.seed}"
    for name in args.only:
        pretrain(runs / name, args)
        for task in TASKS:
            finetune(runs / name, task, args)
            own, masks = scores(runs / name, task), scores(runs / "mlm", task)
            line = f"{name:16} {task:8} {len(own):5}  {mean(own):.4f}"
            if name != "mlm" and masks:
                apart = [a - b for a, b in zip(own, masks, strict=True)]
                line += f"  {mean(apart):+.4f} ± {T[len(apart) - 1] * stdev(apart) / len(apart)**0.5:.4f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
