//! x86-64 with AVX2: bytes widen to 16 bits and `vpmaddwd` adds pairs of products, exactly.

#[allow(clippy::wildcard_imports, reason = "the instruction set")]
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::lanes::{Join, LANES, Lanes, Number};
use super::scalar::{self, finish};
use super::{KernelSet, Matmul, kernel_set};
use crate::weights::Tile;

kernel_set!("avx2", Ymm, "avx2");

/// The set, where this processor has the instructions.
pub fn detect() -> Option<&'static KernelSet> {
    std::arch::is_x86_feature_detected!("avx2").then_some(&KERNELS)
}

/// Sixteen f32 in two registers.
#[derive(Clone, Copy)]
struct Ymm([__m256; 2]);

// SAFETY of every block: a value of this type exists only where the instructions are.
impl Number for Ymm {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([unsafe { _mm256_set1_ps(x) }; 2])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        Self(unsafe { [_mm256_add_ps(a, c), _mm256_add_ps(b, d)] })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        Self(unsafe { [_mm256_sub_ps(a, c), _mm256_sub_ps(b, d)] })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        Self(unsafe { [_mm256_mul_ps(a, c), _mm256_mul_ps(b, d)] })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        Self(unsafe { [_mm256_div_ps(a, c), _mm256_div_ps(b, d)] })
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        Self(unsafe { [_mm256_max_ps(a, c), _mm256_max_ps(b, d)] })
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        Self(unsafe { [_mm256_min_ps(a, c), _mm256_min_ps(b, d)] })
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        unsafe {
            let one = _mm256_set1_epi32(0x3f80_0000);
            let a = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.0[0]));
            let b = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.0[1]));
            Self([
                _mm256_castsi256_ps(_mm256_add_epi32(a, one)),
                _mm256_castsi256_ps(_mm256_add_epi32(b, one)),
            ])
        }
    }
}

// SAFETY: as above.
impl Lanes for Ymm {
    const WIDE: bool = true;
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        unsafe { Self([_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))]) }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.0[1]);
        }
    }
    #[inline(always)]
    fn narrow(self, to: &mut [i8; LANES]) {
        unsafe {
            let (low, high) = (_mm256_cvtps_epi32(self.0[0]), _mm256_cvtps_epi32(self.0[1]));
            // Packing works in halves of 128 bits: values 0 to 3, 8 to 11, 4 to 7, 12 to 15.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn fold<J: Join>(self) -> f32 {
        unsafe {
            let [low, high] = self.0;
            let v = J::join(Self([low; 2]), Self([high; 2])).0[0];
            let v = J::join(Self([v; 2]), Self([_mm256_permute2f128_ps::<1>(v, v); 2])).0[0];
            let v = J::join(Self([v; 2]), Self([_mm256_permute_ps::<0b01_00_11_10>(v); 2])).0[0];
            let v = J::join(Self([v; 2]), Self([_mm256_permute_ps::<0b10_11_00_01>(v); 2])).0[0];
            _mm256_cvtss_f32(v)
        }
    }
}

/// Rows that share one pass over the weights; with four channels each, eight accumulators.
const ROWS: usize = 4;

/// Blocks of eight activations that are widened on the stack, 32 KiB.
const BLOCKS: usize = 2048;

fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let depth = tiles.len() / channels.len().max(1);
    if depth > BLOCKS {
        let product = Matmul { rows, row_scales, tiles, channels, out, width };
        return (scalar::KERNELS.matmul)(product);
    }
    let group = (BLOCKS / depth.max(1)).min(ROWS);
    let mut buffer = [const { MaybeUninit::<[i16; 8]>::uninit() }; BLOCKS];
    let groups = rows.chunks((group * depth * 8).max(1)).zip(row_scales.chunks(group));
    for ((rows, row_scales), out) in groups.zip(out.chunks_mut(group * width)) {
        // SAFETY: `detect` saw AVX2 before handing this set out; the buffer holds a group.
        unsafe {
            let widened = widen(rows, depth, &mut buffer);
            let part = Matmul { rows, row_scales, tiles, channels, out, width };
            match row_scales.len() {
                1 => group_of_rows::<1>(widened, part),
                2 => group_of_rows::<2>(widened, part),
                3 => group_of_rows::<3>(widened, part),
                _ => group_of_rows::<4>(widened, part),
            }
        }
    }
}

