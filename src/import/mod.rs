//! Weights from elsewhere: tensors by Hugging Face's names.

mod checkpoint;
mod error;
mod random;
mod tensors;
mod vocabulary;

pub use checkpoint::{Checkpoint, HeadTensors};
pub use error::ImportError;
pub use tensors::Tensors;
pub use vocabulary::read_vocabulary;

use std::io::Write;
use std::path::Path;

/// Writes a file beside its place, syncs it and renames it there: a reader sees the old file or
/// the new one, never half of it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_added_extension("part");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// Maps a file for reading.
pub fn map(file: &std::fs::File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: bytes are only ever read.
    unsafe { memmap2::Mmap::map(file) }
}
