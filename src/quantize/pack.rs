//! Rows of f32 → tiles of int8 or int4 with their scales, column sums and biases.

use ndarray::{Array2, ArrayView2};

use super::int4::Int4Matrix;
use crate::kernels::lanes::{Portable, quantize_symmetric};
use crate::weights::format::{INT4_GROUP, int4_halves, int4_tiles, is_int4, multiplier_halves};
use crate::weights::owned::Linear;
use crate::weights::{Channels, HalfTile, Tile};

/// Packs `weight` `[outputs, inputs]` and `bias` `[outputs]` as int8: each row to −127..=127 by its largest
/// magnitude. Cutting that off gains nothing in 8 bits: the best of eight ranges for each row left 0.9987 (MiniLM) and
/// 1.0000 (bert-tiny) of the squared error.
pub fn int8(weight: ArrayView2<'_, f32>, bias: &[f32]) -> Linear {
    let (outputs, inputs) = weight.dim();
    let depth = inputs.div_ceil(8);
    let mut tiles = vec![Tile([[0; 8]; 16]); outputs.div_ceil(16) * depth];
    let mut channels = channels(bias);
    let mut quantized = vec![0i8; depth * 8];
    for (output, row) in weight.rows().into_iter().enumerate() {
        let (block, lane) = (output / 16, output % 16);
        channels[block].scale[lane] = quantize_symmetric::<Portable>(&row.to_vec(), &mut quantized);
        channels[block].column_sum[lane] = quantized.iter().map(|&q| i32::from(q)).sum();
        for (part, tile) in quantized.as_chunks::<8>().0.iter().zip(&mut tiles[block * depth..]) {
            tile.0[lane] = *part;
        }
    }
    Linear { inputs: inputs as u32, outputs: outputs as u32, smoothing: Vec::new(), tiles, channels }
}

/// Whether a matrix of that shape is smaller in int4.
pub fn int4_is_smaller(outputs: usize, inputs: usize) -> bool {
    let (blocks, depth) = (outputs.div_ceil(16), inputs.div_ceil(8));
    is_int4(int4_tiles(blocks, depth), blocks, depth)
}

/// Packs `weight` `[outputs, inputs]` and `bias` `[outputs]` as int4, in the layout of
/// [`format::Linear`](crate::weights::format::Linear); `moments` as in [`Int4Matrix::new`].
pub fn int4(weight: Array2<f32>, bias: &[f32], moments: Option<&Array2<f32>>) -> Linear {
    let (outputs, inputs) = weight.dim();
    let matrix = Int4Matrix::new(weight, moments);
    let depth = inputs.div_ceil(8);
    let mut channels = channels(bias);
    let mut tiles = vec![Tile([[0; 8]; 16]); int4_tiles(channels.len(), depth)];
    let all: &mut [HalfTile] = bytemuck::cast_slice_mut(&mut tiles);
    for (block, (tiles, channels)) in all.chunks_exact_mut(int4_halves(depth)).zip(&mut channels).enumerate()
    {
        let (multipliers, halves) = tiles.split_at_mut(multiplier_halves(depth));
        let multipliers: &mut [u8] = bytemuck::cast_slice_mut(multipliers);
        let halves: &mut [u8] = bytemuck::cast_slice_mut(halves);
        // What is not there is 0: 8 in each half.
        halves.fill(0x88);
        multipliers.fill(1);
        for (lane, output) in (block * 16..outputs.min(block * 16 + 16)).enumerate() {
            channels.scale[lane] = matrix.scales[output];
            for (group, multiplier) in matrix.multipliers.row(output).iter().enumerate() {
                multipliers[group * 16 + lane] = *multiplier;
            }
            let shift = if lane < 8 { 0 } else { 4 };
            for (input, &q) in matrix.q.row(output).iter().enumerate() {
                let byte = &mut halves[input / 8 * 64 + lane % 8 * 8 + input % 8];
                *byte = *byte & !(15 << shift) | ((q + 8) as u8) << shift;
                let multiplier = matrix.multipliers[[output, input / INT4_GROUP]];
                channels.column_sum[lane] += i32::from(q) * i32::from(multiplier);
            }
        }
    }
    Linear { inputs: inputs as u32, outputs: outputs as u32, smoothing: Vec::new(), tiles, channels }
}

/// Blocks of 16 channels with their biases alone.
fn channels(bias: &[f32]) -> Vec<Channels> {
    let block = |bias: &[f32]| {
        let mut channels = Channels { scale: [0.0; 16], bias: [0.0; 16], column_sum: [0; 16] };
        channels.bias[..bias.len()].copy_from_slice(bias);
        channels
    };
    bias.chunks(16).map(block).collect()
}
