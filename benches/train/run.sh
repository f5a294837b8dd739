#!/usr/bin/env bash
# Training speed beside PyTorch's, in turns on one machine: tokens a second and ratios.
#
#   bash benches/train/run.sh CORPUS PRESET BATCH DEVICE [STEPS]
#
# CORPUS is a folder of `electret corpus build`. DEVICE is cpu, tch, tch-cuda or wgpu, as the command ($ELECTRET, or
# target/release/electret) was built; PyTorch ($PYTHON) runs on CUDA with a GPU's backend, in bf16, eager and compiled, and on
# the processor in f32, eager.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
corpus=$1 preset=$2 batch=$3 device=$4 steps=${5:-20}
electret=${ELECTRET:-$here/../../target/release/electret}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case $device in
  cpu | tch) modes=("eager f32:") on=cpu ;;
  *) modes=("eager bf16:--bf16" "compiled bf16:--bf16 --compile" "eager f32:") on=cuda ;;
esac

for turn in 1 2; do
  rm -rf "$work/run"
  # The first line of the curve holds the start, with kernels being compiled; the second is measured.
  "$electret" pretrain "$corpus" -o "$work/run" --preset "$preset" --batch-size "$batch" --device "$device" \
    --stop-at $((2 * steps)) --report-every "$steps" >/dev/null
  ours=$(awk -F'\t' 'END { printf "%.0f", $NF }' "$work/run/curve.tsv")
  echo "turn $turn: electret $device $ours tokens/s"
  for mode in "${modes[@]}"; do
    # shellcheck disable=SC2086
    theirs=$("$python" "$here/pytorch.py" "$work/run" --steps "$steps" --device "$on" ${mode#*:})
    awk -v ours="$ours" -v theirs="$theirs" -v mode="${mode%%:*}" \
      'BEGIN { printf "        PyTorch %s %d tokens/s: electret does %.2f of it\n", mode, theirs, ours / theirs }'
  done
done
