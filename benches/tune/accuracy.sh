#!/usr/bin/env bash
# What electret tune reaches on real tasks: the head alone and low-rank updates of all layers through the frozen
# int8 weights of a model, mean of three seeds. Prints one line a task and strategy.
#
#   cargo build --release && ELECTRET_SHARED=… bash benches/tune/accuracy.sh MODEL.electret [TASK…]
#
# STRATEGY is the one beside the head, MAX_SEQ the model's longest sequence where that is short.
# Tasks: trec6 snips snips10 sms sst2 chunk. SMS has no split: every fifth message is held out. snips10 takes ten
# examples of each intent, others for each seed.
set -euo pipefail
model=$1
shift
cd "$(dirname "$0")/../.."
tasks=${ELECTRET_SHARED:?the folder that holds data/tasks}/data/tasks
electret=target/release/electret
work=target/tune-accuracy
mkdir -p "$work"

every_fifth() { # data, train, test
  awk -v train="$2" -v test="$3" 'NR == 1 { print > train; print > test; next }
    NR % 5 == 0 { print > test; next } { print > train }' "$1"
}
ten_of_each() { # data, out, seed
  { head -n 1 "$1"; tail -n +2 "$1" | awk -v seed="$3" 'BEGIN { srand(seed) } { print rand() "\t" $0 }' | sort -n |
    cut -f 2- | awk -F '\t' 'n[$1]++ < 10'; } >"$2"
}
# The first metric of the last epoch on the test examples.
score() { python3 -c 'import json, sys
metrics = json.load(sys.stdin)["curve"][-1]["dev"]
print(next((m["value"] for m in metrics if m["metric"] == sys.argv[1]), metrics[0]["value"]))' "$1"; }

row() { # name, metric, train, test, strategy, options…
  local name=$1 metric=$2 train=$3 test=$4 strategy=$5 seed scores=()
  shift 5
  for seed in 0 1 2; do
    if [ "$name" = snips10 ]; then ten_of_each "$tasks/snips/train.tsv" "$train" "$seed"; fi
    scores+=("$("$electret" tune --model "$model" --train "$train" --dev "$test" --strategy "$strategy" --seed "$seed" \
      -o "$work/$name.adapter" --json "$@" 2>/dev/null | score "$metric")")
  done
  printf '%-8s %-20s %-9s' "$name" "$strategy" "$metric"
  python3 -c 'import sys
scores = [float(score) for score in sys.argv[1:]]
print(f"{sum(scores) / len(scores):.4f}   of", " ".join(f"{score:.4f}" for score in scores))' "${scores[@]}"
}
both() { # strategy, name, metric, train, test, epochs, learning rate of the updates, options…
  local updates=$1 name=$2 metric=$3 train=$4 test=$5 epochs=$6 rate=$7
  shift 7
  row "$name" "$metric" "$train" "$test" head --learning-rate 1e-2 --epochs "$epochs" "$@"
  row "$name" "$metric" "$train" "$test" "$updates" --learning-rate "$rate" --epochs "$epochs" "$@"
}

limited() { echo "--seq $(($1 < ${MAX_SEQ:-512} ? $1 : MAX_SEQ))"; }

layers=${STRATEGY:-head+lora:16:2:all} words=${STRATEGY:-head+words:8+lora:8:2:all}
every_fifth "$tasks/sms_spam/all.tsv" "$work/sms-train.tsv" "$work/sms-test.tsv"
if [ $# = 0 ]; then set -- trec6 snips snips10 sms chunk sst2; fi
for task; do
  case $task in
    trec6) both "$layers" trec6 accuracy "$tasks/trec6/train.tsv" "$tasks/trec6/test.tsv" 5 1e-3 $(limited 48) ;;
    snips) both "$words" snips accuracy "$tasks/snips/train.tsv" "$tasks/snips/test.tsv" 3 1e-3 $(limited 48) ;;
    snips10) both "$words" snips10 accuracy "$work/snips10.tsv" "$tasks/snips/test.tsv" 20 1e-3 $(limited 48) --batch-size 8 ;;
    sms) both "$words" sms f1 "$work/sms-train.tsv" "$work/sms-test.tsv" 3 1e-3 $(limited 64) ;;
    sst2) both "$words" sst2 accuracy "$tasks/sst2/train.tsv" "$tasks/sst2/dev.tsv" 1 1e-3 $(limited 64) --batch-size 32 ;;
    chunk) both "$layers" chunk f1 "$tasks/conll2000_chunk/train.conll" "$tasks/conll2000_chunk/test.conll" 5 2e-3 $(limited 128) ;;
    *) echo "no task $task" >&2; exit 2 ;;
  esac
done
