//! A lesson: examples over the line, what they taught into the store.

use electret::link::{self, Command, Truth};
use electret::text::Input;
use electret::tune::store::{Place, Store};
use electret::tune::{Settings, Target, Task};
use electret::{Adapter, Document, Error, Strategy, Tuner, TuningPlan};
use heapless::{String, Vec};

use crate::answers::{Running, SHORTEST};
use crate::line::Refusal;

/// Most labels.
const LABELS: usize = 32;
/// Most words of a text that teaches tags: as many as have room in a message.
const WORDS: usize = link::MESSAGE / 2;

/// What is to be learned, and how.
pub struct Lesson {
    kind: link::Lesson,
    labels: String<512>,
    strategy: Strategy,
    learning_rate: f32,
}

impl Lesson {
    /// From a request to teach: labels a line each, a strategy as [`Strategy::parse`] reads it.
    pub fn read(
        kind: link::Lesson,
        labels: &str,
        strategy: &str,
        learning_rate: f32,
    ) -> Result<Self, Refusal> {
        let labels = String::try_from(labels).map_err(|_| Refusal::Because("labels: at most 512 bytes"))?;
        if labels.lines().count() > LABELS {
            return Err(Refusal::Because("labels: at most 32"));
        }
        let strategy = Strategy::parse(strategy).ok_or(Error::InvalidStrategy(Strategy::WANTED))?;
        Ok(Self { kind, labels, strategy, learning_rate })
    }

    pub fn names(&self) -> Vec<&str, LABELS> {
        self.labels.lines().take(LABELS).collect()
    }

    /// A tuner for it, for the longest sequence of the running model's plan that fits into the memory.
    pub fn tuner<'a>(
        &self,
        running: Running,
        memory: &'a mut [u8],
        names: &'a [&'a str],
    ) -> Result<Tuner<'a, 'a>, Refusal> {
        let config = running.model.config();
        let plan =
            |tokens| TuningPlan::new(config, tokens, self.strategy, names.len()).for_model(&running.model);
        let bytes = |tokens| plan(tokens).bytes();
        let tokens = (SHORTEST..=running.plan.tokens).rev().find(|&tokens| bytes(tokens) <= memory.len());
        let tokens = tokens.unwrap_or(SHORTEST);
        let settings = Settings { learning_rate: self.learning_rate, ..Settings::default() };
        let task = match self.kind {
            link::Lesson::Classify => Task::classify(names),
            link::Lesson::Tag => Task::tag(names),
        };
        Ok(Tuner::new(running.model, memory, tokens, task, self.strategy, settings)?)
    }
}

/// Whether an adapter has room where it will be read into: one that has not could never answer.
pub fn has_room(adapter: &Adapter<'_>, found: usize) -> Result<(), Error> {
    let needed = adapter.bytes();
    if needed <= found { Ok(()) } else { Err(Error::ArenaTooSmall { needed, found }) }
}

/// Whoever learns at the moment, if anybody does.
pub struct Pupil<'l, 'm, 'a> {
    tuner: Option<&'l mut Tuner<'m, 'a>>,
    /// The last request that taught something and the loss that was said to it, in case it comes again.
    told: Option<(u16, Option<f32>)>,
}

const NO_LESSON: Refusal = Refusal::Because("no lesson: teach first");

impl<'l, 'm, 'a> Pupil<'l, 'm, 'a> {
    pub fn new(tuner: Option<&'l mut Tuner<'m, 'a>>) -> Self {
        Self { tuner, told: None }
    }

    /// Learns from an example or takes a step, once a request: the loss, if there is one.
    pub fn learn(&mut self, number: u16, command: Command<'_>) -> Result<Option<f32>, Refusal> {
        if let Some((_, loss)) = self.told.filter(|&(last, _)| last == number) {
            return Ok(loss);
        }
        let tuner = self.tuner.as_mut().ok_or(NO_LESSON)?;
        let loss = match command {
            Command::Learn { text, truth } => {
                let input = Input { truncate: true, ..text.into() };
                let mut tags = Vec::<u16, WORDS>::new();
                let target = match truth {
                    Truth::Class(label) => Target::Class(label.into()),
                    Truth::Tags(labels) => {
                        // A message has no room for more.
                        tags.extend(labels.iter().take(WORDS).map(|&label| label.into()));
                        Target::Tags(&tags)
                    }
                };
                Some(tuner.learn(input, target)?)
            }
            _ => {
                tuner.step();
                None
            }
        };
        self.told = Some((number, loss));
        Ok(loss)
    }

    /// Keeps the tuner's state, then what it has learned, then the choice of it. Wherever that is cut short, the
    /// adapter of before answers, or the new one. `room` is what an adapter is read into afterwards.
    pub fn commit(&self, store: &mut impl Store, number: u8, room: usize) -> Result<(), Refusal> {
        let tuner = self.tuner.as_ref().ok_or(NO_LESSON)?;
        let adapter = tuner.adapter();
        has_room(&adapter, room)?;
        // A number that there is not is refused before the last checkpoint is replaced.
        Place::Adapter(number).index()?;
        store.checkpoint(tuner)?;
        store.save(number, &adapter)?;
        Ok(store.activate(Some(number))?)
    }

    /// What it has learned so far.
    pub fn adapter(&self) -> Option<Adapter<'_>> {
        self.tuner.as_ref().map(|tuner| tuner.adapter())
    }

    /// Bytes that it learns in.
    pub fn bytes(&self) -> usize {
        self.tuner.as_ref().map_or(0, |tuner| tuner.plan().bytes())
    }
}
