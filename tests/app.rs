//! What an app may rely on: the command's bits from any thread, rounds that happen whole or not at all, and a clear
//! error for everything else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use electret::app::{ElectretError, Example, Lesson, Model, Progress, Truth, Tuner};
use electret::weights::AlignedBytes;
use electret::{Error, Plan, Session};

const TINY: &str = "models/electret-tiny.electret";
const TEXTS: [&str; 4] =
    ["He opened the door and walked table the room.", "Grüße aus Köln, 東京!", "a 🦊 jumped over 🐶", "x"];

/// A folder of the test's own, empty.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder for the test");
    folder
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn lesson() -> Lesson {
    Lesson::classify(["question", "statement"].map(String::from).to_vec())
}

fn examples() -> Vec<Example> {
    let label = |label: &str| Truth::Label { label: label.to_owned() };
    let pairs = ["the house", "my brother", "a river", "the king"].into_iter();
    pairs
        .flat_map(|what| {
            [
                Example::new(&format!("where is {what}?"), label("question")),
                Example::new(&format!("{what} is here."), label("statement")),
            ]
        })
        .collect()
}

#[test]
fn answers_have_the_bits_of_a_session_on_any_number_of_threads() {
    let file = AlignedBytes::copy_of(&fs::read(TINY).expect(TINY));
    let view = electret::Model::open(file.as_slice()).expect("the model");
    let mut arena = AlignedBytes::zeroed(Plan::inference(view.config(), 64).bytes());
    let mut session = Session::new(view, arena.as_mut_slice(), 64).expect("a session");
    let expected = TEXTS.map(|text| {
        let found = session.detect(text).expect(text);
        found.map(|found| (found.token.start, found.token.end, found.replaced.to_bits())).collect::<Vec<_>>()
    });
    let mapped = Model::open(TINY).expect("mapped");
    let copied = Model::from_bytes(&fs::read(TINY).expect(TINY)).expect("copied");
    assert_eq!(mapped.describe(), copied.describe());
    assert!(mapped.self_test().expect("a self-test"));
    let answer = |model: &Model, text: &str| {
        let found = model.detect(text).expect(text);
        found.iter().map(|f| (f.span.start, f.span.end, f.replaced.to_bits())).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        for model in [&mapped, &mapped, &copied, &copied] {
            scope.spawn(|| {
                for _ in 0..50 {
                    for (text, expected) in TEXTS.iter().zip(&expected) {
                        assert_eq!(&answer(model, text), expected);
                    }
                }
            });
        }
    });
}

#[test]
fn spans_are_those_of_kotlin_and_javascript_too() {
    let model = Model::open(TINY).expect("the model");
    for text in TEXTS {
        let units: Vec<u16> = text.encode_utf16().collect();
        for found in model.detect(text).expect(text) {
            let span = found.span;
            assert_eq!(text[span.start as usize..span.end as usize], found.text);
            let part = &units[span.utf16_start as usize..span.utf16_end as usize];
            assert_eq!(String::from_utf16(part).expect("whole characters"), found.text);
        }
    }
}

#[test]
fn what_was_learned_outlives_the_app_and_rounds_go_on() {
    let folder = folder("outlives");
    let model = Model::open(TINY).expect("the model");
    assert!(model.with_adapter_of(utf8(&folder.join("nowhere"))).expect("no folder").is_none());
    assert!(model.with_adapter_of(utf8(&folder)).expect("an empty folder").is_none());

    let straight = Tuner::new(model.clone(), lesson()).expect("a tuner");
    let first = straight.learn(examples(), 4).expect("a round");
    let second = straight.learn(examples(), 4).expect("a round");
    assert!(second.loss < first.loss, "{second:?} after {first:?}");

    let before = Tuner::in_folder(model.clone(), lesson(), utf8(&folder)).expect("a tuner");
    assert_eq!(before.learn(examples(), 4).expect("a round"), first);
    before.save().expect("saved");
    drop(before);
    let after = Tuner::in_folder(model.clone(), lesson(), utf8(&folder)).expect("a tuner");
    assert_eq!(after.steps(), first.steps);
    assert_eq!(after.learn(examples(), 4).expect("a round"), second);
    assert_eq!(after.adapter(), straight.adapter());
    let elsewhere = Tuner::from_state(model.clone(), lesson(), straight.state()).expect("a tuner");
    assert_eq!(elsewhere.adapter(), straight.adapter());

    // Not saved, so the folder holds the first round still.
    let kept = model.with_adapter_of(utf8(&folder)).expect("the folder").expect("an adapter");
    let given = model.with_adapter(straight.adapter()).expect("an adapter");
    assert_ne!(kept.classify("where is it?"), given.classify("where is it?"));
    assert_eq!(given.classify("where is it?").expect("classes")[0].label, "question");
    // What stands on top of the model changes nothing for other handles of it.
    assert_eq!(model.classify("where is it?"), Err(ElectretError::NoSuchHead(Error::NoSuchHead("classify"))));
}

