//! x86-64 with AVX-512 VNNI: one `vpdpbusd` takes 8 channels × 8 inputs of a row.
//!
//! `vpdpbusd` wants unsigned activations: they are written with 128 added (the sign bit flipped),
//! and 128 column sums come off again with the zero point, in exact integers.

#[allow(clippy::wildcard_imports, reason = "the instruction set")]
use core::arch::x86_64::*;

use super::lanes::{Join, LANES, Lanes, Number};
use super::{KernelSet, Matmul, RowScale, kernel_set};
use crate::weights::Channels;

/// Rows that share one pass over the weights: 16 accumulators.
const ROWS: usize = 8;

kernel_set!("avx512vnni", Zmm, "avx512f,avx512bw,avx512vl,avx512vnni");

/// The set, where this processor has the instructions.
pub fn detect() -> Option<&'static KernelSet> {
    let available = std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512vnni");
    available.then_some(&KERNELS)
}

/// Sixteen f32 in one register.
#[derive(Clone, Copy)]
struct Zmm(__m512);

// SAFETY of every block: a value of this type exists only where the instructions are.
impl Number for Zmm {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        unsafe {
            let shifted = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
            Self(_mm512_castsi512_ps(_mm512_add_epi32(shifted, _mm512_set1_epi32(0x3f80_0000))))
        }
    }
}

// SAFETY: as above.
impl Lanes for Zmm {
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }
    #[inline(always)]
    fn narrow(self, to: &mut [i8; LANES]) {
        unsafe {
            let bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(self.0));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }
    const FLIP: u8 = 0x80;
    #[inline(always)]
    fn narrow_activation(self, to: &mut [i8; LANES]) {
        unsafe {
            let bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(self.0));
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
        }
    }
    #[inline(always)]
    fn fold<J: Join>(self) -> f32 {
        unsafe {
            let v = J::join(self, Self(_mm512_shuffle_f32x4::<0b01_00_11_10>(self.0, self.0)));
            let v = J::join(v, Self(_mm512_shuffle_f32x4::<0b10_11_00_01>(v.0, v.0)));
            let v = J::join(v, Self(_mm512_permute_ps::<0b01_00_11_10>(v.0)));
            let v = J::join(v, Self(_mm512_permute_ps::<0b10_11_00_01>(v.0)));
            _mm512_cvtss_f32(v.0)
        }
    }
}

/// How far ahead weights are asked for, in bytes: the processor's own prefetching stops at every page.
const AHEAD: usize = 2048;

/// Rows whose activations stay in the first-level cache while the weights go by.
const PANEL: usize = 32;

/// Panels of rows × strips of channels × groups of rows: a strip's weights are read from the first-level
/// cache by all groups but the first.
fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let depth = tiles.len() / channels.len().max(1);
    let panels = rows.chunks(PANEL * depth * 8).zip(row_scales.chunks(PANEL));
    for ((rows, scales), out) in panels.zip(out.chunks_mut(PANEL * width)) {
        // Few rows leave registers for several strips, which hides the latency of the products.
        let strips = match scales.len() {
            1 | 2 => 4,
            3 | 4 => 2,
            _ => 1,
        };
        let group = scales.len().div_ceil(scales.len().div_ceil(ROWS));
        let columns = tiles.chunks(strips * depth.max(1)).zip(channels.chunks(strips));
        for (strip, (tiles, channels)) in columns.enumerate() {
            let first = strip * strips * 16;
            let groups = rows.chunks(group * depth * 8).zip(scales.chunks(group));
            for ((rows, scales), out) in groups.zip(out.chunks_mut(group * width)) {
                let Some(out) = out.get_mut(first..) else { continue };
                let part = Matmul { rows, row_scales: scales, tiles, channels, out, width };
                // SAFETY: `detect` saw the instructions before handing this set out; `out` begins at
                // the strip's first column.
                unsafe { group_by_strip(part, width - first) };
            }
        }
    }
}

/// A group of rows × a strip of channels, `columns` of which exist from here to the row's end.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn group_by_strip(part: Matmul<'_>, columns: usize) {
    // SAFETY: the caller's.
    unsafe {
        match (part.row_scales.len(), part.channels.len()) {
            (1, 4) => rows_by_channels::<1, 4>(part, columns),
            (2, 4) => rows_by_channels::<2, 4>(part, columns),
            (3, 2) => rows_by_channels::<3, 2>(part, columns),
            (4, 2) => rows_by_channels::<4, 2>(part, columns),
            (5, _) => rows_by_channels::<5, 1>(part, columns),
            (6, _) => rows_by_channels::<6, 1>(part, columns),
            (7, _) => rows_by_channels::<7, 1>(part, columns),
            (8, _) => rows_by_channels::<8, 1>(part, columns),
            (rows, _) => {
                // the last channels, where fewer are left than a strip has
                let Matmul { tiles, channels, out, width, .. } = part;
                let depth = tiles.len() / channels.len();
                for (block, (tiles, channels)) in tiles.chunks(depth).zip(channels.chunks(1)).enumerate() {
                    let (out, columns) = (&mut out[block * 16..], columns - block * 16);
                    let part =
                        Matmul { rows: part.rows, row_scales: part.row_scales, tiles, channels, out, width };
                    match rows {
                        1 => rows_by_channels::<1, 1>(part, columns),
                        2 => rows_by_channels::<2, 1>(part, columns),
                        3 => rows_by_channels::<3, 1>(part, columns),
                        _ => rows_by_channels::<4, 1>(part, columns),
                    }
                }
            }
        }
    }
}

