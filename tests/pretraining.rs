//! From raw text to a model that answers: corpus, run, resume to the same losses, export, convert.
#![cfg(feature = "train")]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use burn::backend::{Autodiff, Flex};
use electret::evaluate::roc_auc;
use electret::import::Checkpoint;
use electret::quantize::quantize;
use electret::train::checkpoint::newest_weights;
use electret::train::corpus::{BuildOptions, Corpus, build};
use electret::train::export::{Which, export};
use electret::train::objective::{Kind, Objective};
use electret::train::optimizer::Adam;
use electret::train::trainer::{Pace, Run};
use electret::weights::AlignedBytes;
use electret::{HeadKind, Model, Plan, Session};

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A few hundred documents of plain sentences.
fn corpus(name: &str) -> PathBuf {
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
    assert_eq!(manifest.documents, 401);
    assert!(manifest.heldout_examples >= 2 && manifest.train_examples >= 400);
    folder
}

fn run(kind: Kind) -> Run {
    Run {
        preset: "tiny".to_owned(),
        steps: 8,
        batch_size: 4,
        dropout: 0.1,
        seed: 7,
        init_from: None,
        objective: Objective { kind, ..Objective::default() },
        adam: Adam { warmup_steps: 2, ..Adam::default() },
    }
}

fn train(run: &Run, corpus: &Path, out: &Path, stop_at: Option<usize>) -> anyhow::Result<()> {
    // A backend has one generator of random numbers for the whole process.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let corpus = Corpus::open(corpus)?;
    let pace = Pace { report_every: 1, checkpoint_every: 3, stop_at };
    run.train::<Autodiff<Flex>>(&corpus, out, pace, &Default::default())
}

/// The curve without its last column, tokens per second.
fn curve(run: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(run.join("curve.tsv")).unwrap();
    text.lines().map(|line| line.rsplit_once('\t').unwrap().0.to_owned()).collect()
}

#[test]
fn a_resumed_run_has_the_losses_of_an_uninterrupted_one() {
    let corpus = corpus("resume-corpus");
    let (whole, parts) = (folder("resume-whole"), folder("resume-parts"));
    let run = run(Kind::Electra);
    train(&run, &corpus, &whole, None).unwrap();
    for stop in [2, 5, 8] {
        train(&run, &corpus, &parts, Some(stop)).unwrap();
    }
    assert_eq!(curve(&whole).len(), 9);
    assert_eq!(curve(&whole), curve(&parts));
    assert_eq!(newest_weights(&whole).unwrap(), newest_weights(&parts).unwrap());

    let other = Run { batch_size: 5, ..run };
    let message = train(&other, &corpus, &whole, None).unwrap_err().to_string();
    assert!(message.contains("started with other settings"), "{message}");
}

#[test]
fn a_run_becomes_a_model_that_answers() {
    let corpus = corpus("export-corpus");
    let warm = folder("export-warm");
    train(&run(Kind::Mlm), &corpus, &warm, None).unwrap();
    let joint = folder("export-joint");
    let run = Run { init_from: Some(warm), ..run(Kind::Electra) };
    train(&run, &corpus, &joint, None).unwrap();
    for (which, kind) in [(Which::Discriminator, HeadKind::Detect), (Which::Generator, HeadKind::FillMask)] {
        let out = folder(&format!("export-{which:?}"));
        assert_eq!(export(&joint, &corpus, which, &out).unwrap(), 8);
        let checkpoint = Checkpoint::open(&out).unwrap();
        assert_eq!(checkpoint.config.max_position_embeddings, 32);
        assert_eq!(checkpoint.heads.len(), 1);
        let file = AlignedBytes::copy_of(&quantize(&checkpoint, "test", "none").unwrap());
        let model = Model::open(file.as_slice()).unwrap();
        model.head(kind).unwrap();
        let mut arena = AlignedBytes::zeroed(Plan::inference(model.config(), 32).bytes());
        let mut session = Session::new(model, arena.as_mut_slice(), 32).unwrap();
        assert!(session.encode("The cat sees a ball.".into()).unwrap().0.len() >= 7);
    }
}

#[test]
fn bad_corpora() {
    let folder = folder("bad-corpus");
    let options = |source: &str| BuildOptions {
        sources: vec![folder.join(source)],
        out: folder.clone(),
        vocab: None,
        vocab_size: 100,
        sequence: 32,
        seed: 1,
    };
    std::fs::write(folder.join("binary"), [0xff, 0xfe, 0x00]).unwrap();
    let message = format!("{:#}", build(&options("binary")).unwrap_err());
    assert!(message.contains("not UTF-8 text"), "{message}");
    let message = format!("{:#}", build(&options("missing")).unwrap_err());
    assert!(message.contains("missing"), "{message}");
    std::fs::write(folder.join("empty"), "").unwrap();
    build(&options("empty")).unwrap_err();
}

#[test]
fn area_under_the_curve() {
    let scores = [0.1, 0.4, 0.35, 0.8];
    assert_eq!(roc_auc(&scores, &[false, false, true, true]), Some(0.75));
    assert_eq!(roc_auc(&[1.0, 1.0], &[true, false]), Some(0.5));
    assert_eq!(roc_auc(&[1.0], &[true]), None);
}
