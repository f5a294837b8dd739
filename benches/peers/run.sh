#!/usr/bin/env bash
# Installs the peers into target/peers, makes ELECTRA-small with random weights for all of them, builds the
# runners (ten minutes on two cores) and measures. Arguments go to run.py.
set -euo pipefail
cd "$(dirname "$0")"
work=../../target/peers
if [ ! -x "$work/venv/bin/python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install -q numpy onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 nncf==3.4.0 safetensors
fi
if [ ! -e "$work/int8.xml" ]; then "$work/venv/bin/python" model.py "$work" >"$work/model.log" 2>&1; fi
(cd runners && cargo build --release --quiet)
(cd ../.. && cargo run --release --quiet -- convert target/peers/electra-small -o target/peers/small.electret --licence none)
"$work/venv/bin/python" run.py "$work" "$@"
