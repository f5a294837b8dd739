//! x86-64 with AVX2: bytes widen to 16 bits and `vpmaddwd` adds pairs of products, exactly.

use core::arch::x86_64::{
    __m128i, __m256i, _mm_cvtepi8_epi16, _mm_loadl_epi64, _mm_loadu_si128, _mm256_add_epi32,
    _mm256_broadcastsi128_si256, _mm256_cvtepi8_epi16, _mm256_madd_epi16, _mm256_setzero_si256,
    _mm256_storeu_si256,
};

use super::{KernelSet, Matmul, lanes, vectorised};
use crate::kernels::RowScale;
use crate::weights::{Channels, Tile};

static KERNELS: KernelSet =
    KernelSet { name: "avx2", matmul, gelu, softmax, layer_norm, add, quantize, quantize_symmetric };

/// The set, where this processor has the instructions.
pub fn detect() -> Option<&'static KernelSet> {
    std::arch::is_x86_feature_detected!("avx2").then_some(&KERNELS)
}

vectorised!("avx2");

fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let depth = tiles.len() / channels.len().max(1);
    let blocks = tiles.chunks_exact(depth.max(1)).zip(channels);
    for (block, (tiles, channels)) in blocks.enumerate() {
        let rows = rows.chunks_exact(depth * 8).zip(row_scales).zip(out.chunks_exact_mut(width));
        for ((row, scale), out) in rows {
            let end = width.min(block * 16 + 16);
            let Some(out) = out.get_mut(block * 16..end) else { continue };
            // SAFETY: `detect` saw AVX2 before handing this set out.
            unsafe { row_by_channels(row, *scale, tiles, channels, out) }
        }
    }
}

/// One row × one block of 16 channels; `out` holds the channels that exist.
#[target_feature(enable = "avx2")]
fn row_by_channels(row: &[i8], scale: RowScale, tiles: &[Tile], channels: &Channels, out: &mut [f32]) {
    // Each accumulator holds two channels of four partial sums.
    let mut sums = [_mm256_setzero_si256(); 8];
    let (activations, _) = row.as_chunks::<8>();
    for (activations, tile) in activations.iter().zip(tiles) {
        // SAFETY: 8 bytes are read from an array of 8.
        let bytes = unsafe { _mm_loadl_epi64(activations.as_ptr().cast::<__m128i>()) };
        let activations = _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(bytes));
        for (sum, pair) in sums.iter_mut().zip(tile.0.as_chunks::<2>().0) {
            // SAFETY: two channels of a tile are 16 bytes.
            let weights = unsafe { _mm_loadu_si128(pair.as_ptr().cast::<__m128i>()) };
            let products = _mm256_madd_epi16(activations, _mm256_cvtepi8_epi16(weights));
            *sum = _mm256_add_epi32(*sum, products);
        }
    }
    let mut partial = [[0i32; 4]; 16];
    for (sum, partial) in sums.iter().zip(partial.as_chunks_mut::<2>().0) {
        // SAFETY: two times four i32 are 32 bytes.
        unsafe { _mm256_storeu_si256(partial.as_mut_ptr().cast::<__m256i>(), *sum) };
    }
    for (c, out) in out.iter_mut().enumerate() {
        let sum: i32 = partial[c].iter().sum();
        let centred = sum - scale.zero_point * channels.column_sum[c];
        *out = centred as f32 * (scale.scale * channels.scale[c]) + channels.bias[c];
    }
}
