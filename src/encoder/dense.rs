//! A dense layer in both directions: y = W·x + b through tiles of int8, or of int4 once unpacked, with what an
//! adapter adds to it; and back, dx = Wᵀ·dy through the same tiles, transposed as they are read.
//!
//! Forward, a row of activations is quantised to 8 bits. Backward, gradients keep 16: a row goes in as two
//! rows of int8, what 8 bits say and what they leave over. Rounding an activation counts as the identity in
//! the backward pass (the straight-through estimator, Bengio et al. 2013), so that the gradient is that of
//! the network that runs.

use core::ops::Range;

use crate::kernels::{Accumulate, KernelSet, Matmul, RowScale};
use crate::rows::Rows;
use crate::weights::format::Linear;
use crate::weights::strategy::MAX_RANK;
use crate::weights::{Channels, LowRank, Tile, native};

/// A dense layer as it runs.
#[derive(Clone, Copy)]
pub(crate) struct Dense<'a> {
    /// The frozen weights.
    pub linear: &'a Linear,
    /// `[outputs]`, added to the bias; or empty.
    pub bias: &'a [f32],
    /// A low-rank update.
    pub low_rank: Option<LowRank<'a>>,
}

/// The buffers that a dense layer works in.
pub(crate) struct Scratch<'s> {
    /// int8 input rows.
    pub rows: &'s mut [i8],
    /// Their scales.
    pub scales: &'s mut [RowScale],
    /// Where int4 weights are unpacked.
    pub strip: &'s mut [Tile],
}

impl Scratch<'_> {
    /// The same buffers for another use in between.
    pub fn again(&mut self) -> Scratch<'_> {
        Scratch { rows: self.rows, scales: self.scales, strip: self.strip }
    }
}

impl<'a> From<&'a Linear> for Dense<'a> {
    fn from(linear: &'a Linear) -> Self {
        Self { linear, bias: &[], low_rank: None }
    }
}

impl Dense<'_> {
    /// `out` `[n, outputs]` of `x` `[n, inputs]`, each row of which is quantised and padded to a multiple
    /// of 8.
    pub fn forward(&self, kernels: &KernelSet, scratch: &mut Scratch<'_>, x: &[f32], out: &mut [f32]) {
        let Scratch { rows, scales, strip } = scratch;
        let (width, outputs) = (self.linear.inputs(), self.linear.outputs());
        let (depth, smoothing) = (width.next_multiple_of(8), native(&self.linear.smoothing));
        let places = rows.rows_mut(depth).zip(scales.iter_mut());
        for (x, (row, scale)) in x.rows(width).zip(places) {
            *scale = (kernels.quantize)(x, smoothing, row);
        }
        let n = out.rows(outputs).len();
        let (rows, scales) = (rows.get(..n * depth), scales.get(..n));
        let blocks = 0..self.linear.channels.len();
        let rows = (rows.unwrap_or_default(), scales.unwrap_or_default());
        product(kernels, self.linear, blocks, rows, strip, out);
        if self.low_rank.is_none() && self.bias.is_empty() {
            return;
        }
        if !self.bias.is_empty() {
            kernels.add(self.bias, out);
        }
        let Some(low_rank) = &self.low_rank else { return };
        for (x, out) in x.parts(ROWS * width).zip(out.parts_mut(ROWS * outputs)) {
            let reduced = low_rank.reduced(kernels, x);
            (kernels.accumulate)(Accumulate {
                rows: x.rows(width).len(),
                depth: low_rank.rank,
                width: outputs,
                factors: reduced.as_flattened(),
                factor_steps: [MAX_RANK, 1],
                x: low_rank.b,
                x_step: outputs,
                out,
                out_step: outputs,
            });
        }
    }
}

