//! A part-of-speech tagger, learned sentence by sentence.
//!
//! `cargo run --release --example tagger`; with `ELECTRET_SHARED` set on the English Web Treebank (UD), otherwise
//! on the 400 sentences of it in examples/data.

mod common;

use electret::evaluate::{LabelNames, Labelled, score};
use electret::tune::{Settings, Step, Task};
use electret::weights::{AlignedBytes, HeadKind};
use electret::{Aligned, Error, Model, Plan, Session, Strategy, TINY, Tuner, TuningPlan};

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/electret-tiny.electret"));
const TOKENS: usize = 64;
const EPOCHS: u32 = 5;
const BATCH: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let train = common::data("tasks/ud_ewt_upos/train.conll", "words.conll");
    let train = Labelled::read(&train, LabelNames::OfFile)?;
    let test = common::data("tasks/ud_ewt_upos/test.conll", "words-test.conll");
    let test = Labelled::read(&test, LabelNames::First(train.labels.clone()))?;
    let names: Vec<&str> = train.labels.iter().map(String::as_str).collect();

    let model = Model::open(&MODEL.0)?;
    let strategy = Strategy::parse("head+lora:8:4:all").ok_or("no strategy")?;
    let plan = TuningPlan::new(&TINY, TOKENS, strategy, names.len());
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let steps = EPOCHS * train.examples.len().div_ceil(BATCH) as u32;
    let settings = Settings { learning_rate: 3e-3, total_steps: steps, ..Settings::default() };
    let task = Task::tag(&names);
    let mut tuner = Tuner::new(model, arena.as_mut_slice(), TOKENS, task, strategy, settings)?;
    let mut memory = AlignedBytes::zeroed(Plan::inference(&TINY, TOKENS).bytes());
    println!("{} sentences, {} tags, arena {} KiB", train.examples.len(), names.len(), plan.bytes() >> 10);
    for epoch in 0..EPOCHS {
        for batch in common::shuffled(train.examples.clone(), epoch.into()).chunks(BATCH) {
            for lesson in batch {
                match tuner.learn(lesson.input(), lesson.target()) {
                    // A line of nothing but control characters teaches nothing.
                    Ok(_) | Err(Error::EmptyText) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if tuner.step() == Step::Skipped {
                println!("a step was skipped");
            }
        }
        let session = Session::new(model, memory.as_mut_slice(), TOKENS)?;
        let metrics = score(&mut session.with_adapter(Some(tuner.adapter()))?, &test)?;
        println!("epoch {}: accuracy {:.3} of {} sentences", epoch + 1, metrics[0].value, metrics[0].n);
    }

    let session = Session::new(model, memory.as_mut_slice(), TOKENS)?;
    let mut session = session.with_adapter(Some(tuner.adapter()))?;
    let text = "the old dog ran quickly to the green river .";
    let found = session.token_logits(HeadKind::Tag, text.into())?;
    let tokens = found.tokens.iter().zip(found.logits.chunks(names.len()));
    for (token, logits) in tokens.filter(|(token, _)| token.special == 0 && token.continues == 0) {
        let best = (0..names.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0);
        println!("  {:8} {}", &text[token.start as usize..token.end as usize], names[best]);
    }
    Ok(())
}
