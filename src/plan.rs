//! How many bytes a job needs, known at compile time.
//!
//! The residual stream of the whole sequence and one layer's keys and values are kept; everything
//! else is worked in blocks of rows. A larger block shares each pass over the weights among more
//! tokens, and costs `block_rows · (intermediate + hidden)` floats.

use crate::ElectraConfig;
use crate::arena::bytes_of;
use crate::encoder::{STRIPS, strip_tiles};
use crate::kernels::RowScale;
use crate::text::Token;
use crate::weights::strategy::{Layout, Strategy};
use crate::weights::{Channels, Model, Tile};

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
    /// f32 of a block of rows, `hidden` wide, or of one as wide as the embeddings.
    pub narrow: usize,
    /// Tiles of 16 channels of the widest layer in int4, unpacked, and a block of rows of their product; none for a
    /// model in int8.
    pub strip: usize,
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
            key_tiles: key_blocks.saturating_mul(heads * head.div_ceil(8)),
            key_channels: key_blocks.saturating_mul(heads),
            value_tiles: tokens.div_ceil(8).saturating_mul(heads * head.div_ceil(16)),
            value_channels: heads * head.div_ceil(16),
            value_scales: tokens.saturating_mul(heads),
            row_bytes: block_rows.saturating_mul(row.div_ceil(8).saturating_mul(8)),
            wide: block_rows.saturating_mul(wide),
            // One row of fill-mask's features lies there too.
            narrow: max(block_rows.saturating_mul(hidden), config.embedding_size),
            strip: 0,
        }
    }

    /// The same with room to unpack int4 weights.
    pub const fn unpacking(self, config: &ElectraConfig) -> Self {
        Self { strip: strip_tiles(widest(config), self.block_rows), ..self }
    }

    /// The same for that model: with room to unpack its weights if they are int4.
    pub fn for_model(self, model: &Model<'_>) -> Self {
        if model.is_int4() { self.unpacking(model.config()) } else { self }
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
            .saturating_add(bytes_of::<Tile>(self.strip))
    }
}

/// What learning needs beside answering, each a number of elements.
///
/// For every trained parameter four floats: itself, its gradient and AdamW's two moments. For every layer from
/// the lowest trained one up, its input in f16. The backward pass of one layer works in the forward pass's
/// blocks, half as many rows at once, and in some room of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TuningPlan {
    /// The forward pass's parts, some of them larger than for answering alone.
    pub inference: Plan,
    /// What is trained.
    pub layout: Layout,
    /// f16 `[layers, tokens, hidden]`: inputs of the layers that are trained or lie above one that is.
    pub saved: usize,
    /// f32 `[tokens, hidden]`: the gradient on its way down.
    pub gradient: usize,
    /// int8 `[heads][tokens][head_size]`: queries of one layer.
    pub queries: usize,
    /// Their scales.
    pub query_scales: usize,
    /// Tiles of transposed weights.
    pub tiles: usize,
    /// f32: one row of gradients at the outputs of the widest layer.
    pub row: usize,
    /// f32: products of a block of rows with a strip of transposed weights.
    pub out: usize,
}

impl TuningPlan {
    /// The plan for learning from sequences of up to `tokens` tokens, for a head of `labels` outputs over the
    /// hidden states.
    pub const fn new(config: &ElectraConfig, tokens: usize, strategy: Strategy, labels: usize) -> Self {
        let layout = Layout { config: *config, strategy, width: config.hidden_size, labels };
        Self::with_blocks(layout, tokens, BLOCK_ROWS, 1)
    }

    /// The same with other blocks: `strips` of 16 inputs whose weights are transposed together. Larger
    /// blocks share each transposition among more rows.
    pub const fn with_blocks(layout: Layout, tokens: usize, block_rows: usize, strips: usize) -> Self {
        let config = &layout.config;
        let (hidden, inner, head) = (config.hidden_size, config.intermediate_size, config.head_size());
        let (block_rows, strips) = (max(block_rows, 2), max(strips, 1));
        let mut inference = Plan::with_block_rows(config, tokens, block_rows);
        let layers = config.num_hidden_layers - layout.first_layer();
        if layers == 0 {
            let none = Self {
                inference,
                layout,
                saved: 0,
                gradient: 0,
                queries: 0,
                query_scales: 0,
                tiles: 0,
                row: 0,
                out: 0,
            };
            return none;
        }
        let n = block_rows / 2;
        let two = tokens.saturating_mul(2);
        let rows = n.saturating_mul(max(2 * inner, two).saturating_add(4 * hidden));
        let heads = two.saturating_mul(2 * head).saturating_add(n.saturating_mul(two.saturating_add(head)));
        inference.wide = max(inference.wide, max(rows, heads));
        let widest = max(hidden, inner).next_multiple_of(16);
        inference.row_bytes = max(inference.row_bytes, block_rows * widest);
        Self {
            inference,
            layout,
            saved: tokens.saturating_mul(layers * hidden),
            gradient: tokens.saturating_mul(hidden),
            queries: tokens.saturating_mul(config.num_attention_heads * head.next_multiple_of(8)),
            query_scales: tokens.saturating_mul(config.num_attention_heads),
            tiles: strips * widest / 8,
            row: widest,
            out: block_rows * 16 * STRIPS,
        }
    }

    /// The same with room to unpack int4 weights.
    pub const fn unpacking(self) -> Self {
        Self { inference: self.inference.unpacking(&self.layout.config), ..self }
    }

    /// The same for that model: with room to unpack its weights if they are int4.
    pub fn for_model(self, model: &Model<'_>) -> Self {
        if model.is_int4() { self.unpacking() } else { self }
    }

    /// Bytes of the arena.
    pub const fn bytes(&self) -> usize {
        let parameters = bytes_of::<f32>(self.layout.len());
        let tokens = self.inference.tokens;
        self.inference
            .bytes()
            .saturating_add(parameters.saturating_mul(4))
            .saturating_add(bytes_of::<f32>(tokens.saturating_mul(self.layout.labels)))
            .saturating_add(bytes_of::<u16>(tokens))
            .saturating_add(bytes_of::<u16>(self.saved))
            .saturating_add(bytes_of::<f32>(self.gradient))
            .saturating_add(bytes_of::<i8>(self.queries))
            .saturating_add(bytes_of::<RowScale>(self.query_scales))
            .saturating_add(bytes_of::<Tile>(self.tiles))
            .saturating_add(bytes_of::<f32>(self.row))
            .saturating_add(bytes_of::<f32>(self.out))
    }
}

/// Inputs or outputs of the widest layer.
const fn widest(config: &ElectraConfig) -> usize {
    max(max(config.hidden_size, config.intermediate_size), config.embedding_size)
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}
