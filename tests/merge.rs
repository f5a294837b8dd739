//! An adapter merged into f32 weights is what the device answers with, and its gradients are those that finite
//! differences of the reference find.

#![cfg(feature = "convert")]

mod common;

use common::golden::Golden;
use electret::import::Checkpoint;
use electret::quantize::{Recipe, merge, peft, quantize, quantize_by};
use electret::reference::{Reference, Sequence, cross_entropy};
use electret::tune::{Settings, Target, Task};
use electret::weights::strategy::Layout;
use electret::weights::{AlignedBytes, Labels};
use electret::{Adapter, HeadKind, Model, Plan, Session, Strategy, Tuner, TuningPlan, kernels};
use ndarray::ArrayView2;

const TEXT: &str = "abc de fgh i jkl";

/// A tiny random model, and an adapter of it whose every tensor is random.
fn with_adapter(
    head: &str,
    kind: HeadKind,
    labels: &[&str],
    strategy: &str,
    work: impl FnOnce(Model<'_>, Adapter<'_>),
) {
    let file =
        AlignedBytes::copy_of(&quantize(&Golden::open().checkpoint(Some(head)), "random", "none").unwrap());
    let model = Model::open(file.as_slice()).unwrap();
    let strategy = Strategy::parse(strategy).unwrap();
    let layout =
        Layout { config: *model.config(), strategy, width: model.head_width(kind), labels: labels.len() };
    let parameters = random_parameters(model, kind, labels, layout);
    let labels = Labels::Names(labels);
    work(model, Adapter { base: model.fingerprint(), kind, labels, layout, parameters: &parameters });
}

/// Those of a new tuner, each moved a little.
fn random_parameters(model: Model<'_>, kind: HeadKind, labels: &[&str], layout: Layout) -> Vec<f32> {
    let plan = TuningPlan::with_blocks(layout, 16, 4, 1).for_model(&model);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let task = Task { kind, ..Task::classify(labels) };
    let mut tuner =
        Tuner::with(model, arena.as_mut_slice(), plan, task, Settings::default(), kernels::best()).unwrap();
    let mut state = 99u32;
    for x in tuner.parameters_mut() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *x += ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.2;
    }
    tuner.adapter().parameters.to_vec()
}

fn sequence(model: Model<'_>) -> Sequence {
    let plan = Plan::inference(model.config(), 16).for_model(&model);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let mut session = Session::new(model, arena.as_mut_slice(), 16).unwrap();
    let tokens = session.encode(TEXT.into()).unwrap().0;
    Sequence {
        input_ids: tokens.iter().map(|token| token.id).collect(),
        token_type_ids: vec![0; tokens.len()],
        padding: vec![false; tokens.len()],
    }
}

/// f32 logits `[tokens, labels]` of a checkpoint's one head.
fn reference_logits(checkpoint: &Checkpoint, sequence: &Sequence) -> ndarray::Array2<f32> {
    let reference = Reference(checkpoint);
    let states = reference.hidden_states(sequence).unwrap();
    reference.logits(&checkpoint.heads[0], states.last().unwrap().view()).unwrap()
}

fn device_logits(model: Model<'_>, adapter: Option<Adapter<'_>>, kind: HeadKind) -> Vec<f32> {
    let plan = Plan::inference(model.config(), 16).for_model(&model);
    let mut arena = AlignedBytes::zeroed(plan.bytes());
    let session = Session::new(model, arena.as_mut_slice(), 16).unwrap();
    let mut session = session.with_adapter(adapter).unwrap();
    session.token_logits(kind, TEXT.into()).unwrap().logits.to_vec()
}

const CASES: [(&str, HeadKind, &[&str], &str); 5] = [
    ("tokcls", HeadKind::Tag, &["a", "b", "c", "d"], "head+bias+words:2+lora:3:2:all"),
    ("tokcls", HeadKind::Classify, &["a", "b", "c"], "head+lora:4:1"),
    ("seqcls", HeadKind::Classify, &["LABEL_0", "LABEL_1", "LABEL_2"], "lora:2:2:kao"),
    ("pretraining", HeadKind::Detect, &["replaced"], "head+bias:1"),
    ("qa", HeadKind::Answer, &["start", "end"], "head+lora:2:2:all"),
];

/// Largest difference between two sets of logits, in the spread of the first.
fn difference(expected: &[f32], found: &[f32]) -> f32 {
    assert_eq!(expected.len(), found.len());
    let largest = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    largest / expected.iter().fold(0.0f32, |m, x| m.max(x.abs()))
}

