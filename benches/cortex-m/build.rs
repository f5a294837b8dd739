//! Memory of QEMU's mps2-an500 (Cortex-M7) and, for the Helium build, mps3-an547 (Cortex-M55).

use std::{env, fs, path::PathBuf};

fn main() {
    let flash = if env::var_os("CARGO_FEATURE_HELIUM").is_some() { "512K" } else { "4M" };
    let memory = format!(
        "MEMORY {{ FLASH : ORIGIN = 0x00000000, LENGTH = {flash} RAM : ORIGIN = 0x20000000, LENGTH = 512K }}"
    );
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("memory.x"), memory).expect("OUT_DIR can be written");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rerun-if-changed=build.rs");
}
