#!/usr/bin/env bash
# The static and the shared library, the header and electret.pc under a prefix: `bash boards/c/install.sh /usr/local`.
set -euo pipefail
mkdir -p "${1:?a prefix, such as /usr/local}"
prefix=$(cd "$1" && pwd)
cd "$(dirname "$0")"
cargo build --release --target-dir target
install -d "$prefix/lib/pkgconfig" "$prefix/include"
for library in libelectret.a libelectret.so libelectret.dylib; do
  if [ -e target/release/$library ]; then install -m 644 target/release/$library "$prefix/lib/"; fi
done
install -m 644 electret.h "$prefix/include/"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
sed -e "s|@prefix@|$prefix|" -e "s|@version@|$version|" electret.pc.in >"$prefix/lib/pkgconfig/electret.pc"