#[test]
fn merged_weights_answer_as_the_device_does() {
    for (head, kind, labels, strategy) in CASES {
        with_adapter(head, kind, labels, strategy, |model, adapter| {
            let merged = Checkpoint::of_model(&model, Some(&adapter));
            assert_eq!(merged.heads.len(), 1);
            let device = device_logits(model, Some(adapter), kind);
            let in_f32 = reference_logits(&merged, &sequence(model));
            let int8 = AlignedBytes::copy_of(&merge(&model, Some(&adapter), "merged", "none").unwrap());
            let baked = device_logits(Model::open(int8.as_slice()).unwrap(), None, kind);
            // A folder gives the same network, with the dense layer that Hugging Face's heads have.
            let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
                .join(format!("merged-{head}-{}", kind.name()));
            merged.clone().with_dense_heads().unwrap().write(&folder).unwrap();
            let read = Checkpoint::open(&folder).unwrap();
            assert_eq!(read.heads[0].labels, merged.heads[0].labels);
            let from_folder = reference_logits(&read, &sequence(model));
            let [f32_error, baked_error, folder_error] = [
                difference(in_f32.as_slice().unwrap(), &device),
                difference(in_f32.as_slice().unwrap(), &baked),
                difference(in_f32.as_slice().unwrap(), from_folder.as_slice().unwrap()),
            ];
            println!(
                "{head} {strategy}: device {f32_error:.4}, baked {baked_error:.4}, folder {folder_error:.6}"
            );
            assert!(f32_error < 0.05 && baked_error < 0.05 && folder_error < 1e-4);
        });
    }
}

/// Also the rounding of int4, which would not come out the same a second time.
#[test]
fn what_an_adapter_leaves_alone_stays_as_it_is() {
    let checkpoint = Golden::open().checkpoint(Some("seqcls"));
    for recipe in [Recipe::default(), Recipe::all_int4(&checkpoint)] {
        let file = AlignedBytes::copy_of(&quantize_by(&checkpoint, "random", "none", &recipe).unwrap());
        let model = Model::open(file.as_slice()).unwrap();
        for (strategy, changed) in [("head", 1), ("lora:2:1", 2), ("head+lora:2:2:ko", 5)] {
            let (kind, labels) = (HeadKind::Classify, ["LABEL_0", "LABEL_1", "LABEL_2"]);
            let strategy = Strategy::parse(strategy).unwrap();
            let config = *model.config();
            let layout = Layout { config, strategy, width: model.head_width(kind), labels: labels.len() };
            let parameters = random_parameters(model, kind, &labels, layout);
            let names = Labels::Names(&labels);
            let adapter =
                Adapter { base: model.fingerprint(), kind, labels: names, layout, parameters: &parameters };
            let merged = AlignedBytes::copy_of(&merge(&model, Some(&adapter), "", "").unwrap());
            let merged = Model::open(merged.as_slice()).unwrap();
            let pairs = model.linears().zip(merged.linears());
            let differing = pairs.filter(|(old, new)| {
                assert_eq!(old.is_int4(), new.is_int4());
                *old.tiles != *new.tiles || *old.smoothing != *new.smoothing
            });
            assert_eq!(differing.count(), changed, "{strategy}");
        }
        let again = AlignedBytes::copy_of(&merge(&model, None, "", "").unwrap());
        let again = Model::open(again.as_slice()).unwrap();
        assert_eq!(
            device_logits(again, None, HeadKind::Classify),
            device_logits(model, None, HeadKind::Classify)
        );
    }
}

#[test]
fn an_adapter_without_a_peft_layout_says_why() {
    for (strategy, wanted) in [
        ("head", "no low-rank update"),
        ("head+words:2+lora:2:1", "trained words"),
        ("head+bias+lora:2:1", "trained biases and LayerNorms"),
    ] {
        with_adapter("tokcls", HeadKind::Tag, &["a", "b"], strategy, |model, adapter| {
            let error = peft(&model, &adapter, std::path::Path::new("nowhere")).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        });
    }
}

