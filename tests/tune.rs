//! What a user of the tuner may rely on: a fixed buffer, the same bits everywhere, nothing lost to bad input,
//! adapters that open only on their own model.

#![cfg(feature = "convert")]

mod common;
#[path = "golden/tuning.rs"]
mod golden;

use std::path::Path;

use electret::kernels;
use electret::text::Input;
use electret::tune::store::{FolderStore, Store};
use electret::tune::{Settings, Step, Target, Task};
use electret::weights::AlignedBytes;
use electret::{
    Adapter, Document, Error, HeadKind, Model, Plan, SMALL, Session, Strategy, TINY, Tuner, TuningPlan,
};

const LABELS: [&str; 2] = ["question", "statement"];

#[test]
fn arena_targets() {
    const fn bytes(strategy: Strategy, tokens: usize) -> usize {
        TuningPlan::new(&SMALL, tokens, strategy, 2).bytes()
    }
    const { assert!(bytes(Strategy::HEAD, 128) <= Plan::inference(&SMALL, 128).bytes() + (16 << 10)) };
    const { assert!(bytes(Strategy::lora(4, 2), 64) <= 512 << 10) };
    const { assert!(bytes(Strategy::lora(8, 4), 64) <= 1 << 20) };
}

#[test]
fn every_kernel_set_learns_the_golden_bits() {
    let file = common::shipped_model();
    for set in kernels::available() {
        let mut arena = AlignedBytes::zeroed(golden::PLAN.bytes());
        let model = Model::open(file.as_slice()).unwrap();
        let hash = golden::tuned_hash(model, arena.as_mut_slice(), set).unwrap();
        assert_eq!(hash, golden::TUNED, "{}: {hash:#018x}", set.name);
    }
}

#[test]
fn the_bytes_touched_are_the_plan() {
    let file = common::shipped_model();
    let model = Model::open(file.as_slice()).unwrap();
    for text in ["head", "bias", "words:2", "lora:4:2", "head+bias:2+lora:3:4:all"] {
        let mut strategy = Strategy::parse(text).unwrap();
        strategy.head = true;
        let plan = TuningPlan::new(&TINY, 24, strategy, 2);
        let mut arena = AlignedBytes::zeroed(plan.bytes() + 4096);
        arena.as_mut_slice().fill(0xa5);
        let settings = Settings::default();
        let mut tuner = Tuner::with(
            model,
            arena.as_mut_slice(),
            plan,
            Task::classify(&LABELS),
            settings,
            kernels::best(),
        )
        .unwrap();
        let long = "The old king lived in a large house near the river and the sea. ".repeat(3);
        tuner.learn(Input { truncate: true, ..long.as_str().into() }, Target::Class(1)).unwrap();
        assert!(matches!(tuner.step(), Step::Taken { .. }));
        let bytes = arena.as_slice();
        assert!(
            bytes[plan.bytes()..].iter().all(|&byte| byte == 0xa5),
            "{text}: a byte behind the plan was written"
        );
        let touched = bytes[..plan.bytes()].iter().rposition(|&byte| byte != 0xa5).unwrap();
        // What is left at the end: products of rows that a sentence of 24 tokens does not fill.
        assert!(touched + 4096 >= plan.bytes(), "{text}: {touched} of {} bytes were touched", plan.bytes());
    }
}

/// A tuner of electret-tiny for two labels.
fn with_tuner<T>(strategy: &str, settings: Settings, work: impl FnOnce(&mut Tuner<'_, '_>) -> T) -> T {
    let file = common::shipped_model();
    let model = Model::open(file.as_slice()).unwrap();
    let strategy = Strategy::parse(strategy).unwrap();
    let plan = TuningPlan::new(&TINY, 32, strategy, 2);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let mut tuner =
        Tuner::with(model, arena.as_mut_slice(), plan, Task::classify(&LABELS), settings, kernels::best())
            .unwrap();
    work(&mut tuner)
}

const LESSONS: [(&str, usize); 6] = [
    ("where is the old house?", 0),
    ("the old house is near the river.", 1),
    ("who saw the king?", 0),
    ("we saw the king.", 1),
    ("why did they go home?", 0),
    ("they went home at night.", 1),
];

