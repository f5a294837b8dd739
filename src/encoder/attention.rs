//! Multi-head self-attention in int8 with a f32 softmax.
//!
//! Keys and values are quantised per token and head, symmetrically, and packed into the tiles of
//! [`weights`](crate::weights): keys as `[tokens, head_size]`, so that q·k is a product with
//! `tokens` output channels; values as `[head_size, tokens]`, so that p·v is one with `head_size`.
//! A value's scale differs by token, which p·v sums over: it is multiplied into p before p is
//! quantised.

use super::{AdaptedLayer, Block, KeyValues, Scratch, add_and_norm};
use crate::ElectraConfig;
use crate::kernels::lanes::sqrt;
use crate::kernels::{KernelSet, Matmul, RowScale};
use crate::rows::Rows;
use crate::weights::strategy::{NormPart, Part};
use crate::weights::{Channels, Tile};

/// Widest head; [`Model::open`](crate::Model::open) refuses wider ones.
pub const MAX_HEAD: usize = 256;

/// One layer's attention over a sequence of `length` tokens.
pub struct Attention<'a> {
    pub layer: AdaptedLayer<'a>,
    pub config: &'a ElectraConfig,
    pub kernels: &'a KernelSet,
    pub length: usize,
}

impl<'a> Attention<'a> {
    pub fn new(layer: AdaptedLayer<'a>, kernels: &'a KernelSet, length: usize) -> Self {
        Self { layer, config: layer.config, kernels, length }
    }

    /// Tiles of one head's keys: (blocks of 16 tokens, blocks of 8 dimensions).
    pub fn key_shape(&self) -> (usize, usize) {
        (self.length.div_ceil(16), self.config.head_size().div_ceil(8))
    }

    /// Tiles of one head's values: (blocks of 16 dimensions, blocks of 8 tokens).
    pub fn value_shape(&self) -> (usize, usize) {
        (self.config.head_size().div_ceil(16), self.length.div_ceil(8))
    }

    /// Computes and packs the keys and values of a block of rows `x` `[n, hidden]` whose first is
    /// token `first`. Blocks come in order.
    pub fn keys_and_values(&self, cache: &mut KeyValues<'_>, block: &mut Block<'_>, first: usize, x: &[f32]) {
        let (hidden, head_size) = (self.config.hidden_size, self.config.head_size());
        let (mut scratch, wide, _) = block.split();
        let out = wide.get_mut(..x.len()).unwrap_or_default();
        self.layer.dense(Part::Key).forward(self.kernels, &mut scratch, x, out);
        for (token, row) in (first..).zip(out.rows(hidden)) {
            for (head, key) in row.rows(head_size).enumerate() {
                self.pack_key(cache, head, token, key);
            }
        }
        self.layer.dense(Part::Value).forward(self.kernels, &mut scratch, x, out);
        for (token, row) in (first..).zip(out.rows(hidden)) {
            for (head, value) in row.rows(head_size).enumerate() {
                self.pack_value(cache, head, token, value);
            }
        }
    }

    fn pack_key(&self, cache: &mut KeyValues<'_>, head: usize, token: usize, key: &[f32]) {
        let (blocks, depth) = self.key_shape();
        let mut quantized = [0i8; MAX_HEAD];
        let Some(quantized) = quantized.get_mut(..depth * 8) else { return };
        let scale = (self.kernels.quantize_symmetric)(key, quantized);
        let (block, lane) = (head * blocks + token / 16, token % 16);
        if let Some(channels) = cache.key_channels.get_mut(block) {
            if lane == 0 {
                *channels = bytemuck::Zeroable::zeroed();
            }
            set(&mut channels.scale, lane, scale);
            set(&mut channels.column_sum, lane, quantized.iter().map(|&q| i32::from(q)).sum());
        }
        let tiles = cache.key_tiles.get_mut(block * depth..).unwrap_or_default();
        for (part, tile) in quantized.as_chunks::<8>().0.iter().zip(tiles) {
            set(&mut tile.0, lane, *part);
        }
    }

