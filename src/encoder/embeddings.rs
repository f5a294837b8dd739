//! Word + position + segment embeddings, LayerNorm, and the projection to the hidden size.

use super::{Block, dense};
use crate::kernels::KernelSet;
use crate::text::Token;
use crate::weights::Model;

/// Embeds a block of tokens, the first at position `first`, into `x` `[n, hidden]`.
pub fn embed(
    model: &Model<'_>,
    kernels: &KernelSet,
    block: &mut Block<'_>,
    tokens: &[Token],
    first: usize,
    x: &mut [f32],
) {
    let config = model.config();
    let tables = &model.root().embeddings;
    let (weight, bias) = tables.norm.native();
    let width = config.embedding_size;
    let embedded = block.wide.get_mut(..tokens.len() * width).unwrap_or_default();
    for ((position, token), row) in (first..).zip(tokens).zip(embedded.chunks_exact_mut(width)) {
        row.fill(0.0);
        tables.words.add_row(token.id as usize, row);
        tables.positions.add_row(position, row);
        tables.token_types.add_row(token.type_id.into(), row);
        (kernels.layer_norm)(row, weight, bias, config.layer_norm_eps);
    }
    match tables.projection.as_ref() {
        Some(projection) => dense(kernels, block.rows, block.scales, projection, embedded, x),
        None => x.copy_from_slice(embedded),
    }
}
