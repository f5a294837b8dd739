//! Reading packed weights in place.

use core::ops::Range;

use rkyv::rend::f32_le;
use rkyv::vec::ArchivedVec;

use super::Tile;
use super::format::{
    HalfTile, INT4_GROUP, INT4_MULTIPLIERS, Linear, Norm, int4_halves, int4_tiles, is_int4, multiplier_halves,
};
use crate::kernels::LayerNorm;
use crate::rows::Rows;

impl Linear {
    /// Output channels, or rows of a table.
    pub fn outputs(&self) -> usize {
        self.outputs.to_native() as usize
    }

    /// Inputs, or columns of a table.
    pub fn inputs(&self) -> usize {
        self.inputs.to_native() as usize
    }

    /// Blocks of 8 inputs.
    pub fn depth(&self) -> usize {
        self.inputs().div_ceil(8)
    }

    /// Whether the weights are int4.
    pub fn is_int4(&self) -> bool {
        is_int4(self.tiles.len(), self.channels.len(), self.depth())
    }

    /// Whether there are as many tiles as one of the two packings has, and no multiplier is too large.
    pub(crate) fn is_whole(&self) -> bool {
        let (blocks, depth) = (self.channels.len(), self.depth());
        if !self.is_int4() {
            return self.tiles.len() == blocks * depth;
        }
        let whole = self.tiles.len() == int4_tiles(blocks, depth);
        let mut blocks =
            self.halves_of(0..blocks).rows(int4_halves(depth)).map(|block| Int4::new(block, depth));
        whole && blocks.all(|block| block.multipliers.as_flattened().iter().all(|&m| m <= INT4_MULTIPLIERS))
    }

    /// The int8 tiles of some blocks of 16 channels.
    pub(crate) fn tiles_of(&self, blocks: Range<usize>) -> &[Tile] {
        let depth = self.depth();
        self.tiles.get(blocks.start * depth..blocks.end * depth).unwrap_or_default()
    }

    /// Their half tiles, if the weights are int4.
    pub(crate) fn halves_of(&self, blocks: Range<usize>) -> &[HalfTile] {
        let each = int4_halves(self.depth());
        let halves: &[HalfTile] = bytemuck::try_cast_slice(&self.tiles).unwrap_or_default();
        halves.get(blocks.start * each..blocks.end * each).unwrap_or_default()
    }

    /// Adds row `index` of an embedding table, dequantised, to `out` `[inputs]`. A row that is not
    /// there adds nothing.
    pub fn add_row(&self, index: usize, out: &mut [f32]) {
        let scale = self.channels.get(index / 16).and_then(|c| c.scale.get(index % 16));
        let scale = scale.copied().unwrap_or(0.0);
        for (out, weights) in out.chunks_mut(8).zip(self.row(index)) {
            for (out, weight) in out.iter_mut().zip(weights) {
                *out += f32::from(weight) * scale;
            }
        }
    }

    /// The int8 weights of output channel, or row, `index`, 8 inputs at a time; none if it is not there.
    pub fn row(&self, index: usize) -> impl Iterator<Item = [i8; 8]> {
        let (block, lane) = (index / 16, index % 16);
        let (here, depth) = (block..block + 1, self.depth());
        let int4 = self.is_int4().then(|| Int4::new(self.halves_of(here.clone()), depth));
        let tiles = if int4.is_some() { &[] } else { self.tiles_of(here) };
        (0..if index < self.outputs() { depth } else { 0 }).map(move |k| match int4 {
            Some(int4) => int4.weights(k, lane),
            None => tiles.get(k).and_then(|tile| tile.0.get(lane)).copied().unwrap_or_default(),
        })
    }
}

/// A block of 16 channels in int4.
#[derive(Clone, Copy)]
pub(crate) struct Int4<'a> {
    /// `[inputs/32][16 channels]`.
    multipliers: &'a [[u8; 16]],
    /// `[inputs/8][8 pairs of channels][8 inputs]`.
    nibbles: &'a [[[u8; 8]; 8]],
}

impl<'a> Int4<'a> {
    /// The block in its half tiles.
    pub fn new(halves: &'a [HalfTile], depth: usize) -> Self {
        let (multipliers, nibbles) = halves.split_at_checked(multiplier_halves(depth)).unwrap_or_default();
        Self {
            multipliers: bytemuck::try_cast_slice(multipliers).unwrap_or_default(),
            nibbles: bytemuck::try_cast_slice(nibbles).unwrap_or_default(),
        }
    }

    /// The multipliers of the 16 channels at inputs `8 · k..`, and the halves of all inputs from there on that share
    /// them.
    #[inline(always)]
    pub fn group(&self, k: usize) -> (&'a [u8; 16], &'a [[[u8; 8]; 8]]) {
        const EACH: usize = INT4_GROUP / 8;
        let multipliers = self.multipliers.get(k / EACH).unwrap_or(&[0; 16]);
        let end = self.nibbles.len().min(k / EACH * EACH + EACH);
        (multipliers, self.nibbles.get(k..end).unwrap_or_default())
    }

    /// The int8 weights of one channel there.
    fn weights(&self, k: usize, lane: usize) -> [i8; 8] {
        let (multipliers, nibbles) = self.group(k);
        let nibbles = nibbles.first().copied().unwrap_or_default();
        let multiplier = multipliers.get(lane).copied().unwrap_or(0) as i8;
        let shift = if lane < 8 { 0 } else { 4 };
        let row = nibbles.get(lane % 8).copied().unwrap_or_default();
        row.map(|byte| ((byte >> shift & 15) as i8 - 8).wrapping_mul(multiplier))
    }
}

impl Norm {
    /// As the kernels take it, without a copy.
    pub fn layer_norm(&self, epsilon: f32) -> LayerNorm<'_> {
        LayerNorm { weight: native(&self.weight), bias: native(&self.bias), epsilon }
    }
}

/// Little-endian floats on a little-endian machine, without a copy.
pub fn native(values: &ArchivedVec<f32_le>) -> &[f32] {
    // SAFETY: f32_le has the size, alignment and, on the little-endian machines this crate builds
    // for, the representation of f32.
    unsafe { core::slice::from_raw_parts(values.as_ptr().cast::<f32>(), values.len()) }
}
