//! How a function says no.

use core::ffi::c_char;
use core::fmt::{self, Write};

use crate::{Error, ErrorKind};

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// A file or folder cannot be read or written.
    File = 1,
    /// A model file was written to while it was open.
    Changed = 2,
    /// The model file is unusable.
    Model = 3,
    /// A text is empty, too long, or not UTF-8.
    Text = 4,
    /// The model has no such head.
    NoSuchHead = 5,
    /// The adapter or the learner's state is unusable, or belongs to another model.
    Adapter = 6,
    /// What is to be learned, or how, contradicts itself or the model.
    Lesson = 7,
    /// An argument has no meaning, or is NULL.
    Argument = 8,
    /// A disk failed or is full.
    Store = 9,
    /// The tuner is learning already.
    Busy = 10,
    /// The round was cancelled.
    Cancelled = 11,
    /// The memory is too small or misaligned.
    Memory = 12,
    /// The model or tuner was destroyed, or never was.
    Handle = 13,
    /// The answer has more values than there is room for; `count` says how many.
    Room = 14,
}

/// Bytes of a message, the last one NUL.
pub const MESSAGE_BYTES: usize = 256;

/// What was wrong, in a sentence that a user can act on.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Failure {
    /// Which kind.
    pub status: Status,
    /// UTF-8, ended by NUL; a longer message loses its end.
    pub message: [c_char; MESSAGE_BYTES],
}

/// Why a call is refused.
pub(super) enum Refusal {
    Core(Error),
    /// What is wrong with an adapter or a learner's state.
    Adapter(Error),
    Null(&'static str),
    NotUtf8 {
        field: &'static str,
        valid: usize,
    },
    Argument {
        field: &'static str,
        reason: &'static str,
    },
    Room {
        needed: usize,
        capacity: usize,
    },
    #[cfg(feature = "app")]
    Destroyed(&'static str),
    #[cfg(feature = "app")]
    App(crate::app::ElectretError),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

#[cfg(feature = "app")]
impl From<crate::app::ElectretError> for Refusal {
    fn from(error: crate::app::ElectretError) -> Self {
        Self::App(error)
    }
}

impl From<ErrorKind> for Status {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Model => Self::Model,
            ErrorKind::Text => Self::Text,
            ErrorKind::NoSuchHead => Self::NoSuchHead,
            ErrorKind::Adapter => Self::Adapter,
            ErrorKind::Lesson => Self::Lesson,
            ErrorKind::Store => Self::Store,
            ErrorKind::Memory => Self::Memory,
        }
    }
}

impl Refusal {
    fn status(&self) -> Status {
        match self {
            Self::Core(error) => error.kind().into(),
            Self::Adapter(error) => error.kind().of_adapter().into(),
            Self::NotUtf8 { .. } => Status::Text,
            Self::Null(_) | Self::Argument { .. } => Status::Argument,
            Self::Room { .. } => Status::Room,
            #[cfg(feature = "app")]
            Self::Destroyed(_) => Status::Handle,
            #[cfg(feature = "app")]
            Self::App(error) => {
                use crate::app::ElectretError as App;
                match error {
                    App::File { .. } => Status::File,
                    App::Changed { .. } => Status::Changed,
                    App::Argument { .. } => Status::Argument,
                    App::Busy => Status::Busy,
                    App::Cancelled => Status::Cancelled,
                    App::Adapter(_) => Status::Adapter,
                    App::Model(error)
                    | App::Text(error)
                    | App::NoSuchHead(error)
                    | App::Lesson(error)
                    | App::Store(error) => error.kind().into(),
                }
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(error) | Self::Adapter(error) => error.fmt(f),
            Self::Null(field) => write!(f, "{field}: must not be NULL"),
            Self::NotUtf8 { field, valid } => write!(f, "{field}: not UTF-8 after byte {valid}; convert it"),
            Self::Argument { field, reason } => write!(f, "{field}: {reason}"),
            Self::Room { needed, capacity } => {
                write!(f, "capacity: the answer has {needed} values, there is room for {capacity}")
            }
            #[cfg(feature = "app")]
            Self::Destroyed(what) => write!(f, "{what}: was destroyed, or never opened"),
            #[cfg(feature = "app")]
            Self::App(error) => error.fmt(f),
        }
    }
}

/// Runs `work` and says how it went.
pub(super) unsafe fn answer(error: *mut Failure, work: impl FnOnce() -> Result<(), Refusal>) -> Status {
    let Err(refusal) = work() else { return Status::Ok };
    let status = refusal.status();
    // SAFETY: the caller gives NULL or a place for a failure.
    if let Some(error) = unsafe { error.as_mut() } {
        error.status = status;
        let mut message = Message { bytes: &mut error.message, length: 0 };
        // A message that does not fit has lost its end, which is all that this can say.
        let _ = write!(message, "{refusal}");
        message.end();
    }
    status
}

/// A message being written, cut off between two characters.
struct Message<'m> {
    bytes: &'m mut [c_char; MESSAGE_BYTES],
    length: usize,
}

impl Message<'_> {
    fn end(self) {
        if let Some(end) = self.bytes.get_mut(self.length) {
            *end = 0;
        }
    }
}

impl Write for Message<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MESSAGE_BYTES - 1 - self.length;
        let kept = text.floor_char_boundary(room);
        let place = self.bytes.iter_mut().skip(self.length);
        for (place, byte) in place.zip(text.bytes().take(kept)) {
            *place = byte as c_char;
        }
        self.length += kept;
        if kept == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
