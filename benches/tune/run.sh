#!/usr/bin/env bash
# Builds electret, installs PyTorch, transformers and peft into target/tune-venv unless the system's Python has them,
# and measures one LoRA step of each. Arguments go to run.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=python3
if ! "$python" -c 'import torch, transformers, peft' 2>/dev/null; then
  python=target/tune-venv/bin/python
  if ! "$python" -c 'import torch, transformers, peft' 2>/dev/null; then
    python3 -m venv target/tune-venv
    "$python" -m pip install -q torch==2.15.0 transformers==5.24.0 peft==0.21.2
  fi
fi
cargo build --release --quiet
"$python" benches/tune/run.py --make target/tune-small
target/release/electret convert target/tune-small -o target/tune-small.electret --licence none >/dev/null
"$python" benches/tune/run.py "$@"
