//! Learning in memory that the caller provides.

use core::ffi::{CStr, c_char};

use super::refusal::{Failure, Refusal, Status, answer};
use super::session::{open, settle};
use super::value::{Example, Kind, Lesson, NUL_TERMINATED, Room, given, input, place, slice, text};
use crate::arena::ALIGNMENT;
use crate::tune::{Settings, Step, Target, Task, lesson_tokens};
use crate::weights::check_labels;
use crate::{Document, HeadKind, Model, Strategy, Tuner, TuningPlan};

/// A model that learns in the caller's memory. It needs no end.
pub struct Learner {
    tuner: Tuner<'static, 'static>,
    kind: HeadKind,
}

/// What a lesson trains, or the default where that is NULL.
pub(super) unsafe fn strategy_of(lesson: &Lesson) -> Result<&str, Refusal> {
    if lesson.strategy.is_null() {
        return Ok(Strategy::DEFAULT);
    }
    // SAFETY: the caller says that it ends with a NUL.
    unsafe { text("lesson.strategy", lesson.strategy, NUL_TERMINATED) }
}

impl Kind {
    pub(super) fn head(number: u32) -> Result<HeadKind, Refusal> {
        Ok(match number {
            n if n == Self::Classify as u32 => HeadKind::Classify,
            n if n == Self::Regress as u32 => HeadKind::Regress,
            n if n == Self::Tag as u32 => HeadKind::Tag,
            n if n == Self::Answer as u32 => HeadKind::Answer,
            n if n == Self::Detect as u32 => HeadKind::Detect,
            _ => return Err(Refusal::Argument { field: "lesson.kind", reason: "is none of electret_kind" }),
        })
    }
}

/// A lesson that was looked at.
struct Plan {
    kind: HeadKind,
    labels: usize,
    strategy: Strategy,
    tokens: usize,
    settings: Settings,
}

impl Plan {
    unsafe fn of(model: &Model<'_>, lesson: &Lesson) -> Result<Self, Refusal> {
        let kind = Kind::head(lesson.kind)?;
        // SAFETY: as the caller says.
        let strategy = Strategy::parse(unsafe { strategy_of(lesson)? })
            .ok_or(Refusal::Argument { field: "lesson.strategy", reason: Strategy::WANTED })?;
        let tokens = lesson_tokens(model, lesson.tokens)?;
        let labels = match kind {
            HeadKind::Classify | HeadKind::Tag => lesson.label_count,
            _ => Task::of(kind, &[]).labels.len(),
        };
        check_labels(model, kind, labels, strategy.head)?;
        let settings = Settings { seed: lesson.seed, ..Settings::default() };
        let rate = if lesson.learning_rate == 0.0 { settings.learning_rate } else { lesson.learning_rate };
        Ok(Self { kind, labels, strategy, tokens, settings: Settings { learning_rate: rate, ..settings } })
    }

    /// Bytes of the learner and its labels, and of all.
    fn bytes(&self, model: &Model<'_>) -> (usize, usize) {
        let names = (self.labels * size_of::<&str>()).next_multiple_of(ALIGNMENT);
        let layout = TuningPlan::new(model.config(), self.tokens, self.strategy, self.labels).layout;
        let layout = crate::weights::strategy::Layout { width: model.head_width(self.kind), ..layout };
        let arena =
            TuningPlan::with_blocks(layout, self.tokens, crate::plan::BLOCK_ROWS, 1).for_model(model).bytes();
        let front = size_of::<Learner>().next_multiple_of(ALIGNMENT);
        (names, front.saturating_add(names).saturating_add(arena))
    }
}

/// Bytes of memory that a learner needs, at a multiple of 64.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_learner_bytes(
    model: *const u8,
    model_bytes: usize,
    lesson: *const Lesson,
    bytes: *mut usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let (lesson, model) = (given("lesson", lesson)?, open(model, model_bytes)?);
            place("bytes", bytes)?.write(Plan::of(&model, lesson)?.bytes(&model).1);
            Ok(())
        })
    }
}

/// Opens a model in place and puts a learner into `memory`. The model's bytes start at a multiple of 64 and stay; so do
/// the names of the lesson's labels. The learning rate stays what it is. What was in `memory` before is gone, also where
/// this is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_learner_begin(
    memory: *mut u8,
    memory_bytes: usize,
    model: *const u8,
    model_bytes: usize,
    lesson: *const Lesson,
    learner: *mut *mut Learner,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let (model, learner) = (open(model, model_bytes)?, place("learner", learner)?);
            let lesson = given("lesson", lesson)?;
            let plan = Plan::of(&model, lesson)?;
            // The other kinds have labels of their own, and no room for the caller's.
            let count = if plan.kind.has_label_names() { plan.labels } else { 0 };
            let labels = slice("lesson.labels", lesson.labels, count)?;
            let (names, needed) = plan.bytes(&model);
            let begin = |rest: &'static mut [u8]| {
                let (front, arena) = rest.split_at_mut(names);
                let names = names_in(front, labels)?;
                let task = Task::of(plan.kind, names);
                let tuner = Tuner::new(model, arena, plan.tokens, task, plan.strategy, plan.settings)?;
                Ok(Learner { tuner, kind: plan.kind })
            };
            learner.write(settle(memory, memory_bytes, needed, begin)?);
            Ok(())
        })
    }
}

