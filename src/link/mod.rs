//! How a host talks to a board: framed, checksummed requests and answers over any serial line.
//!
//! A [`Request`] has a number and a [`Command`]; every [`Reply`] to it carries that number. A command is answered
//! by any number of replies and closed by [`Answer::Done`], [`Answer::Refused`] or [`Answer::Failed`]. Whoever hears nothing asks
//! again under the same number: a board does not learn twice from one request.
//!
//! Messages are `postcard`, and around each is a frame ([`Frames`], [`write()`]): COBS, so that a zero byte ends a frame and
//! stands nowhere else, with a CRC-32C. A damaged frame is dropped and counted; the next zero byte is firm
//! ground again. Nothing here allocates.

mod frame;

pub use crate::weights::checksum;
pub use frame::{FRAME, Frames, MESSAGE, write};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Version of the protocol; both sides say theirs, and a host refuses another. Variants cross the line by their number, those
/// of [`Error`] too: a new one goes to the end, or the version rises.
pub const VERSION: u16 = 3;

/// What a host asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request<'a> {
    /// Comes back with each reply.
    pub number: u16,
    /// What to do.
    #[serde(borrow)]
    pub command: Command<'a>,
}

/// What a board can do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command<'a> {
    /// Who is there? [`Answer::Board`].
    Info,
    /// What memory has it, how much is planned, how deep was the stack? [`Answer::Figure`]s in bytes.
    Plan,
    /// Does the model give the logits that it was shipped with? One [`Answer::Figure`] a sentence, 1 if so.
    SelfTest,
    /// How long does a sequence of that many tokens take? [`Answer::Figure`] in microseconds.
    Bench {
        /// Tokens, special ones included.
        tokens: u16,
    },
    /// Logit of each token to be a replacement: [`Answer::Token`]s.
    Detect(&'a str),
    /// Probability of each label of a text, whose end is dropped where it is too long: [`Answer::Label`]s.
    Classify(&'a str),
    /// Label and its logit for each word: [`Answer::Word`]s.
    Tag(&'a str),
    /// Begins a lesson. It goes on from the last commit of a lesson of the same kind, labels and strategy, if that was
    /// the last commit; what was not committed is forgotten.
    Teach {
        /// What is to be learned.
        lesson: Lesson,
        /// Names of the labels, a line each.
        labels: &'a str,
        /// As [`Strategy::parse`](crate::Strategy::parse) reads it.
        strategy: &'a str,
        /// Largest learning rate.
        learning_rate: f32,
    },
    /// Learns from one example: [`Answer::Loss`].
    Learn {
        /// The text, whose end is dropped where it is too long.
        text: &'a str,
        /// What is true of it.
        truth: Truth<'a>,
    },
    /// Applies what was learned from the examples since the last step.
    Step,
    /// Keeps what was learned as adapter of that number, which answers from now on. The lesson goes on.
    Commit {
        /// Below [`Place::ADAPTERS`](crate::tune::store::Place::ADAPTERS).
        adapter: u8,
    },
    /// Ends the lesson and forgets what was not committed.
    Rollback,
    /// Which adapters are there? [`Answer::Figure`]s in bytes, and which is active.
    Adapters,
    /// Lets an adapter answer, or the model alone. A lesson ends as by [`Command::Rollback`].
    Activate(Option<u8>),
    /// Which slot runs, and how large is the other? [`Answer::Figure`]s.
    Slots,
    /// CRC-32C of the first bytes of the slot that does not run: [`Answer::Figure`].
    Checksum {
        /// How many bytes.
        bytes: u32,
    },
    /// Writes into the slot that does not run, in order of offsets.
    Write {
        /// First byte.
        offset: u32,
        /// What goes there.
        data: &'a [u8],
    },
    /// Takes what was written, if it is what it says it is.
    Install {
        /// As what.
        kind: Install,
        /// Its bytes.
        bytes: u32,
        /// CRC-32C of them.
        crc: u32,
        /// Ed25519 signature of them, 64 bytes; empty if there is none.
        signature: &'a [u8],
    },
}

/// What a board can learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lesson {
    /// Which of the labels has a text? [`Command::Classify`] answers.
    Classify,
    /// Which of the labels has each word? [`Command::Tag`] answers.
    Tag,
}

/// What an example says, by the numbers of labels in the order in which they were named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Truth<'a> {
    /// The text's label.
    Class(u16),
    /// The label of each word; words are what whitespace separates.
    Tags(&'a [u8]),
}

/// What an update becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Install {
    /// The model that runs from now on. The board starts anew with it.
    Model,
    /// An adapter, kept under that number; it answers if that number is active.
    Adapter(u8),
}

/// One answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply<'a> {
    /// The request's.
    pub number: u16,
    /// What the board says.
    #[serde(borrow)]
    pub answer: Answer<'a>,
}

/// What a board says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer<'a> {
    /// Who is there.
    Board(#[serde(borrow)] About<'a>),
    /// A token of the text.
    Token {
        /// First byte.
        start: u32,
        /// One past the last byte.
        end: u32,
        /// Its logit.
        logit: f32,
    },
    /// A label of the text.
    Label {
        /// Its name.
        name: &'a str,
        /// Its probability.
        score: f32,
    },
    /// A word of the text.
    Word {
        /// First byte.
        start: u32,
        /// One past the last byte.
        end: u32,
        /// Its likeliest label.
        label: &'a str,
        /// That label's logit.
        logit: f32,
    },
    /// The loss of an example in nats.
    Loss(f32),
    /// A number and what it means.
    Figure {
        /// What.
        name: &'a str,
        /// How many.
        value: u64,
    },
    /// All was said and done.
    Done {
        /// How many answers came before, so that a host that has missed one asks again.
        replies: u16,
    },
    /// It was not done: the core refused.
    Refused(#[serde(borrow)] Error<&'a str>),
    /// It was not done, and why.
    Failed(&'a str),
}

/// Who is there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct About<'a> {
    /// [`VERSION`].
    pub protocol: u16,
    /// The board's name.
    pub board: &'a str,
    /// The firmware's version.
    pub firmware: &'a str,
    /// The model's name; empty if there is none.
    pub model: &'a str,
    /// The kernel set.
    pub kernels: &'a str,
    /// Longest sequence in tokens.
    pub tokens: u16,
    /// The active adapter; none if it was learned on another model.
    pub adapter: Option<u8>,
    /// The slot that runs.
    pub slot: u8,
}
