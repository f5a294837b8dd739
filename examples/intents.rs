//! Intents from ten examples a class: the head alone beside low-rank updates of the last layers.
//!
//! `cargo run --release --example intents`; with `ELECTRET_SHARED` set on the seven intents of SNIPS, otherwise
//! on the five of examples/data.

mod common;

use std::collections::HashMap;

use common::shuffled;
use electret::evaluate::{Example, LabelNames, Labelled, score};
use electret::tune::{Settings, Task};
use electret::weights::AlignedBytes;
use electret::{Aligned, Document, Model, Plan, Session, Strategy, TINY, Tuner, TuningPlan};

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/electret-tiny.electret"));
const TOKENS: usize = 48;
const EPOCHS: u32 = 30;
const BATCH: usize = 4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let train = Labelled::read(&common::data("tasks/snips/train.tsv", "intents.tsv"), LabelNames::OfFile)?;
    let test = common::data("tasks/snips/test.tsv", "intents.tsv");
    let test = Labelled::read(&test, LabelNames::Only(train.labels.clone()))?;
    let lessons = ten_of_each(shuffled(train.examples, 1));
    let unseen = |example: &Example| !lessons.iter().any(|lesson| lesson.text == example.text);
    let test = Labelled { examples: test.examples.into_iter().filter(unseen).collect(), ..test };
    let names: Vec<&str> = train.labels.iter().map(String::as_str).collect();
    println!("{} lessons, {} questions, {} intents", lessons.len(), test.examples.len(), names.len());

    let model = Model::open(&MODEL.0)?;
    for (strategy, learning_rate) in [("head", 1e-2), ("head+lora:8:4:all", 2e-3)] {
        let strategy = Strategy::parse(strategy).ok_or("no strategy")?;
        let plan = TuningPlan::new(&TINY, TOKENS, strategy, names.len());
        let mut arena = AlignedBytes::zeroed(plan.bytes());
        let steps = EPOCHS * lessons.len().div_ceil(BATCH) as u32;
        let settings = Settings { learning_rate, total_steps: steps, ..Settings::default() };
        let task = Task::classify(&names);
        let mut tuner = Tuner::new(model, arena.as_mut_slice(), TOKENS, task, strategy, settings)?;
        for epoch in 0..EPOCHS {
            for batch in shuffled(lessons.clone(), epoch.into()).chunks(BATCH) {
                for lesson in batch {
                    tuner.learn(lesson.input(), lesson.target())?;
                }
                tuner.step();
            }
        }
        let mut memory = AlignedBytes::zeroed(Plan::inference(&TINY, TOKENS).bytes());
        let session = Session::new(model, memory.as_mut_slice(), TOKENS)?;
        let metrics = score(&mut session.with_adapter(Some(tuner.adapter()))?, &test)?;
        println!(
            "{strategy:20} accuracy {:.3}  (arena {} KiB, adapter {} KiB)",
            metrics[0].value,
            plan.bytes() >> 10,
            tuner.adapter().bytes() >> 10
        );
    }
    Ok(())
}

/// The first ten examples of each label.
fn ten_of_each(examples: Vec<Example>) -> Vec<Example> {
    let mut counts = HashMap::new();
    let mut lessons = examples;
    lessons.retain(|example| {
        let count = counts.entry(format!("{:?}", example.truth)).or_insert(0);
        *count += 1;
        *count <= 10
    });
    lessons
}
