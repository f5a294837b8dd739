"""ELECTRA beside masks alone and what the paper's ablation has between them, at a size that can be trained where this runs.

    python3 benches/train/objectives.py WORK --tasks FOLDER --corpus TEXT… [--only mlm electra] [--seeds 1 2 3] [--device tch]

An encoder is pre-trained by each objective on the same text, once for each of --seeds, and fine-tuned with several seeds on
three tasks: FOLDER has trec6, sst2 and ud_ewt_upos as CONTRIBUTING.md describes. Printed are the mean of each pre-training
and, of all, the difference from masks alone (and from masks alone with as many multiplications as electra) with the 95 % interval of
Student's t over the pre-trainings: those of one seed begin with the same weights and see the same text.

As it stands it is 2 layers × 64 and an evening of two cores. On a GPU, electret-tiny's size with some 400 M tokens a run:

    … --layers 4 --width 128 --vocabulary 8192 --learning-rate 1e-3 --batch-size 512 --steps 13000 --precision bf16 \
      --device tch-cuda --finetune-device tch

WORK keeps all that was done: it is not done again, and a run that was interrupted goes on. Two processes with other --only or
--seeds share two cores (OMP_NUM_THREADS=1); a last call for all of them prints the table. The command is $ELECTRET, or
target/release/electret, with feature train (tch for --device tch).
"""

import argparse
import json
import os
import subprocess
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).resolve().parent
ELECTRET = os.environ.get("ELECTRET", str(HERE / "../../target/release/electret"))

SEQUENCE, MASKED = 64, 0.15
# As long as masks are filled by word counts, telling them from words teaches a discriminator nothing: all but masks
# alone begin with the encoder that masks alone have after so many steps, which count as theirs.
WARM = 1_500
# At this width a generator of a quarter predicts nothing. One of half the width shares its embeddings as DeBERTaV3's does,
# or generator and discriminator are one encoder with two heads.
HALF = ["--set", "generator.size=0.5", "--set", "generator.sharing=gdes"]
ONE = ["--set", "generator.size=1.0", "--set", "generator.sharing=all", "--set", "objective.disc_weight=20"]

# Name: how it is trained.
RUNS = {
    "mlm": ["--objective", "mlm"],
    "mlm-equal-flops": ["--objective", "mlm"],
    "electra": ["--objective", "electra", *HALF],
    "electra-one": ["--objective", "electra", *ONE],
    "electra-15": ["--objective", "electra-15", *HALF],
    "replace-mlm": ["--objective", "replace-mlm", *HALF],
    "all-tokens-mlm": ["--objective", "all-tokens-mlm", *HALF],
}
# What the others are compared with.
MASKS = ["mlm", "mlm-equal-flops"]
# Those of the others whose encoder is the one that judges tokens, and not the one that predicts words.
JUDGES = ["electra", "electra-one", "electra-15"]
# Name: examples to learn, examples to score, epochs, after which no more learn anything else, learning rate, seeds.
TASKS = {
    "TREC-6": ("trec6/train.tsv", "trec6/test.tsv", 20, 1e-3, 4),
    "SST-2": ("sst2/train.tsv", "sst2/dev.tsv", 3, 1e-3, 2),
    "UD-EWT": ("ud_ewt_upos/train.conll", "ud_ewt_upos/test.conll", 6, 2e-3, 2),
}
# Student's t, two-sided 95 %, by degrees of freedom.
T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]


def electra_by_masks(args: argparse.Namespace) -> float:
    """How much more ELECTRA, with a generator of half the width, multiplies for a token than masks alone do."""
    width, half = args.width, args.width // 2

    def layers(hidden: int) -> int:
        return args.layers * (12 * hidden * hidden + 2 * SEQUENCE * hidden)

    def words(hidden: int) -> float:
        return MASKED * (hidden * width + width * args.vocabulary)

    detects = width * width + width
    return (layers(width) + detects + width * half + layers(half) + words(half)) / (layers(width) + words(width))


