//! The firmware of every board: a model in flash that answers and learns over a serial line.
//!
//! A board hands over what is its own: a serial line, a flash for what is learned, slots for models, three
//! buffers and a few functions ([`Board`]). [`Board::serve`] does the rest: it opens the model of the slot that
//! was chosen, and answers one [`Request`] after another. Nothing here allocates, and no
//! request makes it panic: what cannot be done is answered with why.

#![no_std]
#![deny(missing_docs)]

#[forbid(unsafe_code)]
mod answers;
pub mod flash;
#[cfg(feature = "hardware")]
pub mod hardware;
#[forbid(unsafe_code)]
mod lesson;
#[forbid(unsafe_code)]
mod line;
#[forbid(unsafe_code)]
pub mod nor;
#[cfg(feature = "hardware")]
#[forbid(unsafe_code)]
mod patient;
#[cfg(feature = "qemu")]
pub mod qemu;
#[cfg(feature = "stack")]
mod stack;
#[cfg(all(target_arch = "arm", any(feature = "hardware", feature = "qemu")))]
mod ticks;
#[forbid(unsafe_code)]
mod update;

#[cfg(feature = "stack")]
pub use stack::painted_stack;
pub use update::{Key, NoSlots, Slots};

use electret::kernels;
use electret::link::{About, Answer, Command, Request, VERSION};
use electret::tune::store::{Place, Store};
use electret::{Adapter, Error, Tuner};
use embedded_io::{Read, Write};

use answers::Running;
use lesson::{Lesson, Pupil};
use line::{Line, Refusal, Reply};

/// What a board gives to the firmware.
pub struct Board<'b, S, P, M> {
    /// What it is called.
    pub name: &'static str,
    /// The serial line. Its `read` sleeps until there is a byte, and gives 0 bytes when the line is closed.
    pub serial: S,
    /// Where adapters and choices are kept.
    pub store: P,
    /// Where models lie.
    pub slots: M,
    /// Memory to answer in: [`electret::Plan::inference`] of the longest sequence that it should take,
    /// [unpacking](electret::Plan::unpacking) if the model may be int4; with less, an int4 model takes shorter ones.
    pub answering: &'b mut [u8],
    /// Memory to learn in: [`TuningPlan`](electret::TuningPlan); none on a board that only answers.
    pub learning: &'b mut [u8],
    /// Memory for the adapter that answers.
    pub adapter: &'b mut [u8],
    /// Public key of those whose updates are taken; `None` takes everybody's.
    pub key: Option<Key>,
    /// Microseconds since some moment.
    pub clock: fn() -> u64,
    /// Feeds the watchdog; called between the blocks of rows of a sentence, and before a slot is looked through.
    pub pulse: fn(),
    /// How much of the stack was used so far.
    pub stack: fn() -> Stack,
}

/// What a stack has, and what was needed of it.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// Bytes in use when it was deepest.
    pub deepest: u32,
    /// Bytes at hand, if that is known.
    pub room: Option<u32>,
}

/// Public key of those whose updates are taken, if the build's environment names one in `ELECTRET_PUBLIC_KEY`; that
/// needs the feature `signatures`. One that is none does not build.
pub const KEY: Option<Key> = {
    let key = option_env!("ELECTRET_PUBLIC_KEY");
    #[cfg(feature = "signatures")]
    let key = key_from_hex(key);
    #[cfg(not(feature = "signatures"))]
    let key = {
        assert!(
            key.is_none(),
            "a key is there, and nothing to check signatures with: add the feature `signatures`"
        );
        None
    };
    key
};

/// A key from 64 hexadecimal digits.
#[cfg(feature = "signatures")]
const fn key_from_hex(text: Option<&str>) -> Option<[u8; 32]> {
    let Some(text) = text else { return None };
    let text = text.as_bytes();
    assert!(text.len() == 64, "a public key has 64 hexadecimal digits");
    let mut key = [0; 32];
    let mut at = 0;
    while at < 64 {
        let digit = match text[at] {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            _ => panic!("a public key is written with 0 to 9 and a to f"),
        };
        key[at / 2] = key[at / 2] << 4 | digit;
        at += 1;
    }
    Some(key)
}

/// Why [`Board::serve`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another model was installed: serve again.
    Installed,
    /// The line is closed.
    Closed,
}

