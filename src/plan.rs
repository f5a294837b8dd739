//! How many bytes a job needs, known at compile time.
//!
//! The residual stream of the whole sequence and one layer's keys and values are kept; everything
//! else is worked in blocks of rows. A larger block shares each pass over the weights among more
//! tokens, and costs `block_rows · (intermediate + hidden)` floats.

use crate::ElectraConfig;
use crate::arena::bytes_of;
use crate::kernels::RowScale;
use crate::text::Token;
use crate::weights::{Channels, Tile};

/// Rows that are worked together unless asked otherwise.
pub const BLOCK_ROWS: usize = 8;

/// The parts of an arena, each a number of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Longest sequence in tokens, special tokens included.
    pub tokens: usize,
    /// Rows worked together.
    pub block_rows: usize,
    /// f32 `[tokens, hidden]`: the residual stream.
    pub residual: usize,
    /// Tiles of one layer's keys, `[heads][tokens/16][head_size/8]`.
    pub key_tiles: usize,
    /// [`Channels`] of the keys, `[heads][tokens/16]`.
    pub key_channels: usize,
    /// Tiles of one layer's values, `[heads][head_size/16][tokens/8]`.
    pub value_tiles: usize,
    /// [`Channels`] of the values, `[heads][head_size/16]`.
    pub value_channels: usize,
    /// f32 `[heads, tokens]`: scales of the values.
    pub value_scales: usize,
    /// int8 of a block of rows, each as wide as the widest input of a product.
    pub row_bytes: usize,
    /// f32 of a block of rows: queries, context and scores, or the feed-forward layer.
    pub wide: usize,
    /// f32 of a block of rows, `hidden` wide.
    pub narrow: usize,
}

impl Plan {
    /// The plan for answering about sequences of up to `tokens` tokens.
    pub const fn inference(config: &ElectraConfig, tokens: usize) -> Self {
        Self::with_block_rows(config, tokens, BLOCK_ROWS)
    }

    /// The same with other blocks; 1 is the smallest arena.
    pub const fn with_block_rows(config: &ElectraConfig, tokens: usize, block_rows: usize) -> Self {
        let (heads, hidden) = (config.num_attention_heads, config.hidden_size);
        let head = config.head_size();
        let key_blocks = tokens.div_ceil(16);
        // The vocabulary's product takes two rows of features at once.
        let features = config.embedding_size.next_multiple_of(8).saturating_mul(2);
        let row = max(max(hidden, config.intermediate_size), max(features, tokens));
        let attention = hidden.saturating_mul(2).saturating_add(tokens);
        // … and gives at least 16 channels of each.
        let wide = max(max(config.intermediate_size, config.embedding_size), max(attention, 32));
        Self {
            tokens,
            block_rows,
            residual: tokens.saturating_mul(hidden),
            key_tiles: heads * head.div_ceil(8) * key_blocks,
            key_channels: heads * key_blocks,
            value_tiles: heads * head.div_ceil(16) * tokens.div_ceil(8),
            value_channels: heads * head.div_ceil(16),
            value_scales: tokens * heads,
            row_bytes: block_rows.saturating_mul(row.next_multiple_of(8)),
            wide: block_rows.saturating_mul(wide),
            narrow: block_rows.saturating_mul(hidden),
        }
    }

    /// Bytes of the arena.
    pub const fn bytes(&self) -> usize {
        bytes_of::<Token>(self.tokens)
            .saturating_add(bytes_of::<f32>(self.residual))
            .saturating_add(bytes_of::<Tile>(self.key_tiles))
            .saturating_add(bytes_of::<Channels>(self.key_channels))
            .saturating_add(bytes_of::<Tile>(self.value_tiles))
            .saturating_add(bytes_of::<Channels>(self.value_channels))
            .saturating_add(bytes_of::<f32>(self.value_scales))
            .saturating_add(bytes_of::<i8>(self.row_bytes))
            .saturating_add(bytes_of::<RowScale>(self.block_rows))
            .saturating_add(bytes_of::<f32>(self.wide))
            .saturating_add(bytes_of::<f32>(self.narrow))
    }
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}
