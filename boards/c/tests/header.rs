//! The header says what the library has: it is written anew from the sources and compared with the one at hand.

use std::path::Path;

#[test]
fn the_header_is_that_of_the_library() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).expect("cbindgen.toml");
    let sources = here.join("../../src/ffi");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in ["refusal", "value", "session", "learner", "model", "tuner"] {
        builder = builder.with_src(sources.join(file).with_extension("rs"));
    }
    let mut written = Vec::new();
    builder.generate().expect("the sources are understood").write(&mut written);
    let header = here.join("electret.h");
    if std::env::var_os("ELECTRET_BLESS").is_some() {
        std::fs::write(&header, &written).expect("electret.h");
    }
    let found = std::fs::read(&header).unwrap_or_default();
    assert!(found == written, "electret.h is not what the sources say; ELECTRET_BLESS=1 writes it anew");
}
