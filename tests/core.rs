//! What the core promises: no allocation, no byte beyond the plan, the same bits on every kernel
//! set and block size, and the reference's answers within int8's reach.
#![cfg(feature = "convert")]

mod common;
#[path = "../examples/common/mod.rs"]
mod example;
#[path = "golden/logits.rs"]
mod golden;
#[path = "golden/softmax.rs"]
mod softmax;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::golden::Golden;
use electret::import::{Checkpoint, HeadTensors};
use electret::kernels;
use electret::quantize::{Recipe, quantize, quantize_by, self_test, verify};
#[cfg(feature = "parallel")]
use electret::tasks::Batch;
use electret::text::Input;
use electret::weights::{AlignedBytes, HeadKind};
use electret::{Arena, Document, ElectraConfig, Model, Plan, SMALL, Session, TINY};

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SENTENCES: [&str; 4] = [
    "The cat sat on the mat.",
    "a",
    "Où est l'école? 東京 — naïve café 👩‍👩‍👧, twice and thrice!",
    "He said that he had never seen such a large ship in the harbour before, and that the small village on the northern bank was older than the church.",
];

/// The random ELECTRA of the golden files with one head.
fn golden_model(head: &str) -> AlignedBytes {
    let checkpoint = Golden::open().checkpoint(Some(head));
    AlignedBytes::copy_of(&quantize(&checkpoint, "random", "none").unwrap())
}

#[test]
fn nothing_allocates() {
    let file = common::shipped_model();
    let mut arena = AlignedBytes::zeroed(Plan::inference(&TINY, 64).bytes());
    let before = ALLOCATIONS.get();
    let model = Model::open(file.as_slice()).unwrap();
    let mut session = Session::new(model, arena.as_mut_slice(), 64).unwrap();
    for text in SENTENCES {
        let input = Input { truncate: true, ..text.into() };
        session.token_logits(HeadKind::Detect, input).unwrap();
        session.embed(input, electret::tasks::Pooling::Mean).unwrap();
    }
    assert_eq!(ALLOCATIONS.get(), before, "the core allocated");
}

#[test]
fn nothing_allocates_while_learning() {
    use electret::tune::store::{FlashStore, Store};
    use electret::tune::{Guard, GuardPlan, Settings, Target, Task, Tolerance};
    let file = common::shipped_model();
    let strategy = electret::Strategy::lora(4, 2).with_head();
    let plan = electret::TuningPlan::new(&TINY, 64, strategy, 2);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let mut written = vec![0; 1 << 16];
    let guard_plan =
        GuardPlan { held_out: 4, replayed: 4, example_bytes: 256, hold_out_every: 2, state_bytes: 1 << 18 };
    let mut memory = vec![0; guard_plan.bytes()];
    let flash = example::Flash::new(1 << 20);
    let before = ALLOCATIONS.get();
    let model = Model::open(file.as_slice()).unwrap();
    let task = Task::classify(&["short", "long"]);
    let mut tuner =
        electret::Tuner::new(model, arena.as_mut_slice(), 64, task, strategy, Settings::default()).unwrap();
    let mut guard = Guard::new(&mut memory, guard_plan, Tolerance::default()).unwrap();
    let mut store = FlashStore::open(flash, 0..1 << 20).unwrap();
    for _ in 0..2 {
        guard.begin(&mut tuner).unwrap();
        for (label, text) in SENTENCES[..2].iter().enumerate() {
            guard.offer((*text).into(), Target::Class(label));
            tuner.learn((*text).into(), Target::Class(label)).unwrap();
            guard.replay(&mut tuner).unwrap();
            tuner.step();
        }
        guard.judge(&mut tuner).unwrap();
        store.checkpoint(&tuner).unwrap();
        store.save_guard(&guard).unwrap();
        store.save(0, &tuner.adapter()).unwrap();
    }
    assert!(store.resume(&mut tuner).unwrap() && store.restore_guard(&mut guard).unwrap());
    electret::Adapter::open(tuner.adapter().write(&mut written).unwrap(), &model).unwrap();
    assert_eq!(ALLOCATIONS.get(), before, "learning allocated");
}

