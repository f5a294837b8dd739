//! x86-64 with AVX2: bytes widen to 16 bits and `vpmaddwd` adds pairs of products, exactly.

#[allow(clippy::wildcard_imports, reason = "the instruction set")]
use core::arch::x86_64::*;

use super::lanes::{Join, LANES, Lanes, Number};
use super::scalar::finish;
use super::{KernelSet, Matmul, RowScale, kernel_set};
use crate::weights::{Channels, Tile};

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
    finish(&partial.map(|parts| parts.iter().sum()), scale, channels, out);
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
