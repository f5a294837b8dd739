//! The C ABI: `boards/c/electret.h` is generated from this folder, and `boards/c` is the library to link.
//!
//! Two ways to the same bits. An app takes `electret_model` and `electret_tuner`, which own their memory
//! ([`crate::app`], feature `app`). Firmware takes `electret_session` and `electret_learner`, which live in memory
//! that the caller provides, and need no allocator, operating system or clean-up.
//!
//! What holds for every function:
//! - It returns a [`Status`], and writes what was wrong into `error` unless that is NULL. On an error nothing else is
//!   written, but where an answer does not fit ([`Status::Room`]), then `count` is how many values it has, and those that
//!   there is room for may be there; and but for the memory that a session or a learner was to begin in.
//! - A text is UTF-8, given by its first byte and its length, which may be [`NUL_TERMINATED`]. Other pointers are NULL
//!   or point to as many values as is said; NULL is refused unless the function says otherwise. A pointer that is
//!   neither cannot be told from a good one.
//! - Offsets are bytes of the caller's text.
//! - Models and tuners are numbers, not pointers: one that was destroyed is refused ([`Status::Handle`]), from any
//!   thread at any time. They may be used from many threads at once; a session or learner by one thread at a time.
#![expect(clippy::missing_safety_doc, reason = "what pointers must be is said once, above")]

mod answers;
#[cfg(feature = "app")]
mod handles;
mod learner;
#[cfg(feature = "app")]
mod model;
mod refusal;
mod session;
#[cfg(feature = "app")]
mod tuner;
mod value;

pub use learner::*;
#[cfg(feature = "app")]
pub use model::*;
pub use refusal::{Failure, Status};
pub use session::*;
#[cfg(feature = "app")]
pub use tuner::*;
pub use value::*;