    fn pack_value(&self, cache: &mut KeyValues<'_>, head: usize, token: usize, value: &[f32]) {
        let (blocks, depth) = self.value_shape();
        let mut quantized = [0i8; MAX_HEAD];
        let Some(quantized) = quantized.get_mut(..blocks * 16) else { return };
        let scale = (self.kernels.quantize_symmetric)(value, quantized);
        set(cache.value_scales, head * self.length + token, scale);
        let tiles = cache.value_tiles.rows_mut(depth).skip(head * blocks);
        let blocks = tiles.zip(cache.value_channels.iter_mut().skip(head * blocks));
        for ((tiles, channels), quantized) in blocks.zip(quantized.as_chunks::<16>().0) {
            let Some(tile) = tiles.get_mut(token / 8) else { continue };
            // What stood here belongs to another sequence.
            if token == 0 {
                *channels = Channels { scale: [1.0; 16], ..bytemuck::Zeroable::zeroed() };
            }
            if token.is_multiple_of(8) {
                *tile = bytemuck::Zeroable::zeroed();
            }
            let lanes = tile.0.iter_mut().zip(&mut channels.column_sum);
            for ((row, sum), &q) in lanes.zip(quantized) {
                set(row, token % 8, q);
                *sum += i32::from(q);
            }
        }
    }

    /// x = LayerNorm(x + attention(x)) for a block of rows `x` `[n, hidden]` whose first is token `first`.
    pub fn attend(&self, cache: &KeyValues<'_>, block: &mut Block<'_>, first: usize, x: &mut [f32]) {
        let (mut scratch, wide, narrow) = block.split();
        let n = x.rows(self.config.hidden_size).len();
        let (query, rest) = wide.split_at_mut_checked(x.len()).unwrap_or_default();
        let (context, rest) = rest.split_at_mut_checked(x.len()).unwrap_or_default();
        let scores = rest.get_mut(..n * self.length).unwrap_or_default();
        self.layer.dense(Part::Query).forward(self.kernels, &mut scratch, x, query);
        self.contexts(cache, &mut scratch, narrow, query, scores, context);
        let out = narrow.get_mut(..x.len()).unwrap_or_default();
        self.layer.dense(Part::AttentionOutput).forward(self.kernels, &mut scratch, context, out);
        self.layer.drop(NormPart::Attention, first, out);
        add_and_norm(self.kernels, &self.layer.norm(NormPart::Attention), x, out);
    }

    /// All heads' contexts `[n, hidden]` of their queries `[n, hidden]`; `scores` `[n, length]` and `narrow`
    /// are scratch.
    pub fn contexts(
        &self,
        cache: &KeyValues<'_>,
        scratch: &mut Scratch<'_>,
        narrow: &mut [f32],
        query: &[f32],
        scores: &mut [f32],
        context: &mut [f32],
    ) {
        for head in 0..self.config.num_attention_heads {
            let scratch = HeadScratch { rows: scratch.rows, scales: scratch.scales, out: narrow };
            self.attend_head(cache, head, scratch, query, scores, context);
        }
    }

    /// softmax(q·kᵀ / √head_size)·v of one head: `query` and `context` are `[n, hidden]`, `scores`
    /// `[n, length]`.
    fn attend_head(
        &self,
        cache: &KeyValues<'_>,
        head: usize,
        scratch: HeadScratch<'_>,
        query: &[f32],
        scores: &mut [f32],
        context: &mut [f32],
    ) {
        let HeadScratch { rows, scales, out } = scratch;
        let (hidden, size, kernels) = (self.config.hidden_size, self.config.head_size(), self.kernels);
        let here = head * size..(head + 1) * size;
        let n = query.rows(hidden).len();

        let depth = self.key_shape().1 * 8;
        let quantized = rows.rows_mut(depth).zip(scales.iter_mut());
        for (query, (row, scale)) in query.rows(hidden).zip(quantized) {
            *scale = self.quantize_query(query.get(here.clone()).unwrap_or_default(), row);
        }
        let rows_of_queries = rows.get(..n * depth).unwrap_or_default();
        self.scores(cache, head, rows_of_queries, scales.get(..n).unwrap_or_default(), scores);

        let (value_blocks, value_depth) = self.value_shape();
        let value_scales = part(cache.value_scales, head, self.length);
        let quantized = rows.rows_mut(value_depth * 8).zip(scales.iter_mut());
        for (scores, (row, scale)) in scores.rows_mut(self.length).zip(quantized) {
            *scale = (kernels.attention_weights)(scores, value_scales, row);
        }
        let out = out.get_mut(..n * size).unwrap_or_default();
        kernels.matmul(Matmul {
            rows: rows.get(..n * value_depth * 8).unwrap_or_default(),
            row_scales: scales.get(..n).unwrap_or_default(),
            tiles: part(cache.value_tiles, head, value_blocks * value_depth),
            channels: part(cache.value_channels, head, value_blocks),
            out,
            width: size,
        });
        for (context, out) in context.rows_mut(hidden).zip(out.rows(size)) {
            if let Some(context) = context.get_mut(here.clone()) {
                context.copy_values(out);
            }
        }
    }
}

