"""One training step of electret's LoRA beside PyTorch's: the same ELECTRA-small with random weights, the same
adapters (on query and value of the last layers) and classification head, 8 sequences of 64 tokens, one thread
each, in turns within one run. A step is forward, loss, backward, clipping, AdamW and clearing the gradients.
electret's frozen weights are int8, PyTorch's (transformers with peft) f32, with sdpa and with eager attention; the
faster counts. Prints the milliseconds of a step and the peak resident memory of each process."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
ATTENTION = ["sdpa", "eager"]
SEQUENCES, TOKENS = 8, 64
MODEL = ROOT / "target/tune-small.electret"
WARM_UPS, STEPS = 3, 10


def small(attention="sdpa"):
    from transformers import ElectraConfig

    return ElectraConfig(
        vocab_size=30522, embedding_size=128, hidden_size=256, num_hidden_layers=12, num_attention_heads=4,
        intermediate_size=1024, max_position_embeddings=512, type_vocab_size=2, num_labels=2,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0,
        attn_implementation=attention,
    )


def make(folder):
    """ELECTRA-small with random weights and a vocabulary of numbers, for electret to convert."""
    from transformers import ElectraForPreTraining

    ElectraForPreTraining(small()).save_pretrained(folder)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the"]
    pieces = special + [f"piece{number}" for number in range(30522 - len(special))]
    (Path(folder) / "vocab.txt").write_text("\n".join(pieces))


def tuned_model(attention, rank, layers):
    from peft import LoraConfig, get_peft_model
    from transformers import ElectraForSequenceClassification

    imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    config = small(attention)
    lora = LoraConfig(
        task_type="SEQ_CLS", r=rank, lora_alpha=16, lora_dropout=0.0, target_modules=["query", "value"],
        layers_to_transform=list(range(12 - layers, 12)), layers_pattern="layer",
    )
    return get_peft_model(ElectraForSequenceClassification(config), lora).train(), imports


def worker(attention, rank, layers):
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(1)
    model, imports = tuned_model(attention, rank, layers)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    tokens = torch.randint(1000, 30522, (SEQUENCES, TOKENS))
    labels = torch.arange(SEQUENCES) % 2
    times = []
    for _ in range(WARM_UPS + STEPS):
        start = time.perf_counter()
        model(input_ids=tokens, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(1e3 * (time.perf_counter() - start))
    times = times[WARM_UPS:]
    row = {"strategy": attention, "ms": min(times), "median_ms": statistics.median(times)}
    print(json.dumps([row | {"trained": sum(p.numel() for p in trained), "imports_mib": imports}]), flush=True)
    os._exit(0)  # tearing PyTorch down takes 100 MiB more than the steps do: no part of the comparison


def commands(electret, rank, layers):
    shape = ["--rank", str(rank), "--layers", str(layers)]
    script = [sys.executable, str(Path(__file__).resolve()), *shape]
    python = {f"PyTorch {a}": [*script, "--worker", a] for a in ATTENTION}
    tune = ["--tune", f"head+lora:{rank}:{layers}", "--seq", str(TOKENS), "--batch", str(SEQUENCES)]
    bench = [electret, "bench", "--model", str(MODEL), *tune, "--seconds", "2", "--json"]
    return python | {"electret": bench}


def measure(name, command):
    """The row that the process prints, with its peak resident memory in MiB (never less than this process' own,
    which Linux counts for a child too)."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | ONE_THREAD
        )
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            sys.exit(f"{name} failed:\n{errors.read()}")
    row = next((r for r in json.loads(output) if isinstance(r, dict) and "strategy" in r), None)
    if row is None:
        sys.exit(f"{name} printed no row with a strategy:\n{output}")
    return row | {"mib": usage.ru_maxrss / 1024}


def ratios(results, peer, key):
    return [ours[key] / theirs[key] for ours, theirs in zip(results["electret"], results[peer])]


def report(results):
    least = {name: min(row["ms"] for row in rows) for name, rows in results.items()}
    print(f"{'':14} {'min ms':>9} {'median':>9} {'peak MiB':>9}")
    for name, rows in results.items():
        median = statistics.median(row["median_ms"] for row in rows)
        print(f"{name:14} {least[name]:9.2f} {median:9.2f} {max(row['mib'] for row in rows):9.1f}")
    peer = min((name for name in results if name != "electret"), key=least.get)
    imports = statistics.median(row["imports_mib"] for row in results[peer])
    print(f"\nof {peer}'s memory {imports:.1f} MiB is there once its packages are imported, before the model")
    print(f"electret / {peer}, the faster of PyTorch's: each round, then their median")
    for label, key in [("min ms", "ms"), ("median ms", "median_ms"), ("peak MiB", "mib")]:
        shares = ratios(results, peer, key)
        print(f"{label:14} {' '.join(f'{s:.3f}' for s in shares)}   {statistics.median(shares):.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--layers", type=int, default=2, help="counted from the last")
    parser.add_argument("--electret", default=str(ROOT / "target/release/electret"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--make", metavar="FOLDER", help="write the model and leave")
    parser.add_argument("--worker", choices=ATTENTION, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker, options.rank, options.layers)
    if options.make:
        return make(options.make)
    processes = commands(options.electret, options.rank, options.layers)
    results = {name: [] for name in processes}
    for _ in range(options.rounds):
        for name, command in processes.items():
            results[name].append(measure(name, command))
    if options.json:
        print(json.dumps(results))
    else:
        report(results)


main()
