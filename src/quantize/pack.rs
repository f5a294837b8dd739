//! Rows of f32 → int8 tiles with their scales, column sums and biases.

use ndarray::ArrayView2;

use crate::kernels::lanes::{Portable, quantize_symmetric};
use crate::weights::owned::Linear;
use crate::weights::{Channels, Tile};

/// Packs `weight` `[outputs, inputs]` and `bias` `[outputs]`: each row to −127..=127 by its largest
/// magnitude.
pub fn linear(weight: ArrayView2<'_, f32>, bias: &[f32]) -> Linear {
    let (outputs, inputs) = weight.dim();
    let depth = inputs.div_ceil(8);
    let mut tiles = vec![Tile([[0; 8]; 16]); outputs.div_ceil(16) * depth];
    let empty = Channels { scale: [0.0; 16], bias: [0.0; 16], column_sum: [0; 16] };
    let mut channels = vec![empty; outputs.div_ceil(16)];
    let mut quantized = vec![0i8; depth * 8];
    for (output, row) in weight.rows().into_iter().enumerate() {
        let (block, lane) = (output / 16, output % 16);
        channels[block].scale[lane] = quantize_symmetric::<Portable>(&row.to_vec(), &mut quantized);
        channels[block].bias[lane] = bias[output];
        channels[block].column_sum[lane] = quantized.iter().map(|&q| i32::from(q)).sum();
        for (part, tile) in quantized.as_chunks::<8>().0.iter().zip(&mut tiles[block * depth..]) {
            tile.0[lane] = *part;
        }
    }
    Linear { inputs: inputs as u32, outputs: outputs as u32, smoothing: Vec::new(), tiles, channels }
}
