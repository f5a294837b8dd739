//! The feed-forward half of a layer: dense, GELU, dense, residual, LayerNorm.

use super::{AdaptedLayer, Block, add_and_norm};
use crate::kernels::KernelSet;
use crate::rows::Rows;
use crate::weights::strategy::{NormPart, Part};

/// x = LayerNorm(x + W₂·GELU(W₁·x)) for a block of rows `x` `[n, hidden]` whose first is token `first`.
pub fn feed_forward(
    layer: &AdaptedLayer<'_>,
    kernels: &KernelSet,
    block: &mut Block<'_>,
    first: usize,
    x: &mut [f32],
) {
    let n = x.rows(layer.config.hidden_size).len();
    let (mut scratch, wide, narrow) = block.split();
    let inner = wide.get_mut(..n * layer.config.intermediate_size).unwrap_or_default();
    layer.dense(Part::Intermediate).forward(kernels, &mut scratch, x, inner);
    (kernels.gelu)(inner);
    let out = narrow.get_mut(..x.len()).unwrap_or_default();
    layer.dense(Part::Output).forward(kernels, &mut scratch, inner, out);
    layer.drop(NormPart::Output, first, out);
    add_and_norm(kernels, &layer.norm(NormPart::Output), x, out);
}
