//! A model that owns its memory.

use core::ffi::c_char;

use super::answers;
use super::handles;
use super::refusal::{Failure, Refusal, Status, answer};
use super::value::{Answer, Detection, NUL_TERMINATED, Room, Tag, input, place, slice, text};
use crate::Session;
use crate::app;

/// An opened model, perhaps with something learned on top of it. 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Model {
    /// Its number.
    pub number: u64,
}

/// Maps an `.electret` file, whose name ends with a NUL. Whoever replaces the file must do so by renaming.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_open(
    path: *const c_char,
    model: *mut Model,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let (path, model) = (text("path", path, NUL_TERMINATED)?, place("model", model)?);
            model.write(Model { number: handles::keep_model(app::Model::open(path)?) });
            Ok(())
        })
    }
}

/// Opens a copy of the bytes of an `.electret` file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_from_bytes(
    bytes: *const u8,
    length: usize,
    model: *mut Model,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let (bytes, model) = (slice("bytes", bytes, length)?, place("model", model)?);
            model.write(Model { number: handles::keep_model(app::Model::from_bytes(bytes)?) });
            Ok(())
        })
    }
}

/// Another handle of the same model, with the adapter whose bytes are given on top of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_with_adapter(
    model: Model,
    adapter: *const u8,
    adapter_bytes: usize,
    adapted: *mut Model,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let (file, adapted) = (slice("adapter", adapter, adapter_bytes)?, place("adapted", adapted)?);
            let handle = handles::model(model.number)?.with_adapter(file.to_vec())?;
            adapted.write(Model { number: handles::keep_model(handle) });
            Ok(())
        })
    }
}

/// Another handle of the same model, with what a tuner saved in a folder on top of it; number 0 if nothing was learned
/// there yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_with_adapter_of(
    model: Model,
    folder: *const c_char,
    adapted: *mut Model,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let (folder, adapted) = (text("folder", folder, NUL_TERMINATED)?, place("adapted", adapted)?);
            let handle = handles::model(model.number)?.with_adapter_of(folder)?;
            adapted.write(Model { number: handle.map_or(0, handles::keep_model) });
            Ok(())
        })
    }
}

/// Forgets the model; calls under way finish. A number that is forgotten already, or 0, is no mistake.
#[unsafe(no_mangle)]
pub extern "C" fn electret_model_destroy(model: Model) {
    handles::destroy(model.number);
}

fn ask<R>(
    model: Model,
    answer: impl FnOnce(&mut Session<'_, '_>) -> Result<R, Refusal>,
) -> Result<R, Refusal> {
    handles::model(model.number)?.ask(answer)
}

/// How likely each token of a text is to be a replacement, in order. Of a text that does not fit, `truncate` drops the
/// end; else it is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_detect(
    model: Model,
    text: *const c_char,
    text_bytes: usize,
    truncate: bool,
    found: *mut Detection,
    capacity: usize,
    count: *mut usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let input = input(text, text_bytes, core::ptr::null(), 0, truncate)?;
            let room = Room::new(found, capacity, count)?;
            ask(model, |session| answers::detect(session, input, room))
        })
    }
}

/// The probability of each label of a text, or of a pair of texts unless `pair` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_classify(
    model: Model,
    text: *const c_char,
    text_bytes: usize,
    pair: *const c_char,
    pair_bytes: usize,
    truncate: bool,
    probabilities: *mut f32,
    capacity: usize,
    count: *mut usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let input = input(text, text_bytes, pair, pair_bytes, truncate)?;
            let room = Room::new(probabilities, capacity, count)?;
            ask(model, |session| answers::classify(session, input, room))
        })
    }
}

/// The value of a text, or of a pair of texts unless `pair` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_value(
    model: Model,
    text: *const c_char,
    text_bytes: usize,
    pair: *const c_char,
    pair_bytes: usize,
    truncate: bool,
    value: *mut f32,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let input = input(text, text_bytes, pair, pair_bytes, truncate)?;
            let value = place("value", value)?;
            value.write(ask(model, |session| Ok(session.regress(input)?))?);
            Ok(())
        })
    }
}

/// The likeliest label of each word.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_tag(
    model: Model,
    text: *const c_char,
    text_bytes: usize,
    truncate: bool,
    words: *mut Tag,
    capacity: usize,
    count: *mut usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let input = input(text, text_bytes, core::ptr::null(), 0, truncate)?;
            let room = Room::new(words, capacity, count)?;
            ask(model, |session| answers::tag(session, input, room))
        })
    }
}

/// The part of a context that answers a question best. A context that does not fit is read in windows, each from the middle of the
/// one before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_answer(
    model: Model,
    question: *const c_char,
    question_bytes: usize,
    context: *const c_char,
    context_bytes: usize,
    found: *mut Answer,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let question = text("question", question, question_bytes)?;
            let context = text("context", context, context_bytes)?;
            let found = place("found", found)?;
            found.write(ask(model, |session| answers::answer(session, question, context))?);
            Ok(())
        })
    }
}

/// The text as a vector of length 1, as many values as the model's hidden size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_embed(
    model: Model,
    text: *const c_char,
    text_bytes: usize,
    truncate: bool,
    values: *mut f32,
    capacity: usize,
    count: *mut usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let input = input(text, text_bytes, core::ptr::null(), 0, truncate)?;
            let room = Room::new(values, capacity, count)?;
            ask(model, |session| answers::embed(session, input, room))
        })
    }
}

/// The name of class or tag `number`, in UTF-8 without a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_label(
    model: Model,
    number: usize,
    name: *mut u8,
    capacity: usize,
    count: *mut usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let room = Room::new(name, capacity, count)?;
            ask(model, |session| answers::label(session, number, room))
        })
    }
}

/// Whether the model gives the bits here that it gave where it was made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_model_self_test(
    model: Model,
    passed: *mut bool,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let passed = place("passed", passed)?;
            passed.write(handles::model(model.number)?.self_test()?);
            Ok(())
        })
    }
}
