//! A spam filter that learns from its owner's corrections.
//!
//! It starts knowing nothing but language. Messages arrive one by one; it answers, the owner corrects it, it
//! learns. What it has learned lies in a flash from which it comes up again after the power was gone.
//!
//! `cargo run --release --example spam_filter`; with `ELECTRET_SHARED` set it reads 600 real messages, otherwise
//! the 60 of examples/data.

mod common;

use common::{Flash, shuffled};
use electret::evaluate::{LabelNames, Labelled};
use electret::text::Input;
use electret::tune::store::{FlashStore, Store};
use electret::tune::{Guard, GuardPlan, Settings, Target, Task, Tolerance, Verdict};
use electret::weights::AlignedBytes;
use electret::{Aligned, Document, Error, Model, Plan, Session, Strategy, TINY, Tuner, TuningPlan};

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/electret-tiny.electret"));
const TOKENS: usize = 64;
const STRATEGY: Strategy = Strategy::lora(4, 2).with_head();
const PLAN: TuningPlan = TuningPlan::new(&TINY, TOKENS, STRATEGY, 2);
const ROUND: usize = 20;
/// Where the spam filter's adapter is kept.
const SPAM: u8 = 0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = common::data("tasks/sms_spam/all.tsv", "messages.tsv");
    let Labelled { labels, examples, .. } = Labelled::read(&path, LabelNames::OfFile)?;
    let names: Vec<&str> = labels.iter().map(String::as_str).collect();
    let messages: Vec<_> = shuffled(examples, 7).into_iter().take(600).collect();

    let model = Model::open(&MODEL.0)?;
    let mut arena = AlignedBytes::zeroed(PLAN.bytes());
    let settings = Settings { learning_rate: 2e-3, ..Settings::default() };
    let task = Task::classify(&names);
    let mut tuner = Tuner::new(model, arena.as_mut_slice(), TOKENS, task, STRATEGY, settings)?;
    let guard_plan = GuardPlan {
        held_out: 40,
        replayed: 40,
        example_bytes: 220,
        hold_out_every: 5,
        state_bytes: tuner.state().bytes(),
    };
    let mut memory = vec![0; guard_plan.bytes()];
    let mut guard = Guard::new(&mut memory, guard_plan, Tolerance::default())?;
    let mut store = FlashStore::open(Flash::new(64 * 4096), 0..64 * 4096)?;
    println!("arena {} KiB, guard {} KiB", PLAN.bytes() >> 10, guard_plan.bytes() >> 10);

    let mut answering = AlignedBytes::zeroed(Plan::inference(&TINY, TOKENS).bytes());
    let mut right = 0;
    for (number, round) in messages.chunks(ROUND).enumerate() {
        let mut correct = 0;
        let mut lessons = Vec::new();
        guard.begin(&mut tuner)?;
        for message in round {
            let input = Input { truncate: true, ..message.input() };
            correct +=
                usize::from(answer(&tuner, model, answering.as_mut_slice(), input)? == message.target());
            if guard.offer(input, message.target()) {
                lessons.push((input, message.target()));
            }
        }
        for _ in 0..3 {
            for batch in lessons.chunks(4) {
                for &(input, target) in batch {
                    tuner.learn(input, target)?;
                }
                guard.replay(&mut tuner)?;
                tuner.step();
            }
        }
        let verdict = match guard.judge(&mut tuner)? {
            Verdict::Kept { before, after } => format!("kept ({before:.2} → {after:.2} nats)"),
            Verdict::RolledBack { before, after } => format!("rolled back ({before:.2} → {after:.2} nats)"),
            Verdict::Unjudged => "kept, nothing to judge by yet".to_owned(),
        };
        store.checkpoint(&tuner)?;
        store.save_guard(&guard)?;
        store.save(SPAM, &tuner.adapter())?;
        store.activate(Some(SPAM))?;
        right += correct;
        println!(
            "messages {:3} to {:3}: {correct:2} of {} right; {verdict}",
            number * ROUND + 1,
            number * ROUND + round.len(),
            round.len()
        );
    }
    println!("{right} of {} messages were right before they were learned", messages.len());

    // The power goes and comes back: the filter is in the flash.
    let mut store = FlashStore::open(store.close(), 0..64 * 4096)?;
    let mut file = AlignedBytes::zeroed(1 << 16);
    let active = store.active()?.ok_or("no adapter is active")?;
    let adapter = store.adapter(active, &model, file.as_mut_slice())?;
    let mut session = Session::new(model, answering.as_mut_slice(), TOKENS)?.with_adapter(adapter)?;
    for text in
        ["are you coming home for dinner?", "you have won a 1000 cash prize! call 09061701461 now to claim"]
    {
        let spam = session.classify(text.into())?[1];
        println!("{:5.1} % {}  {text}", spam * 100.0, names[1]);
    }
    Ok(())
}

/// What the filter says of a message with what it has learned so far.
fn answer(
    tuner: &Tuner<'_, '_>,
    model: Model<'_>,
    arena: &mut [u8],
    input: Input<'_>,
) -> Result<Target<'static>, Error> {
    let mut session = Session::new(model, arena, TOKENS)?.with_adapter(Some(tuner.adapter()))?;
    let spam = session.classify(input)?[1] > 0.5;
    Ok(Target::Class(spam.into()))
}
