#!/usr/bin/env bash
# The page with everything it needs, in target/web: `bash examples/web/build.sh`, then serve that folder.
# Needs `rustup target add wasm32-unknown-unknown`.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=wasm32-unknown-unknown
mkdir -p target/web
for kind in scalar simd; do
  flags=""
  [ $kind = scalar ] || flags="-C target-feature=+simd128"
  CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="$flags" ${CARGO:-cargo} rustc --lib --crate-type cdylib --release \
    --no-default-features --features wasm --target $target --target-dir target/web-build --config 'profile.release.lto=true'
  cargo run --manifest-path examples/web/bindgen/Cargo.toml --target-dir target/bindgen -- \
    target/web-build/$target/release/electret.wasm target/web-build/$kind
  cp target/web-build/$kind/electret_bg.wasm target/web/electret-$kind.wasm
done
# The glue is the same for both.
cmp target/web-build/{scalar,simd}/electret.js
cp target/web-build/simd/electret.js target/web/
cp models/electret-tiny.electret examples/data/messages.tsv examples/web/*.{html,css,js} target/web/
