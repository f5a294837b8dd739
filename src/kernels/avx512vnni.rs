//! x86-64 with AVX-512 VNNI: one `vpdpbusd` takes 8 channels × 8 inputs of a row.
//!
//! `vpdpbusd` wants unsigned activations: they go in with 128 added (the sign bit flipped), and
//! 128 column sums come off again with the zero point, in exact integers.

use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_load_si512,
    _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_mul_ps, _mm512_mullo_epi32, _mm512_permutex2var_epi32,
    _mm512_set1_epi32, _mm512_set1_epi64, _mm512_set1_ps, _mm512_setr_epi32, _mm512_setzero_si512,
    _mm512_sub_epi32,
};

use super::{KernelSet, Matmul, lanes, vectorised};
use crate::kernels::RowScale;
use crate::weights::{Channels, Tile};

/// Rows that share one pass over the weights: 16 accumulators.
const ROWS: usize = 8;

static KERNELS: KernelSet =
    KernelSet { name: "avx512vnni", matmul, gelu, softmax, layer_norm, add, quantize, quantize_symmetric };

/// The set, where this processor has the instructions.
pub fn detect() -> Option<&'static KernelSet> {
    let available = std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512vnni");
    available.then_some(&KERNELS)
}

vectorised!("avx512f,avx512bw,avx512vl");

fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let depth = tiles.len() / channels.len().max(1);
    let groups = rows.chunks(ROWS * depth * 8).zip(row_scales.chunks(ROWS));
    for ((rows, scales), out) in groups.zip(out.chunks_mut(ROWS * width)) {
        let blocks = tiles.chunks_exact(depth.max(1)).zip(channels);
        for (block, (tiles, channels)) in blocks.enumerate() {
            let columns = (width - block * 16).min(16);
            let Some(out) = out.get_mut(block * 16..) else { continue };
            // SAFETY: `detect` saw the instructions before handing this set out; the slices hold
            // `scales.len()` rows of `depth` blocks, and of `columns` outputs `width` apart.
            unsafe {
                match scales.len() {
                    1 => rows_by_channels::<1>(rows, scales, tiles, channels, out, width, columns),
                    2 => rows_by_channels::<2>(rows, scales, tiles, channels, out, width, columns),
                    3 => rows_by_channels::<3>(rows, scales, tiles, channels, out, width, columns),
                    4 => rows_by_channels::<4>(rows, scales, tiles, channels, out, width, columns),
                    5 => rows_by_channels::<5>(rows, scales, tiles, channels, out, width, columns),
                    6 => rows_by_channels::<6>(rows, scales, tiles, channels, out, width, columns),
                    7 => rows_by_channels::<7>(rows, scales, tiles, channels, out, width, columns),
                    _ => rows_by_channels::<8>(rows, scales, tiles, channels, out, width, columns),
                }
            }
        }
    }
}

/// `R` rows × one block of 16 channels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows_by_channels<const R: usize>(
    rows: &[i8],
    scales: &[RowScale],
    tiles: &[Tile],
    channels: &Channels,
    out: &mut [f32],
    width: usize,
    columns: usize,
) {
    let stride = tiles.len() * 8;
    let mut sums = [[_mm512_setzero_si512(); 2]; R];
    for (k, tile) in tiles.iter().enumerate() {
        // SAFETY: a tile is 128 bytes, 64-byte aligned.
        let weights: [__m512i; 2] = unsafe {
            let pointer = core::ptr::from_ref(tile).cast::<__m512i>();
            [_mm512_load_si512(pointer), _mm512_load_si512(pointer.add(1))]
        };
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `rows` holds R rows of `stride` bytes, and k · 8 + 8 ≤ stride.
            let bytes = unsafe { rows.as_ptr().add(r * stride + k * 8).cast::<i64>().read_unaligned() };
            let unsigned = _mm512_set1_epi64(bytes ^ 0x8080_8080_8080_8080_u64 as i64);
            sums[0] = _mm512_dpbusd_epi32(sums[0], unsigned, weights[0]);
            sums[1] = _mm512_dpbusd_epi32(sums[1], unsigned, weights[1]);
        }
    }
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    let mask = (0xffff_u32 >> (16 - columns)) as u16;
    // SAFETY: the three arrays are 64 bytes each.
    let (column_sum, scale, bias) = unsafe {
        (
            _mm512_load_si512(channels.column_sum.as_ptr().cast()),
            _mm512_loadu_ps(channels.scale.as_ptr()),
            _mm512_loadu_ps(channels.bias.as_ptr()),
        )
    };
    for (r, (sums, row)) in sums.iter().zip(scales).enumerate() {
        let pairs = [
            _mm512_permutex2var_epi32(sums[0], even, sums[1]),
            _mm512_permutex2var_epi32(sums[0], odd, sums[1]),
        ];
        let offset = _mm512_mullo_epi32(column_sum, _mm512_set1_epi32(row.zero_point + 128));
        let centred = _mm512_sub_epi32(_mm512_add_epi32(pairs[0], pairs[1]), offset);
        let scale = _mm512_mul_ps(_mm512_set1_ps(row.scale), scale);
        let value = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(centred), scale), bias);
        // SAFETY: row r's `columns` outputs start at r · width.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr().add(r * width), mask, value) };
    }
}
