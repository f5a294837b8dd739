"""electret beside ONNX Runtime, OpenVINO, rten, tract and candle: the same ELECTRA-small, one thread each,
in turns within one run. Prints the least and the median milliseconds, and electret's share of each."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "RTEN_NUM_THREADS": "1"}


def workers(models):
    runner = lambda name: [str(HERE / "runners/target/release" / name)]
    python = [sys.executable, str(HERE / "python_peers.py")]
    return {
        "electret int8": runner("electret") + [f"{models}/small.electret"],
        "OpenVINO int8": python + ["openvino", f"{models}/int8.xml"],
        "ONNX Runtime int8": python + ["onnxruntime", f"{models}/int8.onnx"],
        "rten int8": runner("rten") + [f"{models}/int8.onnx"],
        "tract int8": runner("tract") + [f"{models}/int8.onnx"],
        "OpenVINO f32": python + ["openvino", f"{models}/f32.onnx"],
        "ONNX Runtime f32": python + ["onnxruntime", f"{models}/f32.onnx"],
        "rten f32": runner("rten") + [f"{models}/f32.onnx"],
        "tract f32": runner("tract") + [f"{models}/f32.onnx"],
        "candle f32 (BERT)": runner("candle") + [f"{models}/electra-small"],
    }


def measure(models, lengths, rounds):
    processes = {
        name: subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | ONE_THREAD,
        )
        for name, command in workers(models).items()
    }
    times = {}
    for tokens in lengths:
        for _ in range(rounds):
            for name, process in list(processes.items()):
                try:
                    process.stdin.write(f"{tokens} {max(3, 256 // tokens)}\n")
                    process.stdin.flush()
                    line = process.stdout.readline()
                except BrokenPipeError:
                    line = ""
                if not line:
                    print(f"{name}: does not run this model at {tokens} tokens")
                    del processes[name]
                    continue
                times.setdefault((name, tokens), []).extend(map(float, line.split()))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models")
    parser.add_argument("--tokens", default="8,32,128,512")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lengths = [int(tokens) for tokens in options.tokens.split(",")]
    times = measure(options.models, lengths, options.rounds)
    if options.json:
        print(json.dumps([{"runner": n, "tokens": t, "ms": ms} for (n, t), ms in times.items()]))
        return
    print(f"{'tokens':>6} {'':18} {'min ms':>9} {'median':>9} {'electret /':>10}")
    for tokens in lengths:
        ours = min(times["electret int8", tokens])
        for (name, length), ms in times.items():
            if length == tokens:
                print(f"{tokens:6} {name:18} {min(ms):9.3f} {statistics.median(ms):9.3f} {ours / min(ms):10.2f}")


main()