#[test]
fn every_strategy_learns() {
    for strategy in ["head", "head+bias", "head+words:2", "head+lora:4:2", "head+bias:1+lora:2:4:all"] {
        with_tuner(strategy, Settings { learning_rate: 5e-3, ..Settings::default() }, |tuner| {
            let mut losses = Vec::new();
            for _ in 0..30 {
                let round =
                    LESSONS.map(|(text, label)| tuner.learn(text.into(), Target::Class(label)).unwrap());
                losses.push(round.iter().sum::<f32>() / 6.0);
                tuner.step();
            }
            assert!(losses[29] < 0.5 * losses[0], "{strategy}: {} to {}", losses[0], losses[29]);
        });
    }
}

#[test]
fn bad_input_is_named_and_leaves_no_trace() {
    with_tuner("head+lora:2:1", Settings::default(), |tuner| {
        let bad: [(&str, Target<'_>, Error); 5] = [
            ("a text", Target::Class(2), Error::LabelOutOfRange { label: 2, labels: 2 }),
            ("", Target::Class(1), Error::EmptyText),
            ("a text", Target::Value(1.0), Error::WrongTarget("classify")),
            ("a text", Target::Tags(&[0, 1]), Error::WrongTarget("classify")),
            (&"word ".repeat(40), Target::Class(1), Error::SequenceTooLong { tokens: 42, limit: 32 }),
        ];
        for (text, target, error) in bad {
            assert_eq!(tuner.learn(text.into(), target), Err(error));
        }
        assert!(tuner.gradients().iter().all(|&x| x == 0.0));
        assert_eq!(tuner.step(), Step::Empty);
    });
}

#[test]
fn ranks_that_cannot_be_learned() {
    let file = common::shipped_model();
    let model = Model::open(file.as_slice()).unwrap();
    let mut arena = AlignedBytes::zeroed(8 << 20);
    let head = Strategy::HEAD;
    for strategy in [Strategy::lora(65, 2), Strategy::lora(0, 2), Strategy { words: 65, ..head }] {
        let (task, settings) = (Task::classify(&LABELS), Settings::default());
        let refused = Tuner::new(model, arena.as_mut_slice(), 32, task, strategy.with_head(), settings);
        assert!(matches!(refused.map(drop), Err(Error::InvalidStrategy(why)) if why.contains("rank")));
    }
}

#[test]
fn a_loss_that_is_no_number_is_skipped_and_counted() {
    with_tuner("head", Settings::default(), |tuner| {
        let good = tuner.adapter().parameters.to_vec();
        tuner.parameters_mut()[0] = f32::INFINITY;
        let mut store = FolderStore::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("infinite")).unwrap();
        assert_eq!(store.save(0, &tuner.adapter()), Err(Error::NotFinite));
        assert_eq!(store.checkpoint(tuner), Err(Error::NotFinite));
        assert_eq!(tuner.adapter().to_vec().unwrap_err(), Error::NotFinite);
        assert_eq!(tuner.state().to_vec().unwrap_err(), Error::NotFinite);
        assert_eq!(tuner.learn("where?".into(), Target::Class(0)), Err(Error::NotFinite));
        assert_eq!((tuner.progress().skipped, tuner.step()), (1, Step::Empty));
        tuner.parameters_mut().copy_from_slice(&good);
        tuner.learn("where?".into(), Target::Class(0)).unwrap();
        assert!(matches!(tuner.step(), Step::Taken { .. }));
    });
}

#[test]
fn settings_and_strategies_out_of_range_are_named() {
    let file = common::shipped_model();
    let model = Model::open(file.as_slice()).unwrap();
    let mut arena = AlignedBytes::zeroed(1 << 20);
    let mut attempt = |task: Task<'static>, strategy: Strategy, settings: Settings| {
        Tuner::new(model, arena.as_mut_slice(), 16, task, strategy, settings)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let task = Task::classify(&LABELS);
    let cases = [
        (
            attempt(task, Strategy::HEAD, Settings { learning_rate: f32::NAN, ..Settings::default() }),
            "learning_rate",
        ),
        (attempt(task, Strategy::HEAD, Settings { beta2: 1.0, ..Settings::default() }), "beta2"),
        (
            attempt(Task { class_weights: &[1.0], ..task }, Strategy::HEAD, Settings::default()),
            "class_weights",
        ),
        (attempt(Task::classify(&["one"]), Strategy::HEAD, Settings::default()), "label"),
        (attempt(task, Strategy::BIAS, Settings::default()), "no classify head"),
    ];
    for (message, wanted) in cases {
        assert!(message.contains(wanted), "{message}");
    }
    for text in [
        "",
        "heads",
        "lora",
        "lora:4",
        "lora:0:2",
        "lora:65:2",
        "lora:4:2:x",
        "head:1",
        "words",
        "words:65",
        "bias:0",
        "head+",
        "head+head",
        "bias:2+bias",
        "lora:8:4:q+lora:4:2:v",
    ] {
        assert_eq!(Strategy::parse(text), None, "{text}");
    }
    for text in [
        "head",
        "bias",
        "bias:3",
        "words:2",
        "head+words:4+lora:2:2",
        "lora:4:2",
        "head+lora:8:2:all",
        "head+bias:1+lora:2:2:qko",
    ] {
        assert_eq!(Strategy::parse(text).unwrap().to_string(), text);
    }
}

