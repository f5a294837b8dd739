//! Multi-head self-attention in int8 with a f32 softmax.
//!
//! Keys and values are quantised per token and head, symmetrically, and packed into the tiles of
//! [`weights`](crate::weights): keys as `[tokens, head_size]`, so that q·k is a product with
//! `tokens` output channels; values as `[head_size, tokens]`, so that p·v is one with `head_size`.
//! A value's scale differs by token, which p·v sums over: it is multiplied into p before p is
//! quantised.

use super::{Block, KeyValues, Scratch, add_and_norm, dense};
use crate::ElectraConfig;
use crate::kernels::{KernelSet, Matmul, RowScale};
use crate::weights::Channels;
use crate::weights::format::Layer;

/// Widest head; [`Model::open`](crate::Model::open) refuses wider ones.
pub const MAX_HEAD: usize = 256;

/// One layer's attention over a sequence of `length` tokens.
pub struct Attention<'a> {
    layer: &'a Layer,
    config: &'a ElectraConfig,
    kernels: &'a KernelSet,
    length: usize,
}

impl<'a> Attention<'a> {
    pub fn new(layer: &'a Layer, config: &'a ElectraConfig, kernels: &'a KernelSet, length: usize) -> Self {
        Self { layer, config, kernels, length }
    }

    /// Tiles of one head's keys: (blocks of 16 tokens, blocks of 8 dimensions).
    fn key_shape(&self) -> (usize, usize) {
        (self.length.div_ceil(16), self.config.head_size().div_ceil(8))
    }

    /// Tiles of one head's values: (blocks of 16 dimensions, blocks of 8 tokens).
    fn value_shape(&self) -> (usize, usize) {
        (self.config.head_size().div_ceil(16), self.length.div_ceil(8))
    }

    /// Computes and packs the keys and values of a block of rows `x` `[n, hidden]` whose first is
    /// token `first`. Blocks come in order.
    pub fn keys_and_values(&self, cache: &mut KeyValues<'_>, block: &mut Block<'_>, first: usize, x: &[f32]) {
        let (hidden, head_size) = (self.config.hidden_size, self.config.head_size());
        let Block { rows, scales, wide, .. } = block;
        let out = wide.get_mut(..x.len()).unwrap_or_default();
        let mut scratch = Scratch { rows, scales };
        dense(self.kernels, &mut scratch, &self.layer.key, x, out);
        for (token, row) in (first..).zip(out.chunks_exact(hidden)) {
            for (head, key) in row.chunks_exact(head_size).enumerate() {
                self.pack_key(cache, head, token, key);
            }
        }
        dense(self.kernels, &mut scratch, &self.layer.value, x, out);
        for (token, row) in (first..).zip(out.chunks_exact(hidden)) {
            for (head, value) in row.chunks_exact(head_size).enumerate() {
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
        let tiles = cache.value_tiles.chunks_exact_mut(depth).skip(head * blocks);
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

    /// x = LayerNorm(x + attention(x)) for a block of rows `x` `[n, hidden]`.
    pub fn attend(&self, cache: &KeyValues<'_>, block: &mut Block<'_>, x: &mut [f32]) {
        let (hidden, kernels) = (self.config.hidden_size, self.kernels);
        let Block { rows, scales, wide, narrow } = block;
        let n = x.len() / hidden;
        let (query, rest) = wide.split_at_mut_checked(n * hidden).unwrap_or_default();
        let (context, rest) = rest.split_at_mut_checked(n * hidden).unwrap_or_default();
        let scores = rest.get_mut(..n * self.length).unwrap_or_default();
        dense(kernels, &mut Scratch { rows, scales }, &self.layer.query, x, query);
        for head in 0..self.config.num_attention_heads {
            let scratch = HeadScratch { rows, scales, out: narrow };
            self.attend_head(cache, head, scratch, query, scores, context);
        }
        let out = narrow.get_mut(..n * hidden).unwrap_or_default();
        let mut scratch = Scratch { rows, scales };
        dense(kernels, &mut scratch, &self.layer.attention_output, context, out);
        add_and_norm(kernels, &self.layer.attention_norm, self.config.layer_norm_eps, x, out);
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
        let n = query.len() / hidden;

        let (key_blocks, key_depth) = self.key_shape();
        let attention_scale = 1.0 / libm::sqrtf(size as f32);
        let quantized = rows.chunks_exact_mut(key_depth * 8).zip(scales.iter_mut());
        for (query, (row, scale)) in query.chunks_exact(hidden).zip(quantized) {
            *scale = (kernels.quantize)(query.get(here.clone()).unwrap_or_default(), &[], row);
            scale.scale *= attention_scale;
        }
        kernels.matmul(Matmul {
            rows: rows.get(..n * key_depth * 8).unwrap_or_default(),
            row_scales: scales.get(..n).unwrap_or_default(),
            tiles: part(cache.key_tiles, head, key_blocks * key_depth),
            channels: part(cache.key_channels, head, key_blocks),
            out: scores,
            width: self.length,
        });

        let (value_blocks, value_depth) = self.value_shape();
        let value_scales = part(cache.value_scales, head, self.length);
        let quantized = rows.chunks_exact_mut(value_depth * 8).zip(scales.iter_mut());
        for (scores, (row, scale)) in scores.chunks_exact_mut(self.length).zip(quantized) {
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
        for (context, out) in context.chunks_exact_mut(hidden).zip(out.chunks_exact(size)) {
            if let Some(context) = context.get_mut(here.clone()) {
                context.copy_from_slice(out);
            }
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
