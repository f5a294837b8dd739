//! The feed-forward half of a layer: dense, GELU, dense, residual, LayerNorm.

use super::{Block, Scratch, add_and_norm, dense};
use crate::ElectraConfig;
use crate::kernels::KernelSet;
use crate::weights::format::Layer;

/// x = LayerNorm(x + W₂·GELU(W₁·x)) for a block of rows `x` `[n, hidden]`.
pub fn feed_forward(
    layer: &Layer,
    config: &ElectraConfig,
    kernels: &KernelSet,
    block: &mut Block<'_>,
    x: &mut [f32],
) {
    let n = x.len() / config.hidden_size;
    let Block { rows, scales, wide, narrow } = block;
    let inner = wide.get_mut(..n * config.intermediate_size).unwrap_or_default();
    dense(kernels, &mut Scratch { rows, scales }, &layer.intermediate, x, inner);
    (kernels.gelu)(inner);
    let out = narrow.get_mut(..x.len()).unwrap_or_default();
    dense(kernels, &mut Scratch { rows, scales }, &layer.output, inner, out);
    add_and_norm(kernels, &layer.output_norm, config.layer_norm_eps, x, out);
}