#[test]
fn an_adapter_comes_back_bit_for_bit_and_only_to_its_model() {
    let file = common::shipped_model();
    let model = Model::open(file.as_slice()).unwrap();
    let written = with_tuner("head+lora:4:2", Settings::default(), |tuner| {
        for (text, label) in LESSONS {
            tuner.learn(text.into(), Target::Class(label)).unwrap();
        }
        tuner.step();
        let mut bytes = AlignedBytes::zeroed(tuner.adapter().bytes());
        tuner.adapter().write(bytes.as_mut_slice()).unwrap();
        (bytes, tuner.adapter().parameters.to_vec())
    });
    let (bytes, parameters) = written;
    let adapter = Adapter::open(bytes.as_slice(), &model).unwrap();
    assert!(adapter.parameters.iter().map(|x| x.to_bits()).eq(parameters.iter().map(|x| x.to_bits())));
    assert_eq!(adapter.labels.iter().collect::<Vec<_>>(), LABELS);

    let mut arena = AlignedBytes::zeroed(Plan::inference(&TINY, 32).bytes());
    let plain = |session: &mut Session<'_, '_>| {
        session.detect("The king.").unwrap().map(|d| d.replaced.to_bits()).collect::<Vec<_>>()
    };
    let mut session = Session::new(model, arena.as_mut_slice(), 32).unwrap();
    let before = plain(&mut session);
    let mut session = session.with_adapter(Some(adapter)).unwrap();
    assert_eq!(session.classify("who?".into()).unwrap().len(), 2);
    let mut session = session.with_adapter(None).unwrap();
    assert_eq!(plain(&mut session), before, "switching off leaves the model as it was");
    // A test that cannot be done, for want of room, takes no adapter away.
    let mut session =
        Session::new(model, arena.as_mut_slice(), 3).unwrap().with_adapter(Some(adapter)).unwrap();
    assert!(matches!(session.self_test(), Err(Error::SequenceTooLong { .. })));
    assert_eq!(session.adapter_kind(), Some(HeadKind::Classify));

    // Every damage is seen: each byte in turn, and every length.
    for index in 0..bytes.as_slice().len() {
        let mut damaged = bytes.clone();
        damaged.as_mut_slice()[index] ^= 0x40;
        assert!(Adapter::open(damaged.as_slice(), &model).is_err(), "byte {index}");
        assert!(Adapter::open(&bytes.as_slice()[..index], &model).is_err(), "{index} bytes");
    }
    assert_eq!(Adapter::open(file.as_slice(), &model).unwrap_err(), Error::NotAnAdapter);
    // The same bytes after an adapter of another base: its checksum holds, its model is not this one.
    let mut foreign = bytes.as_slice()[64..].to_vec();
    foreign[0] ^= 1;
    let header = electret::weights::Header::of(electret::weights::FileKind::Adapter, &foreign).to_bytes();
    let foreign = AlignedBytes::copy_of(&[&header[..], &foreign].concat());
    assert!(matches!(Adapter::open(foreign.as_slice(), &model), Err(Error::ForeignAdapter { .. })));

    // A number that no learner writes, and numbers that no answer comes of.
    let mut infinite = bytes.as_slice()[64..].to_vec();
    *infinite.last_chunk_mut().unwrap() = f32::INFINITY.to_le_bytes();
    let header = electret::weights::Header::of(electret::weights::FileKind::Adapter, &infinite).to_bytes();
    let infinite = AlignedBytes::copy_of(&[&header[..], &infinite].concat());
    let refused = Adapter::open(infinite.as_slice(), &model).unwrap_err();
    assert_eq!(refused, Error::InvalidAdapter { field: "parameters" });
    let huge = with_tuner("head", Settings::default(), |tuner| {
        tuner.parameters_mut().fill(3e38);
        AlignedBytes::copy_of(&tuner.adapter().to_vec().unwrap())
    });
    let huge = Adapter::open(huge.as_slice(), &model).unwrap();
    let mut session =
        Session::new(model, arena.as_mut_slice(), 32).unwrap().with_adapter(Some(huge)).unwrap();
    assert_eq!(session.classify("who?".into()).unwrap_err(), Error::NotFinite);
}