def electret(*words: object) -> None:
    subprocess.run([ELECTRET, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def learn(run: Path, seed: int, steps: int, args: argparse.Namespace, *how: object, stop_at: int | None = None) -> None:
    """A run of so many steps; of one that was interrupted, the rest. One that is asked to stop saves and leaves in peace."""
    shape = {
        "embedding_size": args.width,
        "hidden_size": args.width,
        "num_hidden_layers": args.layers,
        "num_attention_heads": 2,
        "intermediate_size": 4 * args.width,
    }
    electret("pretrain", args.work / "corpus", "-o", run, "--steps", steps, "--batch-size", args.batch_size,
             "--learning-rate", args.learning_rate, "--warmup-steps", 500, "--dropout", 0, "--seed", seed, "--device", args.device,
             "--precision", args.precision, "--set", "positions=sinusoids",
             *(word for key, value in shape.items() for word in ("--set", f"shape.{key}={value}")), *how,
             *(["--stop-at", stop_at] if stop_at else []))
    newest = max(int(checkpoint.stem.removeprefix("step-")) for checkpoint in run.glob("step-*.safetensors"))
    if newest < (stop_at or steps):
        raise SystemExit(f"{run} was stopped at step {newest}; the same call goes on")


def pretrain(run: Path, seed: int, args: argparse.Namespace) -> None:
    """The run that this folder is named for, and its encoder in `folder` there."""
    if (run / "folder").exists():
        return
    how, rest = RUNS[run.name], args.steps - WARM
    if run.name not in MASKS:
        warm = run.parent / "warm"
        learn(warm, seed, args.steps, args, *RUNS["mlm"], stop_at=WARM)
        learn(run, seed, rest, args, "--init-from", warm, *how)
    elif run.name == "mlm":
        learn(run, seed, args.steps, args, *how)
    else:
        learn(run, seed, round(WARM + rest * electra_by_masks(args)), args, *how)
    encoder = [] if run.name in JUDGES else ["--generator"]
    electret("export", run, "--corpus", args.work / "corpus", "-o", run / "folder", *encoder)


def lessons(run: Path, task: str, args: argparse.Namespace) -> Path:
    """Where a task is kept that was learned from a run."""
    return run / (task if args.finetune_rate == 1 else f"{task}@{args.finetune_rate:g}")


def scores(run: Path, task: str, args: argparse.Namespace) -> list[float]:
    """The main metric after the last epoch of each seed, or nothing as long as not all have been learned."""
    record = lessons(run, task, args) / "finetune.json"
    seeds = json.loads(record.read_text())["seeds"] if record.exists() else []
    return [seed["dev"][-1][0]["value"] for seed in seeds] if len(seeds) == TASKS[task][-1] else []


def finetune(run: Path, task: str, args: argparse.Namespace) -> None:
    """What a run has learned put to a task, seed by seed."""
    if scores(run, task, args):
        return
    train, test, epochs, rate, seeds = TASKS[task]
    electret("finetune", run / "folder", "--train", args.tasks / train, "--dev", args.tasks / test, "-o", lessons(run, task, args),
             "--epochs", epochs, "--learning-rate", rate * args.finetune_rate, "--seq", SEQUENCE,
             "--seeds", ",".join(map(str, range(1, seeds + 1))), "--device", args.finetune_device or args.device)


def table(args: argparse.Namespace) -> None:
    """What is done of the seeds asked for: means over them, and how far each run is from masks alone."""
    print(f"\n{'':16} {'TASK':8} {'mean':>6}      " + "  ".join(f"{'minus ' + masks:>21}" for masks in MASKS))
    for name in args.only:
        for task in TASKS:
            means = {
                other: [mean(found) if (found := scores(args.work / f"seed-{seed}" / other, task, args)) else None
                        for seed in args.seeds]
                for other in {name, *MASKS}
            }
            own = [value for value in means[name] if value is not None]
            if not own:
                continue
            line = f"{name:16} {task:8} {mean(own):.4f} ({len(own)})  "
            for masks in MASKS:
                apart = [a - b for a, b in zip(means[name], means[masks]) if a is not None and b is not None]
                cell = f"{mean(apart):+.4f}" if apart and name != masks else ""
                if cell and len(apart) > 1:
                    cell += f" ± {T[len(apart) - 2] * stdev(apart) / len(apart) ** 0.5:.4f} ({len(apart)})"
                line += f"{cell:>21}  "
            print(line.rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, nargs="+", required=True)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN", help=", ".join(RUNS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of pre-training")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", default="2e-3", help="of pre-training")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--finetune-device", help="where it is another one")
    parser.add_argument("--finetune-rate", type=float, default=1.0, metavar="FACTOR", help="of the tasks' learning rates")
    args = parser.parse_args()
    if len(args.seeds) > len(T) + 1:
        parser.error(f"--seeds: at most {len(T) + 1}, of which there are intervals")
    if args.steps <= WARM:
        parser.error(f"--steps: more than {WARM}, which all but masks alone begin with")
    if not (args.work / "corpus" / "corpus.json").exists():
        electret("corpus", "build", *args.corpus, "-o", args.work / "corpus", "--seq", SEQUENCE,
                 "--vocab-size", args.vocabulary)
    for seed in args.seeds:
        for name in args.only:
            run = args.work / f"seed-{seed}" / name
            pretrain(run, seed, args)
            for task in TASKS:
                finetune(run, task, args)
                print(f"seed {seed}: {name:16} {task:8} {mean(scores(run, task, args)):.4f}", flush=True)
    table(args)


if __name__ == "__main__":
    main()
