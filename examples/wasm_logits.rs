//! A WebAssembly module that answers with the hash of electret-tiny's logits, to compare with every other machine's, and
//! proves the results that other models carry: `node examples/wasm_logits.mjs MODULE.wasm… MODEL.electret…`.

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

/// Zeroed room where a model or an arena may lie; never given back.
#[unsafe(no_mangle)]
pub extern "C" fn room(bytes: usize) -> *mut u8 {
    Vec::leak((0..bytes.div_ceil(64)).map(|_| Arena::<64>::new()).collect()).as_mut_ptr().cast()
}

/// How many results a model carries, if all of them have the same bits here; else 0. `file` is what [`room`] gave.
///
/// # Safety
/// `bytes` bytes can be read there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn proven(file: *const u8, bytes: usize) -> usize {
    // SAFETY: the caller's promise.
    let file = unsafe { std::slice::from_raw_parts(file, bytes) };
    let Ok(model) = Model::open(file) else { return 0 };
    let bytes = Plan::inference(model.config(), 64).for_model(&model).bytes();
    // SAFETY: the room was just made, for so many bytes at least.
    let arena = unsafe { std::slice::from_raw_parts_mut(room(bytes), bytes) };
    match Session::new(model, arena, 64).and_then(|mut session| session.self_test()) {
        Ok((results, true)) => results,
        Ok((_, false)) | Err(_) => 0,
    }
}
