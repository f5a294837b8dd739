//! From text to packed examples, in any form and after any interruption.
#![cfg(all(feature = "train", feature = "cli"))]

mod common;

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::training::{corpus, folder};
use electret::train::corpus::{BuildOptions, Corpus, build};

/// One document in 200 is held out, and blank lines in a row are one: a text without any is learned.
#[test]
fn a_single_document_is_learned() {
    let folder = folder("single-corpus");
    let sentences = "The cat sees a ball.\nA dog finds the red house.\n".repeat(50);
    let source = folder.join("text.txt");
    let (out, sources) = (folder.clone(), vec![source.clone()]);
    let options = BuildOptions { sources, out, vocab: None, vocab_size: 100, sequence: 32, seed: 1 };
    for (text, documents) in [(sentences.clone(), 1), (format!("\n\n{sentences}\n\n\n{sentences}"), 2)] {
        std::fs::write(&source, text).unwrap();
        let manifest = build(&options).unwrap();
        assert_eq!((manifest.documents, manifest.heldout_examples), (documents, 0));
        assert!(manifest.train_examples >= 15 * documents);
    }
}

/// The same documents as text, as JSON lines and compressed become the same shards; and a build that was killed goes
/// on to the same bytes.
#[test]
fn a_corpus_is_the_same_from_any_form_and_after_any_interruption() {
    let folder = folder("forms-corpus");
    let (mut text, mut json) = (String::new(), String::new());
    for document in 0..30_000 {
        let body =
            format!("Document {document} has one line. It says {} twice.\nAnd another one.", document * 7);
        writeln!(text, "{body}\n").unwrap();
        writeln!(json, "{}", serde_json::json!({"id": document, "text": body})).unwrap();
    }
    std::fs::write(folder.join("a.txt"), &text).unwrap();
    std::fs::write(folder.join("a.jsonl"), &json).unwrap();
    std::fs::write(folder.join("b.txt.zst"), zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
    let vocab = corpus("forms-vocabulary").join("vocab.txt");
    let command = |sources: &[&str], out: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_electret"));
        command.current_dir(&folder).args(["corpus", "build"]).args(sources).arg("-o").arg(out);
        command.arg("--vocab").arg(&vocab).args(["--seq", "32"]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let shards = |out: &Path| ["train.u16", "heldout.u16"].map(|name| std::fs::read(out.join(name)).unwrap());
    let out = |name: &str| folder.join(name);
    for (source, out) in [("a.txt", out("plain")), ("a.jsonl", out("json")), ("b.txt.zst", out("zst"))] {
        assert!(command(&[source], &out).status().unwrap().success(), "{source}");
        Corpus::open(&out).unwrap().verify().unwrap();
    }
    let mut piped = command(&["-"], &out("piped")).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut piped.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(piped.wait().unwrap().success());
    for other in ["json", "zst", "piped"] {
        assert_eq!(shards(&out("plain")), shards(&out(other)), "{other}");
    }

    let sources = ["a.txt", "a.jsonl", "b.txt.zst"];
    let started = Instant::now();
    assert!(command(&sources, &out("whole")).status().unwrap().success());
    let whole_time = started.elapsed().as_secs_f64();
    let killed = out("killed");
    let mut kills = 0;
    for share in [0.2, 0.3, 0.5, 0.6, 0.7] {
        let mut child = command(&sources, &killed).spawn().unwrap();
        std::thread::sleep(Duration::from_secs_f64(share * whole_time));
        kills += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        // What the note says of the shards is there, whatever was written after it.
        if let Ok(mut shard) = std::fs::OpenOptions::new().append(true).open(killed.join("train.u16")) {
            std::io::Write::write_all(&mut shard, b"left over").unwrap();
        }
        if killed.join("corpus.json").exists() {
            break;
        }
    }
    assert!(command(&sources, &killed).status().unwrap().success());
    assert!(kills >= 2, "killed {kills} times");
    assert_eq!(shards(&out("whole")), shards(&killed));

    let mut changed = std::fs::read(killed.join("train.u16")).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(killed.join("train.u16"), changed).unwrap();
    let message = Corpus::open(&killed).unwrap().verify().unwrap_err().to_string();
    assert!(message.contains("train.u16"), "{message}");
}

/// A vocabulary is learnt from all sources, wherever their empty lines are.
#[test]
fn a_vocabulary_knows_every_source() {
    let folder = folder("vocabulary-sources");
    let sources = ["one", "two"].map(|name| folder.join(format!("{name}.txt")));
    std::fs::write(&sources[0], "\nwhales sing\n".repeat(20)).unwrap();
    std::fs::write(&sources[1], "badgers dig\n\n".repeat(20)).unwrap();
    let options = BuildOptions {
        sources: sources.into(),
        out: folder.clone(),
        vocab: None,
        vocab_size: 100,
        sequence: 32,
        seed: 1,
    };
    build(&options).unwrap();
    let pieces = std::fs::read_to_string(folder.join("vocab.txt")).unwrap();
    for word in ["whales", "sing", "badgers", "dig"] {
        assert!(pieces.lines().any(|piece| piece == word), "{word}: {pieces}");
    }
}

#[test]
fn bad_corpora() {
    let folder = folder("bad-corpus");
    let options = |source: &str| BuildOptions {
        sources: vec![if source == "-" { "-".into() } else { folder.join(source) }],
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
    let message = format!("{:#}", build(&options("empty")).unwrap_err());
    assert!(message.contains("no text to train on"), "{message}");
    // What was empty is read again once it is not.
    std::fs::write(folder.join("empty"), "Now there is a line.\n").unwrap();
    assert_eq!(build(&options("empty")).unwrap().documents, 1);
    let built = std::fs::read(folder.join("train.u16")).unwrap();
    let mistyped = BuildOptions { vocab: Some(folder.join("vocab.txt")), ..options("missing") };
    build(&mistyped).unwrap_err();
    assert!(std::fs::read(folder.join("train.u16")).unwrap() == built, "a mistyped name cost the corpus");
    std::fs::write(folder.join("a.jsonl"), "{\"text\":\"One line.\"}\n{\"body\":1}\n").unwrap();
    let message = format!("{:#}", build(&options("a.jsonl")).unwrap_err());
    assert!(message.contains("line 2") && message.contains("text"), "{message}");
    std::fs::write(folder.join("long"), "a ".repeat(33 << 20)).unwrap();
    let message = format!("{:#}", build(&options("long")).unwrap_err());
    assert!(message.contains("line 1") && message.contains("64 MiB"), "{message}");
    let message = format!("{:#}", build(&options("-")).unwrap_err());
    assert!(message.contains("--vocab"), "{message}");
}
