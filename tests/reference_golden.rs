//! The f32 reference against PyTorch: hidden states, logits and losses of a random ELECTRA with a
//! projection, and two real checkpoints. Golden files were made with transformers 4.57.
#![cfg(feature = "convert")]

mod common;

use common::golden::Golden;
use electret::HeadKind;
use electret::reference::{Reference, binary_cross_entropy, cross_entropy};
use ndarray::{Array2, Axis, s};

#[test]
fn hidden_states_of_every_layer() {
    let golden = Golden::open();
    let checkpoint = golden.checkpoint(None);
    for (row, sequence) in golden.sequences().iter().enumerate() {
        let states = Reference(&checkpoint).hidden_states(sequence).unwrap();
        assert_eq!(states.len(), 3);
        for (layer, state) in states.iter().enumerate() {
            let expected = golden.expected(&format!("hidden_states.{layer}"));
            let expected = expected.slice(s![row, .., ..]);
            let expected = expected.into_dimensionality::<ndarray::Ix2>().unwrap();
            common::assert_close(state.iter(), expected.iter(), 1e-5);
        }
    }
}

/// Logits of all sequences, one below the other.
fn logits(golden: &Golden, head: &str, kind: HeadKind) -> Array2<f32> {
    let checkpoint = golden.checkpoint(Some(head));
    let head = checkpoint.heads.iter().find(|head| head.kind == kind).unwrap();
    let rows: Vec<Array2<f32>> = golden
        .sequences()
        .iter()
        .map(|sequence| {
            let states = Reference(&checkpoint).hidden_states(sequence).unwrap();
            let tokens = if kind == HeadKind::Classify { 1 } else { sequence.input_ids.len() };
            let hidden = states.last().unwrap().slice(s![..tokens, ..]).to_owned();
            Reference(&checkpoint).logits(head, hidden.view()).unwrap()
        })
        .collect();
    let views: Vec<_> = rows.iter().map(|row| row.view()).collect();
    ndarray::concatenate(Axis(0), &views).unwrap()
}

#[test]
fn replaced_token_detection() {
    let golden = Golden::open();
    let logits = logits(&golden, "pretraining", HeadKind::Detect);
    common::assert_close(logits.iter(), golden.expected("pretraining.logits").iter(), 1e-5);
    let labels: Vec<bool> = golden.input("labels.rtd").iter().map(|&label| label == 1).collect();
    let padding: Vec<bool> = golden.input("attention_mask").iter().map(|&mask| mask == 0).collect();
    let loss = binary_cross_entropy(logits.as_slice().unwrap(), &labels, &padding);
    golden.assert_loss("pretraining", loss);
}

#[test]
fn masked_language_model() {
    let golden = Golden::open();
    let logits = logits(&golden, "mlm", HeadKind::FillMask);
    common::assert_close(logits.iter(), golden.expected("mlm.logits").iter(), 1e-5);
    golden.assert_loss("mlm", cross_entropy(logits.view(), &golden.targets("labels.mlm")));
}

#[test]
fn sequence_classification() {
    let golden = Golden::open();
    let logits = logits(&golden, "seqcls", HeadKind::Classify);
    common::assert_close(logits.iter(), golden.expected("seqcls.logits").iter(), 1e-5);
    golden.assert_loss("seqcls", cross_entropy(logits.view(), &golden.targets("labels.cls")));
}

#[test]
fn token_classification() {
    let golden = Golden::open();
    let logits = logits(&golden, "tokcls", HeadKind::Tag);
    common::assert_close(logits.iter(), golden.expected("tokcls.logits").iter(), 1e-5);
    golden.assert_loss("tokcls", cross_entropy(logits.view(), &golden.targets("labels.tok")));
}

#[test]
fn question_answering() {
    let golden = Golden::open();
    let logits = logits(&golden, "qa", HeadKind::Answer);
    let by_token = logits.to_shape((3, 12, 2)).unwrap().to_owned();
    let mut loss = 0.0;
    for (column, name) in ["start", "end"].into_iter().enumerate() {
        let logits = by_token.slice(s![.., .., column]);
        common::assert_close(logits.iter(), golden.expected(&format!("qa.{name}_logits")).iter(), 1e-5);
        loss += cross_entropy(logits, &golden.targets(&format!("labels.{name}"))) / 2.0;
    }
    golden.assert_loss("qa", loss);
}
