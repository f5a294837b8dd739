//! Learning in rounds.
//!
//! Between rounds a tuner is its state's bytes; a round takes an arena, goes on from them, and puts new ones in their
//! place when it is through. That is why a round that is cancelled or fails leaves no trace.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};

use super::{ElectretError, Model};
use crate::text::Input;
use crate::tune::store::{FolderStore, Store};
use crate::tune::{self, Settings, Step, Task, computer_plan, epoch_order};
use crate::weights::{AlignedBytes, check_labels};
use crate::{Document, Error, HeadKind, Strategy, kernels};

/// Where a tuner keeps its adapter in its folder.
const ADAPTER: u8 = 0;

/// What is to be learned, and how.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Lesson {
    /// Which head learns: `classify`, `regress`, `tag`, `answer` or `detect`.
    pub kind: String,
    /// Names of the classes or tags; empty for the others.
    #[cfg_attr(feature = "uniffi", uniffi(default = []))]
    pub labels: Vec<String>,
    /// What is trained, as for `electret tune`.
    #[cfg_attr(feature = "uniffi", uniffi(default = "head+lora:8:4"))]
    pub strategy: String,
    /// Longest sequence in tokens; what is longer loses its end. 0 for 128, or the model's longest.
    #[cfg_attr(feature = "uniffi", uniffi(default = 0))]
    pub tokens: u32,
    /// Examples a step.
    #[cfg_attr(feature = "uniffi", uniffi(default = 16))]
    pub batch_size: u32,
    /// Largest learning rate, after a tenth of a round's steps; it falls to 0 at the round's end.
    #[cfg_attr(feature = "uniffi", uniffi(default = 0.001))]
    pub learning_rate: f32,
    /// Decoupled weight decay of matrices.
    #[cfg_attr(feature = "uniffi", uniffi(default = 0.01))]
    pub weight_decay: f32,
    /// What an example of each label counts; empty if all count 1.
    #[cfg_attr(feature = "uniffi", uniffi(default = []))]
    pub class_weights: Vec<f32>,
    /// Seed of the order and of what starts at random.
    #[cfg_attr(feature = "uniffi", uniffi(default = 0))]
    pub seed: u64,
}

impl Lesson {
    /// Which of `labels` has a text?
    pub fn classify(labels: Vec<String>) -> Self {
        Self::of("classify", labels)
    }

    /// Which of `labels` has each word?
    pub fn tag(labels: Vec<String>) -> Self {
        Self::of("tag", labels)
    }

    /// The head of that name, and else what `electret tune` does.
    pub fn of(kind: &str, labels: Vec<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            labels,
            strategy: Strategy::DEFAULT.to_owned(),
            tokens: 0,
            batch_size: 16,
            learning_rate: 1e-3,
            weight_decay: 0.01,
            class_weights: Vec::new(),
            seed: 0,
        }
    }
}

/// A text, perhaps a pair, and what it teaches.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Example {
    /// The text; a question.
    pub text: String,
    /// What it teaches.
    pub truth: Truth,
    /// The second text; the context of a question.
    #[cfg_attr(feature = "uniffi", uniffi(default = None))]
    pub pair: Option<String>,
}

impl Example {
    /// What one text teaches.
    pub fn new(text: &str, truth: Truth) -> Self {
        Self { text: text.to_owned(), truth, pair: None }
    }
}

/// What is true of a text.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Enum))]
pub enum Truth {
    /// The text's label.
    Label {
        /// Its name.
        label: String,
    },
    /// The text's value.
    Value {
        /// The value.
        value: f32,
    },
    /// The label of each word; words are what whitespace separates.
    Tags {
        /// Their names.
        tags: Vec<String>,
    },
    /// Whether each word was replaced.
    Replaced {
        /// One for each word.
        words: Vec<bool>,
    },
    /// The answer to the question, in bytes of the context.
    Span {
        /// Its first byte.
        start: u32,
        /// One past its last.
        end: u32,
    },
}

/// Is told after each step of a round how far it is.
#[cfg_attr(feature = "uniffi", uniffi::export(with_foreign))]
pub trait Progress: Send + Sync {
    /// `done` of `of` steps are taken; the mean loss of the last one's examples, in nats. `false` cancels the round.
    fn step(&self, done: u32, of: u32, loss: f32) -> bool;
}

/// What a round did.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Round {
    /// Mean loss of the last epoch, in nats.
    pub loss: f32,
    /// Steps of the round.
    pub steps: u32,
    /// Examples of an epoch that taught nothing: no token, or an answer that was cut off.
    pub left_out: u32,
}

