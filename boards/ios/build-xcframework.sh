#!/usr/bin/env bash
# Electret.xcframework for iPhones, the simulator and Macs, and the Swift source that calls it. Needs Xcode and
# `rustup target add aarch64-apple-ios aarch64-apple-ios-sim x86_64-apple-ios aarch64-apple-darwin`.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=boards/ios work=target/xcframework
rm -rf $work $here/Electret.xcframework
mkdir -p $work/headers $work/sim
for target in aarch64-apple-ios aarch64-apple-ios-sim x86_64-apple-ios aarch64-apple-darwin; do
  cargo rustc --release --no-default-features --features uniffi --lib --crate-type staticlib --target $target \
    --config 'profile.release.lto=true' --config 'profile.release.codegen-units=1'
done
lipo -create target/{aarch64-apple-ios-sim,x86_64-apple-ios}/release/libelectret.a -output $work/sim/libelectret.a

bash boards/bindings.sh swift $work/swift
cp $work/swift/electret.swift $here/Sources/Electret/
cp $work/swift/electretFFI.h $work/headers/
cp $work/swift/electretFFI.modulemap $work/headers/module.modulemap

xcodebuild -create-xcframework -output $here/Electret.xcframework \
  -library target/aarch64-apple-ios/release/libelectret.a -headers $work/headers \
  -library $work/sim/libelectret.a -headers $work/headers \
  -library target/aarch64-apple-darwin/release/libelectret.a -headers $work/headers
