//! What an app is told.

use crate::{Error, ErrorKind};

/// Why something was refused, in the words of the command. In Kotlin an `ElectretException`, in Swift and Python
/// an `ElectretError`, with a subclass or case for each variant.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Error), uniffi(flat_error))]
pub enum ElectretError {
    /// A file or folder cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// What the operating system says.
        reason: String,
    },
    /// A model file was written to while it was open.
    #[error("{path}: the file was changed while it was open; replace it by renaming, and open it again")]
    Changed {
        /// Which.
        path: String,
    },
    /// The model file is unusable.
    #[error("{0}")]
    Model(Error),
    /// The text cannot be worked on.
    #[error("{0}")]
    Text(Error),
    /// The model has no such head.
    #[error("{0}")]
    NoSuchHead(Error),
    /// The adapter or the learner's state is unusable, or belongs to another model.
    #[error("{0}")]
    Adapter(Error),
    /// What is to be learned, or how, contradicts itself or the model.
    #[error("{0}")]
    Lesson(Error),
    /// A part of a lesson or an example that has no meaning.
    #[error("{field}: {reason}")]
    Argument {
        /// Which.
        field: String,
        /// What it is and what it must be.
        reason: String,
    },
    /// A disk failed or is full.
    #[error("{0}")]
    Store(Error),
    /// The tuner is learning already.
    #[error("the tuner is learning already; wait for that round, or cancel it")]
    Busy,
    /// The round was cancelled; nothing was learned from it.
    #[error("the round was cancelled; what was learned before it is as it was")]
    Cancelled,
}

impl From<Error> for ElectretError {
    fn from(error: Error) -> Self {
        Self::of(error.kind(), error)
    }
}

impl ElectretError {
    fn of(kind: ErrorKind, error: Error) -> Self {
        match kind {
            ErrorKind::Model | ErrorKind::Memory => Self::Model(error),
            ErrorKind::Text => Self::Text(error),
            ErrorKind::NoSuchHead => Self::NoSuchHead(error),
            ErrorKind::Adapter => Self::Adapter(error),
            ErrorKind::Lesson => Self::Lesson(error),
            ErrorKind::Store => Self::Store(error),
        }
    }

    /// What is wrong with an adapter or a learner's state.
    pub(super) fn adapter(error: Error) -> Self {
        Self::of(error.kind().of_adapter(), error)
    }

    pub(super) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), reason: error.to_string() }
    }

    pub(super) fn argument(field: &str, reason: impl Into<String>) -> Self {
        Self::Argument { field: field.to_owned(), reason: reason.into() }
    }
}
