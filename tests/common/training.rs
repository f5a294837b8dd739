//! Runs of a few steps on a corpus of plain sentences.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use burn::backend::{Autodiff, Flex};
use electret::train::corpus::{BuildOptions, Corpus, build};
use electret::train::objective::Kind;
use electret::train::optimizer::Adam;
use electret::train::ranks::{Alone, Ranks};
use electret::train::run::Run;
use electret::train::trainer::Pace;

/// An empty folder of that name, which no other test uses.
pub fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A few hundred documents of plain sentences.
pub fn corpus(name: &str) -> PathBuf {
    let folder = folder(name);
    let subjects = ["The cat", "A dog", "My sister", "The old king", "Her teacher"];
    let verbs = ["sees", "finds", "carries", "likes", "paints"];
    let objects = ["a ball.", "the red house.", "two small boats.", "some bread.", "an apple!"];
    let mut text = String::new();
    for document in 0..400 {
        for sentence in 0..4 {
            let pick = |of: &[&'static str], by: usize| of[(document * 7 + sentence * by) % of.len()];
            write!(text, "{} {} {} ", pick(&subjects, 3), pick(&verbs, 2), pick(&objects, 1)).unwrap();
        }
        text.push_str("\n\n");
    }
    let source = folder.join("text.txt");
    std::fs::write(&source, text).unwrap();
    let options = BuildOptions {
        sources: vec![source],
        out: folder.clone(),
        vocab: None,
        vocab_size: 120,
        sequence: 32,
        seed: 1,
    };
    let manifest = build(&options).unwrap();
    assert_eq!(manifest.documents, 400);
    assert!(manifest.heldout_examples >= 2 && manifest.train_examples >= 400);
    folder
}

/// Eight steps of four examples.
pub fn run(kind: Kind) -> Run {
    let recipe = Run::preset("tiny", kind).unwrap();
    Run { steps: 8, batch_size: 4, seed: 7, adam: Adam { warmup_steps: 2, ..recipe.adam }, ..recipe }
}

/// Trains up to a step by one process.
pub fn train(run: &Run, corpus: &Path, out: &Path, stop_at: Option<usize>) -> anyhow::Result<()> {
    let _alone = ALONE.lock();
    train_among(&Alone, run, corpus, out, stop_at, false).map(drop)
}

/// A backend has one generator of random numbers for the whole process.
pub static ALONE: Mutex<()> = Mutex::new(());

/// The same as one of several ranks; the step that it stopped after.
pub fn train_among(
    ranks: &dyn Ranks,
    run: &Run,
    corpus: &Path,
    out: &Path,
    stop_at: Option<usize>,
    interrupted: bool,
) -> anyhow::Result<usize> {
    let corpus = Corpus::open(corpus)?;
    let interrupted = AtomicBool::new(interrupted);
    let pace = Pace { report_every: 1, checkpoint_every: 3, stop_at, interrupted: &interrupted, ranks };
    run.train::<Autodiff<Flex>>(&corpus, out, pace, &Default::default())
}

/// The curve without its last column, tokens per second.
pub fn curve(run: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(run.join("curve.tsv")).unwrap();
    text.lines().map(|line| line.rsplit_once('\t').unwrap().0.to_owned()).collect()
}
