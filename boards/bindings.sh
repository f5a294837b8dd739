#!/usr/bin/env bash
# The source that calls the library from another language: `bindings.sh kotlin|swift|python FOLDER`.
set -euo pipefail
cd "$(dirname "$0")/.."
${CARGO:-cargo} rustc --release --no-default-features --features uniffi --lib --crate-type cdylib
library=$(ls target/release/libelectret.{so,dylib} target/release/electret.dll 2>/dev/null | head -1)
${CARGO:-cargo} run --release --quiet --no-default-features --features uniffi-bindgen --bin uniffi-bindgen -- \
  generate --library "$library" --language "$1" --no-format --out-dir "$2"