/// What ends a run of requests that share a tuner.
#[expect(
    clippy::large_enum_variant,
    reason = "there is no allocator to box a lesson with, and one lesson at a time"
)]
enum Next {
    End(Outcome),
    Teach(u16, Lesson),
    Forget,
}

impl<S: Read + Write, P: Store, M: Slots> Board<'_, S, P, M> {
    /// Answers requests until another model is installed or the line is closed.
    ///
    /// # Errors
    /// Those of the line.
    pub fn serve(&mut self) -> Result<Outcome, S::Error> {
        let learning = core::mem::take(&mut self.learning);
        let outcome = self.lessons(learning);
        self.learning = learning;
        outcome
    }

    /// Serves with a tuner in `learning` from a request to teach until the next, or until it is to forget.
    fn lessons(&mut self, learning: &mut [u8]) -> Result<Outcome, S::Error> {
        let running = self.boot();
        let mut line = Line::default();
        let mut next = self.attend(&mut line, running, None)?;
        loop {
            next = match next {
                Next::End(outcome) => return Ok(outcome),
                Next::Forget => self.attend(&mut line, running, None)?,
                Next::Teach(number, lesson) => {
                    let names = lesson.names();
                    let tuner = running.map_err(Refusal::from).and_then(|running| {
                        let mut tuner = lesson.tuner(running, learning, &names)?;
                        // A checkpoint of another lesson is none of this one's.
                        let _ = self.store.resume(&mut tuner);
                        Ok(tuner.with_pulse(self.pulse))
                    });
                    let (mut tuner, result) = match tuner {
                        Ok(tuner) => (Some(tuner), Ok(())),
                        Err(refusal) => (None, Err(refusal)),
                    };
                    Reply::new(&mut self.serial, number).close(result)?;
                    self.attend(&mut line, running, tuner.as_mut())?
                }
            };
        }
    }

    /// Opens the model of the chosen slot. Without a key the other one will do if that does not open; with one it will
    /// not, since what lies there may never have been installed.
    fn boot(&mut self) -> Result<Running, Error> {
        let open = |slot| {
            (self.pulse)();
            Running::open(slot, self.slots.read(slot), self.answering.len())
        };
        let chosen = self.store.slot().map(|slot| slot.unwrap_or(0));
        if self.key.is_some() {
            return open(chosen?);
        }
        let chosen = chosen.unwrap_or(0);
        open(chosen).or_else(|error| open(other(chosen)).map_err(|_| error))
    }

    /// Answers requests, with what the tuner has learned if there is one.
    fn attend(
        &mut self,
        line: &mut Line,
        running: Result<Running, Error>,
        tuner: Option<&mut Tuner<'_, '_>>,
    ) -> Result<Next, S::Error> {
        let mut pupil = Pupil::new(tuner);
        loop {
            let Some(length) = line.receive(&mut self.serial)? else { return Ok(Next::End(Outcome::Closed)) };
            let Some(Request { number, command }) = line.request(length) else { continue };
            let mut reply = Reply::new(&mut self.serial, number);
            let mut end = None;
            let result = match command {
                Command::Info => {
                    let adapter = active(&mut self.store, running, self.adapter).ok().flatten();
                    reply.say(Answer::Board(about(self.name, running, adapter.map(|(number, _)| number))));
                    Ok(())
                }
                Command::Plan => {
                    let stack = (self.stack)();
                    for (name, bytes) in [
                        ("model", running.map_or(0, |running| running.model.bytes())),
                        ("answering, planned", running.map_or(0, |running| running.plan.bytes())),
                        ("answering, at hand", self.answering.len()),
                        ("learning, planned", pupil.bytes()),
                        ("adapter, at hand", self.adapter.len()),
                        ("stack, deepest", stack.deepest as usize),
                    ] {
                        reply.figure(name, bytes as u64);
                    }
                    stack.room.into_iter().for_each(|bytes| reply.figure("stack, at hand", bytes.into()));
                    Ok(())
                }
                Command::Teach { lesson, labels, strategy, learning_rate } => {
                    match Lesson::read(lesson, labels, strategy, learning_rate) {
                        Ok(lesson) => return Ok(Next::Teach(number, lesson)),
                        Err(refusal) => Err(refusal),
                    }
                }
                Command::Learn { .. } | Command::Step => pupil
                    .learn(number, command)
                    .map(|loss| loss.into_iter().for_each(|loss| reply.say(Answer::Loss(loss)))),
                Command::Commit { adapter } => pupil.commit(&mut self.store, adapter, self.adapter.len()),
                Command::Rollback => {
                    end = Some(Next::Forget);
                    Ok(())
                }
                Command::Adapters => adapters(&mut self.store, running, self.adapter, &mut reply),
                Command::Activate(adapter) => {
                    let activated = activate(&mut self.store, running, self.adapter, adapter);
                    // What a lesson has learned would go on answering.
                    end = activated.is_ok().then_some(Next::Forget);
                    activated
                }
                Command::Slots
                | Command::Checksum { .. }
                | Command::Write { .. }
                | Command::Install { .. } => {
                    let update = update::Update {
                        slots: &mut self.slots,
                        store: &mut self.store,
                        running: running.ok(),
                        adapter: self.adapter.len(),
                        key: self.key,
                        pulse: self.pulse,
                    };
                    update.handle(command, &mut reply).map(|installed| {
                        if installed {
                            end = Some(Next::End(Outcome::Installed));
                        }
                    })
                }
                _ => running.map_err(Refusal::from).and_then(|running| {
                    let adapter = match pupil.adapter() {
                        Some(adapter) => Some(adapter),
                        None => {
                            active(&mut self.store, Ok(running), self.adapter)?.map(|(_, adapter)| adapter)
                        }
                    };
                    let session = running.session(self.answering)?.with_pulse(self.pulse);
                    answers::answer(session.with_adapter(adapter)?, command, self.clock, &mut reply)
                }),
            };
            reply.close(result)?;
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }
}

