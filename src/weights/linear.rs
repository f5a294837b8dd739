//! Reading packed weights in place.

use rkyv::rend::f32_le;
use rkyv::vec::ArchivedVec;

use super::format::{Linear, Norm};
use crate::kernels::LayerNorm;

impl Linear {
    /// Output channels, or rows of a table.
    pub fn outputs(&self) -> usize {
        self.outputs.to_native() as usize
    }

    /// Inputs, or columns of a table.
    pub fn inputs(&self) -> usize {
        self.inputs.to_native() as usize
    }

    /// Adds row `index` of an embedding table, dequantised, to `out` `[inputs]`. A row that is not
    /// there adds nothing.
    pub fn add_row(&self, index: usize, out: &mut [f32]) {
        let depth = self.inputs().div_ceil(8);
        let (block, lane) = (index / 16, index % 16);
        let tiles = self.tiles.iter().skip(block * depth).take(depth);
        let scale = self.channels.get(block).and_then(|c| c.scale.get(lane)).copied().unwrap_or(0.0);
        for (out, tile) in out.chunks_mut(8).zip(tiles) {
            let weights = tile.0.get(lane).into_iter().flatten();
            for (out, &weight) in out.iter_mut().zip(weights) {
                *out += f32::from(weight) * scale;
            }
        }
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
