//! Everything that can go wrong in the core, said so that a user can act on it.

use core::fmt;

/// Why the core refused. The core never panics: any input gives a result or one of these.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
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
    /// A later format than this build reads.
    UnsupportedVersion(u32),
    /// The header's checksum does not match.
    HeaderDamaged,
    /// The payload's checksum does not match.
    PayloadDamaged,
    /// The payload is no valid archive.
    InvalidArchive,
    /// A part of the model contradicts its config.
    InvalidModel {
        /// The field or tensor.
        field: &'static str,
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
    NoSuchHead(&'static str),
    /// A weight or an input led to a value that is no number.
    NotFinite,
    /// The text holds no token to work on.
    EmptyText,
}

impl fmt::Display for Error {
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
            Self::UnsupportedVersion(version) => write!(
                f,
                "version: the file has format {version}, this build reads up to {}; update electret",
                crate::weights::FORMAT_VERSION
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
            Self::NotFinite => f.write_str("the model's output is not finite; its weights are damaged"),
            Self::EmptyText => f.write_str("the text is empty: there is no token to work on"),
        }
    }
}

impl core::error::Error for Error {}