/// A learner on top of a model.
#[cfg_attr(feature = "uniffi", derive(uniffi::Object))]
pub struct Tuner {
    model: Arc<Model>,
    lesson: Lesson,
    kind: HeadKind,
    strategy: Strategy,
    folder: Option<PathBuf>,
    learned: RwLock<Arc<Learned>>,
    /// Held by the round under way.
    round: Mutex<()>,
    /// Held by whoever writes into the folder.
    saving: Mutex<()>,
    cancelled: AtomicBool,
}

/// What was learned up to the end of a round.
struct Learned {
    state: Vec<u8>,
    adapter: Vec<u8>,
    steps: u32,
    seen: u64,
}

impl Learned {
    fn of(tuner: &tune::Tuner<'_, '_>) -> Result<Self, Error> {
        Ok(Self {
            state: tuner.state().to_vec()?,
            adapter: tuner.adapter().to_vec()?,
            steps: tuner.progress().steps,
            seen: tuner.progress().seen,
        })
    }
}

#[cfg_attr(feature = "uniffi", uniffi::export)]
impl Tuner {
    /// A tuner that forgets when it goes.
    ///
    /// # Errors
    /// [`ElectretError::Argument`], [`ElectretError::Lesson`].
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn new(model: Arc<Model>, lesson: Lesson) -> Result<Arc<Self>, ElectretError> {
        Self::of(model, lesson, None, |_| Ok(()))
    }

    /// A tuner that goes on from what `folder` holds of the same lesson, or begins anew. A folder belongs to one
    /// tuner.
    ///
    /// # Errors
    /// As [`Tuner::new`]; [`ElectretError::Adapter`] if the folder holds another lesson's or another model's state;
    /// [`ElectretError::File`], [`ElectretError::Store`].
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn in_folder(model: Arc<Model>, lesson: Lesson, folder: &str) -> Result<Arc<Self>, ElectretError> {
        Self::of(model, lesson, Some(folder.into()), |tuner| {
            open_store(Path::new(folder))?.resume(tuner).map_err(ElectretError::adapter)?;
            Ok(())
        })
    }

    /// A tuner that goes on from a [`Tuner::state`] of the same lesson, for an app that keeps it in a place of its own.
    ///
    /// # Errors
    /// As [`Tuner::new`]; [`ElectretError::Adapter`] for another lesson's or another model's state.
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn from_state(model: Arc<Model>, lesson: Lesson, state: Vec<u8>) -> Result<Arc<Self>, ElectretError> {
        Self::of(model, lesson, None, |tuner| tuner.restore(&state).map_err(ElectretError::adapter))
    }

    /// Learns every example `epochs` times, in an order that the seed decides, and returns when that is done. What is
    /// longer than the lesson's tokens loses its end.
    ///
    /// # Errors
    /// [`ElectretError::Cancelled`] by [`Tuner::cancel`]; [`ElectretError::Busy`];
    /// [`ElectretError::Argument`] and [`ElectretError::Lesson`] for an example that does not fit the lesson. After an
    /// error all is as it was before the round.
    pub fn learn(&self, examples: Vec<Example>, epochs: u32) -> Result<Round, ElectretError> {
        self.round(&examples, epochs, &|_, _, _| true)
    }

    /// The same, and tells `progress` after each step.
    ///
    /// # Errors
    /// As [`Tuner::learn`]; [`ElectretError::Cancelled`] also if `progress` says so.
    pub fn learn_watched(
        &self,
        examples: Vec<Example>,
        epochs: u32,
        progress: Arc<dyn Progress>,
    ) -> Result<Round, ElectretError> {
        self.round(&examples, epochs, &|done, of, loss| progress.step(done, of, loss))
    }

    /// Cancels the round under way, if there is one, after its next step.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The `.adapter` file of what was learned in all finished rounds, for [`Model::with_adapter`].
    pub fn adapter(&self) -> Vec<u8> {
        self.learned().adapter.clone()
    }

    /// All that is needed to go on from here, for [`Tuner::from_state`].
    pub fn state(&self) -> Vec<u8> {
        self.learned().state.clone()
    }

    /// Steps of all finished rounds.
    pub fn steps(&self) -> u32 {
        self.learned().steps
    }

    /// Keeps what was learned in the folder: the state to go on from, and the adapter, which is the active one from
    /// then on. Whatever happens meanwhile, the folder holds the old adapter or the new one, whole.
    ///
    /// # Errors
    /// [`ElectretError::Argument`] without a folder, [`ElectretError::Store`].
    pub fn save(&self) -> Result<(), ElectretError> {
        let none = || ElectretError::argument("folder", "the tuner was opened without one");
        let mut store = open_store(self.folder.as_deref().ok_or_else(none)?)?;
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let learned = self.learned();
        self.at_work(Settings::default(), |tuner| {
            tuner.restore(&learned.state)?;
            store.checkpoint(tuner)?;
            store.save(ADAPTER, &tuner.adapter())?;
            Ok(store.activate(Some(ADAPTER))?)
        })
    }
}

