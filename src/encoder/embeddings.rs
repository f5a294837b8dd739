//! Word + position + segment embeddings, LayerNorm, and the projection to the hidden size.
//!
//! What was learned of the words is added to them: row `id` of `[vocab_size, rank]` times the directions `[rank,
//! embedding_size]`.

use super::{AdaptedEmbeddings, BackwardSpace, Block, Columns, Dense, Gradients};
use crate::kernels::Accumulate;
use crate::rows::Rows;
use crate::text::Token;
use crate::weights::native;

impl AdaptedEmbeddings<'_> {
    /// Embeds a block of tokens, the first at position `first`, into `x` `[n, hidden]`.
    pub fn embed(&self, block: &mut Block<'_>, tokens: &[Token], first: usize, x: &mut [f32]) {
        let tables = &self.model.root().embeddings;
        let width = self.model.config().embedding_size;
        let norm = tables.norm.layer_norm(self.model.config().layer_norm_eps);
        let (mut scratch, wide, _) = block.split();
        let embedded = wide.get_mut(..tokens.len() * width).unwrap_or_default();
        self.sums(tokens, first, embedded);
        for row in embedded.rows_mut(width) {
            (self.kernels.add_and_norm)(row, &[], &norm);
        }
        match tables.projection.as_ref() {
            Some(projection) => {
                Dense::from(projection).forward(self.kernels, &mut scratch, embedded, x);
            }
            None => x.copy_values(embedded),
        }
    }

    /// word + position + segment `[n, embedding_size]` of a block of tokens.
    fn sums(&self, tokens: &[Token], first: usize, sums: &mut [f32]) {
        let tables = &self.model.root().embeddings;
        let width = self.model.config().embedding_size;
        let positions = native(&tables.positions).rows(width).skip(first);
        let types = native(&tables.token_types);
        for ((position, token), row) in positions.zip(tokens).zip(sums.rows_mut(width)) {
            row.copy_values(position);
            tables.words.add_row(token.id as usize, row);
            let segment = types.rows(width).nth(token.type_id.into()).unwrap_or_default();
            self.kernels.add(segment, row);
            let Some((pieces, directions, rank)) = self.words else { continue };
            (self.kernels.accumulate)(Accumulate {
                rows: 1,
                depth: rank,
                width,
                factors: learned(pieces, token, rank),
                factor_steps: [0, 1],
                x: directions,
                x_step: width,
                out: row,
                out_step: width,
            });
        }
    }

    /// Adds to the gradients of what was learned of the words, from that of the embeddings' output `[tokens,
    /// hidden]` in `space.gradient`.
    pub fn backward(
        &self,
        block: &mut Block<'_>,
        space: &mut BackwardSpace<'_>,
        tokens: &[Token],
        gradients: &mut Gradients<'_>,
    ) {
        let Some((pieces, directions, rank)) = self.words else { return };
        let Some((d_pieces, d_directions)) = gradients.words() else { return };
        let tables = &self.model.root().embeddings;
        let config = self.model.config();
        let (width, hidden) = (config.embedding_size, config.hidden_size);
        let norm = tables.norm.layer_norm(config.layer_norm_eps);
        let at_once = (block.scales.len() / 2).max(1);
        for (first, tokens) in (0..).step_by(at_once).zip(tokens.parts(at_once)) {
            let (scratch, wide, _) = block.split();
            let (sums, rest) = wide.split_at_mut_checked(tokens.len() * width).unwrap_or_default();
            let d = rest.get_mut(..tokens.len() * width).unwrap_or_default();
            self.sums(tokens, first, sums);
            let above =
                space.gradient.get(first * hidden..(first + tokens.len()) * hidden).unwrap_or_default();
            match tables.projection.as_ref() {
                Some(projection) => {
                    d.fill(0.0);
                    let mut turning = space.turning.with(scratch);
                    let dy = Columns::all(projection, above);
                    Dense::from(projection).backward(self.kernels, &mut turning, dy, d);
                }
                None => d.copy_values(above),
            }
            let rows = d.rows_mut(width).zip(sums.rows_mut(width));
            for ((d, sum), token) in rows.zip(tokens) {
                (self.kernels.norm_backward)(d, sum, &norm, &mut [], &mut []);
                (self.kernels.accumulate)(Accumulate {
                    rows: rank,
                    depth: 1,
                    width,
                    factors: learned(pieces, token, rank),
                    factor_steps: [1, 0],
                    x: d,
                    x_step: width,
                    out: d_directions,
                    out_step: width,
                });
                let mut slopes = [0.0; crate::weights::strategy::MAX_RANK];
                let slopes = slopes.get_mut(..rank).unwrap_or_default();
                (self.kernels.dots)(directions, d, slopes);
                let place = token.id as usize * rank;
                self.kernels.add(slopes, d_pieces.get_mut(place..place + rank).unwrap_or_default());
            }
        }
    }
}

/// What a token's piece has learned, `[rank]`.
fn learned<'a>(pieces: &'a [f32], token: &Token, rank: usize) -> &'a [f32] {
    let place = token.id as usize * rank;
    pieces.get(place..place + rank).unwrap_or_default()
}