#[test]
fn the_bytes_touched_are_the_plan() {
    let file = common::shipped_model();
    let model = Model::open(file.as_slice()).unwrap();
    for (tokens, rows) in [(8, 1), (16, 8), (33, 4), (64, 16)] {
        let plan = Plan::with_block_rows(model.config(), tokens, rows);
        let mut arena = AlignedBytes::zeroed(plan.bytes() + 4096);
        arena.as_mut_slice().fill(0xa5);
        let mut session = Session::with(model, arena.as_mut_slice(), plan, kernels::best()).unwrap();
        let input = Input { truncate: true, ..SENTENCES[3].into() };
        session.token_logits(HeadKind::Detect, input).unwrap();
        let untouched = &arena.as_slice()[plan.bytes()..];
        assert!(untouched.iter().all(|&byte| byte == 0xa5), "a byte behind the plan was written");
        // Every 4 KiB of the plan were needed, but for what a short text leaves.
        let touched = arena.as_slice()[..plan.bytes()].iter().rposition(|&byte| byte != 0xa5).unwrap();
        assert!(touched + 64 * 64 >= plan.bytes(), "{touched} of {} bytes were touched", plan.bytes());
    }
}

#[test]
fn arena_targets() {
    const { assert!(Plan::inference(&SMALL, 128).bytes() <= 256 << 10) };
    const { assert!(Plan::inference(&SMALL, 512).bytes() <= 1 << 20) };
    static ARENA: Arena<{ Plan::inference(&TINY, 32).bytes() }> = Arena::new();
    assert_eq!(size_of_val(&ARENA), Plan::inference(&TINY, 32).bytes());
    assert!(ElectraConfig::preset("medium").is_none());
}

/// All logits of all heads over all sentences, as bits.
fn bits(file: &AlignedBytes, plan: Plan, set: &'static kernels::KernelSet) -> Vec<u32> {
    let model = Model::open(file.as_slice()).unwrap();
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let mut session = Session::with(model, arena.as_mut_slice(), plan, set).unwrap();
    let mut bits = Vec::new();
    for text in SENTENCES {
        let input = Input { text, pair: Some(SENTENCES[0]), truncate: true };
        let hidden = session.encode(input).unwrap().1;
        bits.extend(hidden.iter().map(|x| x.to_bits()));
        for head in model.root().heads.iter() {
            match head.kind {
                HeadKind::FillMask => {
                    let (_, predictions) = session.fill_mask(input).unwrap();
                    bits.extend(predictions.iter().flat_map(|p| [p.id, p.logit.to_bits()]));
                }
                kind => {
                    let logits = session.token_logits(kind, input).unwrap().logits;
                    bits.extend(logits.iter().map(|x| x.to_bits()));
                }
            }
        }
    }
    bits
}

#[test]
fn every_kernel_set_and_block_size_gives_the_same_bits() {
    let scalar = kernels::available().next().unwrap();
    println!("sets of this machine: {:?}", kernels::available().collect::<Vec<_>>());
    let models = ["pretraining", "mlm", "seqcls", "tokcls", "qa"].map(golden_model);
    for file in models.into_iter().chain([common::shipped_model()]) {
        let config = *Model::open(file.as_slice()).unwrap().config();
        let tokens = config.max_position_embeddings;
        let expected = bits(&file, Plan::with_block_rows(&config, tokens, 1), scalar);
        for set in kernels::available() {
            for rows in [1, 3, 8, 32] {
                let plan = Plan::with_block_rows(&config, tokens, rows);
                assert!(
                    bits(&file, plan, set) == expected,
                    "{} with blocks of {rows} rows differs",
                    set.name
                );
            }
        }
    }
}

/// Word embeddings wider than the hidden states, as electra-base's generator has them.
#[test]
fn fill_mask_of_wide_embeddings_has_the_same_bits_in_every_block() {
    let config = ElectraConfig {
        vocab_size: 40,
        embedding_size: 96,
        hidden_size: 32,
        num_attention_heads: 2,
        num_hidden_layers: 1,
        intermediate_size: 96,
        max_position_embeddings: 40,
        ..TINY
    };
    let mut checkpoint = Checkpoint::random("wide", config, 3);
    checkpoint.heads = vec![HeadTensors::generator(96)];
    let values = |count: usize| (0..count).map(|at| (at as f32 * 1.7).sin() * 0.2).collect::<Vec<f32>>();
    for (name, shape) in [
        ("generator_predictions.dense.weight", &[96, 32][..]),
        ("generator_predictions.dense.bias", &[96]),
        ("generator_predictions.LayerNorm.weight", &[96]),
        ("generator_predictions.LayerNorm.bias", &[96]),
        ("generator_lm_head.bias", &[40]),
    ] {
        checkpoint.tensors.insert(name, shape, values(shape.iter().product()));
    }
    let file = AlignedBytes::copy_of(&quantize(&checkpoint, "", "").unwrap());
    let expected = bits(&file, Plan::with_block_rows(&config, 40, 8), kernels::best());
    for rows in [1, 2, 3] {
        assert!(bits(&file, Plan::with_block_rows(&config, 40, rows), kernels::best()) == expected, "{rows}");
    }
}

