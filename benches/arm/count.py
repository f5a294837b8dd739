#!/usr/bin/env python3
"""Instructions of one sentence on each aarch64 kernel set, counted under QEMU, and cycles of each inner loop
as llvm-mca estimates them. Counts are exact and are no times; cycles are estimates.

  python3 benches/arm/count.py MODEL [--tokens 32]

Needs an aarch64 toolchain, qemu-aarch64 with plugins, gcc and llvm-mca. CARGO names another cargo, such as
"cargo +debian"."""

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "target" / "arm"
CARGO = os.environ.get("CARGO", "cargo").split()
CROSS = {"CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER": "aarch64-linux-gnu-gcc"}
A64, THUMB = "aarch64-unknown-linux-gnu", {"dsp": "thumbv7em-none-eabihf", "helium": "thumbv8m.main-none-eabihf"}

# instruction → multiply-accumulates, and how many of them each core can start in a cycle
PRODUCTS = {"smull": 8, "smlal": 8, "smull2": 8, "smlal2": 8, "sdot": 16, "smmla": 32, "smlad": 2, "vmlava.s8": 16}
CORES = {
    "neon": ["cortex-a53", "cortex-a55", "cortex-a72", "neoverse-n1"],
    "dotprod": ["cortex-a55", "neoverse-n1", "neoverse-v1"],
    "i8mm": ["neoverse-n1", "neoverse-n2", "neoverse-v1"],
    "dsp": ["cortex-m4", "cortex-m7"],
    "helium": ["cortex-m55"],
}
VECTOR_PIPES = {"neoverse-n1": 2, "neoverse-n2": 2, "neoverse-v1": 4}


def run(command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more)


def build():
    TARGET.mkdir(parents=True, exist_ok=True)
    run(["gcc", "-O2", "-shared", "-fPIC", "-o", TARGET / "count.so", HERE / "count.c"])
    run([*CARGO, "build", "--release", "--target", A64, "--target-dir", TARGET], cwd=HERE, env=os.environ | CROSS)
    return TARGET / A64 / "release" / "electret-arm-bench"


def guest(binary, *arguments, plugin=False):
    command = ["qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu"]
    if plugin:
        command += ["-plugin", TARGET / "count.so", "-d", "plugin"]
    return run([*command, binary, *map(str, arguments)])


def counted(binary, model, kernels, tokens, runs):
    result = guest(binary, model, kernels, tokens, runs, plugin=True)
    return [int(n) for n in re.search(r"counted (\d+) (\d+)", result.stdout + result.stderr).groups()]


def assembly(kernels):
    """The library compiled for the set's target, as assembly."""
    target = THUMB.get(kernels, A64)
    cpu = {"dsp": "cortex-m7", "helium": "cortex-m55"}.get(kernels)
    features = ["--features", kernels] if kernels in THUMB else ["--features", "std"]
    flags = ["-C", "codegen-units=1", "--emit", "asm"] + (["-C", f"target-cpu={cpu}"] if cpu else [])
    folder = TARGET / f"asm-{kernels}"
    shutil.rmtree(folder, ignore_errors=True)
    run([*CARGO, "rustc", "--release", "--lib", "--no-default-features", *features, "--target", target,
         "--target-dir", folder, "--", *flags], cwd=HERE.parents[1])
    [path] = folder.glob(f"{target}/release/deps/electret-*.s")
    return path.read_text()


def loops(text):
    """Innermost loops: the lines from a label to the first branch back to it."""
    lines = [line.strip() for line in text.splitlines()]
    labels = {m[1]: i for i, line in enumerate(lines) if (m := re.match(r"(\.?L\w+|\d+):", line))}
    for end, line in enumerate(lines):
        branch = re.match(r"(?:b\.?\w*|cbn?z|le)\s+(?:\w+, ?)*(\.?L\w+|\d+)b?$", line)
        start = branch and labels_before(lines, branch[1], end, labels)
        if start is not None:
            body = [l for l in lines[start:end + 1] if l and not re.match(r"[@/#]|\.\w+\s|\d+:|le\s", l)]
            body = body[1:] if re.match(r"[.\w]+:$", body[0]) else body
            if not any(re.match(r"[.\w]+:", l) for l in body):
                yield body


def labels_before(lines, label, end, labels):
    if label.isdigit():
        return next((i for i in range(end, -1, -1) if lines[i] == f"{label}:"), None)
    start = labels.get(label)
    return start if start is not None and start < end else None


def estimate(body, triple, core):
    prefix = ".syntax unified\n.thumb\n" if triple.startswith("thumb") else ""
    extensions = ["-mattr=+dotprod,+i8mm"] if triple.startswith("aarch64") else []
    command = ["llvm-mca-22", f"-mtriple={triple}", f"-mcpu={core}", "-iterations=1000",
               "-skip-unsupported-instructions=lack-sched", *extensions]
    result = subprocess.run(command, input=prefix + "\n".join(body) + "\n", capture_output=True, text=True)
    cycles = re.search(r"Total Cycles:\s+(\d+)", result.stdout)
    bound = re.search(r"Block RThroughput:\s+([\d.]+)", result.stdout)
    return (int(cycles[1]) / 1000, float(bound[1])) if cycles else None


def loop_table():
    print("\ninner loops, estimated by llvm-mca")
    print(f"{'set':8} {'core':12} {'instructions':>12} {'products':>9} {'cycles':>8} {'MAC/cycle':>10} {'of the issue bound':>19} {'of the vector pipes':>20}")
    for kernels, cores in CORES.items():
        want = {"neon": "smlal", "dotprod": "sdot", "i8mm": "smmla", "dsp": "smlad", "helium": "vmlava.s8"}[kernels]
        bodies = [b for b in loops(assembly(kernels)) if any(l.split()[0].startswith(want) for l in b)]
        # The widest loop is the one that works; the others finish what does not fill it. Peak loops load nothing.
        bodies = [b for b in bodies if any(re.match(r"v?ld", l) for l in b)]
        body = max(bodies, key=lambda b: sum(l.split()[0] in PRODUCTS for l in b))
        products = [PRODUCTS[l.split()[0]] for l in body if l.split()[0] in PRODUCTS]
        for core in cores:
            triple = THUMB.get(kernels, A64)
            estimated = estimate(body, triple, core)
            if estimated is None:
                print(f"{kernels:8} {core:12} llvm-mca has no model of these instructions")
                continue
            cycles, bound = estimated
            pipes = VECTOR_PIPES.get(core) if kernels != "neon" else None
            share = f"{100 * len(products) / pipes / cycles:18.0f} %" if pipes else ""
            print(f"{kernels:8} {core:12} {len(body):12} {len(products):9} {cycles:8.2f} "
                  f"{sum(products) / cycles:10.1f} {100 * bound / cycles:17.0f} % {share}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--no-loops", action="store_true", help="count only")
    options = parser.parse_args()
    model = Path(options.model).resolve()
    binary = build()
    macs, *sets = guest(binary, model, "-", 0, 0).stdout.split()
    print(f"{model.name}, {options.tokens} tokens, counted under QEMU")
    print(f"{'set':8} {'instructions':>14} {'of them products':>17}")
    for kernels in sets:
        (two, products_two), (one, products_one) = (counted(binary, model, kernels, options.tokens, n) for n in (2, 1))
        print(f"{kernels:8} {two - one:14} {100 * (products_two - products_one) / (two - one):15.1f} %")
    if not options.no_loops:
        loop_table()


if __name__ == "__main__":
    main()
