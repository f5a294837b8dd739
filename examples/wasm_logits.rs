//! A WebAssembly module that answers with the hash of electret-tiny's logits, to compare with
//! every other machine's: `node examples/wasm_logits.mjs MODULE`.

#[path = "../tests/golden/logits.rs"]
mod golden;

use electret::{Aligned, Arena, Model, Plan, Session, TINY};

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/electret-tiny.electret"));

/// The hash, or 0 if the model did not open.
#[unsafe(no_mangle)]
pub extern "C" fn logits_hash() -> u64 {
    let mut arena: Arena<{ Plan::inference(&TINY, 64).bytes() }> = Arena::new();
    let model = Model::open(&MODEL.0);
    let session = model.and_then(|model| Session::new(model, arena.as_mut_slice(), 64));
    session.and_then(|mut session| golden::logits_hash(&mut session)).unwrap_or(0)
}

/// What it must be.
#[unsafe(no_mangle)]
pub extern "C" fn expected() -> u64 {
    golden::LOGITS
}