/// Quantised rows and their scales × some blocks of 16 channels of a layer: `out` `[n, channels of the blocks]`.
///
/// int4 weights are unpacked block by block into the front of `strip`; the product with one block stands behind
/// them before it is moved to its columns.
pub(crate) fn product(
    kernels: &KernelSet,
    linear: &Linear,
    blocks: Range<usize>,
    (rows, row_scales): (&[i8], &[RowScale]),
    strip: &mut [Tile],
    out: &mut [f32],
) {
    let (first, end) = (blocks.start * 16, linear.outputs().min(blocks.end * 16));
    let width = end.saturating_sub(first);
    let channels = linear.channels.get(blocks.clone()).unwrap_or_default();
    if !linear.is_int4() {
        let tiles = linear.tiles_of(blocks);
        return kernels.matmul(Matmul { rows, row_scales, tiles, channels, out, width });
    }
    let halves = linear.halves_of(blocks.clone());
    let whole = Matmul { rows, row_scales, tiles: halves, channels, out, width };
    let Err(Matmul { out, .. }) = kernels.matmul_int4(whole) else { return };
    let depth = linear.depth();
    let (tiles, behind) = strip.split_at_mut_checked(depth).unwrap_or_default();
    let columns: &mut [f32] = bytemuck::try_cast_slice_mut(behind).unwrap_or_default();
    let places = (0..width).step_by(16).zip(channels);
    for (block, (column, channels)) in blocks.zip(places) {
        (kernels.unpack)(linear.halves_of(block..block + 1), depth, 0, tiles);
        let here = (width - column).min(16);
        let columns = columns.get_mut(..row_scales.len() * here).unwrap_or_default();
        let channels = core::slice::from_ref(channels);
        kernels.matmul(Matmul { rows, row_scales, tiles, channels, out: columns, width: here });
        for (out, columns) in out.rows_mut(width).zip(columns.rows(here)) {
            out.get_mut(column..column + here).unwrap_or_default().copy_values(columns);
        }
    }
}

/// Tiles of a [`Scratch::strip`] for layers of up to `inputs` inputs or outputs and blocks of so many rows.
pub(crate) const fn strip_tiles(inputs: usize, block_rows: usize) -> usize {
    inputs.div_ceil(16) * 2 + (block_rows * 16 * size_of::<f32>()).div_ceil(size_of::<Tile>())
}

/// Rows whose low-rank part is worked together.
const ROWS: usize = 4;

impl LowRank<'_> {
    /// scale · A·x of up to [`ROWS`] rows `x` `[n, inputs]`.
    fn reduced(&self, kernels: &KernelSet, x: &[f32]) -> [[f32; MAX_RANK]; ROWS] {
        let mut all = [[0.0; MAX_RANK]; ROWS];
        for (x, out) in x.rows(self.a.len() / self.rank.max(1)).zip(&mut all) {
            let out = out.get_mut(..self.rank).unwrap_or_default();
            (kernels.dots)(self.a, x, out);
            for value in out {
                *value *= self.scale;
            }
        }
        all
    }
}

/// Where a dense layer's gradients are added; empty for what is not trained.
#[derive(Default)]
pub(crate) struct DenseGradient<'g> {
    /// `[outputs]`.
    pub bias: &'g mut [f32],
    /// `[rank, inputs]`.
    pub a: &'g mut [f32],
    /// `[rank, outputs]`.
    pub b: &'g mut [f32],
}

/// The buffers of a product with transposed weights.
pub(crate) struct Transposing<'s> {
    /// Two rows of int8 for every row of gradients.
    pub rows: &'s mut [i8],
    /// Their scales.
    pub scales: &'s mut [RowScale],
    /// Where int4 weights are unpacked.
    pub strip: &'s mut [Tile],
    /// Tiles of at least 16 inputs of the widest layer, turned.
    tiles: &'s mut [Tile],
    /// One row of gradients, padded to whole tiles.
    row: &'s mut [f32],
    /// The product of all rows with one strip of 16 inputs.
    out: &'s mut [f32],
}

/// Those of them that the backward pass has to itself.
pub(crate) struct Turning<'a> {
    /// Tiles that were turned.
    pub tiles: &'a mut [Tile],
    /// One row of gradients, as wide as the widest layer's outputs.
    pub row: &'a mut [f32],
    /// Products with a strip of turned tiles.
    pub out: &'a mut [f32],
}

impl Turning<'_> {
    /// All of them, with what the forward pass works in.
    pub fn with<'s>(&'s mut self, scratch: Scratch<'s>) -> Transposing<'s> {
        let Scratch { rows, scales, strip } = scratch;
        Transposing { rows, scales, strip, tiles: self.tiles, row: self.row, out: self.out }
    }
}

