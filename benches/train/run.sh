#!/usr/bin/env bash
# Training speed beside PyTorch's, in turns on one machine: tokens a second and ratios.
#
#   bash benches/train/run.sh CORPUS PRESET BATCH DEVICES [STEPS [TURNS]]
#
# CORPUS is a folder of `electret corpus build`. DEVICES are some of cpu, tch, tch-cuda, cuda and wgpu, separated by commas, as the
# command ($ELECTRET, or target/release/electret) was built for; PyTorch ($PYTHON) runs on CUDA beside a GPU's, in bf16, eager and
# compiled, and in f32, and on the processor in f32, eager. The recipe's own dropout is used unless $DROPOUT says another.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
corpus=$1 preset=$2 batch=$3 devices=${4//,/ } steps=${5:-20} turns=${6:-2}
electret=${ELECTRET:-$here/../../target/release/electret}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

on=cpu precisions="f32" modes=("eager f32:")
case $devices in *cuda* | *wgpu*)
  on=cuda precisions="bf16 f32" modes=("eager bf16:--bf16" "compiled bf16:--bf16 --compile" "eager f32:") ;;
esac

for turn in $(seq "$turns"); do
  declare -A best=()
  for device in $devices; do
    for precision in $precisions; do
      # WGSL has no bf16.
      if [ "$device $precision" = "wgpu bf16" ]; then continue; fi
      rm -rf "$work/run"
      # The first line of the curve holds the start, with kernels being compiled; the second is measured.
      "$electret" pretrain "$corpus" -o "$work/run" --preset "$preset" --batch-size "$batch" --device "$device" \
        --precision "$precision" ${DROPOUT:+--dropout "$DROPOUT"} \
        --stop-at $((2 * steps)) --report-every "$steps" --checkpoint-every $((10 * steps)) >/dev/null
      ours=$(awk -F'\t' 'END { printf "%.0f", $NF }' "$work/run/curve.tsv")
      printf 'turn %d: electret %-8s %-4s %9d tokens/s\n' "$turn" "$device" "$precision" "$ours"
      if [ "$ours" -gt "${best[$precision]:-0}" ]; then best[$precision]=$ours; fi
    done
  done
  for mode in "${modes[@]}"; do
    # shellcheck disable=SC2086
    theirs=$("$python" "$here/pytorch.py" "$work/run" --steps "$steps" --device "$on" ${mode#*:})
    name=${mode%%:*}
    ours=${best[${name#* }]:-0}
    printf 'turn %d: PyTorch %-13s %9d tokens/s; the best of ours is %s of it\n' \
      "$turn" "$name" "$theirs" "$(awk -v a="$ours" -v b="$theirs" 'BEGIN { printf "%.2f", a / b }')"
  done
done
