//! The network that is trained against PyTorch: losses, and the gradient of every parameter, of
//! all five heads of `tests/golden/tiny_random`.
#![cfg(feature = "train")]

mod common;

use burn::tensor::{Int, Tensor, TensorData};
use common::golden::Golden;
use electret::HeadKind;
use electret::import::Tensors;
use electret::train::kernels::Differentiable;
use electret::train::model::{Batch, Embeddings, Network};
use electret::train::objective::{binary_cross_entropy, cross_entropy};
use electret::train::optimizer::scalar;
use electret::train::weights::{Weights, ids, vector};

/// Runs a head's loss over the golden batch and compares the loss and every gradient, which may be `tolerance` of its
/// own length from PyTorch's.
fn check<B: Differentiable>(head: &str, tolerance: f32, loss: Loss<B>) {
    let golden = Golden::open();
    let device = B::Device::default();
    let weights = Weights::from_tensors(&golden.weights(Some(head)), &device).unwrap();
    let weights = Weights::<B>::leaves(weights);
    let checkpoint = golden.checkpoint(Some(head));
    let network = Network {
        weights: &weights,
        prefix: "electra",
        embeddings: Embeddings::Shared,
        config: &checkpoint.config,
        dropout: 0.0,
        tape: None,
    };
    let int = |name: &str| {
        let values: Vec<i32> = golden.input(name).iter().map(|&value| value as i32).collect();
        Tensor::<B, 2, Int>::from_data(TensorData::new(values, [3, 12]), &device)
    };
    let batch = Batch {
        input_ids: int("input_ids"),
        token_type_ids: int("token_type_ids"),
        padding: int("attention_mask").equal_elem(0),
    };
    let states = network.hidden_states(&batch);
    for (layer, state) in states.iter().enumerate() {
        let found = state.to_data().to_vec::<f32>().unwrap();
        let expected = golden.expected(&format!("hidden_states.{layer}"));
        common::assert_close(found.iter(), expected.iter(), 1e-5);
    }
    let loss = loss(&network, states.last().unwrap().clone(), &batch, &golden);
    golden.assert_loss(head, scalar(loss.clone()).into());

    let found = gradients(&weights, &loss.backward());
    let expected = golden.expected_under(&format!("{head}.grad."));
    let own = format!("{head}.");
    let mut compared = 0;
    for (name, expected) in expected.iter() {
        let name = name.strip_prefix(&own).unwrap_or(name);
        let Some((_, found)) = found.iter().find(|(known, _)| *known == name) else {
            assert!(expected.iter().all(|&x| x == 0.0), "{head}: no gradient of {name}");
            continue;
        };
        assert_eq!(found.shape(), expected.shape(), "{head}: {name}");
        // PyTorch keeps the gradient off the padding token's row (`padding_idx`).
        let first = usize::from(name.ends_with("word_embeddings.weight"));
        let rows = ndarray::Slice::from(first..);
        let found = found.slice_axis(ndarray::Axis(0), rows);
        let expected = expected.slice_axis(ndarray::Axis(0), rows);
        let norm = |squares: f32| squares.sqrt();
        let error = norm(found.iter().zip(&expected).map(|(a, b)| (a - b).powi(2)).sum());
        let length = norm(expected.iter().map(|x| x * x).sum());
        // A gradient that is zero but for rounding, such as that of a key's bias, has no direction.
        assert!(error <= tolerance * length.max(1e-3), "{head}: {name}: error {error:e} of {length:e}");
        compared += 1;
    }
    assert!(compared >= 39, "{head}: {compared} gradients compared");
}

/// The gradients of all weights that took part in a loss.
fn gradients<B: Differentiable>(weights: &Weights<B>, found: &B::Gradients) -> Tensors {
    let matrices = weights.matrices.iter();
    let vectors = weights.vectors.iter();
    let gradients = Weights::<B::InnerBackend> {
        matrices: matrices.filter_map(|(n, t)| Some((n.clone(), t.grad(found)?))).collect(),
        vectors: vectors.filter_map(|(n, t)| Some((n.clone(), t.grad(found)?))).collect(),
    };
    gradients.to_tensors().unwrap()
}

