//! aarch64 with NEON alone (Cortex-A53, A72): `smull` and `smlal` add two products in 16 bits, where
//! 2 · 128 · 127 still fits, and `sadalp` adds the pairs of that to 32 bits, exactly.

#[allow(clippy::wildcard_imports, reason = "the instruction set")]
use core::arch::aarch64::*;
use core::arch::asm;

use super::lanes::{Join, LANES, Lanes, Number};
use super::scalar::put_columns;
use super::{Matmul, RowScale, kernel_set};
use crate::weights::{Channels, Tile};

kernel_set!("neon", Quads);

/// Rows that share one pass over the weights.
const ROWS: usize = 2;

fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let depth = tiles.len() / channels.len().max(1);
    let blocks = tiles.chunks_exact(depth.max(1)).zip(channels);
    for (block, (tiles, channels)) in blocks.enumerate() {
        let groups = rows.chunks(ROWS * depth * 8).zip(row_scales.chunks(ROWS));
        for ((rows, scales), out) in groups.zip(out.chunks_mut(ROWS * width)) {
            match scales {
                [_] => finish_rows(&sums_of::<1>(rows, tiles), scales, channels, out, width, block),
                _ => finish_rows(&sums_of::<ROWS>(rows, tiles), scales, channels, out, width, block),
            }
        }
    }
}

/// Products of `R` rows with 16 channels: `[rows][channels]`, four channels a register.
fn sums_of<const R: usize>(rows: &[i8], tiles: &[Tile]) -> [[int32x4_t; 4]; R] {
    // SAFETY: NEON is part of aarch64.
    let mut result = [[unsafe { vdupq_n_s32(0) }; 4]; R];
    for half in 0..2 {
        // SAFETY: NEON is part of aarch64.
        let mut sums = [[unsafe { vdupq_n_s32(0) }; 8]; R];
        let (pairs, last) = tiles.as_chunks::<2>();
        for (k, pair) in (0..).step_by(2).zip(pairs) {
            // SAFETY: `rows` holds R rows of 8 bytes a tile.
            unsafe { add_products::<R, true>(&mut sums, rows, tiles.len(), k, half, [&pair[0], &pair[1]]) };
        }
        if let [last] = last {
            let k = tiles.len() - 1;
            // SAFETY: as above.
            unsafe { add_products::<R, false>(&mut sums, rows, tiles.len(), k, half, [last, last]) };
        }
        for (result, s) in result.iter_mut().zip(&sums) {
            // SAFETY: NEON is part of aarch64.
            unsafe {
                for quad in 0..2 {
                    let [a, b, c, d] = [s[quad * 4], s[quad * 4 + 1], s[quad * 4 + 2], s[quad * 4 + 3]];
                    result[half * 2 + quad] = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
                }
            }
        }
    }
    result
}

// The compiler must not see that both halves of the activations are the same: it would keep them in two
// forms, and run out of registers.

/// Eight bytes in both halves.
#[inline(always)]
unsafe fn load_twice(from: *const i8) -> int8x16_t {
    let twice;
    // SAFETY: the caller's eight bytes.
    unsafe {
        asm!("ld1r {{{0:v}.2d}}, [{1}]", out(vreg) twice, in(reg) from,
            options(pure, readonly, nostack, preserves_flags));
    }
    twice
}

/// Adds the products of block `k` of `R` rows, and of the next if `BOTH`, with eight channels of a tile
/// each, to four partial sums a channel.
#[inline(always)]
unsafe fn add_products<const R: usize, const BOTH: bool>(
    sums: &mut [[int32x4_t; 8]; R],
    rows: &[i8],
    depth: usize,
    k: usize,
    half: usize,
    tiles: [&Tile; 2],
) {
    // SAFETY: two channels of a tile are 16 bytes; the rows are the caller's.
    unsafe {
        let next = if BOTH { k + 1 } else { k };
        let mut activations = [[vdupq_n_s8(0); 2]; R];
        for (r, activations) in activations.iter_mut().enumerate() {
            for (activations, k) in activations.iter_mut().zip([k, next]) {
                *activations = load_twice(rows.as_ptr().add((r * depth + k) * 8));
            }
        }
        for pair in 0..4 {
            let [a, b] = tiles.map(|tile| vld1q_s8(tile.0.as_ptr().cast::<i8>().add(half * 64 + pair * 16)));
            for (sums, &[x, y]) in sums.iter_mut().zip(&activations) {
                let mut low = vmull_s8(vget_low_s8(x), vget_low_s8(a));
                let mut high = vmull_high_s8(x, a);
                if BOTH {
                    low = vmlal_s8(low, vget_low_s8(y), vget_low_s8(b));
                    high = vmlal_high_s8(high, y, b);
                }
                sums[pair * 2] = vpadalq_s16(sums[pair * 2], low);
                sums[pair * 2 + 1] = vpadalq_s16(sums[pair * 2 + 1], high);
            }
        }
    }
}

