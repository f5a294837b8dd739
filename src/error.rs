//! Everything that can go wrong in the core, said so that a user can act on it.

use core::fmt;

/// Why the core refused. The core never panics: any input gives a result or one of these.
///
/// `S` is how fields are named: a `&'static str` where the error arises, a part of the message where it came
/// over a line (the feature `link`).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "link", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Error<S = &'static str> {
    /// A model buffer does not start at a multiple of 64 bytes.
    ModelMisaligned,
    /// The bytes end before the file does.
    FileTruncated {
        /// Bytes that the header promises, or 64 for the header itself.
        expected: u64,
        /// Bytes at hand.
        found: u64,
    },
    /// The first eight bytes are not those of an `.electret` file.
    NotAnElectretFile,
    /// The file was written with the other byte order.
    WrongByteOrder,
    /// Another format than this build reads.
    UnsupportedVersion {
        /// The file's.
        found: u32,
        /// The one that this build reads.
        read: u32,
    },
    /// The header's checksum does not match.
    HeaderDamaged,
    /// The payload's checksum does not match.
    PayloadDamaged,
    /// The payload is no valid archive.
    InvalidArchive,
    /// A part of the model contradicts its config.
    InvalidModel {
        /// The field or tensor.
        field: S,
        /// Layer or index, where there are several.
        index: usize,
    },
    /// A stream failed or ended while a model was read.
    ReadFailed,
    /// The buffer for a model is too small.
    ModelBufferTooSmall {
        /// Bytes of the file.
        needed: u64,
        /// Bytes of the buffer.
        found: usize,
    },
    /// The arena is smaller than the plan.
    ArenaTooSmall {
        /// Bytes of the plan.
        needed: usize,
        /// Bytes of the arena.
        found: usize,
    },
    /// The arena does not start at a multiple of 64 bytes.
    ArenaMisaligned,
    /// More tokens than the model has positions for, or than the session was planned for.
    SequenceTooLong {
        /// Tokens asked for, special tokens included.
        tokens: usize,
        /// Tokens possible.
        limit: usize,
    },
    /// A sequence needs room for its special tokens.
    SequenceTooShort,
    /// Texts are at most 4 GiB, as offsets are 32 bits.
    TextTooLong,
    /// The model lacks the head that was asked for.
    NoSuchHead(S),
    /// A weight, an input or a learning rate led to a value that is not finite.
    NotFinite,
    /// The text holds no token to work on.
    EmptyText,
    /// The first eight bytes are not those of an adapter.
    NotAnAdapter,
    /// The first eight bytes are not those of a tuner's state.
    NotATunerState,
    /// A part of an adapter contradicts its header or its model.
    InvalidAdapter {
        /// The field.
        field: S,
    },
    /// A tuner's state does not fit the tuner.
    InvalidTunerState {
        /// What differs.
        field: S,
    },
    /// The adapter, or the tuner's state, was learned on another model.
    ForeignAdapter {
        /// CRC-32C of the model that it was learned on.
        expected: u32,
        /// CRC-32C of the model at hand.
        found: u32,
    },
    /// A store has no room for the document; everything in it is as it was.
    StoreFull {
        /// Bytes that all documents would take.
        needed: usize,
        /// Bytes that they may take.
        capacity: usize,
    },
    /// A disk has no room for the document; the old one is as it was.
    DiskFull,
    /// Flash, or a file system, refused to read, write or erase; the log says how.
    StoreFailed,
    /// What a store holds is not what was written to it.
    StoreDamaged,
    /// A flash, or a range of it, that a store cannot use.
    FlashGeometry(S),
    /// The strategy trains nothing that the task can learn with.
    InvalidStrategy(S),
    /// A setting of the tuner is out of its range.
    InvalidSetting {
        /// The setting.
        field: S,
        /// What it must be.
        range: S,
    },
    /// A label that the task does not have.
    LabelOutOfRange {
        /// The label.
        label: usize,
        /// How many there are.
        labels: usize,
    },
    /// An example's target is of another kind than the task's.
    WrongTarget(S),
    /// As many labels are wanted as the text has words.
    LabelCount {
        /// Labels given.
        found: usize,
        /// Words of the text.
        words: usize,
    },
    /// The answer's bytes are not within the context, or were cut off.
    SpanOutsideContext,
}

/// What one can do about an [`Error`], for callers in other languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The model file is unusable; get it again.
    Model,
    /// The text cannot be worked on: empty, or too long.
    Text,
    /// The model has no such head.
    NoSuchHead,
    /// The adapter or the learner's state is unusable, or belongs to another model.
    Adapter,
    /// What is to be learned, or how, contradicts itself or the model.
    Lesson,
    /// A disk or flash failed or is full.
    Store,
    /// A buffer is too small or misaligned.
    Memory,
}

impl ErrorKind {
    /// The same of what was met in an adapter or a learner's state: a file that is cut short is no damaged model there.
    pub const fn of_adapter(self) -> Self {
        match self {
            Self::Model => Self::Adapter,
            kind => kind,
        }
    }
}

