//! Runs that start from what was learnt before.
#![cfg(all(feature = "train", feature = "cli"))]

mod common;

use std::path::Path;
use std::process::Command;

use common::training::{corpus, folder, run, train};
use electret::import::{Checkpoint, POSITIONS, Tensors, WORDS};
use electret::train::checkpoint::newest_weights;
use electret::train::corpus::{BuildOptions, Corpus, build};
use electret::train::export::{Which, export};
use electret::train::objective::Kind;
use electret::train::run::{Generator, Run, Shape, Sharing};
use electret::train::start::fresh_weights;

fn values(tensors: &Tensors, name: &str) -> Vec<f32> {
    tensors.array(name).unwrap().iter().copied().collect()
}

/// The weights that a run like `recipe` begins with from what `from` has learnt.
fn started(recipe: &Run, from: &Path, corpus: &Path) -> anyhow::Result<Tensors> {
    let out = folder(&format!("{}-started", from.file_name().unwrap().display()));
    train(&Run { init_from: Some(from.to_owned()), ..recipe.clone() }, corpus, &out, Some(0))?;
    Ok(newest_weights(&out)?.1)
}

/// A discriminator that learnt a difference on top of its generator's words (GDES) reads their sum: so does whatever
/// starts from it, unless it keeps the two apart itself.
#[test]
fn a_warm_start_reads_what_the_discriminator_read() {
    const DELTA: &str = "word_embeddings_delta.weight";
    let corpus = corpus("warm-corpus");
    let warm = folder("warm-gdes");
    let gdes = Run { generator: Generator { size: 0.5, sharing: Sharing::Gdes }, ..run(Kind::Electra) };
    train(&gdes, &corpus, &warm, Some(4)).unwrap();
    let learnt = newest_weights(&warm).unwrap().1;
    let (words, delta) = (values(&learnt, WORDS), values(&learnt, DELTA));
    assert!(delta.iter().any(|&value| value != 0.0));
    let sum: Vec<f32> = words.iter().zip(&delta).map(|(word, delta)| word + delta).collect();
    assert!(values(&started(&run(Kind::Mlm), &warm, &corpus).unwrap(), WORDS) == sum);
    let apart = started(&gdes, &warm, &corpus).unwrap();
    assert!(values(&apart, WORDS) == words && values(&apart, DELTA) == delta);
}

/// A folder that `export`, `merge` or `transformers` wrote is a start like a run. Positions beyond those that it has
/// begin anew, and a folder may have more rows of words than pieces.
#[test]
fn a_model_s_folder_is_a_start() {
    let corpus = corpus("folder-corpus");
    let (learnt, exported) = (folder("folder-learnt"), folder("folder-exported"));
    train(&run(Kind::Mlm), &corpus, &learnt, Some(4)).unwrap();
    export(&learnt, &corpus, Which::Generator, &exported).unwrap();
    let of_run = started(&run(Kind::Electra), &learnt, &corpus).unwrap();
    let of_folder = started(&run(Kind::Electra), &exported, &corpus).unwrap();
    for name in of_run.names().filter(|name| *name != POSITIONS) {
        assert!(values(&of_run, name) == values(&of_folder, name), "{name}");
    }
    let config = run(Kind::Electra).config(&Corpus::open(&corpus).unwrap()).unwrap();
    let fresh = fresh_weights(&run(Kind::Electra), &config);
    let trained = 32 * config.embedding_size;
    let [of_run, of_folder, fresh] = [of_run, of_folder, fresh].map(|tensors| values(&tensors, POSITIONS));
    assert!(of_folder == [&of_run[..trained], &fresh[trained..]].concat());

    let padded = folder("folder-padded");
    let mut checkpoint = Checkpoint::open(&exported).unwrap();
    checkpoint.config.vocab_size += 8;
    let mut words = values(&checkpoint.tensors, WORDS);
    words.resize(checkpoint.config.vocab_size * config.embedding_size, 0.5);
    checkpoint.tensors.insert(WORDS, &[checkpoint.config.vocab_size, config.embedding_size], words);
    checkpoint.tensors.insert(
        "generator_lm_head.bias",
        &[checkpoint.config.vocab_size],
        vec![0.0; checkpoint.config.vocab_size],
    );
    checkpoint.write(&padded).unwrap();
    let of_padded = started(&run(Kind::Electra), &padded, &corpus).unwrap();
    assert!(of_padded == started(&run(Kind::Electra), &exported, &corpus).unwrap());

    let refused = |recipe: &Run, corpus: &Path| {
        let error = started(recipe, &exported, corpus).unwrap_err();
        format!("{error:#}")
    };
    let deeper = Shape { num_hidden_layers: Some(5), ..Shape::default() };
    let message = refused(&Run { shape: deeper, ..run(Kind::Electra) }, &corpus);
    assert!(message.contains("--set shape.num_hidden_layers=4"), "{message}");
    let heads = Shape { num_attention_heads: Some(4), ..Shape::default() };
    let message = refused(&Run { shape: heads, ..run(Kind::Electra) }, &corpus);
    assert!(message.contains("num_attention_heads is 2, this run's 4"), "{message}");

    let longer = folder("folder-longer");
    let vocab = Some(corpus.join("vocab.txt"));
    let sources = vec![corpus.join("text.txt")];
    build(&BuildOptions { sources, out: longer.clone(), vocab, vocab_size: 0, sequence: 48, seed: 1 })
        .unwrap();
    let message = refused(&run(Kind::Electra), &longer);
    assert!(message.contains("build that with --seq 32"), "{message}");
}

