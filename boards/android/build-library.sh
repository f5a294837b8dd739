#!/usr/bin/env bash
# libelectret.so for Android's processors and the Kotlin source that calls it, into electret/build/rust.
# Needs the NDK, `cargo install cargo-ndk`, and
# `rustup target add aarch64-linux-android armv7-linux-androideabi x86_64-linux-android`.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=boards/android/electret/build/rust
mkdir -p $out/jniLibs $out/kotlin
small=(--config 'profile.release.lto=true' --config 'profile.release.codegen-units=1' --config 'profile.release.strip=true')
for abi in arm64-v8a armeabi-v7a x86_64; do
  cargo ndk --target $abi --platform 24 --output-dir $out/jniLibs -- \
    rustc --release --no-default-features --features uniffi --lib --crate-type cdylib "${small[@]}"
done
bash boards/bindings.sh kotlin $out/kotlin
