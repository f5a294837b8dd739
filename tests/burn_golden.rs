//! The network that is trained against PyTorch: losses, and the gradient of every parameter, of
//! all five heads of `tests/golden/tiny_random`.
#![cfg(feature = "train")]

mod common;

use burn::backend::Autodiff;
use burn::tensor::{Int, Tensor, TensorData};
use common::golden::Golden;
use electret::HeadKind;
use electret::train::model::{Batch, Embeddings, Network};
use electret::train::objective::{binary_cross_entropy, cross_entropy, ids, vector};
use electret::train::optimizer::{gradients, scalar};
use electret::train::weights::Weights;

/// The backend of the build: a GPU's where one is asked for.
#[cfg(not(feature = "wgpu"))]
type B = Autodiff<burn::backend::Flex>;
#[cfg(feature = "wgpu")]
type B = Autodiff<burn::backend::Wgpu>;

/// How far a gradient may be from PyTorch's, of its own length: shading languages promise less of exp and erf.
const TOLERANCE: f32 = if cfg!(feature = "wgpu") { 2e-3 } else { 1e-4 };

/// Runs a head's loss over the golden batch and compares the loss and every gradient.
fn check(head: &str, loss: impl Fn(&Network<'_, B>, Tensor<B, 2>, &Batch<B>, &Golden) -> Tensor<B, 1>) {
    let golden = Golden::open();
    let device = Default::default();
    let weights = Weights::<B>::from_tensors(&golden.weights(Some(head)), &device).unwrap().require_grad();
    let checkpoint = golden.checkpoint(Some(head));
    let network = Network {
        weights: &weights,
        prefix: "electra",
        embeddings: Embeddings::Shared,
        config: &checkpoint.config,
        dropout: 0.0,
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

    let found = gradients(&weights, &loss.backward()).to_tensors().unwrap();
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
        assert!(error <= TOLERANCE * length.max(1e-3), "{head}: {name}: error {error:e} of {length:e}");
        compared += 1;
    }
    assert!(compared >= 39, "{head}: {compared} gradients compared");
}

fn classes(golden: &Golden, name: &str) -> (Vec<i32>, Vec<i32>) {
    let targets = golden.targets(name).into_iter().enumerate();
    targets.filter_map(|(row, target)| Some((row as i32, target? as i32))).unzip()
}

fn select(x: Tensor<B, 2>, rows: Vec<i32>) -> Tensor<B, 2> {
    let rows = ids(rows, &x.device());
    x.select(0, rows)
}

#[test]
fn replaced_token_detection() {
    check("pretraining", |network, hidden, _, golden| {
        let labels = golden.input("labels.rtd").iter().map(|&label| label as f32).collect();
        let real: Vec<f32> = golden.input("attention_mask").iter().map(|&mask| mask as f32).collect();
        let count: f32 = real.iter().sum();
        let labels = vector(labels, &hidden.device());
        let losses = binary_cross_entropy(network.discriminator_head(hidden.clone()), labels);
        (losses * vector(real, &hidden.device())).sum() / count
    });
}

#[test]
fn masked_language_model() {
    check("mlm", |network, hidden, _, golden| {
        let (rows, targets) = classes(golden, "labels.mlm");
        let logits = network.language_head("generator", select(hidden.clone(), rows));
        cross_entropy(logits, ids(targets, &hidden.device()))
    });
}

#[test]
fn sequence_classification() {
    check("seqcls", |network, hidden, batch, golden| {
        let (_, targets) = classes(golden, "labels.cls");
        let logits = network.task_head(HeadKind::Classify, hidden.clone(), batch);
        cross_entropy(logits, ids(targets, &hidden.device()))
    });
}

#[test]
fn token_classification() {
    check("tokcls", |network, hidden, batch, golden| {
        let (rows, targets) = classes(golden, "labels.tok");
        let logits = network.task_head(HeadKind::Tag, hidden.clone(), batch);
        cross_entropy(select(logits, rows), ids(targets, &hidden.device()))
    });
}

#[test]
fn question_answering() {
    check("qa", |network, hidden, batch, golden| {
        let logits = network.task_head(HeadKind::Answer, hidden.clone(), batch).reshape([3, 12, 2]);
        let mut losses = Vec::new();
        for (column, name) in ["start", "end"].into_iter().enumerate() {
            let logits = logits.clone().slice([0..3, 0..12, column..column + 1]).squeeze_dim::<2>(2);
            let (_, targets) = classes(golden, &format!("labels.{name}"));
            losses.push(cross_entropy(logits, ids(targets, &hidden.device())));
        }
        losses.into_iter().reduce(|a, b| a + b).unwrap() / 2.0
    });
}