/// int4, in layers whose inputs are whole groups of 32 and not, with int8 ones between them.
#[test]
fn int4_gives_the_same_bits_on_every_kernel_set_and_block_size() {
    let scalar = kernels::available().next().unwrap();
    for (hidden, inner, words) in [(64, 136, 32), (72, 200, 72)] {
        let config = ElectraConfig {
            embedding_size: words,
            hidden_size: hidden,
            num_attention_heads: 2,
            num_hidden_layers: 2,
            intermediate_size: inner,
            max_position_embeddings: 40,
            ..TINY
        };
        let checkpoint = Checkpoint::random("int4", config, 3);
        let mut recipe = Recipe::all_int4(&checkpoint);
        recipe.int4.remove("electra.encoder.layer.1.attention.self.key");
        let file = AlignedBytes::copy_of(&quantize_by(&checkpoint, "", "", &recipe).unwrap());
        let model = Model::open(file.as_slice()).unwrap();
        assert_eq!(model.linears().filter(|linear| linear.is_int4()).count(), 12);
        let expected = bits(&file, Plan::with_block_rows(&config, 40, 1).unpacking(&config), scalar);
        for set in kernels::available() {
            assert!(self_test(model, set).unwrap().1, "{}", set.name);
            for rows in [1, 3, 8, 32] {
                let plan = Plan::with_block_rows(&config, 40, rows).unpacking(&config);
                assert!(bits(&file, plan, set) == expected, "{} with blocks of {rows} rows", set.name);
            }
        }
    }
}

#[test]
fn int4_needs_the_plan_for_the_model() {
    let checkpoint = Checkpoint::random("int4", TINY, 3);
    let recipe = Recipe::all_int4(&checkpoint);
    let file = AlignedBytes::copy_of(&quantize_by(&checkpoint, "", "", &recipe).unwrap());
    let model = Model::open(file.as_slice()).unwrap();
    assert_eq!(
        electret::weights::Header::parse(electret::weights::FileKind::Model, file.as_slice())
            .unwrap()
            .version,
        3
    );
    let plan = Plan::inference(&TINY, 32);
    let (needed, found) = (plan.for_model(&model).bytes(), plan.bytes());
    assert!(needed == plan.unpacking(&TINY).bytes() && needed <= found + (12 << 10));
    let mut arena = AlignedBytes::zeroed(found);
    let error = Session::new(model, arena.as_mut_slice(), 32).unwrap_err();
    assert_eq!(error, electret::Error::ArenaTooSmall { needed, found });
    let mut arena = AlignedBytes::zeroed(needed);
    let before = ALLOCATIONS.get();
    Session::new(model, arena.as_mut_slice(), 32)
        .unwrap()
        .token_logits(HeadKind::Detect, "a b".into())
        .unwrap();
    assert_eq!(ALLOCATIONS.get(), before, "the core allocated");
}

/// The file says what the scalar kernels of x86-64 answered when it was made; this holds all others to it.
#[test]
fn the_shipped_models_give_the_bits_they_were_shipped_with() {
    let mut models = 0;
    for entry in std::fs::read_dir("models").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "electret") {
            continue;
        }
        assert!(path.with_extension("md").is_file(), "{} has no card", path.display());
        let file = AlignedBytes::copy_of(&std::fs::read(&path).unwrap());
        for set in kernels::available() {
            let (checks, agree) = self_test(Model::open(file.as_slice()).unwrap(), set).unwrap();
            assert!(checks == 3 && agree, "{}, {}", path.display(), set.name);
        }
        models += 1;
    }
    assert!(models > 0);
}

