//! Full fine-tuning of every task, and what comes of it in every form: Burn, the f32 reference, int8, transformers.
#![cfg(feature = "train")]

mod common;

use std::fmt::Write;
use std::path::PathBuf;

use burn::backend::{Autodiff, Flex};
use electret::evaluate::{Answers, LabelNames, Labelled, ReferenceReader, score};
use electret::import::Checkpoint;
use electret::quantize::quantize;
use electret::train::finetune::{Recipe, finetune};
use electret::train::optimizer::Adam;
use electret::weights::AlignedBytes;
use electret::{HeadKind, Model, Plan, Session};

fn tiny() -> Checkpoint {
    Checkpoint::of_model(&Model::open(common::shipped_model().as_slice()).unwrap(), None)
}

fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name)
}

fn written(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

const THINGS: [&str; 6] = ["cup", "hat", "book", "coin", "lamp", "bread"];
const PLACES: [&str; 6] = ["kitchen", "garden", "river", "school", "church", "forest"];

/// How good a day was, by how often the text says so.
fn scores() -> String {
    let mut rows = "score\ttext\n".to_owned();
    for day in 0..60 {
        let good = day % 4;
        let words: Vec<&str> = (0..3).map(|place| if place < good { "good" } else { "bad" }).collect();
        writeln!(rows, "{good}\tThe {} was {}.", THINGS[day % 6], words.join(" and ")).unwrap();
    }
    rows
}

/// Where is the thing?
fn questions() -> String {
    let question = |index: usize| {
        let (thing, place) = (THINGS[index % 6], PLACES[index / 6]);
        let context = format!("The {thing} is in the {place}.");
        let start = context.find(place).unwrap();
        serde_json::json!({"context": context, "qas": [
            {"question": format!("Where is the {thing}?"), "answers": [{"text": place, "answer_start": start}]}]})
    };
    serde_json::json!({"data": [{"paragraphs": (0..36).map(question).collect::<Vec<_>>()}]}).to_string()
}

#[test]
fn every_task_is_learned_and_exported() {
    let start = tiny();
    let tasks = [
        ("classify", sample("intents.tsv"), 12, 0.9),
        ("spam", sample("messages.tsv"), 8, 0.9),
        ("tag", sample("words.conll"), 4, 0.8),
        ("regress", written("scores.tsv", &scores()), 8, 0.8),
        ("answer", written("questions.json", &questions()), 5, 0.9),
    ];
    for (name, file, epochs, wanted) in tasks {
        let data = Labelled::read(&file, LabelNames::OfFile).unwrap();
        let usual = Recipe::of(&start.config);
        let adam = Adam { learning_rate: 5e-4, ..usual.adam };
        let recipe = Recipe { epochs, batch_size: 8, dropout: 0.0, adam, ..usual };
        let learned =
            finetune::<Autodiff<Flex>>(&start, &data, Some(&data), &recipe, 1, &Default::default()).unwrap();
        let burn = &learned.dev.last().unwrap()[0];
        println!("{name}: losses {:.3?}, {} {:.4}", learned.losses, burn.metric, burn.value);
        assert!(learned.losses[epochs - 1] < 0.5 * learned.losses[0], "{name}: {:?}", learned.losses);
        assert!(burn.value >= wanted, "{name}: {burn:?}");

        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("exported").join(name);
        learned.checkpoint.write(&folder).unwrap();
        let again = Checkpoint::open(&folder).unwrap();
        assert_eq!(again.tensors, learned.checkpoint.tensors, "{name}: bit-equal weights after a round trip");
        common::write_logits(&again, &folder);
        let tokens = again.config.max_position_embeddings;
        let reference = Answers::of(&mut ReferenceReader::new(&again, tokens), &data).unwrap();
        let f32 = &reference.metrics()[0];
        assert!((f32.value - burn.value).abs() < 1e-3, "{name}: Burn {burn:?}, reference {f32:?}");

        let file = AlignedBytes::copy_of(&quantize(&again, "test", "none").unwrap());
        let model = Model::open(file.as_slice()).unwrap();
        let mut arena = AlignedBytes::zeroed(Plan::inference(model.config(), tokens).bytes());
        let mut session = Session::new(model, arena.as_mut_slice(), tokens).unwrap();
        let quantised = Answers::of(&mut session, &data).unwrap();
        let int8 = &quantised.metrics()[0];
        assert!((int8.value - f32.value).abs() < 0.03, "{name}: int8 {int8:?}, f32 {f32:?}");
        let difference = &quantised.against(&reference)[0];
        assert!((difference.difference - (int8.value - f32.value)).abs() < 1e-9);
        assert!(difference.low <= difference.difference && difference.difference <= difference.high);
    }
}

/// Windows of 32 tokens over contexts of about 100, in training, in the harness and in a session.
#[test]
fn long_contexts_are_read_in_windows() {
    const TOKENS: usize = 32;
    let start = tiny();
    let filler = "It rained that day and nothing happened. ";
    let question = |index: usize| {
        let (thing, place) = (THINGS[index % 6], PLACES[index / 6]);
        let (before, after) = (filler.repeat(index % 9), filler.repeat(8 - index % 9));
        let context = format!("{before}The {thing} is in the {place}. {after}");
        let answer = serde_json::json!({"text": place, "answer_start": context.find(place).unwrap()});
        let asked = serde_json::json!({"question": format!("Where is the {thing}?"), "answers": [answer]});
        serde_json::json!({"context": context, "qas": [asked]})
    };
    let questions = (0..36).map(question).collect::<Vec<_>>();
    let file = written("long.json", &serde_json::json!({"data": [{"paragraphs": questions}]}).to_string());
    let data = Labelled::read(&file, LabelNames::OfFile).unwrap();
    let usual = Recipe::of(&start.config);
    let adam = Adam { learning_rate: 5e-4, ..usual.adam };
    let recipe = Recipe { epochs: 8, batch_size: 8, dropout: 0.0, sequence: TOKENS, adam, ..usual };
    let learned =
        finetune::<Autodiff<Flex>>(&start, &data, Some(&data), &recipe, 1, &Default::default()).unwrap();
    assert_eq!(learned.left_out, 0);
    let f1 = learned.dev.last().unwrap()[0].value;
    assert!(f1 >= 0.9, "{f1}");

    let file = AlignedBytes::copy_of(&quantize(&learned.checkpoint, "test", "none").unwrap());
    let model = Model::open(file.as_slice()).unwrap();
    let mut arena = AlignedBytes::zeroed(Plan::inference(model.config(), TOKENS).bytes());
    let mut session = Session::new(model, arena.as_mut_slice(), TOKENS).unwrap();
    let int8 = Answers::of(&mut session, &data).unwrap().metrics()[0].value;
    assert!((int8 - f1).abs() < 0.05, "int8 {int8}, f32 {f1}");
    // Behind eight sentences, which the first window does not reach.
    let (asked, context) = (&data.examples[8].text, data.examples[8].pair.as_deref().unwrap());
    let found = session.answer(asked, context).unwrap();
    assert!(found.start > 8 * filler.len() && context.is_char_boundary(found.end), "{found:?}");
    // What is no text is passed over.
    let context = format!("{}The key is in the hall.", " ".repeat(50_000));
    assert!(session.answer(asked, &context).unwrap().start >= 50_000);
    // No word, no end, no progress: each ends.
    for odd in [&"a".repeat(100_000), &" ".repeat(50_000), &"\u{ad}".repeat(40_000), &"é".repeat(70_000)] {
        let context = format!("the {odd}");
        let found = session.answer(asked, &context).unwrap();
        assert!(context.get(found.start..found.end).is_some());
    }
}

/// Where the rate decays to nothing below the head, the head learns and nothing else moves.
#[test]
fn layer_decay() {
    let start = tiny();
    let data = Labelled::read(&sample("intents.tsv"), LabelNames::OfFile).unwrap();
    let recipe = Recipe { epochs: 1, layer_decay: 0.0, ..Recipe::of(&start.config) };
    let learned = finetune::<Autodiff<Flex>>(&start, &data, None, &recipe, 1, &Default::default()).unwrap();
    for (name, tensor) in learned.checkpoint.tensors.iter() {
        match start.tensors.iter().find(|(theirs, _)| *theirs == name) {
            Some((_, before)) => assert_eq!(before, tensor, "{name}"),
            None => assert!(name.starts_with("classifier."), "{name}"),
        }
    }
    assert!(learned.dev.is_empty());
}

#[test]
fn recipes_that_cannot_be_used() {
    let start = tiny();
    let data = Labelled::read(&sample("intents.tsv"), LabelNames::OfFile).unwrap();
    let usual = Recipe::of(&start.config);
    for (recipe, named) in [
        (Recipe { epochs: 0, ..usual }, "epochs"),
        (Recipe { sequence: 4096, ..usual }, "tokens"),
        (Recipe { dropout: 1.0, ..usual }, "dropout"),
        (Recipe { adam: Adam { learning_rate: f64::NAN, ..usual.adam }, ..usual }, "learning rate"),
        (Recipe { adam: Adam { weight_decay: f64::NAN, ..usual.adam }, ..usual }, "weight decay"),
        (Recipe { layer_decay: f64::NAN, ..usual }, "layer decay"),
        (Recipe { adam: Adam { learning_rate: 1e30, ..usual.adam }, ..usual }, "no longer finite"),
    ] {
        let refused = finetune::<Autodiff<Flex>>(&start, &data, None, &recipe, 1, &Default::default());
        let message = format!("{:#}", refused.unwrap_err());
        assert!(message.contains(named), "{named}: {message}");
    }
    let empty =
        Labelled::read(&written("no-words.tsv", "label\ttext\na\t \nb\t \n"), LabelNames::OfFile).unwrap();
    let message = finetune::<Autodiff<Flex>>(&start, &empty, None, &usual, 1, &Default::default());
    assert!(message.unwrap_err().to_string().contains("no example teaches anything"));
    let refused = |train: &Labelled, dev: Option<&Labelled>| {
        let learned = finetune::<Autodiff<Flex>>(&start, train, dev, &usual, 1, &Default::default());
        learned.unwrap_err().to_string()
    };
    let one =
        Labelled::read(&written("one-class.tsv", "label\ttext\na\tThe cat.\n"), LabelNames::OfFile).unwrap();
    assert!(refused(&one, None).contains("all examples have the label a"));
    let scores = Labelled::read(&written("scores-dev.tsv", &scores()), LabelNames::OfFile).unwrap();
    let classes = Labelled::read(&sample("messages.tsv"), LabelNames::OfFile).unwrap();
    assert!(refused(&classes, Some(&scores)).contains("what it is scored on"));
}

/// A model against itself, and against one that always says the same.
#[test]
fn two_models_side_by_side() {
    let data = Labelled::read(&sample("messages.tsv"), LabelNames::OfFile).unwrap();
    let start = tiny();
    let recipe = Recipe { epochs: 8, ..Recipe::of(&start.config) };
    let learned = finetune::<Autodiff<Flex>>(&start, &data, None, &recipe, 1, &Default::default()).unwrap();
    let mut constant = learned.checkpoint.clone();
    constant.tensors.insert("classifier.out_proj.bias", &[2], vec![1e3, 0.0]);
    let tokens = start.config.max_position_embeddings;
    let good = Answers::of(&mut ReferenceReader::new(&learned.checkpoint, tokens), &data).unwrap();
    let bad = Answers::of(&mut ReferenceReader::new(&constant, tokens), &data).unwrap();
    for same in good.against(&good) {
        assert_eq!((same.difference, same.low, same.high, same.p), (0.0, 0.0, 0.0, 1.0), "{same:?}");
    }
    let better = &good.against(&bad)[0];
    assert_eq!(better.metric, "accuracy");
    assert!(better.difference > 0.3 && better.low > 0.0 && better.p < 0.01, "{better:?}");
    let lines = bad.predictions().unwrap();
    assert_eq!(lines.lines().count(), data.examples.len() + 1);
    assert!(lines.starts_with("index\tprediction\n0\tham\n1\tham\n"), "{lines}");
    let none = score(&mut ReferenceReader::new(&start, tokens), &data).unwrap_err();
    assert_eq!(none.to_string(), electret::Error::NoSuchHead(HeadKind::Classify.name()).to_string());
}