impl Attention<'_> {
    /// Quantises one head's query; the scale carries 1 / √head_size.
    pub fn quantize_query(&self, query: &[f32], row: &mut [i8]) -> RowScale {
        let RowScale { scale, zero_point } = (self.kernels.quantize)(query, &[], row);
        RowScale { scale: scale * self.attention_scale(), zero_point }
    }

    /// 1 / √head_size.
    pub fn attention_scale(&self) -> f32 {
        1.0 / sqrt(self.config.head_size() as f32)
    }

    /// q·kᵀ / √head_size of one head's quantised queries `[n, depth]`: `scores` `[n, length]`.
    pub fn scores(
        &self,
        cache: &KeyValues<'_>,
        head: usize,
        queries: &[i8],
        query_scales: &[RowScale],
        scores: &mut [f32],
    ) {
        let (blocks, depth) = self.key_shape();
        self.kernels.matmul(Matmul {
            rows: queries,
            row_scales: query_scales,
            tiles: part(cache.key_tiles, head, blocks * depth),
            channels: part(cache.key_channels, head, blocks),
            out: scores,
            width: self.length,
        });
    }

    /// One head's keys `[length, head_size]` and values, on their side, `[head_size, length]`, as the forward
    /// pass saw them.
    pub fn dequantize(&self, cache: &KeyValues<'_>, head: usize, keys: &mut [f32], values: &mut [f32]) {
        let size = self.config.head_size();
        let (blocks, depth) = self.key_shape();
        for (token, row) in keys.rows_mut(size).enumerate() {
            let (block, lane) = (head * blocks + token / 16, token % 16);
            let scale = cache.key_channels.get(block).and_then(|channels| channels.scale.get(lane));
            let tiles = cache.key_tiles.get(block * depth..).unwrap_or_default();
            dequantize_row(tiles.iter(), lane, row, |_| scale.copied().unwrap_or(0.0));
        }
        let (blocks, depth) = self.value_shape();
        let scales = part(cache.value_scales, head, self.length);
        for (dimension, row) in values.rows_mut(self.length).enumerate() {
            let tiles = cache.value_tiles.get((head * blocks + dimension / 16) * depth..).unwrap_or_default();
            let scale = |token: usize| scales.get(token).copied().unwrap_or(0.0);
            dequantize_row(tiles.iter(), dimension % 16, row, scale);
        }
    }
}

/// Row `lane` of a run of tiles, each value times its scale.
fn dequantize_row<'t>(
    tiles: impl Iterator<Item = &'t Tile>,
    lane: usize,
    row: &mut [f32],
    scale: impl Fn(usize) -> f32,
) {
    for ((first, places), tile) in (0..).step_by(8).zip(row.chunks_mut(8)).zip(tiles) {
        let weights = tile.0.get(lane).copied().unwrap_or_default();
        for (offset, (x, q)) in places.iter_mut().zip(weights).enumerate() {
            *x = f32::from(q) * scale(first + offset);
        }
    }
}

/// What one head may write on.
struct HeadScratch<'s> {
    rows: &'s mut [i8],
    scales: &'s mut [RowScale],
    out: &'s mut [f32],
}

/// The `index`-th of equal parts of `size`.
fn part<T>(whole: &[T], index: usize, size: usize) -> &[T] {
    whole.get(index * size..(index + 1) * size).unwrap_or_default()
}

fn set<T>(slice: &mut [T], index: usize, value: T) {
    if let Some(place) = slice.get_mut(index) {
        *place = value;
    }
}
