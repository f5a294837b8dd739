//! What several tests share.
#![allow(dead_code, reason = "each test file uses some of it")]

pub mod golden;
#[cfg(all(feature = "train", feature = "cli"))]
pub mod training;

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

/// What the f32 reference answers to a few texts, for `tests/pytorch/exported.py` to compare with.
#[cfg(feature = "train")]
pub fn write_logits(checkpoint: &electret::import::Checkpoint, folder: &std::path::Path) {
    use electret::evaluate::{Reader, ReferenceReader, TextReader};
    use electret::import::Tensors;

    let texts = ["The cat sees a ball.", "Où est l'école? She asked again!", "an apple"];
    let (kind, tokens) = (checkpoint.heads[0].kind, checkpoint.config.max_position_embeddings);
    let (mut text_reader, mut reader) =
        (TextReader::new(checkpoint, tokens), ReferenceReader::new(checkpoint, tokens));
    let mut expected = Tensors::default();
    for (index, text) in texts.into_iter().enumerate() {
        let ids: Vec<f32> = text_reader.tokens(text.into()).unwrap().iter().map(|t| t.id as f32).collect();
        let logits = reader.read(kind, text.into()).unwrap().logits.to_vec();
        expected.insert(&format!("{index}.logits"), &[logits.len()], logits);
        expected.insert(&format!("{index}.ids"), &[ids.len()], ids);
    }
    expected.write(&folder.join("expected.safetensors")).unwrap();
    std::fs::write(folder.join("expected.txt"), texts.join("\n") + "\n").unwrap();
}