struct Stop {
    at: u32,
    seen: AtomicU32,
}

impl Progress for Stop {
    fn step(&self, done: u32, of: u32, loss: f32) -> bool {
        assert!(done <= of && loss.is_finite());
        self.seen.store(done, Ordering::Relaxed);
        done < self.at
    }
}

#[test]
fn a_round_that_is_cancelled_leaves_no_trace() {
    let model = Model::open(TINY).expect("the model");
    let tuner = Tuner::new(model, lesson()).expect("a tuner");
    tuner.learn(examples(), 1).expect("a round");
    let (adapter, state) = (tuner.adapter(), tuner.state());
    let stop = Arc::new(Stop { at: 3, seen: AtomicU32::new(0) });
    assert_eq!(tuner.learn_watched(examples(), 50, stop.clone()), Err(ElectretError::Cancelled));
    assert_eq!(stop.seen.load(Ordering::Relaxed), 3);
    assert!(tuner.adapter() == adapter && tuner.state() == state);

    // From another thread, and meanwhile nobody else can teach.
    std::thread::scope(|scope| {
        // It may come while the one below is asking.
        let long = scope.spawn(|| {
            loop {
                match tuner.learn(examples(), 1_000_000) {
                    Err(ElectretError::Busy) => std::thread::yield_now(),
                    learned => break learned,
                }
            }
        });
        while tuner.learn(Vec::new(), 1) != Err(ElectretError::Busy) {
            std::thread::yield_now();
        }
        while !long.is_finished() {
            tuner.cancel();
        }
        assert_eq!(long.join().expect("no panic"), Err(ElectretError::Cancelled));
    });
    assert!(tuner.adapter() == adapter && tuner.state() == state);
}

#[test]
fn a_file_that_changes_while_it_is_open_is_refused() {
    let folder = folder("changes");
    let path = folder.join("m.electret");
    fs::copy(TINY, &path).expect("a copy");
    let model = Model::open(utf8(&path)).expect("the model");
    let tuner = Tuner::new(model.clone(), lesson()).expect("a tuner");
    let expected = model.detect(TEXTS[0]).expect("an answer");

    // Replaced by renaming: whoever has it open keeps what it opened.
    let other = folder.join("other");
    fs::write(&other, b"something else").expect("another file");
    fs::rename(&other, &path).expect("renamed");
    assert_eq!(model.detect(TEXTS[0]).expect("an answer"), expected);
    assert!(matches!(Model::open(utf8(&path)), Err(ElectretError::Model(_))));

    // Written to in place, cut short even.
    fs::copy(TINY, &path).expect("a copy");
    let model = Model::open(utf8(&path)).expect("the model");
    let tuner_of_it = Tuner::new(model.clone(), lesson()).expect("a tuner");
    fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(1000)).expect("cut short");
    let changed = ElectretError::Changed { path: utf8(&path).to_owned() };
    assert_eq!(model.detect(TEXTS[0]), Err(changed.clone()));
    assert_eq!(tuner_of_it.learn(examples(), 1), Err(changed));
    tuner.learn(examples(), 1).expect("the first tuner's file was only renamed");
}