/// A head's loss from the last hidden states `[3 · 12, hidden]`.
type Loss<B> = fn(&Network<'_, B>, Tensor<B, 2>, &Batch<B>, &Golden) -> Tensor<B, 1>;

fn classes(golden: &Golden, name: &str) -> (Vec<i32>, Vec<i32>) {
    let targets = golden.targets(name).into_iter().enumerate();
    targets.filter_map(|(row, target)| Some((row as i32, target? as i32))).unzip()
}

fn replaced_token_detection<B: Differentiable>(tolerance: f32) {
    check::<B>("pretraining", tolerance, |network, hidden, _, golden| {
        let device = hidden.device();
        let labels = golden.input("labels.rtd").iter().map(|&label| label as f32).collect();
        let real: Vec<f32> = golden.input("attention_mask").iter().map(|&mask| mask as f32).collect();
        let count: f32 = real.iter().sum();
        let losses = binary_cross_entropy(network.discriminator_head(hidden), vector(labels, &device));
        (losses * vector(real, &device)).sum() / count
    });
}

fn masked_language_model<B: Differentiable>(tolerance: f32) {
    check::<B>("mlm", tolerance, |network, hidden, _, golden| {
        let device = hidden.device();
        let (rows, targets) = classes(golden, "labels.mlm");
        let logits = network.language_head("generator", hidden.select(0, ids(rows, &device)));
        cross_entropy(logits, ids(targets, &device))
    });
}

fn sequence_classification<B: Differentiable>(tolerance: f32) {
    check::<B>("seqcls", tolerance, |network, hidden, batch, golden| {
        let device = hidden.device();
        let (_, targets) = classes(golden, "labels.cls");
        cross_entropy(network.task_head(HeadKind::Classify, hidden, batch), ids(targets, &device))
    });
}

fn token_classification<B: Differentiable>(tolerance: f32) {
    check::<B>("tokcls", tolerance, |network, hidden, batch, golden| {
        let device = hidden.device();
        let (rows, targets) = classes(golden, "labels.tok");
        let logits = network.task_head(HeadKind::Tag, hidden, batch).select(0, ids(rows, &device));
        cross_entropy(logits, ids(targets, &device))
    });
}

fn question_answering<B: Differentiable>(tolerance: f32) {
    check::<B>("qa", tolerance, |network, hidden, batch, golden| {
        let device = hidden.device();
        let logits = network.task_head(HeadKind::Answer, hidden, batch);
        let end = |column: usize, name: &str| {
            let (_, targets) = classes(golden, name);
            let logits = logits.clone().narrow(1, column, 1).reshape([3, 12]);
            cross_entropy(logits, ids(targets, &device))
        };
        (end(0, "labels.start") + end(1, "labels.end")) / 2.0
    });
}

/// The five heads on one backend.
macro_rules! on_backend {
    ($backend:ident, $type:ty, $tolerance:expr) => {
        mod $backend {
            type B = burn::backend::Autodiff<$type>;

            #[test]
            fn replaced_token_detection() {
                super::replaced_token_detection::<B>($tolerance);
            }
            #[test]
            fn masked_language_model() {
                super::masked_language_model::<B>($tolerance);
            }
            #[test]
            fn sequence_classification() {
                super::sequence_classification::<B>($tolerance);
            }
            #[test]
            fn token_classification() {
                super::token_classification::<B>($tolerance);
            }
            #[test]
            fn question_answering() {
                super::question_answering::<B>($tolerance);
            }
        }
    };
}

on_backend!(cpu, burn::backend::Flex, 1e-4);
// Shading languages promise less of exp and erf.
#[cfg(feature = "wgpu")]
on_backend!(wgpu, burn::backend::Wgpu, 2e-3);
#[cfg(feature = "tch")]
on_backend!(tch, burn::backend::LibTorch, 1e-4);
