//! Dense, GELU, LayerNorm, output: the shape that all heads have.

use crate::encoder::{Block, Scratch, Workspace, dense};
use crate::kernels::KernelSet;
use crate::weights::Model;
use crate::weights::format::Head;

/// Replaces the hidden states of the first `length` tokens by the head's logits `[length, labels]`,
/// written over the front of the residual stream. A head has at most as many labels as the hidden
/// size, so no row is overwritten before it was read.
pub fn every_token(
    model: &Model<'_>,
    head: &Head,
    kernels: &KernelSet,
    workspace: &mut Workspace<'_>,
    length: usize,
) {
    let (hidden, labels) = (model.config().hidden_size, head.labels.len());
    let rows = workspace.block.scales.len();
    for first in (0..length).step_by(rows) {
        let n = rows.min(length - first);
        let x = workspace.residual.get(first * hidden..(first + n) * hidden).unwrap_or_default();
        let block = &mut workspace.block;
        let Block { rows, scales, wide, narrow } = block;
        let mut scratch = Scratch { rows, scales };
        let features = features(model, head, kernels, x, &mut scratch, wide);
        let logits = narrow.get_mut(..n * labels).unwrap_or_default();
        if let Some(output) = head.output.as_ref() {
            dense(kernels, &mut scratch, output, features, logits);
        }
        if let Some(place) = workspace.residual.get_mut(first * labels..(first + n) * labels) {
            place.copy_from_slice(logits);
        }
    }
}

/// What the output layer sees of `x` `[n, hidden]`: `x` itself, or dense + GELU (+ LayerNorm) of it,
/// in `out`.
pub fn features<'a>(
    model: &Model<'_>,
    head: &Head,
    kernels: &KernelSet,
    x: &'a [f32],
    scratch: &mut Scratch<'_>,
    out: &'a mut [f32],
) -> &'a [f32] {
    let Some(linear) = head.dense.as_ref() else { return x };
    let n = x.len() / model.config().hidden_size;
    let out = out.get_mut(..n * linear.outputs()).unwrap_or_default();
    dense(kernels, scratch, linear, x, out);
    (kernels.gelu)(out);
    if let Some(norm) = head.norm.as_ref() {
        let norm = norm.layer_norm(model.config().layer_norm_eps);
        for row in out.chunks_exact_mut(norm.weight.len()) {
            (kernels.add_and_norm)(row, &[], &norm);
        }
    }
    out
}