fn about(board: &'static str, running: Result<Running, Error>, adapter: Option<u8>) -> About<'static> {
    About {
        protocol: VERSION,
        board,
        firmware: env!("CARGO_PKG_VERSION"),
        model: running.map_or("", |running| running.model.root().provenance.name.as_str()),
        kernels: kernels::best().name,
        tokens: running.map_or(0, |running| running.plan.tokens as u16),
        adapter,
        slot: running.map_or(0, |running| running.slot),
    }
}

/// The adapter that the store says is active, with its number. One that was learned on another model waits for that to
/// come back.
fn active<'b>(
    store: &mut impl Store,
    running: Result<Running, Error>,
    buffer: &'b mut [u8],
) -> Result<Option<(u8, Adapter<'b>)>, Error> {
    let Some(number) = store.active()? else { return Ok(None) };
    match store.adapter(number, &running?.model, buffer) {
        Ok(adapter) => Ok(adapter.map(|adapter| (number, adapter))),
        Err(Error::ForeignAdapter { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The slot beside that one.
fn other(slot: u8) -> u8 {
    u8::from(slot == 0)
}

/// What the figures of [`Command::Adapters`] are called. Written out, since nothing else here needs formatting.
const ADAPTERS: [&str; Place::ADAPTERS as usize] = [
    "adapter 0",
    "adapter 1",
    "adapter 2",
    "adapter 3",
    "adapter 4",
    "adapter 5",
    "adapter 6",
    "adapter 7",
    "adapter 8",
    "adapter 9",
    "adapter 10",
    "adapter 11",
    "adapter 12",
];

/// Says which adapters there are, and which of them answers.
fn adapters<S: Write>(
    store: &mut impl Store,
    running: Result<Running, Error>,
    buffer: &mut [u8],
    reply: &mut Reply<'_, S>,
) -> Result<(), Refusal> {
    for number in 0..Place::ADAPTERS {
        let mut bytes = 0;
        if store.get(Place::Adapter(number), &mut |piece| {
            bytes += piece.len() as u64;
            Ok(())
        })? {
            reply.figure(ADAPTERS.get(usize::from(number)).copied().unwrap_or_default(), bytes);
        }
    }
    if let Ok(Some((number, _))) = active(store, running, buffer) {
        reply.figure("active", number.into());
    }
    Ok(())
}

/// Lets an adapter answer, if it is there and the model's own.
fn activate(
    store: &mut impl Store,
    running: Result<Running, Error>,
    buffer: &mut [u8],
    number: Option<u8>,
) -> Result<(), Refusal> {
    if let Some(number) = number
        && store.adapter(number, &running?.model, buffer)?.is_none()
    {
        return Err(Refusal::Because("there is no adapter of that number"));
    }
    Ok(store.activate(number)?)
}