/// Rows of `depth` blocks → 16-bit blocks in the order of the products: `[depth][rows]`.
#[target_feature(enable = "avx2")]
unsafe fn widen<'b>(rows: &[i8], depth: usize, buffer: &'b mut [MaybeUninit<[i16; 8]>]) -> &'b [[i16; 8]] {
    let n = rows.len() / 8 / depth.max(1);
    for k in 0..depth {
        for r in 0..n {
            // SAFETY: the caller's buffer holds n · depth blocks.
            unsafe {
                let bytes = _mm_loadl_epi64(rows.as_ptr().add((r * depth + k) * 8).cast());
                let place = buffer.as_mut_ptr().add(k * n + r).cast::<__m128i>();
                _mm_storeu_si128(place, _mm_cvtepi8_epi16(bytes));
            }
        }
    }
    // SAFETY: that many were written.
    unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast(), n * depth) }
}

/// `R` widened rows × all channels.
#[target_feature(enable = "avx2")]
unsafe fn group_of_rows<const R: usize>(widened: &[[i16; 8]], part: Matmul<'_>) {
    let Matmul { row_scales, tiles, channels, out, width, .. } = part;
    let depth = tiles.len() / channels.len().max(1);
    for (block, (tiles, channels)) in tiles.chunks_exact(depth.max(1)).zip(channels).enumerate() {
        let mut sums = [[0; 16]; R];
        for quad in 0..4 {
            // SAFETY: `widened` holds R rows for each tile.
            unsafe { add_quad(&mut sums, widened, tiles, quad) };
        }
        let columns = block * 16..width.min(block * 16 + 16);
        for ((sums, &row), out) in sums.iter().zip(row_scales).zip(out.chunks_mut(width)) {
            finish(sums, row, channels, out.get_mut(columns.clone()).unwrap_or_default());
        }
    }
}

/// Products of `R` rows with the four channels from `quad` · 4 on.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn add_quad<const R: usize>(
    sums: &mut [[i32; 16]; R],
    widened: &[[i16; 8]],
    tiles: &[Tile],
    quad: usize,
) {
    // Each accumulator holds two channels of four partial sums.
    let mut partial = [[_mm256_setzero_si256(); 2]; R];
    for (k, tile) in tiles.iter().enumerate() {
        // SAFETY: four channels of a tile are 32 bytes; `widened` is the caller's.
        unsafe {
            let bytes = tile.0.as_ptr().cast::<__m128i>().add(quad * 2);
            let weights = [
                _mm256_cvtepi8_epi16(_mm_load_si128(bytes)),
                _mm256_cvtepi8_epi16(_mm_load_si128(bytes.add(1))),
            ];
            for (r, partial) in partial.iter_mut().enumerate() {
                let row = _mm_loadu_si128(widened.as_ptr().add(k * R + r).cast());
                let row = _mm256_broadcastsi128_si256(row);
                partial[0] = _mm256_add_epi32(partial[0], _mm256_madd_epi16(row, weights[0]));
                partial[1] = _mm256_add_epi32(partial[1], _mm256_madd_epi16(row, weights[1]));
            }
        }
    }
    for (sums, [a, b]) in sums.iter_mut().zip(partial) {
        let pairs = _mm256_hadd_epi32(a, b);
        let all = _mm256_hadd_epi32(pairs, pairs);
        // The lower half now has channels 0 and 2, the upper 1 and 3.
        let four = _mm_unpacklo_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
        // SAFETY: four of sixteen sums.
        unsafe { _mm_storeu_si128(sums.as_mut_ptr().add(quad * 4).cast(), four) };
    }
}

/// 8 chains of `vpmaddwd` and `vpaddd`, 16 multiply-accumulates each.
fn peak(rounds: usize) -> usize {
    #[target_feature(enable = "avx2")]
    fn chains(rounds: usize) {
        let one = core::hint::black_box(_mm256_set1_epi16(1));
        let mut sums = [_mm256_setzero_si256(); 8];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*sum, one));
            }
        }
        core::hint::black_box(sums);
    }
    // SAFETY: `detect` saw AVX2 before handing this set out.
    unsafe { chains(rounds) };
    rounds * 8 * 16
}
