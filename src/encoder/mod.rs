//! The forward pass: embeddings → N × (attention, feed-forward), written once.
//!
//! Tokens come in, the last layer's hidden states `[tokens, hidden]` stand in the residual stream
//! afterwards. Products are int8 × int8 with one scale and zero point a row of activations; the
//! residual stream, LayerNorm, softmax and GELU are f32. Keys and values of a layer are computed
//! for the whole sequence, everything else block by block of rows, so that the arena stays small.

mod attention;
mod embeddings;
mod feed_forward;

pub(crate) use attention::MAX_HEAD;

use crate::arena::Carver;
use crate::kernels::{KernelSet, Matmul, RowScale};
use crate::text::Token;
use crate::weights::format::{Linear, Norm};
use crate::weights::{Channels, Model, Tile, native};
use crate::{Error, Plan};

/// The arena of one sequence, carved.
pub struct Workspace<'a> {
    /// `[tokens]`.
    pub tokens: &'a mut [Token],
    /// `[tokens, hidden]`.
    pub residual: &'a mut [f32],
    pub(crate) cache: KeyValues<'a>,
    pub(crate) block: Block<'a>,
}

/// Keys and values of the layer at work, packed as weights are.
pub(crate) struct KeyValues<'a> {
    key_tiles: &'a mut [Tile],
    key_channels: &'a mut [Channels],
    value_tiles: &'a mut [Tile],
    value_channels: &'a mut [Channels],
    value_scales: &'a mut [f32],
}

/// Scratch of one block of rows.
pub(crate) struct Block<'a> {
    /// int8 inputs of a product.
    pub rows: &'a mut [i8],
    /// Their scales; as many as a block has rows.
    pub scales: &'a mut [RowScale],
    /// The widest intermediate results.
    pub wide: &'a mut [f32],
    /// `[block_rows, hidden]`.
    pub narrow: &'a mut [f32],
}

impl<'a> Workspace<'a> {
    /// Carves `memory` by the plan.
    pub fn carve(memory: &'a mut [u8], plan: &Plan) -> Result<Self, Error> {
        let mut carver = Carver(memory);
        Ok(Self {
            tokens: carver.take(plan.tokens)?,
            residual: carver.take(plan.residual)?,
            cache: KeyValues {
                key_tiles: carver.take(plan.key_tiles)?,
                key_channels: carver.take(plan.key_channels)?,
                value_tiles: carver.take(plan.value_tiles)?,
                value_channels: carver.take(plan.value_channels)?,
                value_scales: carver.take(plan.value_scales)?,
            },
            block: Block {
                rows: carver.take(plan.row_bytes)?,
                scales: carver.take(plan.block_rows)?,
                wide: carver.take(plan.wide)?,
                narrow: carver.take(plan.narrow)?,
            },
        })
    }
}

/// Runs the encoder over the first `length` tokens of the workspace.
///
/// # Errors
/// [`Error::NotFinite`] if a weight led to a value that is no number.
pub fn encode(
    model: &Model<'_>,
    kernels: &KernelSet,
    workspace: &mut Workspace<'_>,
    length: usize,
) -> Result<(), Error> {
    encode_observed(model, kernels, workspace, length, |_| {})
}

/// [`encode`], showing `observe` the hidden states `[length, hidden]` after the embeddings and
/// after each layer.
///
/// # Errors
/// As [`encode`].
pub fn encode_observed(
    model: &Model<'_>,
    kernels: &KernelSet,
    workspace: &mut Workspace<'_>,
    length: usize,
    mut observe: impl FnMut(&[f32]),
) -> Result<(), Error> {
    let hidden = model.config().hidden_size;
    let Workspace { tokens, residual, cache, block } = workspace;
    let tokens = tokens.get(..length).unwrap_or_default();
    let residual = residual.get_mut(..length * hidden).unwrap_or_default();
    let rows = block.scales.len();
    for (tokens, (first, x)) in
        tokens.chunks(rows).zip((0..).step_by(rows).zip(residual.chunks_mut(rows * hidden)))
    {
        embeddings::embed(model, kernels, block, tokens, first, x);
    }
    observe(residual);
    for layer in model.root().layers.iter() {
        let attention = attention::Attention::new(layer, model.config(), kernels, length);
        for (first, x) in (0..).step_by(rows).zip(residual.chunks(rows * hidden)) {
            attention.keys_and_values(cache, block, first, x);
        }
        for x in residual.chunks_mut(rows * hidden) {
            attention.attend(cache, block, x);
            feed_forward::feed_forward(layer, model.config(), kernels, block, x);
        }
        observe(residual);
    }
    // A value that is not finite stays so through every layer, so looking once is enough.
    if residual.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(Error::NotFinite) }
}

/// The buffers that a dense layer works in.
pub(crate) struct Scratch<'s> {
    /// int8 input rows.
    pub rows: &'s mut [i8],
    /// Their scales.
    pub scales: &'s mut [RowScale],
}

/// A dense layer: quantises `x` `[n, inputs]`, each row padded to a multiple of 8, and multiplies:
/// `out` `[n, outputs]`.
pub(crate) fn dense(
    kernels: &KernelSet,
    scratch: &mut Scratch<'_>,
    linear: &Linear,
    x: &[f32],
    out: &mut [f32],
) {
    let Scratch { rows, scales } = scratch;
    let (width, smoothing) = (linear.inputs(), native(&linear.smoothing));
    let places = rows.chunks_exact_mut(width.next_multiple_of(8)).zip(scales.iter_mut());
    for (x, (row, scale)) in x.chunks_exact(width).zip(places) {
        *scale = (kernels.quantize)(x, smoothing, row);
    }
    product(kernels, rows, scales, linear, out);
}

/// Quantised rows × a linear layer: `out` `[n, outputs]`.
fn product(kernels: &KernelSet, rows: &[i8], scales: &[RowScale], linear: &Linear, out: &mut [f32]) {
    let width = linear.outputs();
    let n = out.len() / width;
    let depth = linear.inputs().next_multiple_of(8);
    kernels.matmul(Matmul {
        rows: rows.get(..n * depth).unwrap_or_default(),
        row_scales: scales.get(..n).unwrap_or_default(),
        tiles: &linear.tiles,
        channels: &linear.channels,
        out,
        width,
    });
}

/// x = LayerNorm(x + y), row by row of `[n, width]`.
pub(crate) fn add_and_norm(kernels: &KernelSet, norm: &Norm, epsilon: f32, x: &mut [f32], y: &[f32]) {
    let norm = norm.layer_norm(epsilon);
    let width = norm.weight.len();
    for (x, y) in x.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
        (kernels.add_and_norm)(x, y, &norm);
    }
}
