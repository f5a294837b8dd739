#!/usr/bin/env bash
# The source that calls the library from another language: `bindings.sh kotlin|swift|python FOLDER`.
set -euo pipefail
cd "$(dirname "$0")/.."
${CARGO:-cargo} rustc --release --no-default-features --features uniffi --lib --crate-type cdylib
for library in target/release/{libelectret.so,libelectret.dylib,electret.dll}; do
  if [ -e $library ]; then break; fi
done
cargo run --quiet --manifest-path boards/bindgen/Cargo.toml --target-dir target/bindgen -- "$library" "$1" "$2"
