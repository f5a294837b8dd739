//! aarch64 with the int8 matrix extension (Cortex-A510 and A710, Neoverse V1, Apple M2 and later): one
//! `smmla` takes 2 rows × 2 channels × 8 inputs; 16 bytes of a tile are its operand as they are.

#[allow(clippy::wildcard_imports, reason = "the instruction set")]
use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::{Quads, finish};
use super::{KernelSet, Matmul, kernel_set};
use crate::weights::Tile;

/// Pairs of rows that share one pass over the weights: 24 accumulators.
const PAIRS: usize = 3;

kernel_set!("i8mm", Quads);

/// The set, where this processor has the instruction.
pub fn detect() -> Option<&'static KernelSet> {
    super::has_arm_feature!("i8mm").then_some(&KERNELS)
}

/// The 2 × 2 products of the 8-vectors in a and b; the intrinsic is not stable yet.
#[target_feature(enable = "neon,i8mm")]
#[inline]
fn smmla(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut sum = sum;
    // SAFETY: registers only.
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let depth = tiles.len() / channels.len().max(1);
    let blocks = tiles.chunks_exact(depth.max(1)).zip(channels);
    for (block, (tiles, channels)) in blocks.enumerate() {
        let groups = rows.chunks(2 * PAIRS * depth * 8).zip(row_scales.chunks(2 * PAIRS));
        for ((rows, scales), out) in groups.zip(out.chunks_mut(2 * PAIRS * width)) {
            let mut store = |row: usize, sums: [int32x4_t; 4]| {
                let place = row * width + block * 16;
                let end = row * width + width.min(block * 16 + 16);
                if let (Some(out), Some(&scale)) = (out.get_mut(place..end), scales.get(row)) {
                    finish(sums, scale, channels, out);
                }
            };
            // SAFETY: `detect` saw the instruction before handing this set out; `rows` holds as many
            // rows of `depth` blocks as there are scales.
            unsafe {
                match scales.len().div_ceil(2) {
                    1 => split::<1>(sums_of(rows, scales.len(), tiles), &mut store),
                    2 => split::<2>(sums_of(rows, scales.len(), tiles), &mut store),
                    _ => split::<3>(sums_of(rows, scales.len(), tiles), &mut store),
                }
            }
        }
    }
}

/// Products of `P` pairs of rows, `count` rows in all, with 16 channels: `[pairs][channels / 2]`, each
/// register `[2 rows][2 channels]`. Where `count` is odd the last row stands for its missing partner.
#[target_feature(enable = "neon,i8mm")]
unsafe fn sums_of<const P: usize>(rows: &[i8], count: usize, tiles: &[Tile]) -> [[int32x4_t; 8]; P] {
    let mut sums = [[vdupq_n_s32(0); 8]; P];
    let stride = tiles.len() * 8;
    for (k, tile) in tiles.iter().enumerate() {
        let mut activations = [vdupq_n_s8(0); P];
        for (pair, activations) in activations.iter_mut().enumerate() {
            let second = (pair * 2 + 1).min(count - 1);
            // SAFETY: `rows` holds `count` rows of `stride` bytes, and k · 8 + 8 ≤ stride.
            *activations = unsafe {
                let first = rows.as_ptr().add(pair * 2 * stride + k * 8).cast::<i64>();
                let second = rows.as_ptr().add(second * stride + k * 8).cast::<i64>();
                vreinterpretq_s8_s64(vld1q_lane_s64::<1>(second, vld1q_dup_s64(first)))
            };
        }
        for channels in 0..8 {
            // SAFETY: two channels of a tile are 16 bytes.
            let weights = unsafe { vld1q_s8(tile.0.as_ptr().cast::<i8>().add(channels * 16)) };
            for (sums, &activations) in sums.iter_mut().zip(&activations) {
                sums[channels] = smmla(sums[channels], activations, weights);
            }
        }
    }
    sums
}

/// Hands each row's sums of 16 channels to `store`.
#[inline(always)]
fn split<const P: usize>(sums: [[int32x4_t; 8]; P], store: &mut impl FnMut(usize, [int32x4_t; 4])) {
    for (pair, s) in sums.into_iter().enumerate() {
        // SAFETY: NEON is part of aarch64.
        unsafe {
            let halves = |a, b| (vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b));
            let mut rows = [[vdupq_n_s32(0); 4]; 2];
            for quad in 0..4 {
                let (a, b) = halves(s[quad * 2], s[quad * 2 + 1]);
                rows[0][quad] = vreinterpretq_s32_s64(vzip1q_s64(a, b));
                rows[1][quad] = vreinterpretq_s32_s64(vzip2q_s64(a, b));
            }
            store(pair * 2, rows[0]);
            store(pair * 2 + 1, rows[1]);
        }
    }
}

/// 16 chains of `smmla`, 32 multiply-accumulates each.
fn peak(rounds: usize) -> usize {
    #[target_feature(enable = "neon,i8mm")]
    fn chains(rounds: usize) {
        let one = core::hint::black_box(vdupq_n_s8(1));
        let mut sums = [vdupq_n_s32(0); 16];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = smmla(*sum, one, one);
            }
            core::hint::black_box(&mut sums);
        }
    }
    // SAFETY: `detect` saw the instruction before handing this set out.
    unsafe { chains(rounds) };
    rounds * 16 * 32
}
