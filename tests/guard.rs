//! The guard keeps honest rounds and rolls back those whose labels are wrong, and comes back from a store.

#![cfg(feature = "convert")]

mod common;

use std::path::{Path, PathBuf};

use electret::evaluate::{Example, LabelNames, Labelled};
use electret::text::Input;
use electret::tune::store::{FolderStore, Store};
use electret::tune::{Guard, GuardPlan, Rounds, Settings, Target, Task, Tolerance, Verdict};
use electret::weights::AlignedBytes;
use electret::{Document, Error, Model, Strategy, TINY, Tuner, TuningPlan};

const PLAN: GuardPlan =
    GuardPlan { held_out: 80, replayed: 12, example_bytes: 200, hold_out_every: 5, state_bytes: 1 << 17 };

/// Text messages in an order of the seed's, ham and spam in turn.
fn messages(path: &Path, seed: u64) -> (Vec<String>, Vec<Example>) {
    let Labelled { labels, mut examples, .. } = Labelled::read(path, LabelNames::OfFile).unwrap();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for last in (1..examples.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        examples.swap(last, (state >> 33) as usize % (last + 1));
    }
    let (spam, ham): (Vec<_>, Vec<_>) =
        examples.into_iter().partition(|example| example.target() == Target::Class(1));
    (labels, spam.into_iter().zip(ham).flat_map(|(spam, ham)| [spam, ham]).collect())
}

fn shipped_messages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/messages.tsv")
}

/// Runs `work` with a tuner of electret-tiny for messages.
fn with_tuner<T>(labels: &[String], learning_rate: f32, work: impl FnOnce(&mut Tuner<'_, '_>) -> T) -> T {
    let file = common::shipped_model();
    let model = Model::open(file.as_slice()).unwrap();
    let names: Vec<&str> = labels.iter().map(String::as_str).collect();
    let strategy = Strategy::lora(4, 2).with_head();
    let plan = TuningPlan::new(&TINY, 64, strategy, names.len());
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let settings = Settings { learning_rate, ..Settings::default() };
    let mut tuner =
        Tuner::new(model, arena.as_mut_slice(), 64, Task::classify(&names), strategy, settings).unwrap();
    work(&mut tuner)
}

/// Learns examples, eight a step.
fn learn(tuner: &mut Tuner<'_, '_>, examples: &[Example]) {
    for batch in examples.chunks(8) {
        for example in batch {
            tuner.learn(Input { truncate: true, ..example.input() }, example.target()).unwrap();
        }
        tuner.step();
    }
}

