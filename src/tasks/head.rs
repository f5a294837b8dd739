//! Dense, GELU, LayerNorm, output: the shape that all heads have.

use crate::encoder::{AdaptedHead, Dense, Network, Scratch, Workspace};
use crate::rows::Rows;

/// Replaces the hidden states of the first `length` tokens by the head's logits `[length, labels]`,
/// written over the front of the residual stream. A head has at most as many labels as the hidden
/// size, so no row is overwritten before it was read.
pub fn every_token(
    network: &Network<'_>,
    head: &AdaptedHead<'_>,
    workspace: &mut Workspace<'_>,
    length: usize,
) {
    let (hidden, labels) = (network.model.config().hidden_size, head.labels);
    let rows = workspace.block.scales.len();
    for first in (0..length).step_by(rows.max(1)) {
        let n = rows.min(length - first);
        let x = workspace.residual.get(first * hidden..(first + n) * hidden).unwrap_or_default();
        let (mut scratch, wide, narrow) = workspace.block.split();
        let features = features(network, head, x, &mut scratch, wide);
        let logits = narrow.get_mut(..n * labels).unwrap_or_default();
        output(network, head, features, &mut scratch, logits);
        if let Some(place) = workspace.residual.get_mut(first * labels..(first + n) * labels) {
            place.copy_values(logits);
        }
    }
}

/// What the output layer sees of `x` `[n, hidden]`: `x` itself, or dense + GELU (+ LayerNorm) of it,
/// in `out`.
pub fn features<'a>(
    network: &Network<'_>,
    head: &AdaptedHead<'_>,
    x: &'a [f32],
    scratch: &mut Scratch<'_>,
    out: &'a mut [f32],
) -> &'a [f32] {
    let Network { model, kernels, .. } = network;
    let Some(linear) = head.own.and_then(|head| head.dense.as_ref()) else { return x };
    let n = x.rows(model.config().hidden_size).len();
    let out = out.get_mut(..n * linear.outputs()).unwrap_or_default();
    Dense::from(linear).forward(kernels, scratch, x, out);
    (kernels.gelu)(out);
    if let Some(norm) = head.own.and_then(|head| head.norm.as_ref()) {
        let norm = norm.layer_norm(model.config().layer_norm_eps);
        for row in out.rows_mut(norm.weight.len()) {
            (kernels.add_and_norm)(row, &[], &norm);
        }
    }
    out
}

/// The output layer over `features` `[n, width]`: `logits` `[n, labels]`.
pub fn output(
    network: &Network<'_>,
    head: &AdaptedHead<'_>,
    features: &[f32],
    scratch: &mut Scratch<'_>,
    logits: &mut [f32],
) {
    let kernels = network.kernels;
    if let Some((weight, bias)) = head.trained {
        let width = weight.len() / head.labels.max(1);
        for (x, logits) in features.rows(width).zip(logits.rows_mut(head.labels)) {
            (kernels.dots)(weight, x, logits);
            kernels.add(bias, logits);
        }
    } else if let Some(output) = head.own.and_then(|head| head.output.as_ref()) {
        Dense::from(output).forward(kernels, scratch, features, logits);
    }
}
