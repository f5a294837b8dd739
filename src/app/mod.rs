//! electret for an app: a [`Model`] that owns its memory and is asked from any thread, and a [`Tuner`] that learns in
//! rounds and keeps what it learned in a folder.
//!
//! What goes in and comes out are plain texts, labels by name, and places in the text both in UTF-8 bytes and in
//! UTF-16 units, as Kotlin, Swift and JavaScript count. The C ABI, the Kotlin, Swift and Python bindings and the web
//! page are thin shells over this module, and all of them give the bits that the `electret` command gives.
//!
//! - **Memory**: a model file is mapped, so that its pages are clean and shared. An arena is taken for each answer
//!   under way and kept for the next. A tuner has an arena only while it learns.
//! - **Threads**: both types may be shared. Answers run side by side; a tuner learns one round at a time and
//!   refuses a second one ([`ElectretError::Busy`]).
//! - **Errors**: every call gives a result or an [`ElectretError`] in the words of the command. What was refused or
//!   cancelled leaves no trace.
//!
//! ```
//! use electret::app::{Example, Lesson, Model, Truth, Tuner};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::open("models/electret-tiny.electret")?;
//! let suspects = model.detect("He opened the door and walked table the room.")?;
//! assert!(suspects.iter().any(|word| word.text == "table" && word.replaced > 0.5));
//!
//! let folder = std::env::temp_dir().join("electret-app");
//! # let _ = std::fs::remove_dir_all(&folder);
//! let folder = folder.to_str().ok_or("a path in UTF-8")?;
//! let labels = ["question", "statement"].map(String::from).to_vec();
//! let tuner = Tuner::in_folder(model.clone(), Lesson::classify(labels), folder)?;
//! let said = |text: &str, label: &str| Example::new(text, Truth::Label { label: label.to_owned() });
//! let examples =
//!     vec![said("where is the house?", "question"), said("the house is here.", "statement")];
//! tuner.learn(examples, 20)?;
//! tuner.save()?;
//!
//! // … and after the next start of the app:
//! let mine = model.with_adapter_of(folder)?.ok_or("nothing was learned yet")?;
//! assert_eq!(mine.classify("where is the dog?")?[0].label, "question");
//! # Ok(())
//! # }
//! ```

mod error;
mod model;
mod spans;
mod tuner;
#[cfg(feature = "wasm")]
#[allow(unsafe_code, reason = "what wasm-bindgen expands to")]
pub mod web;

pub use error::ElectretError;
pub use model::{Answer, Description, Detection, Model, Score, Tag};
pub use spans::Span;
pub use tuner::{Example, Lesson, Progress, Round, Truth, Tuner};
