//! A model in memory that the caller provides.

use core::ffi::c_char;

use super::answers;
use super::refusal::{Failure, Refusal, Status, answer};
use super::value::{Answer, Detection, Room, Tag, input, place, slice, text};
use crate::arena::ALIGNMENT;
use crate::{Adapter, Error, Model, Plan};

/// A model at work in the caller's memory. It needs no end: the memory may be used for something else when no
/// function will be called with it any more.
pub struct Session(crate::Session<'static, 'static>);

/// The bytes of the caller's model, which stay where they are as long as a session uses them.
pub(super) unsafe fn open(model: *const u8, bytes: usize) -> Result<Model<'static>, Refusal> {
    // SAFETY: the caller says that as many bytes are there, and stay.
    Ok(Model::open(unsafe { slice("model", model, bytes)? })?)
}

/// Puts `value` in front of a caller's memory that starts at a multiple of 64 bytes: where it is, and what is left.
pub(super) unsafe fn settle<T>(
    memory: *mut u8,
    bytes: usize,
    needed: usize,
    value: impl FnOnce(&'static mut [u8]) -> Result<T, Refusal>,
) -> Result<*mut T, Refusal> {
    if memory.is_null() {
        return Err(Refusal::Null("memory"));
    }
    if !memory.addr().is_multiple_of(ALIGNMENT) {
        return Err(Error::ArenaMisaligned.into());
    }
    if bytes < needed {
        return Err(Error::ArenaTooSmall { needed, found: bytes }.into());
    }
    let front = size_of::<T>().next_multiple_of(ALIGNMENT);
    // SAFETY: the caller gives `bytes` bytes to us alone, and `front` is within them. Memory that was never written
    // to is made zero before it becomes a slice.
    let rest = unsafe {
        let rest = memory.add(front);
        rest.write_bytes(0, needed - front);
        core::slice::from_raw_parts_mut(rest, needed - front)
    };
    let value = value(rest)?;
    let place = memory.cast::<T>();
    // SAFETY: the front is aligned to 64, as large as `T`, and no part of `rest`.
    unsafe { place.write(value) };
    Ok(place)
}

/// Bytes of memory that a session for sequences of up to `tokens` tokens needs, at a multiple of 64.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_session_bytes(
    model: *const u8,
    model_bytes: usize,
    tokens: u32,
    bytes: *mut usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let model = open(model, model_bytes)?;
            place("bytes", bytes)?.write(session_bytes(&model, tokens)?);
            Ok(())
        })
    }
}

fn session_bytes(model: &Model<'_>, tokens: u32) -> Result<usize, Error> {
    let (tokens, limit) = (tokens as usize, model.config().max_position_embeddings);
    if tokens > limit {
        return Err(Error::SequenceTooLong { tokens, limit });
    }
    let front = size_of::<Session>().next_multiple_of(ALIGNMENT);
    Ok(Plan::inference(model.config(), tokens).for_model(model).bytes().saturating_add(front))
}

/// Opens a model in place and puts a session for sequences of up to `tokens` tokens into `memory`. The model's bytes
/// start at a multiple of 64, in flash or in memory, and stay. What was in `memory` before is gone, also where this is
/// refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_session_begin(
    memory: *mut u8,
    memory_bytes: usize,
    model: *const u8,
    model_bytes: usize,
    tokens: u32,
    session: *mut *mut Session,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let (model, session) = (open(model, model_bytes)?, place("session", session)?);
            let needed = session_bytes(&model, tokens)?;
            let begin = |arena| Ok(Session(crate::Session::new(model, arena, tokens as usize)?));
            session.write(settle(memory, memory_bytes, needed, begin)?);
            Ok(())
        })
    }
}

/// The caller's session.
unsafe fn known<'s>(session: *mut Session) -> Result<&'s mut crate::Session<'static, 'static>, Refusal> {
    // SAFETY: the caller gives NULL or what `electret_session_begin` gave.
    unsafe { session.as_mut() }.map(|session| &mut session.0).ok_or(Refusal::Null("session"))
}

/// Answers with an adapter of the model from now on; with NULL as the model was. The adapter's bytes start at a multiple
/// of 4 and stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_session_use(
    session: *mut Session,
    adapter: *const u8,
    adapter_bytes: usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let session = known(session)?;
            let adapter = if adapter.is_null() {
                None
            } else {
                if !adapter.addr().is_multiple_of(4) {
                    let reason = "its bytes must start at a multiple of 4";
                    return Err(Refusal::Argument { field: "adapter", reason });
                }
                let file = slice("adapter", adapter, adapter_bytes)?;
                Some(Adapter::open(file, &session.model()).map_err(Refusal::Adapter)?)
            };
            session.set_adapter(adapter)?;
            Ok(())
        })
    }
}

/// How likely each token of a text is to be a replacement, in order. Of a text that does not fit, `truncate` drops the
/// end; else it is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_session_detect(
    session: *mut Session,
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
            let (session, room) = (known(session)?, Room::new(found, capacity, count)?);
            answers::detect(session, input(text, text_bytes, core::ptr::null(), 0, truncate)?, room)
        })
    }
}

/// The probability of each label of a text, or of a pair of texts unless `pair` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_session_classify(
    session: *mut Session,
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
            let (session, room) = (known(session)?, Room::new(probabilities, capacity, count)?);
            answers::classify(session, input(text, text_bytes, pair, pair_bytes, truncate)?, room)
        })
    }
}

/// The value of a text, or of a pair of texts unless `pair` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_session_value(
    session: *mut Session,
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
            let (session, value) = (known(session)?, place("value", value)?);
            value.write(session.regress(input(text, text_bytes, pair, pair_bytes, truncate)?)?);
            Ok(())
        })
    }
}

/// The likeliest label of each word.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_session_tag(
    session: *mut Session,
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
            let (session, room) = (known(session)?, Room::new(words, capacity, count)?);
            answers::tag(session, input(text, text_bytes, core::ptr::null(), 0, truncate)?, room)
        })
    }
}

/// The part of a context that answers a question best. A context that does not fit is read in windows, each from the middle of the
/// one before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_session_answer(
    session: *mut Session,
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
            let (session, found) = (known(session)?, place("found", found)?);
            let question = self::text("question", question, question_bytes)?;
            found.write(answers::answer(session, question, self::text("context", context, context_bytes)?)?);
            Ok(())
        })
    }
}

/// The text as a vector of length 1, as many values as the model's hidden size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_session_embed(
    session: *mut Session,
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
            let (session, room) = (known(session)?, Room::new(values, capacity, count)?);
            answers::embed(session, input(text, text_bytes, core::ptr::null(), 0, truncate)?, room)
        })
    }
}

/// The name of class or tag `number`, in UTF-8 without a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_session_label(
    session: *mut Session,
    number: usize,
    name: *mut u8,
    capacity: usize,
    count: *mut usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let (session, room) = (known(session)?, Room::new(name, capacity, count)?);
            answers::label(session, number, room)
        })
    }
}

/// Whether the model gives the bits here that it gave where it was made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_session_self_test(
    session: *mut Session,
    passed: *mut bool,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let (session, passed) = (known(session)?, place("passed", passed)?);
            passed.write(session.self_test()?.1);
            Ok(())
        })
    }
}
