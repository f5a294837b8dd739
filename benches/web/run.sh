#!/usr/bin/env bash
# electret beside onnxruntime-web in one page of headless Chromium: ELECTRA-small with random weights, int8 and f32, one
# thread each, in turns. Needs the page (examples/web/build.sh), Chromium, Node.js and Python.
set -euo pipefail
cd "$(dirname "$0")/../.."
peers=target/peers node=target/node
if [ ! -e $peers/int8.onnx ]; then
  [ -x $peers/venv/bin/python ] || python3 -m venv $peers/venv
  $peers/venv/bin/pip install -q numpy onnx==1.23.2 onnxruntime==1.32.0 safetensors
  $peers/venv/bin/python benches/peers/model.py $peers --no-openvino
fi
cargo run --release --quiet -- convert $peers/electra-small -o $peers/small.electret --licence none >/dev/null
mkdir -p $node
npm install --silent --prefix $node playwright-core onnxruntime-web@1.30.0
node benches/web/run.mjs "${1:-/usr/bin/chromium}"