/// Sums of 16 channels → scaled f32 with bias; `out` holds the channels that exist.
#[inline(always)]
pub(super) fn finish(sums: [int32x4_t; 4], row: RowScale, channels: &Channels, out: &mut [f32]) {
    let mut values = [0.0; 16];
    // SAFETY: NEON is part of aarch64, and every pointer is to four of sixteen values.
    unsafe {
        for (quad, sum) in sums.into_iter().enumerate() {
            let at = quad * 4;
            let column_sum = vld1q_s32(channels.column_sum.as_ptr().add(at));
            let centred = vmlsq_s32(sum, column_sum, vdupq_n_s32(row.zero_point));
            let scale = vmulq_f32(vdupq_n_f32(row.scale), vld1q_f32(channels.scale.as_ptr().add(at)));
            let scaled = vmulq_f32(vcvtq_f32_s32(centred), scale);
            let value = vaddq_f32(scaled, vld1q_f32(channels.bias.as_ptr().add(at)));
            vst1q_f32(values.as_mut_ptr().add(at), value);
        }
    }
    put_columns(&values, out);
}

/// [`finish`] of rows × block `block` of 16 channels; `out` is `[rows][width]`.
#[inline(always)]
pub(super) fn finish_rows(
    sums: &[[int32x4_t; 4]],
    scales: &[RowScale],
    channels: &Channels,
    out: &mut [f32],
    width: usize,
    block: usize,
) {
    let columns = block * 16..width.min(block * 16 + 16);
    for ((&sums, &scale), out) in sums.iter().zip(scales).zip(out.chunks_mut(width)) {
        finish(sums, scale, channels, out.get_mut(columns.clone()).unwrap_or_default());
    }
}

/// Sixteen f32 in four registers.
#[derive(Clone, Copy)]
pub(super) struct Quads([float32x4_t; 4]);

/// One instruction on each of the four registers.
macro_rules! each_quad {
    ($a:expr, $b:expr, $instruction:ident) => {{
        let ([a, b, c, d], [e, f, g, h]) = ($a.0, $b.0);
        // SAFETY: NEON is part of aarch64.
        Self(unsafe { [$instruction(a, e), $instruction(b, f), $instruction(c, g), $instruction(d, h)] })
    }};
}

// SAFETY of every block: NEON is part of aarch64, and arrays of sixteen hold four quads.
impl Number for Quads {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([unsafe { vdupq_n_f32(x) }; 4])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each_quad!(self, other, vaddq_f32)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each_quad!(self, other, vsubq_f32)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each_quad!(self, other, vmulq_f32)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        each_quad!(self, other, vdivq_f32)
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        each_quad!(self, other, vmaxq_f32)
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        each_quad!(self, other, vminq_f32)
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        let [a, b, c, d] = self.0;
        unsafe {
            let one = vdupq_n_s32(0x3f80_0000);
            let shifted = [
                vshlq_n_s32::<23>(vreinterpretq_s32_f32(a)),
                vshlq_n_s32::<23>(vreinterpretq_s32_f32(b)),
                vshlq_n_s32::<23>(vreinterpretq_s32_f32(c)),
                vshlq_n_s32::<23>(vreinterpretq_s32_f32(d)),
            ];
            Self([
                vreinterpretq_f32_s32(vaddq_s32(shifted[0], one)),
                vreinterpretq_f32_s32(vaddq_s32(shifted[1], one)),
                vreinterpretq_f32_s32(vaddq_s32(shifted[2], one)),
                vreinterpretq_f32_s32(vaddq_s32(shifted[3], one)),
            ])
        }
    }
}

// SAFETY: as above.
impl Lanes for Quads {
    const WIDE: bool = true;
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        let p = from.as_ptr();
        Self(unsafe { [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))] })
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        let p = to.as_mut_ptr();
        unsafe {
            vst1q_f32(p, self.0[0]);
            vst1q_f32(p.add(4), self.0[1]);
            vst1q_f32(p.add(8), self.0[2]);
            vst1q_f32(p.add(12), self.0[3]);
        }
    }
    #[inline(always)]
    fn narrow(self, to: &mut [i8; LANES]) {
        let [a, b, c, d] = self.0;
        unsafe {
            let low = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a)), vqmovn_s32(vcvtnq_s32_f32(b)));
            let high = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(c)), vqmovn_s32(vcvtnq_s32_f32(d)));
            vst1q_s8(to.as_mut_ptr(), vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
        }
    }
    #[inline(always)]
    fn fold<J: Join>(self) -> f32 {
        let [a, b, c, d] = self.0;
        let v = J::join(Self([a, b, a, b]), Self([c, d, c, d])).0;
        let v = J::join(Self([v[0]; 4]), Self([v[1]; 4])).0[0];
        unsafe {
            let v = J::join(Self([v; 4]), Self([vextq_f32::<2>(v, v); 4])).0[0];
            let v = J::join(Self([v; 4]), Self([vextq_f32::<1>(v, v); 4])).0[0];
            vgetq_lane_f32::<0>(v)
        }
    }
}

/// 16 chains of `smlal`, 8 multiply-accumulates each.
fn peak(rounds: usize) -> usize {
    // SAFETY: NEON is part of aarch64.
    unsafe {
        let one = core::hint::black_box(vdup_n_s8(1));
        let mut sums = [vdupq_n_s16(0); 16];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = vmlal_s8(*sum, one, core::hint::black_box(one));
            }
        }
        core::hint::black_box(sums);
    }
    rounds * 16 * 8
}