/// The labels' names as the core takes them, in front of the arena.
unsafe fn names_in(
    memory: &'static mut [u8],
    labels: &[*const c_char],
) -> Result<&'static [&'static str], Refusal> {
    let place = memory.as_mut_ptr().cast::<&'static str>();
    for (index, &label) in labels.iter().enumerate() {
        if label.is_null() {
            return Err(Refusal::Null("lesson.labels"));
        }
        // SAFETY: the caller says that the name ends with a NUL and stays.
        let name: &'static CStr = unsafe { CStr::from_ptr(label) };
        let not_utf8 = |error: core::str::Utf8Error| Refusal::NotUtf8 {
            field: "lesson.labels",
            valid: error.valid_up_to(),
        };
        let name = name.to_str().map_err(not_utf8)?;
        // SAFETY: the memory is aligned to 64 and was planned for as many names.
        unsafe { place.add(index).write(name) };
    }
    // SAFETY: all of them were written just now.
    Ok(unsafe { core::slice::from_raw_parts(place, labels.len()) })
}

/// The caller's learner.
unsafe fn known<'l>(learner: *mut Learner) -> Result<&'l mut Learner, Refusal> {
    // SAFETY: the caller gives NULL or what `electret_learner_begin` gave.
    unsafe { learner.as_mut() }.ok_or(Refusal::Null("learner"))
}

/// Learns from one example; `loss` in nats, unless NULL. The parameters move at the next step. What is longer than the
/// lesson's tokens loses its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_learner_learn(
    learner: *mut Learner,
    example: *const Example,
    loss: *mut f32,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let Learner { tuner, kind } = known(learner)?;
            let example = given("example", example)?;
            let input = input(example.text, example.text_bytes, example.pair, example.pair_bytes, true)?;
            let labels = slice("example.labels", example.labels, example.label_count)?;
            let mut replaced = [false; MAX_WORDS];
            let learned = tuner.learn(input, target(*kind, example, labels, &mut replaced)?)?;
            if let Some(loss) = loss.as_mut() {
                *loss = learned;
            }
            Ok(())
        })
    }
}

/// Most words of an example for detection.
const MAX_WORDS: usize = 512;

fn target<'t>(
    kind: HeadKind,
    example: &Example,
    labels: &'t [u16],
    replaced: &'t mut [bool; MAX_WORDS],
) -> Result<Target<'t>, Refusal> {
    Ok(match kind {
        HeadKind::Regress => Target::Value(example.value),
        HeadKind::Answer => Target::Span(example.start as usize, example.end as usize),
        HeadKind::Tag => Target::Tags(labels),
        HeadKind::Detect => {
            let reason = "at most 512 words";
            let replaced = replaced.get_mut(..labels.len());
            let replaced = replaced.ok_or(Refusal::Argument { field: "example.labels", reason })?;
            for (replaced, label) in replaced.iter_mut().zip(labels) {
                *replaced = *label != 0;
            }
            Target::Replaced(replaced)
        }
        HeadKind::Classify | HeadKind::FillMask => {
            let reason = "one label for a text";
            let &[label] = labels else { return Err(Refusal::Argument { field: "example.labels", reason }) };
            Target::Class(label.into())
        }
    })
}

/// Moves the parameters by the mean gradient of the examples since the last step. `taken` says whether they moved, unless
/// NULL: not if there was nothing to learn from, or the gradient was not finite.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_learner_step(
    learner: *mut Learner,
    taken: *mut bool,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            let step = known(learner)?.tuner.step();
            if let Some(taken) = taken.as_mut() {
                *taken = matches!(step, Step::Taken { .. });
            }
            Ok(())
        })
    }
}

/// The `.adapter` file of what was learned so far, for `electret_session_use`; with capacity 0 only its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_learner_adapter(
    learner: *mut Learner,
    bytes: *mut u8,
    capacity: usize,
    count: *mut usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe { answer(error, || written(&known(learner)?.tuner.adapter(), Room::new(bytes, capacity, count)?)) }
}

/// The learner's state as of the last step, for `electret_learner_restore`; with capacity 0 only its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_learner_state(
    learner: *mut Learner,
    bytes: *mut u8,
    capacity: usize,
    count: *mut usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe { answer(error, || written(&known(learner)?.tuner.state(), Room::new(bytes, capacity, count)?)) }
}

/// Goes on from a state, to the same bits. One of another lesson or model is refused, and nothing is changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn electret_learner_restore(
    learner: *mut Learner,
    state: *const u8,
    state_bytes: usize,
    error: *mut Failure,
) -> Status {
    // SAFETY: as the caller says.
    unsafe {
        answer(error, || {
            known(learner)?.tuner.restore(slice("state", state, state_bytes)?).map_err(Refusal::Adapter)
        })
    }
}

fn written(document: &impl Document, room: Room<'_, u8>) -> Result<(), Refusal> {
    room.write(document.bytes(), |place| Ok(document.write(place).map(|_| ())?))
}