/// Who detects goes on with the head that it has; nobody else looks at it.
#[test]
fn a_detector_keeps_its_head() {
    const HEAD: &str = "discriminator_predictions.dense_prediction.weight";
    let corpus = corpus("head-corpus");
    let (learnt, exported) = (folder("head-learnt"), folder("head-exported"));
    train(&run(Kind::Electra), &corpus, &learnt, Some(4)).unwrap();
    export(&learnt, &corpus, Which::Discriminator, &exported).unwrap();
    let head = values(&newest_weights(&learnt).unwrap().1, HEAD);
    for from in [&learnt, &exported] {
        let next = Run { seed: 8, ..run(Kind::Electra15) };
        assert!(values(&started(&next, from, &corpus).unwrap(), HEAD) == head);
        assert!(!started(&run(Kind::Mlm), from, &corpus).unwrap().contains(HEAD));
        assert!(values(&started(&run(Kind::AllTokensMlm), from, &corpus).unwrap(), HEAD) != head);
    }
}

/// Ids stand for other pieces in another vocabulary of the same length.
#[test]
fn another_vocabulary_is_refused() {
    let corpus = corpus("vocabulary-corpus");
    let out = folder("vocabulary-run");
    train(&run(Kind::Mlm), &corpus, &out, Some(1)).unwrap();
    let pieces = std::fs::read_to_string(corpus.join("vocab.txt")).unwrap();
    let mut pieces: Vec<&str> = pieces.lines().collect();
    let last = pieces.len() - 1;
    pieces.swap(last, last - 1);
    let other = folder("vocabulary-other");
    std::fs::write(other.join("pieces.txt"), pieces.join("\n")).unwrap();
    for given in ["pieces.txt", "vocab.txt"] {
        build(&BuildOptions {
            sources: vec![corpus.join("text.txt")],
            out: other.clone(),
            vocab: Some(other.join(given)),
            vocab_size: 0,
            sequence: 32,
            seed: 1,
        })
        .unwrap();
    }
    let exported = export(&out, &other, Which::Generator, &folder("vocabulary-export"));
    let warm = Run { init_from: Some(out.clone()), ..run(Kind::Electra) };
    for refused in [exported.map(drop), train(&warm, &other, &folder("vocabulary-warm"), Some(1))] {
        let message = format!("{:#}", refused.unwrap_err());
        assert!(message.contains("another vocabulary"), "{message}");
    }
    std::fs::write(other.join("vocab.txt"), pieces[..last].join("\n")).unwrap();
    let message = format!("{:#}", Corpus::open(&other).unwrap_err());
    assert!(message.contains("vocab.txt: not what `corpus build` wrote"), "{message}");

    let mut heldout = Command::new(env!("CARGO_BIN_EXE_electret"));
    let said = heldout.arg("heldout").arg(&out).arg("--corpus").arg(&corpus).output().unwrap();
    let message = String::from_utf8(said.stderr).unwrap();
    assert!(!said.status.success() && message.contains("trains no discriminator"), "{message}");

    let judges = folder("vocabulary-judges");
    train(&run(Kind::Electra), &corpus, &judges, Some(1)).unwrap();
    let mut heldout = Command::new(env!("CARGO_BIN_EXE_electret"));
    let said = heldout.arg("heldout").arg(&judges).arg("--corpus").arg(&corpus).output().unwrap();
    let message = String::from_utf8(said.stderr).unwrap();
    assert!(!said.status.success() && message.contains("its vocabulary is not the run's"), "{message}");
}

/// A run that could not begin binds nobody to its settings.
#[test]
fn a_mistyped_start_can_be_corrected() {
    let corpus = corpus("mistyped-corpus");
    let (warm, out) = (folder("mistyped-warm"), folder("mistyped-run"));
    train(&run(Kind::Mlm), &corpus, &warm, Some(1)).unwrap();
    let pretrain = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_electret"));
        command.arg("pretrain").arg(&corpus).arg("-o").arg(&out);
        command
            .args(["--batch-size", "2", "--stop-at", "1", "--set", "shape.num_hidden_layers=1"])
            .args(options);
        let said = command.output().unwrap();
        (said.status.success(), String::from_utf8(said.stderr).unwrap())
    };
    let wrong = warm.join("er").display().to_string();
    let (done, message) = pretrain(&["--preset", "nano", "--steps", "3", "--init-from", &wrong]);
    assert!(!done && message.contains("neither a run (run.toml) nor a model's folder"), "{message}");
    let (done, message) = pretrain(&["--preset", "tiny", "--steps", "4"]);
    assert!(done, "{message}");
    let begun = Run::open(&out).unwrap();
    assert_eq!((begun.preset.as_str(), begun.steps, begun.init_from), ("tiny", 4, None));
    let (done, message) = pretrain(&["--steps", "5"]);
    assert!(!done && message.contains("started with other settings (steps: 4 there, 5 now)"), "{message}");
}