/// The store in a folder.
pub(super) fn open_store(folder: &Path) -> Result<FolderStore, ElectretError> {
    FolderStore::open(folder).map_err(|error| ElectretError::file(folder, &error))
}

impl core::fmt::Debug for Tuner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Tuner({}, {}, {} steps)", self.lesson.kind, self.strategy, self.steps())
    }
}

/// An example whose labels were looked up.
struct Known<'e> {
    number: usize,
    input: Input<'e>,
    truth: &'e Truth,
    tags: Vec<u16>,
}

impl Known<'_> {
    fn target(&self) -> tune::Target<'_> {
        match self.truth {
            Truth::Label { .. } => tune::Target::Class(self.tags.first().copied().unwrap_or_default().into()),
            Truth::Value { value } => tune::Target::Value(*value),
            Truth::Tags { .. } => tune::Target::Tags(&self.tags),
            Truth::Replaced { words } => tune::Target::Replaced(words),
            Truth::Span { start, end } => tune::Target::Span(*start as usize, *end as usize),
        }
    }
}

/// Says after each step how far the round is, and hears whether it goes on.
struct Bell<'b> {
    done: u32,
    of: u32,
    progress: &'b dyn Fn(u32, u32, f32) -> bool,
    cancelled: &'b AtomicBool,
}

impl Bell<'_> {
    fn ring(&mut self, loss: f32) -> Result<(), ElectretError> {
        self.done += 1;
        let goes_on = (self.progress)(self.done, self.of, loss);
        if goes_on && !self.cancelled.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(ElectretError::Cancelled)
        }
    }
}

impl Tuner {
    /// Which head learns.
    pub fn kind(&self) -> HeadKind {
        self.kind
    }

    /// What is learned, and how.
    pub fn lesson(&self) -> &Lesson {
        &self.lesson
    }

    fn of(
        model: Arc<Model>,
        lesson: Lesson,
        folder: Option<PathBuf>,
        go_on: impl FnOnce(&mut tune::Tuner<'_, '_>) -> Result<(), ElectretError>,
    ) -> Result<Arc<Self>, ElectretError> {
        let kinds = HeadKind::ALL.into_iter().filter(|&kind| kind != HeadKind::FillMask);
        let kind = kinds.clone().find(|kind| kind.name() == lesson.kind).ok_or_else(|| {
            let names: Vec<_> = kinds.map(HeadKind::name).collect();
            ElectretError::argument("kind", format!("{} is none of {}", lesson.kind, names.join(", ")))
        })?;
        let strategy = Strategy::parse(&lesson.strategy).ok_or_else(|| {
            ElectretError::argument("strategy", format!("{}: {}", lesson.strategy, Strategy::WANTED))
        })?;
        if lesson.batch_size == 0 {
            return Err(ElectretError::argument("batch_size", "0: at least 1 is needed"));
        }
        let mut tuner = Self {
            model,
            lesson,
            kind,
            strategy,
            folder,
            learned: RwLock::new(Arc::new(Learned {
                state: Vec::new(),
                adapter: Vec::new(),
                steps: 0,
                seen: 0,
            })),
            round: Mutex::default(),
            saving: Mutex::default(),
            cancelled: AtomicBool::new(false),
        };
        let learned = tuner.at_work(Settings::default(), |tuner| {
            go_on(tuner)?;
            Ok(Learned::of(tuner)?)
        })?;
        tuner.learned = RwLock::new(Arc::new(learned));
        Ok(Arc::new(tuner))
    }

    /// [`Tuner::learn_watched`] with a function that need not be fit for other threads.
    pub(crate) fn round(
        &self,
        examples: &[Example],
        epochs: u32,
        progress: &dyn Fn(u32, u32, f32) -> bool,
    ) -> Result<Round, ElectretError> {
        let _round = match self.round.try_lock() {
            Ok(round) => round,
            Err(TryLockError::WouldBlock) => return Err(ElectretError::Busy),
            // What an earlier round's panic left behind is an arena that is gone.
            Err(TryLockError::Poisoned(round)) => round.into_inner(),
        };
        self.cancelled.store(false, Ordering::Relaxed);
        if examples.is_empty() || epochs == 0 {
            return Err(ElectretError::argument("examples", "at least one, and one epoch, are needed"));
        }
        let examples: Vec<Known> =
            (0..).zip(examples).map(|(i, e)| self.known(i, e)).collect::<Result<_, _>>()?;
        let before = self.learned();
        let steps = examples.len().div_ceil(self.lesson.batch_size as usize) as u32;
        let steps = steps.saturating_mul(epochs);
        let schedule = Settings {
            first_step: before.steps,
            warmup_steps: steps / 10,
            total_steps: steps,
            ..Settings::default()
        };
        let (round, learned) = self.at_work(schedule, |tuner| {
            tuner.restore(&before.state)?;
            let mut bell = Bell { done: 0, of: steps, progress, cancelled: &self.cancelled };
            let mut last = (0.0, 0);
            for epoch in 1..=epochs {
                let seed = self.lesson.seed.wrapping_add(before.seen) ^ u64::from(epoch) << 32;
                last = self.epoch(tuner, &examples, &epoch_order(examples.len(), seed), &mut bell)?;
            }
            let (loss, left_out) = last;
            Ok((Round { loss, steps, left_out }, Learned::of(tuner)?))
        })?;
        *self.learned.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(learned);
        Ok(round)
    }

