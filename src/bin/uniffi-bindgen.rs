//! Writes the Kotlin, Swift and Python sources that call a library built with the feature `uniffi`:
//! `uniffi-bindgen generate --library target/release/libelectret.so --language kotlin --out-dir …`.

fn main() {
    uniffi::uniffi_bindgen_main();
}
