//! aarch64 with the dot-product extension (Cortex-A76, Neoverse N1, Apple M1 and later): one `sdot`
//! takes 2 channels × 8 inputs of a row.

#[allow(clippy::wildcard_imports, reason = "the instruction set")]
use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::{Quads, finish_rows};
use super::{KernelSet, Matmul, kernel_set};
use crate::weights::Tile;

/// Rows that share one pass over the weights: 24 accumulators.
const ROWS: usize = 3;

kernel_set!("dotprod", Quads);

/// The set, where this processor has the instruction.
pub fn detect() -> Option<&'static KernelSet> {
    super::has_arm_feature!("dotprod").then_some(&KERNELS)
}

/// sum\[i\] += Σ over four bytes of a · b; the intrinsic is not stable yet.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: registers only.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let depth = tiles.len() / channels.len().max(1);
    let blocks = tiles.chunks_exact(depth.max(1)).zip(channels);
    for (block, (tiles, channels)) in blocks.enumerate() {
        let groups = rows.chunks(ROWS * depth * 8).zip(row_scales.chunks(ROWS));
        for ((rows, scales), out) in groups.zip(out.chunks_mut(ROWS * width)) {
            // SAFETY: `detect` saw the instruction before handing this set out; `rows` holds as many
            // rows of `depth` blocks as there are scales.
            unsafe {
                match scales.len() {
                    1 => finish_rows(&sums_of::<1>(rows, tiles), scales, channels, out, width, block),
                    2 => finish_rows(&sums_of::<2>(rows, tiles), scales, channels, out, width, block),
                    _ => finish_rows(&sums_of::<ROWS>(rows, tiles), scales, channels, out, width, block),
                }
            }
        }
    }
}

/// Products of `R` rows with 16 channels: `[rows][channels]`, four channels a register.
#[target_feature(enable = "neon,dotprod")]
unsafe fn sums_of<const R: usize>(rows: &[i8], tiles: &[Tile]) -> [[int32x4_t; 4]; R] {
    // A register holds two channels of two partial sums.
    let mut sums = [[vdupq_n_s32(0); 8]; R];
    let stride = tiles.len() * 8;
    for (k, tile) in tiles.iter().enumerate() {
        let mut activations = [vdupq_n_s8(0); R];
        for (r, activations) in activations.iter_mut().enumerate() {
            // SAFETY: `rows` holds R rows of `stride` bytes, and k · 8 + 8 ≤ stride.
            *activations =
                unsafe { vreinterpretq_s8_s64(vld1q_dup_s64(rows.as_ptr().add(r * stride + k * 8).cast())) };
        }
        for pair in 0..8 {
            // SAFETY: two channels of a tile are 16 bytes.
            let weights = unsafe { vld1q_s8(tile.0.as_ptr().cast::<i8>().add(pair * 16)) };
            for (sums, &activations) in sums.iter_mut().zip(&activations) {
                sums[pair] = sdot(sums[pair], weights, activations);
            }
        }
    }
    let mut result = [[vdupq_n_s32(0); 4]; R];
    for (result, sums) in result.iter_mut().zip(sums) {
        for (quad, result) in result.iter_mut().enumerate() {
            *result = vpaddq_s32(sums[quad * 2], sums[quad * 2 + 1]);
        }
    }
    result
}

/// 16 chains of `sdot`, 16 multiply-accumulates each.
fn peak(rounds: usize) -> usize {
    #[target_feature(enable = "neon,dotprod")]
    fn chains(rounds: usize) {
        let one = core::hint::black_box(vdupq_n_s8(1));
        let mut sums = [vdupq_n_s32(0); 16];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sdot(*sum, one, one);
            }
            core::hint::black_box(&mut sums);
        }
    }
    // SAFETY: `detect` saw the instruction before handing this set out.
    unsafe { chains(rounds) };
    rounds * 16 * 16
}
