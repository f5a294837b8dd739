//! Weights from elsewhere: folders with Hugging Face's names or Google's, and ONNX files, all as tensors by Hugging Face's
//! names.

mod checkpoint;
mod error;
mod hugging_face;
#[cfg(feature = "onnx")]
mod onnx;
mod random;
mod tensorflow;
mod tensors;
mod vocabulary;

pub use checkpoint::{Checkpoint, HeadTensors, POSITIONS, WORDS};
pub use error::ImportError;
pub use hugging_face::write_peft;
#[cfg(feature = "onnx")]
pub use onnx::Agreement;
pub use tensors::Tensors;
pub use vocabulary::{read_vocabulary, write_vocabulary};

use std::io::Write;
use std::path::Path;

use crate::tune::store::replace_file;

/// Writes a file so that a reader sees the old one or the new one, never half of it ([`replace_file`]).
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    replace_file(path, |file| file.write_all(bytes))
}