/// `R` rows × `S` blocks of 16 channels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn rows_by_channels<const R: usize, const S: usize>(part: Matmul<'_>, columns: usize) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = part;
    let depth = tiles.len() / S;
    debug_assert!(row_scales.len() == R && channels.len() == S && rows.len() >= R * depth * 8);
    let mut sums = [[[_mm512_setzero_si512(); 2]; S]; R];
    for k in 0..depth {
        let mut weights = [[_mm512_setzero_si512(); 2]; S];
        for (strip, weights) in weights.iter_mut().enumerate() {
            // SAFETY: k < depth; a tile is 128 bytes, 64-byte aligned.
            unsafe {
                let pointer = tiles.as_ptr().add(strip * depth + k).cast::<__m512i>();
                *weights = [_mm512_load_si512(pointer), _mm512_load_si512(pointer.add(1))];
                _mm_prefetch::<_MM_HINT_T0>(pointer.wrapping_byte_add(AHEAD).cast());
                _mm_prefetch::<_MM_HINT_T0>(pointer.wrapping_byte_add(AHEAD + 64).cast());
            }
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: `rows` holds R rows of 8 · depth bytes.
            let bytes = unsafe { rows.as_ptr().add((r * depth + k) * 8).cast::<i64>().read_unaligned() };
            let unsigned = _mm512_set1_epi64(bytes);
            for (sums, weights) in sums.iter_mut().zip(weights) {
                sums[0] = _mm512_dpbusd_epi32(sums[0], unsigned, weights[0]);
                sums[1] = _mm512_dpbusd_epi32(sums[1], unsigned, weights[1]);
            }
        }
    }
    for (strip, channels) in channels.iter().enumerate() {
        let epilogue = Epilogue::new(channels, (columns - strip * 16).min(16));
        for (r, (sums, row)) in sums.iter().zip(row_scales).enumerate() {
            // SAFETY: row r's outputs of this strip start at r · width + 16 · strip.
            unsafe { epilogue.store(sums[strip], *row, out.as_mut_ptr().add(r * width + strip * 16)) };
        }
    }
}

/// Sums → scaled f32 with bias, for one block of 16 channels.
struct Epilogue {
    column_sum: __m512i,
    scale: __m512,
    bias: __m512,
    mask: u16,
}

impl Epilogue {
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn new(channels: &Channels, columns: usize) -> Self {
        // SAFETY: the three arrays are 64 bytes each.
        unsafe {
            Self {
                column_sum: _mm512_loadu_si512(channels.column_sum.as_ptr().cast()),
                scale: _mm512_loadu_ps(channels.scale.as_ptr()),
                bias: _mm512_loadu_ps(channels.bias.as_ptr()),
                mask: (0xffff_u32 >> (16 - columns)) as u16,
            }
        }
    }

    /// `sums` holds channels 0 to 7 and 8 to 15, two partial sums each.
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn store(&self, sums: [__m512i; 2], row: RowScale, out: *mut f32) {
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        let pairs = [
            _mm512_permutex2var_epi32(sums[0], even, sums[1]),
            _mm512_permutex2var_epi32(sums[0], odd, sums[1]),
        ];
        let offset = _mm512_mullo_epi32(self.column_sum, _mm512_set1_epi32(row.zero_point + 128));
        let centred = _mm512_sub_epi32(_mm512_add_epi32(pairs[0], pairs[1]), offset);
        let scale = _mm512_mul_ps(_mm512_set1_ps(row.scale), self.scale);
        let value = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(centred), scale), self.bias);
        // SAFETY: the caller's `out` has room for the columns of the mask.
        unsafe { _mm512_mask_storeu_ps(out, self.mask, value) };
    }
}

/// 16 chains of `vpdpbusd`, 64 multiply-accumulates each.
fn peak(rounds: usize) -> usize {
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn chains(rounds: usize) {
        let one = core::hint::black_box(_mm512_set1_epi32(0x0101_0101));
        let mut sums = [_mm512_setzero_si512(); 16];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, one, one);
            }
        }
        core::hint::black_box(sums);
    }
    // SAFETY: `detect` saw the instructions before handing this set out.
    unsafe { chains(rounds) };
    rounds * 16 * 64
}
