//! Word + position + segment embeddings, LayerNorm, and the projection to the hidden size.

use super::{Block, Dense, Scratch};
use crate::kernels::KernelSet;
use crate::text::Token;
use crate::weights::{Model, native};

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
    let norm = tables.norm.layer_norm(config.layer_norm_eps);
    let width = config.embedding_size;
    let positions = native(&tables.positions).chunks_exact(width).skip(first);
    let types = native(&tables.token_types);
    let embedded = block.wide.get_mut(..tokens.len() * width).unwrap_or_default();
    for ((position, token), row) in positions.zip(tokens).zip(embedded.chunks_exact_mut(width)) {
        row.copy_from_slice(position);
        tables.words.add_row(token.id as usize, row);
        let segment = types.chunks_exact(width).nth(token.type_id.into()).unwrap_or_default();
        (kernels.add_and_norm)(row, segment, &norm);
    }
    match tables.projection.as_ref() {
        Some(projection) => {
            let mut scratch = Scratch { rows: block.rows, scales: block.scales };
            Dense::from(projection).forward(kernels, &mut scratch, embedded, x);
        }
        None => x.copy_from_slice(embedded),
    }
}