#[test]
fn gradients_are_those_of_finite_differences_in_the_reference() {
    for (head, kind, labels, strategy) in CASES.into_iter().take(3) {
        with_adapter(head, kind, labels, strategy, |model, adapter| {
            let layout = adapter.layout;
            let plan = TuningPlan::with_blocks(layout, 16, 4, 1);
            let mut arena = AlignedBytes::zeroed(plan.bytes());
            let task = Task { kind, ..Task::classify(labels) };
            let settings = Settings::default();
            let mut tuner =
                Tuner::with(model, arena.as_mut_slice(), plan, task, settings, kernels::best()).unwrap();
            tuner.parameters_mut().copy_from_slice(adapter.parameters);
            let tags = [1, 0, 2, 1, 0];
            let target = if kind == HeadKind::Tag { Target::Tags(&tags) } else { Target::Class(2) };
            tuner.learn(TEXT.into(), target).unwrap();
            let gradient = tuner.gradients();
            let sequence = sequence(model);
            let loss = |parameters: &[f32]| {
                let merged = Checkpoint::of_model(&model, Some(&Adapter { parameters, ..adapter }));
                let logits = reference_logits(&merged, &sequence);
                let targets: Vec<Option<usize>> = match kind {
                    HeadKind::Tag => {
                        // Words of several pieces are labelled at their first.
                        let pieces = TEXT.split(' ').zip(tags).flat_map(|(word, tag)| {
                            let rest = std::iter::repeat_n(None, word.len() - 1);
                            std::iter::once(Some(usize::from(tag))).chain(rest)
                        });
                        std::iter::once(None).chain(pieces).chain([None]).collect()
                    }
                    _ => vec![Some(2)],
                };
                let rows = ArrayView2::from(&logits);
                cross_entropy(rows.slice(ndarray::s![..targets.len(), ..]), &targets)
            };
            // Along each tensor's own gradient, where the slope is its norm.
            for range in tensors(&layout) {
                let norm = gradient[range.clone()].iter().map(|x| x * x).sum::<f32>().sqrt();
                if norm < 1e-3 {
                    continue;
                }
                let moved = |step: f32| {
                    let mut parameters = adapter.parameters.to_vec();
                    for (x, g) in parameters[range.clone()].iter_mut().zip(&gradient[range.clone()]) {
                        *x += step * g / norm;
                    }
                    loss(&parameters)
                };
                let slope = (moved(0.02) - moved(-0.02)) / 0.04;
                println!("{head} {strategy} {range:?}: slope {slope:.5}, norm {norm:.5}");
                assert!((slope - f64::from(norm)).abs() < 0.05 * f64::from(norm) + 2e-3, "{slope} {norm}");
            }
        });
    }
}

/// Where each trained tensor lies.
fn tensors(layout: &Layout) -> Vec<std::ops::Range<usize>> {
    use electret::weights::strategy::{NormPart, Part};
    let mut all: Vec<_> = layout.head().into_iter().flat_map(|(weight, bias)| [weight, bias]).collect();
    all.extend(layout.words().into_iter().flat_map(|(pieces, directions)| [pieces, directions]));
    for layer in 0..layout.config.num_hidden_layers {
        for part in Part::ALL {
            all.extend(layout.low_rank(layer, part).into_iter().flat_map(|(a, b)| [a, b]));
            all.extend(layout.bias(layer, part));
        }
        for norm in [NormPart::Attention, NormPart::Output] {
            all.extend(layout.norm(layer, norm).into_iter().flat_map(|(weight, bias)| [weight, bias]));
        }
    }
    all
}

/// Under other names, or in another order, the outputs of a head that is not trained would answer for each other.
#[test]
fn a_head_that_is_not_trained_keeps_its_labels() {
    let file = AlignedBytes::copy_of(
        &quantize(&Golden::open().checkpoint(Some("seqcls")), "random", "none").unwrap(),
    );
    let model = Model::open(file.as_slice()).unwrap();
    let mut arena = AlignedBytes::zeroed(1 << 20);
    let mut tuner = |labels: &[&str], strategy: &str| {
        let (task, strategy) = (Task::classify(labels), Strategy::parse(strategy).unwrap());
        Tuner::new(model, arena.as_mut_slice(), 16, task, strategy, Settings::default()).map(drop)
    };
    let (own, swapped) = (["LABEL_0", "LABEL_1", "LABEL_2"], ["LABEL_1", "LABEL_0", "LABEL_2"]);
    tuner(&own, "lora:2:1").unwrap();
    tuner(&swapped, "head+lora:2:1").unwrap();
    for labels in [&swapped[..], &own[..2]] {
        let message = tuner(labels, "lora:2:1").unwrap_err().to_string();
        assert_eq!(message, "settings.labels: must be the model's own, where its head is not trained");
    }
}