#[test]
fn every_kernel_set_gives_the_golden_logits() {
    let file = common::shipped_model();
    for set in kernels::available() {
        let plan = Plan::inference(&TINY, 64);
        let mut arena = AlignedBytes::zeroed(plan.bytes());
        let model = Model::open(file.as_slice()).unwrap();
        let mut session = Session::with(model, arena.as_mut_slice(), plan, set).unwrap();
        let hash = golden::logits_hash(&mut session).unwrap();
        assert_eq!(hash, golden::LOGITS, "{}: {hash:#018x}", set.name);
        assert_eq!(softmax::softmax_bits(set), softmax::SOFTMAX, "{}", set.name);
    }
}

#[cfg(feature = "parallel")]
#[test]
fn every_number_of_threads_gives_the_same_bits_in_order() {
    let file = common::shipped_model();
    let model = Model::open(file.as_slice()).unwrap();
    let texts: Vec<String> = (0..40).map(|n| SENTENCES[n % 3].repeat(1 + n % 4)).collect();
    let answers = |threads| {
        let batch = Batch::new(model, Plan::inference(model.config(), 64), threads).unwrap();
        assert!(threads == 0 || batch.threads() == threads);
        batch.answers(&texts, |session, text| {
            let input = Input { truncate: true, ..text.as_str().into() };
            let logits = session.token_logits(HeadKind::Detect, input)?.logits;
            Ok(logits.iter().map(|x| x.to_bits()).collect::<Vec<u32>>())
        })
    };
    let expected = answers(1);
    assert!(expected.iter().all(Result::is_ok));
    for threads in [0, 2, 3, 8] {
        assert_eq!(answers(threads), expected);
    }
}

#[test]
fn every_kernel_set_equals_scalar_on_shapes_of_all_kinds() {
    let scalar = kernels::available().next().unwrap();
    for set in kernels::available() {
        assert_eq!(kernels::first_difference(set, scalar, 10_000), None, "{}", set.name);
    }
}

#[cfg(not(debug_assertions))]
#[test]
fn a_product_whose_lengths_do_not_fit_is_left_undone() {
    use kernels::{Matmul, RowScale};
    let tiles = [electret::weights::Tile([[1; 8]; 16]); 2];
    let channels =
        [electret::weights::Channels { scale: [1.0; 16], bias: [0.0; 16], column_sum: [8; 16] }; 2];
    for set in kernels::available() {
        for (rows, row_scales, outputs, width) in
            [(8, 1, 31, 32), (7, 1, 32, 32), (8, 2, 32, 32), (8, 1, 32, 33)]
        {
            let mut out = vec![7.0; outputs];
            set.matmul(Matmul {
                rows: &vec![1; rows],
                row_scales: &vec![RowScale { scale: 1.0, zero_point: 0 }; row_scales],
                tiles: &tiles,
                channels: &channels,
                out: &mut out,
                width,
            });
            assert!(out.iter().all(|&x| x == 7.0), "{}: {rows} bytes, {outputs} outputs", set.name);
        }
    }
}

#[test]
fn polynomials() {
    let (mut worst_exp, mut worst_erf) = (0.0_f64, 0.0_f64);
    for step in -800_000..=800_000 {
        let x = step as f32 * 1e-4;
        let exact = f64::from(x).exp();
        let ulp = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
        worst_exp = worst_exp.max((f64::from(kernels::lanes::exp(x)) - exact).abs() / ulp);
        worst_erf = worst_erf.max((f64::from(kernels::lanes::erf(x)) - libm::erf(x.into())).abs());
    }
    println!("exp: {worst_exp:.2} ulp, erf: {worst_erf:.2e} absolute");
    assert!(worst_exp <= 2.0 && worst_erf <= 4e-7);
}

#[test]
fn int8_stays_near_the_reference() {
    for head in ["pretraining", "mlm", "seqcls", "tokcls", "qa"] {
        let checkpoint = Golden::open().checkpoint(Some(head));
        let file = golden_model(head);
        let texts = SENTENCES.map(str::to_owned);
        let report = verify(Model::open(file.as_slice()).unwrap(), &checkpoint, &texts).unwrap();
        assert!(report.min_cosine > 0.999, "{head}: {report:?}");
        assert!(report.layers.iter().all(|layer| layer.relative_error < 0.03), "{head}: {report:?}");
    }
}
