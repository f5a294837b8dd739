//! What several tests share.
#![allow(dead_code, reason = "each test file uses some of it")]

pub mod golden;

use std::path::PathBuf;

/// Whether all values agree within `tolerance`.
#[track_caller]
pub fn assert_close<'a>(
    found: impl ExactSizeIterator<Item = &'a f32>,
    expected: impl ExactSizeIterator<Item = &'a f32>,
    tolerance: f32,
) {
    assert_eq!(found.len(), expected.len());
    let worst = found.zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "largest difference {worst:e}, allowed {tolerance:e}");
}

/// A file or folder of the corpora, tasks and real weights that are not in the repository:
/// `$ELECTRET_SHARED/…`. Says plainly what is skipped without it.
pub fn shared(path: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("ELECTRET_SHARED") else {
        println!("SKIPPED: set ELECTRET_SHARED to the folder that holds {path} to run this test");
        return None;
    };
    let path = PathBuf::from(root).join(path);
    assert!(path.exists(), "ELECTRET_SHARED is set, but {} is not there", path.display());
    Some(path)
}

/// `models/electret-tiny.electret`, where a model may lie.
pub fn shipped_model() -> electret::weights::AlignedBytes {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/electret-tiny.electret");
    electret::weights::AlignedBytes::copy_of(&std::fs::read(path).unwrap())
}