impl Dense<'_> {
    /// Adds to the gradients of what is trained, for outputs `first..first + dy.width` of the layer: `x`
    /// `[n, inputs]` went in, `dy` `[n, width]` is the gradient at those outputs.
    pub fn gradients(
        &self,
        kernels: &KernelSet,
        gradient: &mut DenseGradient<'_>,
        x: &[f32],
        dy: Columns<'_>,
    ) {
        let (inputs, outputs) = (self.linear.inputs(), self.linear.outputs());
        let here = dy.first..dy.first + dy.width;
        if let Some(bias) = gradient.bias.get_mut(here) {
            kernels.add_rows(dy.values, bias);
        }
        let Some(low_rank) = &self.low_rank else { return };
        for (x, values) in x.parts(ROWS * inputs).zip(dy.values.parts(ROWS * dy.width)) {
            let dy = Columns { values, ..dy };
            let (reduced, inner) = (low_rank.reduced(kernels, x), low_rank.before(kernels, dy, outputs));
            let (rank, depth) = (low_rank.rank, x.len() / inputs);
            (kernels.accumulate)(Accumulate {
                rows: rank,
                depth,
                width: dy.width,
                factors: reduced.as_flattened(),
                factor_steps: [1, MAX_RANK],
                x: values,
                x_step: dy.width,
                out: gradient.b.get_mut(dy.first..).unwrap_or_default(),
                out_step: outputs,
            });
            (kernels.accumulate)(Accumulate {
                rows: rank,
                depth,
                width: inputs,
                factors: inner.as_flattened(),
                factor_steps: [1, MAX_RANK],
                x,
                x_step: inputs,
                out: gradient.a,
                out_step: inputs,
            });
        }
    }

    /// dx += Wᵀ·dy for a block of rows, of the outputs that `dy` has: `dx` `[n, inputs]`.
    pub fn backward(
        &self,
        kernels: &KernelSet,
        scratch: &mut Transposing<'_>,
        dy: Columns<'_>,
        dx: &mut [f32],
    ) {
        let (inputs, outputs) = (self.linear.inputs(), self.linear.outputs());
        transposed_product(kernels, scratch, self.linear, dy, dx);
        let Some(low_rank) = &self.low_rank else { return };
        for (dx, values) in dx.parts_mut(ROWS * inputs).zip(dy.values.parts(ROWS * dy.width)) {
            let inner = low_rank.before(kernels, Columns { values, ..dy }, outputs);
            (kernels.accumulate)(Accumulate {
                rows: dx.len() / inputs,
                depth: low_rank.rank,
                width: inputs,
                factors: inner.as_flattened(),
                factor_steps: [MAX_RANK, 1],
                x: low_rank.a,
                x_step: inputs,
                out: dx,
                out_step: inputs,
            });
        }
    }
}

impl LowRank<'_> {
    /// scale · Bᵀ·dy of up to [`ROWS`] rows: the gradient between A and B.
    fn before(&self, kernels: &KernelSet, dy: Columns<'_>, outputs: usize) -> [[f32; MAX_RANK]; ROWS] {
        let here = dy.first..dy.first + dy.width;
        let mut all = [[0.0; MAX_RANK]; ROWS];
        for (dy, out) in dy.values.rows(dy.width).zip(&mut all) {
            for (value, row) in out.iter_mut().zip(self.b.rows(outputs)) {
                (kernels.dots)(row.get(here.clone()).unwrap_or_default(), dy, core::slice::from_mut(value));
                *value *= self.scale;
            }
        }
        all
    }
}

/// Gradients at some neighbouring outputs of a layer.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// The first output.
    pub first: usize,
    /// How many.
    pub width: usize,
    /// `[n, width]`.
    pub values: &'a [f32],
}

impl<'a> Columns<'a> {
    /// Gradients at all outputs of a layer.
    pub fn all(linear: &Linear, values: &'a [f32]) -> Self {
        Self { first: 0, width: linear.outputs(), values }
    }
}

/// Strips of 16 inputs that are multiplied together at most.
pub(crate) const STRIPS: usize = 8;