#[test]
fn every_mistake_has_its_words() {
    let folder = folder("mistakes");
    let model = Model::open(TINY).expect("the model");
    let refused = |result: Result<Arc<Tuner>, ElectretError>, words: &str| {
        let said = result.map(|_| ()).expect_err(words).to_string();
        assert!(said.contains(words), "{said}");
    };
    let with = |change: &dyn Fn(&mut Lesson)| {
        let mut lesson = lesson();
        change(&mut lesson);
        Tuner::new(model.clone(), lesson)
    };
    refused(with(&|lesson| lesson.kind = "guess".to_owned()), "kind: guess is none of detect, classify");
    refused(with(&|lesson| lesson.strategy = "all".to_owned()), "strategy: all: wanted are head");
    refused(with(&|lesson| lesson.batch_size = 0), "batch_size: 0");
    refused(with(&|lesson| lesson.tokens = u32::MAX), "4294967295 tokens, at most");
    refused(with(&|lesson| lesson.tokens = 1), "at least 3 tokens");
    refused(with(&|lesson| lesson.labels.truncate(1)), "labels: must be two or more");
    refused(with(&|lesson| lesson.labels = vec!["x".to_owned(); 1000]), "labels: must be two or more");
    refused(with(&|lesson| lesson.labels[0] = "a\nb".to_owned()), "labels: must be names without line ends");
    refused(with(&|lesson| lesson.learning_rate = f32::NAN), "learning_rate: must be above 0");
    refused(
        with(&|lesson| lesson.class_weights = vec![1.0]),
        "class_weights: must be empty, or one for each",
    );

    let tuner = Tuner::in_folder(model.clone(), lesson(), utf8(&folder)).expect("a tuner");
    let taught = |examples: Vec<Example>, words: &str| {
        let said = tuner.learn(examples, 1).expect_err(words).to_string();
        assert!(said.contains(words), "{said}");
    };
    let wrong = Example::new("text", Truth::Label { label: "maybe".to_owned() });
    taught(Vec::new(), "examples: at least one");
    taught([examples(), vec![wrong]].concat(), "examples[8].label: maybe is none of question, statement");
    taught(
        vec![Example::new("text", Truth::Value { value: 1.0 })],
        "examples[0]: target: the task is classify",
    );
    taught(
        vec![Example::new("", Truth::Label { label: "question".to_owned() })],
        "none of them taught anything",
    );
    assert_eq!(tuner.steps(), 0);

    tuner.learn(examples(), 1).expect("a round");
    tuner.save().expect("saved");
    let others = Lesson::classify(["ham", "spam"].map(String::from).to_vec());
    refused(Tuner::in_folder(model.clone(), others, utf8(&folder)), "another task or strategy");
    refused(Tuner::in_folder(model.clone(), lesson(), TINY), TINY);
    let nowhere = Tuner::new(model.clone(), lesson()).expect("a tuner");
    assert_eq!(
        nowhere.save().expect_err("no folder").to_string(),
        "folder: the tuner was opened without one"
    );
    fs::write(folder.join("0.adapter"), b"short").expect("damage");
    assert!(matches!(model.with_adapter_of(utf8(&folder)), Err(ElectretError::Adapter(_))));

    let empty = folder.join("empty");
    fs::write(&empty, b"").expect("a file");
    for path in [empty.as_path(), folder.as_path(), Path::new("nowhere.electret"), Path::new("Cargo.toml")] {
        let said = Model::open(utf8(path)).expect_err("no model").to_string();
        assert!(
            said.starts_with(utf8(path)) || said.starts_with("magic") || said.starts_with("payload_length"),
            "{said}"
        );
    }
    assert_eq!(model.detect("  "), Err(ElectretError::Text(Error::EmptyText)));
    let long = "word ".repeat(2_000_000);
    assert!(matches!(model.detect(&long), Err(ElectretError::Text(Error::SequenceTooLong { .. }))));
    let limit = model.describe().tokens as usize;
    assert_eq!(model.truncating().detect(&long).expect("its front").len(), limit - 2);
}
