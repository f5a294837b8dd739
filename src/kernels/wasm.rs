//! WebAssembly with simd128: bytes widen to 16 bits as they are loaded, and `i32x4.dot_i16x8_s` adds
//! pairs of products, exactly.

#[allow(clippy::wildcard_imports, reason = "the instruction set")]
use core::arch::wasm32::*;

use super::lanes::{Join, LANES, Lanes, Number};
use super::{Matmul, kernel_set};

kernel_set!("wasm-simd128", Quads);

/// Rows that share one pass over the weights; with four channels each, eight accumulators.
const ROWS: usize = 2;

fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let depth = tiles.len() / channels.len().max(1);
    let blocks = tiles.chunks_exact(depth.max(1)).zip(channels);
    for (block, (tiles, channels)) in blocks.enumerate() {
        let groups = rows.chunks(ROWS * depth * 8).zip(row_scales.chunks(ROWS));
        for ((rows, scales), out) in groups.zip(out.chunks_mut(ROWS * width)) {
            for quad in 0..4 {
                let sums = match scales {
                    [_] => [sums_of::<1>(rows, tiles, quad)[0]; ROWS],
                    _ => sums_of::<ROWS>(rows, tiles, quad),
                };
                for ((sums, row), out) in sums.into_iter().zip(scales).zip(out.chunks_mut(width)) {
                    // SAFETY: four of sixteen values from quad · 4 on.
                    let (column_sum, scale, bias) = unsafe {
                        (
                            v128_load(channels.column_sum.as_ptr().add(quad * 4).cast()),
                            v128_load(channels.scale.as_ptr().add(quad * 4).cast()),
                            v128_load(channels.bias.as_ptr().add(quad * 4).cast()),
                        )
                    };
                    let centred = i32x4_sub(sums, i32x4_mul(column_sum, i32x4_splat(row.zero_point)));
                    let scale = f32x4_mul(f32x4_splat(row.scale), scale);
                    let value = f32x4_add(f32x4_mul(f32x4_convert_i32x4(centred), scale), bias);
                    let mut values = [0.0; 4];
                    // SAFETY: four f32 are 16 bytes.
                    unsafe { v128_store(values.as_mut_ptr().cast(), value) };
                    for (out, value) in out.iter_mut().skip(block * 16 + quad * 4).zip(values) {
                        *out = value;
                    }
                }
            }
        }
    }
}

/// Products of `R` rows with the four channels from `quad` · 4 on.
#[inline(always)]
fn sums_of<const R: usize>(rows: &[i8], tiles: &[crate::weights::Tile], quad: usize) -> [v128; R] {
    let mut sums = [[i32x4_splat(0); 4]; R];
    let stride = tiles.len() * 8;
    for (k, tile) in tiles.iter().enumerate() {
        let mut activations = [i32x4_splat(0); R];
        for (r, activations) in activations.iter_mut().enumerate() {
            // SAFETY: `rows` holds R rows of `stride` bytes, and k · 8 + 8 ≤ stride.
            *activations = unsafe { i16x8_load_extend_i8x8(rows.as_ptr().add(r * stride + k * 8)) };
        }
        for channel in 0..4 {
            // SAFETY: a channel of a tile is 8 bytes.
            let weights = unsafe { i16x8_load_extend_i8x8(tile.0[quad * 4 + channel].as_ptr()) };
            for (sums, &activations) in sums.iter_mut().zip(&activations) {
                sums[channel] = i32x4_add(sums[channel], i32x4_dot_i16x8(weights, activations));
            }
        }
    }
    sums.map(|[a, b, c, d]| {
        let pairs = |a, b| i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b));
        pairs(pairs(a, b), pairs(c, d))
    })
}

/// Sixteen f32 in four registers.
#[derive(Clone, Copy)]
struct Quads([v128; 4]);

/// One instruction on each of the four registers.
macro_rules! each_quad {
    ($a:expr, $b:expr, $instruction:ident) => {{
        let ([a, b, c, d], [e, f, g, h]) = ($a.0, $b.0);
        Self([$instruction(a, e), $instruction(b, f), $instruction(c, g), $instruction(d, h)])
    }};
}

// SAFETY of every block: arrays of sixteen hold four quads.
impl Number for Quads {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([f32x4_splat(x); 4])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each_quad!(self, other, f32x4_add)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each_quad!(self, other, f32x4_sub)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each_quad!(self, other, f32x4_mul)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        each_quad!(self, other, f32x4_div)
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        each_quad!(self, other, f32x4_pmax)
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        each_quad!(self, other, f32x4_pmin)
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        let one = i32x4_splat(0x3f80_0000);
        let [a, b, c, d] = self.0;
        Self([
            i32x4_add(i32x4_shl(a, 23), one),
            i32x4_add(i32x4_shl(b, 23), one),
            i32x4_add(i32x4_shl(c, 23), one),
            i32x4_add(i32x4_shl(d, 23), one),
        ])
    }
}

// SAFETY: as above.
impl Lanes for Quads {
    const WIDE: bool = true;
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        let p = from.as_ptr().cast::<v128>();
        Self(unsafe { [v128_load(p), v128_load(p.add(1)), v128_load(p.add(2)), v128_load(p.add(3))] })
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        let p = to.as_mut_ptr().cast::<v128>();
        unsafe {
            v128_store(p, self.0[0]);
            v128_store(p.add(1), self.0[1]);
            v128_store(p.add(2), self.0[2]);
            v128_store(p.add(3), self.0[3]);
        }
    }
    #[inline(always)]
    fn narrow(self, to: &mut [i8; LANES]) {
        let [a, b, c, d] = self.0;
        let low = i16x8_narrow_i32x4(
            i32x4_trunc_sat_f32x4(f32x4_nearest(a)),
            i32x4_trunc_sat_f32x4(f32x4_nearest(b)),
        );
        let high = i16x8_narrow_i32x4(
            i32x4_trunc_sat_f32x4(f32x4_nearest(c)),
            i32x4_trunc_sat_f32x4(f32x4_nearest(d)),
        );
        unsafe { v128_store(to.as_mut_ptr().cast(), i8x16_narrow_i16x8(low, high)) };
    }
    #[inline(always)]
    fn fold<J: Join>(self) -> f32 {
        let [a, b, c, d] = self.0;
        let v = J::join(Self([a, b, a, b]), Self([c, d, c, d])).0;
        let v = J::join(Self([v[0]; 4]), Self([v[1]; 4])).0[0];
        let v = J::join(Self([v; 4]), Self([i32x4_shuffle::<2, 3, 0, 1>(v, v); 4])).0[0];
        let v = J::join(Self([v; 4]), Self([i32x4_shuffle::<1, 0, 3, 2>(v, v); 4])).0[0];
        f32x4_extract_lane::<0>(v)
    }
}

/// 8 chains of `i32x4.dot_i16x8_s` and an addition, 8 multiply-accumulates each.
fn peak(rounds: usize) -> usize {
    let one = core::hint::black_box(i16x8_splat(1));
    let mut sums = [i32x4_splat(0); 8];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = i32x4_add(*sum, i32x4_dot_i16x8(*sum, one));
        }
    }
    core::hint::black_box(sums);
    rounds * 8 * 8
}
