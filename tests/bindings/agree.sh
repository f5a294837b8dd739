#!/usr/bin/env bash
# What the electret command makes of the same tasks as agree.c, agree.py and Agree.kt, in the same lines:
# agree.sh MODEL TRAIN.tsv ADAPTER
set -euo pipefail
electret=${ELECTRET:-target/release/electret}
lines() { # jq is not everywhere; Python is wherever the bindings are tested
  python3 -c '
import json, struct, sys
row = json.load(sys.stdin)
bits = lambda value: struct.pack(">f", value).hex()
for token in row.get("tokens", []):
    print("detect", token["start"], token["end"], bits(token["replaced"]))
for label, score in sorted(row.get("scores", {}).items()):
    print("classify", label, bits(score))'
}
"$electret" detect --json --model "$1" "He opened the door and walked table the room." | lines
"$electret" tune --model "$1" --train "$2" --epochs 2 -o "$3" >/dev/null 2>&1
"$electret" classify --json --model "$1" --adapter "$3" "free prize! call now" | lines