/// Runs `work` with a guard that a maker gave `trusted` examples.
fn with_guard<T>(trusted: &[Example], work: impl FnOnce(&mut Guard<'_>) -> T) -> T {
    let mut memory = vec![0; PLAN.bytes()];
    let mut guard = Guard::new(&mut memory, PLAN, Tolerance::default()).unwrap();
    for example in trusted {
        guard.hold_out(example.input(), example.target());
    }
    work(&mut guard)
}

/// One round: every example is offered, those to be learned are learned five times, eight a step, with replays.
fn round(
    tuner: &mut Tuner<'_, '_>,
    guard: &mut Guard<'_>,
    examples: &[Example],
    wrong: impl Fn(usize) -> bool,
) -> Verdict {
    guard.begin(tuner).unwrap();
    let mut lessons = Vec::new();
    for (index, example) in examples.iter().enumerate() {
        let Target::Class(label) = example.target() else { panic!("not a class") };
        let target = Target::Class(if wrong(index) { 1 - label } else { label });
        if guard.offer(example.input(), target) {
            lessons.push((example.input(), target));
        }
    }
    for _ in 0..5 {
        for batch in lessons.chunks(8) {
            for &(input, target) in batch {
                tuner.learn(input, target).unwrap();
            }
            guard.replay(tuner).unwrap();
            tuner.step();
        }
    }
    guard.judge(tuner).unwrap()
}

#[test]
fn wrong_labels_are_rolled_back_and_honest_rounds_kept() {
    let Some(path) = common::shared("data/tasks/sms_spam/all.tsv") else { return };
    let (labels, examples) = messages(&path, 0);
    let (first, _) = examples.split_at(1100);
    let mut outcomes = [[0; 2]; 2];
    let trained = with_tuner(&labels, 1e-3, |tuner| {
        for _ in 0..3 {
            learn(tuner, first);
        }
        let mut trained = vec![0; tuner.state().bytes()];
        tuner.state().write(&mut trained).unwrap();
        trained
    });
    with_tuner(&labels, 1e-3, |tuner| {
        for (seed, flipped) in (1..21).flat_map(|seed| [(seed, 0), (seed, 3)]) {
            tuner.restore(&trained).unwrap();
            let (_, mut examples) = messages(&path, seed);
            examples.retain(|example| !first.iter().any(|known| known.text == example.text));
            let (trusted, rest) = examples.split_at(80);
            with_guard(trusted, |guard| {
                let before = tuner.adapter().parameters.to_vec();
                // Three of every ten.
                let wrong = |index: usize| (index * 7 + index / 10) % 10 < flipped;
                let verdict = round(tuner, guard, &rest[..60], wrong);
                let rolled_back = matches!(verdict, Verdict::RolledBack { .. });
                println!("run {seed}, {flipped} of 10 labels wrong: {verdict:?}");
                assert_eq!(tuner.adapter().parameters == before, rolled_back);
                let rounds = Rounds { kept: u32::from(!rolled_back), rolled_back: rolled_back.into() };
                assert_eq!(guard.rounds(), rounds);
                outcomes[usize::from(flipped > 0)][usize::from(rolled_back)] += 1;
            });
        }
    });
    let [[kept, lost], [missed, caught]] = outcomes;
    println!("honest rounds: {kept} kept, {lost} rolled back");
    println!("30 % of the labels wrong: {caught} rolled back, {missed} kept");
    assert!(kept >= 19 && caught >= 19);
}

#[test]
fn a_guard_comes_back_from_a_store_and_goes_on_alike() {
    let folder = std::env::temp_dir().join(format!("electret-guard-{}", std::process::id()));
    let mut store = FolderStore::open(&folder).unwrap();
    let (labels, examples) = messages(&shipped_messages(), 3);
    let (trusted, rest) = examples.split_at(20);
    let goes_on = |tuner: &mut Tuner<'_, '_>, guard: &mut Guard<'_>| {
        let verdicts = [10, 20, 30].map(|end| round(tuner, guard, &rest[end - 10..end], |_| false));
        (verdicts, guard.rounds(), tuner.adapter().parameters.to_vec())
    };
    let expected = with_tuner(&labels, 1e-3, |tuner| {
        with_guard(trusted, |guard| {
            round(tuner, guard, &rest[30..40], |_| false);
            store.save_guard(guard).unwrap();
            store.checkpoint(tuner).unwrap();
            goes_on(tuner, guard)
        })
    });
    let found = with_tuner(&labels, 1e-3, |tuner| {
        with_guard(&[], |guard| {
            assert!(store.restore_guard(guard).unwrap() && store.resume(tuner).unwrap());
            assert!(guard.held_out() >= 20);
            goes_on(tuner, guard)
        })
    });
    assert_eq!(found, expected);
    let mut memory = vec![0; PLAN.bytes()];
    let mut other =
        Guard::new(&mut memory, GuardPlan { held_out: 23, ..PLAN }, Tolerance::default()).unwrap();
    assert!(matches!(store.restore_guard(&mut other), Err(Error::InvalidSetting { field: "plan", .. })));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn every_kind_of_example_is_remembered_as_it_was() {
    let mut memory = vec![0; PLAN.bytes()];
    let mut guard = Guard::new(&mut memory, PLAN, Tolerance::default()).unwrap();
    assert!(guard.hold_out("où est l'école?".into(), Target::Value(-2.5)));
    assert!(guard.hold_out("one two three".into(), Target::Tags(&[3, 0, 65535])));
    assert!(guard.hold_out("one two".into(), Target::Replaced(&[true, false])));
    assert!(guard.hold_out("what".into(), Target::Span(7, 99)));
    assert_eq!(guard.held_out(), 4);
    assert!(!guard.hold_out(" ".repeat(200).as_str().into(), Target::Class(0)), "too long for a slot");
    assert!(!guard.hold_out("word ".repeat(130).as_str().into(), Target::Tags(&[0; 130])));
    let mut written = vec![0; guard.bytes()];
    guard.write(&mut written).unwrap();
    let text = |word: &str| written.windows(word.len()).any(|window| window == word.as_bytes());
    assert!(text("où est l'école?") && text("one two three"));
    for (plan, wanted) in [
        (GuardPlan { hold_out_every: 1, ..PLAN }, "hold_out_every"),
        (GuardPlan { held_out: 0, ..PLAN }, "held_out"),
        (GuardPlan { replayed: 1000, ..PLAN }, "arena"),
    ] {
        let mut memory = vec![0; PLAN.bytes()];
        let error = Guard::new(&mut memory, plan, Tolerance::default()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