/// dx += smoothing ∘ Σ over outputs c of dy\[c\] · scale\[c\] · weights of c, in strips of 16 inputs.
fn transposed_product(
    kernels: &KernelSet,
    scratch: &mut Transposing<'_>,
    linear: &Linear,
    dy: Columns<'_>,
    dx: &mut [f32],
) {
    let (inputs, depth) = (linear.inputs(), linear.depth());
    let n = dy.values.len() / dy.width;
    let (first_block, end_block) = (dy.first / 16, (dy.first + dy.width).div_ceil(16));
    let blocks = end_block - first_block;
    let channels = linear.channels.get(first_block..end_block).unwrap_or_default();
    let int4 = linear.is_int4();
    let smoothing = native(&linear.smoothing);

    let Transposing { rows, scales, strip: unpacked, tiles: turned, row, out } = scratch;
    let rows = rows.get_mut(..2 * n * blocks * 16).unwrap_or_default();
    let scales = scales.get_mut(..2 * n).unwrap_or_default();
    let row = row.get_mut(..blocks * 16).unwrap_or_default();
    let places = rows.chunks_exact_mut(2 * blocks * 16).zip(scales.as_chunks_mut().0);
    for (dy_row, (rows, scales)) in dy.values.rows(dy.width).zip(places) {
        spread_out(dy_row, dy.first % 16, channels, row);
        *scales = quantize_finely(kernels, row, rows);
    }

    let strips = (turned.len() / (2 * blocks)).clamp(1, STRIPS);
    for first in (0..inputs).step_by(16 * strips) {
        let width = (16 * strips).min(inputs - first);
        let mut turned_channels =
            [Channels { scale: [1.0; 16], bias: [0.0; 16], column_sum: [0; 16] }; STRIPS];
        let places = turned.chunks_exact_mut(2 * blocks).zip(&mut turned_channels);
        for (strip, (turned, channels)) in (first / 16..(first + width).div_ceil(16)).zip(places) {
            channels.column_sum = if int4 {
                let unpacked = unpacked.get_mut(..2 * blocks).unwrap_or_default();
                for (unpacked, block) in unpacked.rows_mut(2).zip(first_block..) {
                    (kernels.unpack)(linear.halves_of(block..block + 1), depth, 2 * strip, unpacked);
                }
                (kernels.turn)(unpacked, 2, 0, turned)
            } else {
                (kernels.turn)(linear.tiles_of(first_block..end_block), depth, strip, turned)
            };
        }
        let count = width.div_ceil(16);
        let out = out.get_mut(..2 * n * width).unwrap_or_default();
        kernels.matmul(Matmul {
            rows,
            row_scales: scales,
            tiles: turned.get(..count * 2 * blocks).unwrap_or_default(),
            channels: turned_channels.get(..count).unwrap_or_default(),
            out,
            width,
        });
        for (dx, out) in dx.rows_mut(inputs).zip(out.chunks_exact(2 * width)) {
            let dx = dx.get_mut(first..first + width).unwrap_or_default();
            let (coarse, fine) = out.split_at(width);
            if smoothing.is_empty() {
                for (dx, (coarse, fine)) in dx.iter_mut().zip(coarse.iter().zip(fine)) {
                    *dx += coarse + fine;
                }
            } else {
                let factors = smoothing.get(first..).unwrap_or_default();
                for ((dx, factor), (coarse, fine)) in dx.iter_mut().zip(factors).zip(coarse.iter().zip(fine))
                {
                    *dx += factor * (coarse + fine);
                }
            }
        }
    }
}

/// `dy` · scales of its channels, from place `offset` on; zeros around it.
fn spread_out(dy: &[f32], offset: usize, channels: &[Channels], row: &mut [f32]) {
    row.fill(0.0);
    row.get_mut(offset..offset + dy.len()).unwrap_or_default().copy_values(dy);
    for (part, channels) in row.as_chunks_mut::<16>().0.iter_mut().zip(channels) {
        for (place, scale) in part.iter_mut().zip(&channels.scale) {
            *place *= scale;
        }
    }
}

/// Quantises `x` into the first half of `rows` and what that leaves over into the second; `x`
/// becomes the latter.
pub(crate) fn quantize_finely(kernels: &KernelSet, x: &mut [f32], rows: &mut [i8]) -> [RowScale; 2] {
    let (coarse, fine) = rows.split_at_mut(rows.len() / 2);
    let scale = (kernels.quantize)(x, &[], coarse);
    for (x, &q) in x.iter_mut().zip(coarse.iter()) {
        let q = q ^ kernels.flip as i8;
        *x -= (i32::from(q) - scale.zero_point) as f32 * scale.scale;
    }
    [scale, (kernels.quantize)(x, &[], fine)]
}