impl<S> Error<S> {
    /// What one can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::ModelMisaligned
            | Self::FileTruncated { .. }
            | Self::NotAnElectretFile
            | Self::WrongByteOrder
            | Self::UnsupportedVersion { .. }
            | Self::HeaderDamaged
            | Self::PayloadDamaged
            | Self::InvalidArchive
            | Self::InvalidModel { .. }
            | Self::ReadFailed
            | Self::NotFinite => ErrorKind::Model,
            Self::SequenceTooLong { .. } | Self::SequenceTooShort | Self::TextTooLong | Self::EmptyText => {
                ErrorKind::Text
            }
            Self::NoSuchHead(_) => ErrorKind::NoSuchHead,
            Self::NotAnAdapter
            | Self::NotATunerState
            | Self::InvalidAdapter { .. }
            | Self::InvalidTunerState { .. }
            | Self::ForeignAdapter { .. } => ErrorKind::Adapter,
            Self::InvalidStrategy(_)
            | Self::InvalidSetting { .. }
            | Self::LabelOutOfRange { .. }
            | Self::WrongTarget(_)
            | Self::LabelCount { .. }
            | Self::SpanOutsideContext => ErrorKind::Lesson,
            Self::StoreFull { .. }
            | Self::DiskFull
            | Self::StoreFailed
            | Self::StoreDamaged
            | Self::FlashGeometry(_) => ErrorKind::Store,
            Self::ModelBufferTooSmall { .. } | Self::ArenaTooSmall { .. } | Self::ArenaMisaligned => {
                ErrorKind::Memory
            }
        }
    }
}

impl<S: fmt::Display> fmt::Display for Error<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ModelMisaligned => f.write_str(
                "the model's bytes must start at a multiple of 64; place them with `Aligned` or map the file",
            ),
            Self::FileTruncated { expected, found } => {
                write!(
                    f,
                    "payload_length: the file should have {expected} bytes and has {found}; copy it again"
                )
            }
            Self::NotAnElectretFile => {
                f.write_str("magic: this is no .electret file; make one with `electret convert`")
            }
            Self::WrongByteOrder => f.write_str("version: the file has the other byte order"),
            Self::UnsupportedVersion { found, read } if found > read => {
                write!(f, "version: the file has format {found}, this build reads {read}; update electret")
            }
            Self::UnsupportedVersion { found, read } => write!(
                f,
                "version: the file has format {found}, which no release has written, this build reads {read}; \
                 make it again"
            ),
            Self::HeaderDamaged => f.write_str("header_crc: the header is damaged; copy the file again"),
            Self::PayloadDamaged => f.write_str("payload_crc: the file is damaged; copy it again"),
            Self::InvalidArchive => f.write_str(
                "payload: offsets or lengths point outside the file; it was not written by electret",
            ),
            Self::InvalidModel { field, index } => {
                write!(f, "{field} ({index}): contradicts the model's config")
            }
            Self::ReadFailed => f.write_str("the model could not be read to its end"),
            Self::ModelBufferTooSmall { needed, found } => {
                write!(f, "the model has {needed} bytes, the buffer {found}")
            }
            Self::ArenaTooSmall { needed, found } => write!(
                f,
                "the arena has {found} bytes where {needed} are needed; enlarge it or plan for fewer tokens"
            ),
            Self::ArenaMisaligned => {
                f.write_str("the arena must start at a multiple of 64 bytes; use `Arena`")
            }
            Self::SequenceTooLong { tokens, limit } => {
                write!(f, "the text has {tokens} tokens, at most {limit} fit; shorten it or allow truncation")
            }
            Self::SequenceTooShort => f.write_str("a sequence has at least 3 tokens (4 for a pair)"),
            Self::TextTooLong => f.write_str("the text is longer than 4 GiB"),
            Self::NoSuchHead(kind) => {
                write!(f, "the model has no {kind} head; `electret inspect` lists those it has")
            }
            Self::NotFinite => f.write_str("a value is not finite: the weights are damaged, or were learned at too high a rate"),
            Self::EmptyText => f.write_str("the text is empty: there is no token to work on"),
            Self::NotAnAdapter => {
                f.write_str("magic: this is no .adapter file; make one with `electret tune`")
            }
            Self::NotATunerState => f.write_str("magic: this is no tuner's state"),
            Self::InvalidAdapter { field } => {
                write!(f, "adapter.{field}: contradicts the adapter's header or the model's config")
            }
            Self::InvalidTunerState { field } => {
                write!(
                    f,
                    "the tuner's state has another {field} than this tuner; set it up as when it was saved"
                )
            }
            Self::ForeignAdapter { expected, found } => write!(
                f,
                "adapter.base: learned on the model {expected:08x}, this is {found:08x}; use that model or tune again"
            ),
            Self::StoreFull { needed, capacity } => write!(
                f,
                "the store has room for {capacity} bytes where {needed} are needed; remove an adapter or enlarge it"
            ),
            Self::DiskFull => f.write_str("the disk is full; the old document is still there, make room and try again"),
            Self::StoreFailed => {
                f.write_str("the store could not be read or written, perhaps a worn-out page; what it held is as it was")
            }
            Self::StoreDamaged => f.write_str(
                "the store holds something else than was written to it; erase it, and tune again or restore a copy",
            ),
            Self::FlashGeometry(why) => write!(f, "flash {why}"),
            Self::InvalidStrategy(why) => write!(f, "strategy: {why}"),
            Self::InvalidSetting { field, range } => write!(f, "settings.{field}: must be {range}"),
            Self::LabelOutOfRange { label, labels } => {
                write!(f, "label: {label} is none of the task's {labels}, which count from 0")
            }
            Self::WrongTarget(kind) => {
                write!(f, "target: the task is {kind}, which learns from another target")
            }
            Self::LabelCount { found, words } => {
                write!(f, "target: {found} labels for a text of {words} words; give one for each")
            }
            Self::SpanOutsideContext => f.write_str(
                "target: the answer is not within the tokens of the context; check its bytes or its length",
            ),
        }
    }
}

impl<S: fmt::Debug + fmt::Display> core::error::Error for Error<S> {}
