//! Learning in rounds, kept in a folder.

use core::ffi::{c_char, c_void};

use super::handles;
use super::learner::strategy_of;
use super::model::Model;
use super::refusal::{Failure, Refusal, Status, answer};
use super::value::{Example, Kind, Lesson, NUL_TERMINATED, Room, given, input, place, slice, text};
use crate::HeadKind;
use crate::app;

/// A learner on top of a model. 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Tuner {
    /// Its number.
    pub number: u64,
}

/// What a round did.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Round {
    /// Mean loss of the last epoch, in nats.
    pub loss: f32,
    /// Steps of the round.
    pub steps: u32,
    /// Examples of an epoch that taught nothing: no token, or an answer that was cut off.
    pub left_out: u32,
}

/// A tuner that goes on from what `folder` holds of the same lesson, or begins anew; with NULL one that forgets when it is
/// destroyed. The lesson is copied. The learning rate rises during a tenth of a round and falls to 0 at its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_tuner_open(
    model: Model,
    lesson: *const Lesson,
    folder: *const c_char,
    tuner: *mut Tuner,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let lesson = given("lesson", lesson)?;
            let (lesson, place) = (lesson_of(lesson)?, place("tuner", tuner)?);
            let model = handles::model(model.number)?;
            let tuner = match folder.is_null() {
                true => app::Tuner::new(model, lesson)?,
                false => app::Tuner::in_folder(model, lesson, text("folder", folder, NUL_TERMINATED)?)?,
            };
            place.write(Tuner { number: handles::keep_tuner(tuner) });
            Ok(())
        })
    }
}

unsafe fn lesson_of(lesson: &Lesson) -> Result<app::Lesson, Refusal> {
    let kind = Kind::head(lesson.kind)?;
    // SAFETY: as the caller says.
    let labels = unsafe { slice("lesson.labels", lesson.labels, lesson.label_count)? };
    // SAFETY: the caller says that every name ends with a NUL.
    let name = |&label: &*const c_char| unsafe { text("lesson.labels", label, NUL_TERMINATED) };
    let labels = labels.iter().map(|label| Ok(name(label)?.to_owned())).collect::<Result<_, Refusal>>()?;
    let mut owned = app::Lesson::of(kind.name(), labels);
    // SAFETY: as the caller says.
    owned.strategy = unsafe { strategy_of(lesson)? }.to_owned();
    (owned.tokens, owned.seed) = (lesson.tokens, lesson.seed);
    if lesson.batch_size > 0 {
        owned.batch_size = lesson.batch_size;
    }
    if lesson.learning_rate != 0.0 {
        owned.learning_rate = lesson.learning_rate;
    }
    Ok(owned)
}

unsafe fn example_of(tuner: &app::Tuner, example: &Example) -> Result<app::Example, Refusal> {
    // SAFETY: as the caller says.
    let input = unsafe { input(example.text, example.text_bytes, example.pair, example.pair_bytes, true)? };
    // SAFETY: as the caller says.
    let numbers = unsafe { slice("example.labels", example.labels, example.label_count)? };
    let name = |&number: &u16| {
        let reason = "there is no label of that number";
        let label = tuner.lesson().labels.get(usize::from(number));
        label.cloned().ok_or(Refusal::Argument { field: "example.labels", reason })
    };
    let truth = match tuner.kind() {
        HeadKind::Regress => app::Truth::Value { value: example.value },
        HeadKind::Answer => app::Truth::Span { start: example.start, end: example.end },
        HeadKind::Detect => {
            app::Truth::Replaced { words: numbers.iter().map(|&number| number != 0).collect() }
        }
        HeadKind::Tag => app::Truth::Tags { tags: numbers.iter().map(name).collect::<Result<_, _>>()? },
        HeadKind::Classify | HeadKind::FillMask => {
            let reason = "one label for a text";
            let [number] = numbers else { return Err(Refusal::Argument { field: "example.labels", reason }) };
            app::Truth::Label { label: name(number)? }
        }
    };
    Ok(app::Example { text: input.text.to_owned(), truth, pair: input.pair.map(str::to_owned) })
}

/// Is called after each step of a round, on the thread that learns: `done` of `of` steps are taken, with the mean loss of
/// the last one's examples. `false` cancels the round.
pub type ProgressCallback =
    Option<unsafe extern "C" fn(user: *mut c_void, done: u32, of: u32, loss: f32) -> bool>;

/// Learns every example `epochs` times and returns when that is done. `progress` may be NULL; it gets `user` as it is, and
/// may call every function but `electret_tuner_learn` of the same tuner, which is busy. After an error, and when it was
/// cancelled, all is as it was before the round. `round` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_tuner_learn(
    tuner: Tuner,
    examples: *const Example,
    example_count: usize,
    epochs: u32,
    progress: ProgressCallback,
    user: *mut c_void,
    round: *mut Round,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let tuner = handles::tuner(tuner.number)?;
            let examples = slice("examples", examples, example_count)?;
            let examples = examples.iter().map(|example| example_of(&tuner, example));
            let examples: Vec<_> = examples.collect::<Result<_, _>>()?;
            let watch = |done, of, loss| progress.is_none_or(|call| call(user, done, of, loss));
            let done = tuner.round(&examples, epochs, &watch)?;
            if let Some(round) = round.as_mut() {
                *round = Round { loss: done.loss, steps: done.steps, left_out: done.left_out };
            }
            Ok(())
        })
    }
}

/// Cancels the round under way, if there is one, after its next step. To be called from another thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_tuner_cancel(tuner: Tuner, error: *mut Failure) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            handles::tuner(tuner.number)?.cancel();
            Ok(())
        })
    }
}

/// The `.adapter` file of what was learned in all finished rounds; with capacity 0 only its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_tuner_adapter(
    tuner: Tuner,
    bytes: *mut u8,
    capacity: usize,
    count: *mut usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let file = handles::tuner(tuner.number)?.adapter();
            Room::new(bytes, capacity, count)?.fill(file.into_iter())
        })
    }
}

/// Keeps what was learned in the tuner's folder. Whatever happens meanwhile, the folder holds the old adapter or the new
/// one, whole.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_tuner_save(tuner: Tuner, error: *mut Failure) -> Status {
    // SAFETY: as the caller says.
    unsafe { answer(error, || Ok(handles::tuner(tuner.number)?.save()?)) }
}

/// Forgets the tuner, and all that was not saved; a round under way finishes. A number that is forgotten already, or 0, is
/// no mistake.
#[unsafe(no_mangle)]
pub extern "C" fn electret_tuner_destroy(tuner: Tuner) {
    handles::destroy(tuner.number);
}