#[test]
fn dropout_has_the_gradient_of_the_network_that_it_leaves() {
    let settings = Settings { dropout: 0.3, ..Settings::default() };
    let (text, target) = (LESSONS[1].0, Target::Class(1));
    for seed in 0..3 {
        with_tuner("head+bias:2+lora:4:3:all", Settings { seed, ..settings }, |tuner| {
            // B is zero at first, and lets no gradient through to A.
            for (index, x) in tuner.parameters_mut().iter_mut().enumerate() {
                *x += ((index * 7919 % 1000) as f32 - 500.0) * 1e-4;
            }
            let mut state = vec![0; tuner.state().bytes()];
            tuner.state().write(&mut state).unwrap();
            let start = tuner.adapter().parameters.to_vec();
            let loss = tuner.learn(text.into(), target).unwrap();
            let gradient = tuner.gradients().to_vec();
            let norm = gradient.iter().map(|x| x * x).sum::<f32>().sqrt();
            // The same example of the same run loses the same values, on other parameters too.
            let mut moved = |step: f32| {
                tuner.restore(&state).unwrap();
                for (x, (start, g)) in tuner.parameters_mut().iter_mut().zip(start.iter().zip(&gradient)) {
                    *x = start + step * g / norm;
                }
                tuner.learn(text.into(), target).unwrap()
            };
            assert_eq!(moved(0.0).to_bits(), loss.to_bits());
            // Activations are rounded to int8, so that a loss has a grain: a slope over one small step is off by as much as 6 %.
            let slopes = [0.01, 0.02, 0.03].map(|step| (moved(step) - moved(-step)) / (2.0 * step));
            let slope = slopes.iter().sum::<f32>() / slopes.len() as f32;
            println!("seed {seed}: slope {slope:.4}, norm {norm:.4}, loss {loss:.4}");
            assert!((slope - norm).abs() < 0.05 * norm, "{slope} {norm}");
            assert_ne!(tuner.loss(text.into(), target).unwrap().to_bits(), loss.to_bits());
        });
    }
}

#[test]
fn a_state_is_refused_by_another_tuner_and_leaves_it_as_it_was() {
    let settings = Settings::default();
    let written = with_tuner("head", settings, |tuner| {
        tuner.learn(LESSONS[0].0.into(), Target::Class(0)).unwrap();
        tuner.step();
        let mut state = vec![0; tuner.state().bytes()];
        tuner.state().write(&mut state).unwrap();
        state
    });
    with_tuner("head+lora:2:1", settings, |tuner| {
        let before = tuner.adapter().parameters.to_vec();
        let field = "task or strategy";
        assert_eq!(tuner.restore(&written), Err(Error::InvalidTunerState { field }));
        let mut adapter = vec![0; tuner.adapter().bytes()];
        tuner.adapter().write(&mut adapter).unwrap();
        assert_eq!(tuner.restore(&adapter), Err(Error::NotATunerState));
        assert_eq!(tuner.adapter().parameters, before);
    });
    with_tuner("head", settings, |tuner| {
        for index in (0..written.len()).step_by(7) {
            let mut damaged = written.clone();
            damaged[index] ^= 0x10;
            assert!(tuner.restore(&damaged).is_err(), "byte {index}");
            assert!(tuner.restore(&written[..index]).is_err(), "{index} bytes");
        }
        assert_eq!(tuner.progress().steps, 0);
        // The same bytes after a state of another model.
        let mut foreign = written[64..].to_vec();
        foreign[0] ^= 1;
        let header = electret::weights::Header::of(electret::weights::FileKind::TunerState, &foreign);
        let foreign = [&header.to_bytes()[..], &foreign].concat();
        assert!(matches!(tuner.restore(&foreign), Err(Error::ForeignAdapter { .. })));
        tuner.restore(&written).unwrap();
        assert_eq!(tuner.progress().steps, 1);
    });
}