    fn learned(&self) -> Arc<Learned> {
        self.learned.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks up an example's labels.
    fn known<'e>(&self, number: usize, example: &'e Example) -> Result<Known<'e>, ElectretError> {
        let find = |name: &String| {
            let index = self.lesson.labels.iter().position(|label| label == name);
            index.map(|index| index as u16).ok_or_else(|| {
                let labels = self.lesson.labels.join(", ");
                ElectretError::argument(
                    &format!("examples[{number}].label"),
                    format!("{name} is none of {labels}"),
                )
            })
        };
        let tags = match &example.truth {
            Truth::Label { label } => vec![find(label)?],
            Truth::Tags { tags } => tags.iter().map(find).collect::<Result<_, _>>()?,
            _ => Vec::new(),
        };
        let input = Input { text: &example.text, pair: example.pair.as_deref(), truncate: true };
        Ok(Known { number, input, truth: &example.truth, tags })
    }

    /// Learns every example once: the mean loss, and how many taught nothing.
    fn epoch(
        &self,
        tuner: &mut tune::Tuner<'_, '_>,
        examples: &[Known<'_>],
        order: &[usize],
        bell: &mut Bell<'_>,
    ) -> Result<(f32, u32), ElectretError> {
        let (mut sum, mut learned, mut left_out) = (0.0, 0u32, 0);
        for batch in order.chunks(self.lesson.batch_size as usize) {
            let (mut batch_sum, mut batch_learned) = (0.0, 0u32);
            for example in batch.iter().filter_map(|&index| examples.get(index)) {
                match tuner.learn(example.input, example.target()) {
                    Ok(loss) => {
                        batch_sum += f64::from(loss);
                        batch_learned += 1;
                    }
                    Err(Error::EmptyText | Error::SpanOutsideContext | Error::NotFinite) => left_out += 1,
                    Err(error) => {
                        let field = format!("examples[{}]", example.number);
                        return Err(ElectretError::argument(&field, error.to_string()));
                    }
                }
            }
            let step = tuner.step();
            if step == Step::Skipped {
                log::warn!("a step whose gradient is not finite was left out");
            }
            sum += batch_sum;
            learned += batch_learned;
            bell.ring((batch_sum / f64::from(batch_learned.max(1))) as f32)?;
        }
        if learned == 0 {
            return Err(ElectretError::argument("examples", "none of them taught anything"));
        }
        Ok(((sum / f64::from(learned)) as f32, left_out))
    }

    /// Hands over the core's tuner in an arena of its own, as before the first step.
    fn at_work<R>(
        &self,
        schedule: Settings,
        work: impl FnOnce(&mut tune::Tuner<'_, '_>) -> Result<R, ElectretError>,
    ) -> Result<R, ElectretError> {
        self.model.check()?;
        let Self { lesson, kind, strategy, .. } = self;
        let names: Vec<&str> = lesson.labels.iter().map(String::as_str).collect();
        let mut task = Task::of(*kind, &names);
        task.class_weights = &lesson.class_weights;
        let model = self.model.view();
        let tokens = tune::lesson_tokens(&model, lesson.tokens)?;
        check_labels(&model, *kind, task.labels.len(), strategy.head)?;
        let plan = computer_plan(&model, *kind, *strategy, task.labels.len(), tokens);
        let mut arena = AlignedBytes::zeroed(plan.bytes());
        let settings = Settings {
            learning_rate: lesson.learning_rate,
            weight_decay: lesson.weight_decay,
            seed: lesson.seed,
            ..schedule
        };
        let done = work(&mut tune::Tuner::with(
            model,
            arena.as_mut_slice(),
            plan,
            task,
            settings,
            kernels::best(),
        )?)?;
        self.model.check()?;
        Ok(done)
    }
}
