//! x86-64 with AVX-512 VNNI: one `vpdpbusd` takes 8 channels × 8 inputs of a row.
//!
//! `vpdpbusd` wants unsigned activations: they are written with 128 added (the sign bit flipped),
//! and 128 column sums come off again with the zero point, in exact integers.

#[allow(clippy::wildcard_imports, reason = "the instruction set")]
use core::arch::x86_64::*;

use super::lanes::{Join, LANES, Lanes, Number};
use super::{KernelSet, Matmul, RowScale, kernel_set};
use crate::weights::format::{INT4_GROUP, int4_halves, multiplier_halves};
use crate::weights::{Channels, HalfTile, Tile};

/// Rows that share one pass over the weights: 16 accumulators.
const ROWS: usize = 8;

kernel_set!("avx512vnni", Zmm, "avx512f,avx512bw,avx512vl,avx512vnni", int4: matmul_int4);

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

impl Zmm {
    /// Nearest integers, cut to −128..=127.
    #[inline(always)]
    fn bytes(self) -> __m128i {
        // SAFETY: a value of this type exists only where the instructions are.
        unsafe { _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(self.0)) }
    }
}

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
    const WIDE: bool = true;
    #[inline(always)]
    fn turn_square(square: &[[i8; 8]; 8], sums: &mut [i32; 16]) -> [[i8; 8]; 8] {
        // Two channels of an input side by side, then, of words, the pairs of an input.
        const PAIRS: [i8; 16] = [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15];
        const WORDS: [i16; 32] = {
            let mut words = [0; 32];
            let mut place = 0;
            while place < 32 {
                words[place] = (place % 4 * 8 + place / 4) as i16;
                place += 1;
            }
            words
        };
        // SAFETY: all arrays have the bytes that are read or written.
        unsafe {
            let pairs = _mm512_broadcast_i32x4(_mm_loadu_si128(PAIRS.as_ptr().cast()));
            let words = _mm512_loadu_si512(WORDS.as_ptr().cast());
            let paired = _mm512_shuffle_epi8(_mm512_loadu_si512(square.as_ptr().cast()), pairs);
            let turned = _mm512_permutexvar_epi16(words, paired);
            let before = _mm512_loadu_si512(sums.as_ptr().cast());
            let after = _mm512_dpbusd_epi32(before, _mm512_set1_epi8(1), turned);
            _mm512_storeu_si512(sums.as_mut_ptr().cast(), after);
            let mut out = [[0; 8]; 8];
            _mm512_storeu_si512(out.as_mut_ptr().cast(), turned);
            out
        }
    }
    #[inline(always)]
    fn unpack_group(multipliers: &[u8; 16], nibbles: &[[[u8; 8]; 8]], tiles: &mut [Tile]) {
        let multipliers = Multipliers::new(multipliers);
        for (nibbles, tile) in nibbles.iter().zip(tiles) {
            let [low, high] = multipliers.multiply(nibbles);
            // SAFETY: a tile is 128 bytes, 64-byte aligned.
            unsafe {
                let place = tile.0.as_mut_ptr().cast::<__m512i>();
                _mm512_store_si512(place, low);
                _mm512_store_si512(place.add(1), high);
            }
        }
    }
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
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), self.bytes()) }
    }
    #[inline(always)]
    fn load_part(from: &[f32], fill: f32) -> Self {
        // SAFETY: the mask keeps to the slice.
        unsafe { Self(_mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask(from.len()), from.as_ptr())) }
    }
    #[inline(always)]
    fn store_part(self, to: &mut [f32]) {
        // SAFETY: the mask keeps to the slice.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask(to.len()), self.0) }
    }
    const FLIP: u8 = 0x80;
    #[inline(always)]
    fn narrow_activation(self, to: &mut [i8; LANES]) {
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_xor_si128(self.bytes(), _mm_set1_epi8(-128))) }
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

/// Bytes of weights that stay in the first-level cache while groups of rows go by.
const HELD: usize = 16 << 10;

/// How far ahead weights are asked for, in bytes: the processor's own prefetching stops at every page.
const AHEAD: usize = 2048;

/// How weights stand in their tiles.
trait Packing {
    /// What they stand in.
    type Tile;
    /// How many of a block of 16 channels, `depth` blocks of 8 inputs deep.
    fn tiles(depth: usize) -> usize;
    /// Blocks of 8 inputs that share a [`Packing::Group`].
    const GROUP: usize;
    /// What a group's weights are read with.
    type Group: Copy;
    /// Reads that of the group from input `8 · k` on.
    unsafe fn group(block: *const Self::Tile, k: usize) -> Self::Group;
    /// The weights of channels 0 to 7 and 8 to 15 at inputs `8 · k..`; asks for those [`AHEAD`].
    unsafe fn read(block: *const Self::Tile, depth: usize, k: usize, group: Self::Group) -> [__m512i; 2];
}

struct Int8;

impl Packing for Int8 {
    type Tile = Tile;
    fn tiles(depth: usize) -> usize {
        depth
    }
    const GROUP: usize = usize::MAX;
    type Group = ();
    #[inline(always)]
    unsafe fn group(_: *const Tile, _: usize) {}
    #[inline(always)]
    unsafe fn read(block: *const Tile, _: usize, k: usize, (): ()) -> [__m512i; 2] {
        // SAFETY: the caller's k is below the depth; a tile is 128 bytes, 64-byte aligned. Nothing is read ahead, only
        // asked for.
        unsafe {
            let pointer = block.add(k).cast::<__m512i>();
            _mm_prefetch::<_MM_HINT_T0>(pointer.wrapping_byte_add(AHEAD).cast());
            _mm_prefetch::<_MM_HINT_T0>(pointer.wrapping_byte_add(AHEAD + 64).cast());
            [_mm512_load_si512(pointer), _mm512_load_si512(pointer.add(1))]
        }
    }
}

/// int4 weights, unpacked in registers.
struct Int4;

/// Multipliers of a block's channels, each as often as a channel has inputs in a tile.
#[derive(Clone, Copy)]
struct Multipliers {
    /// Of channels 0 to 7 and 8 to 15, in each word.
    factors: [__m512i; 2],
    /// 8 times as much, in each byte.
    offsets: [__m512i; 2],
}

impl Multipliers {
    #[inline(always)]
    fn new(multipliers: &[u8; 16]) -> Self {
        // Where the multiplier of each byte's channel stands, of channels 0 to 7.
        const PLACES: [[u8; 8]; 8] = [[0; 8], [1; 8], [2; 8], [3; 8], [4; 8], [5; 8], [6; 8], [7; 8]];
        // SAFETY: reached where the instructions are; both arrays have the bytes that are read.
        unsafe {
            let all = _mm512_broadcast_i32x4(_mm_loadu_si128(multipliers.as_ptr().cast()));
            let low = _mm512_loadu_si512(PLACES.as_ptr().cast());
            let high = _mm512_add_epi8(low, _mm512_set1_epi8(8));
            let each = [low, high].map(|places| _mm512_shuffle_epi8(all, places));
            Self {
                factors: each.map(|m| _mm512_and_si512(m, _mm512_set1_epi16(0xff))),
                offsets: each.map(|m| _mm512_slli_epi16::<3>(m)),
            }
        }
    }

    /// multiplier · (n − 8) of the low and the high half bytes n: no product exceeds a byte, so that a word is
    /// multiplied as two.
    #[inline(always)]
    fn multiply(&self, nibbles: &[[u8; 8]; 8]) -> [__m512i; 2] {
        // SAFETY: as above.
        unsafe {
            let both = _mm512_loadu_si512(nibbles.as_ptr().cast());
            let half = _mm512_set1_epi8(15);
            let halves = [_mm512_and_si512(both, half), _mm512_and_si512(_mm512_srli_epi16::<4>(both), half)];
            core::array::from_fn(|part| {
                let products = _mm512_mullo_epi16(halves[part], self.factors[part]);
                _mm512_sub_epi8(products, self.offsets[part])
            })
        }
    }
}

impl Packing for Int4 {
    type Tile = HalfTile;
    fn tiles(depth: usize) -> usize {
        int4_halves(depth)
    }
    const GROUP: usize = INT4_GROUP / 8;
    type Group = Multipliers;
    #[inline(always)]
    unsafe fn group(block: *const HalfTile, k: usize) -> Multipliers {
        // SAFETY: the block's first half tiles are the multipliers of its groups.
        Multipliers::new(unsafe { &*block.cast::<[u8; 16]>().add(k / Self::GROUP) })
    }
    #[inline(always)]
    unsafe fn read(block: *const HalfTile, depth: usize, k: usize, group: Multipliers) -> [__m512i; 2] {
        // SAFETY: behind them stands one for each k below the depth.
        unsafe {
            let nibbles = block.add(multiplier_halves(depth) + k);
            _mm_prefetch::<_MM_HINT_T0>(nibbles.wrapping_byte_add(AHEAD).cast());
            group.multiply(&(*nibbles).0)
        }
    }
}

fn matmul(product: Matmul<'_>) {
    matmul_of::<Int8>(product);
}

fn matmul_int4(product: Matmul<'_, HalfTile>) {
    matmul_of::<Int4>(product);
}

/// As many channels as the cache holds × groups of rows.
fn matmul_of<P: Packing>(product: Matmul<'_, P::Tile>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let n = row_scales.len();
    let block = tiles.len() / channels.len().max(1);
    let depth = rows.len() / 8 / n.max(1);
    let group = n.div_ceil(n.div_ceil(ROWS).max(1)).max(1);
    let held = if n <= ROWS { channels.len() } else { HELD / (block * size_of::<P::Tile>()).max(1) }.max(1);
    let parts = tiles.chunks((held * block).max(1)).zip(channels.chunks(held));
    for (part, (tiles, channels)) in parts.enumerate() {
        let first = part * held * 16;
        let groups = rows.chunks((group * depth * 8).max(1)).zip(row_scales.chunks(group));
        for ((rows, row_scales), out) in groups.zip(out.chunks_mut(group * width)) {
            let Some(out) = out.get_mut(first..) else { continue };
            let columns = width - first;
            let part = Matmul { rows, row_scales, tiles, channels, out, width };
            // SAFETY: `detect` saw the instructions before handing this set out; `rows` holds a row of
            // `depth` blocks for each scale, `tiles` as many as the packing has for each 16 channels, `out` the first
            // of `columns` outputs of each row.
            unsafe {
                match row_scales.len() {
                    1 => group_of_rows::<P, 1, 4>(part, columns),
                    2 => group_of_rows::<P, 2, 4>(part, columns),
                    3 => group_of_rows::<P, 3, 2>(part, columns),
                    4 => group_of_rows::<P, 4, 2>(part, columns),
                    5 => group_of_rows::<P, 5, 1>(part, columns),
                    6 => group_of_rows::<P, 6, 1>(part, columns),
                    7 => group_of_rows::<P, 7, 1>(part, columns),
                    _ => group_of_rows::<P, 8, 1>(part, columns),
                }
            }
        }
    }
}

/// `R` rows × all channels of the part, `S` blocks of 16 at once: few rows leave registers for several,
/// which hides the latency of the products.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn group_of_rows<P: Packing, const R: usize, const S: usize>(
    part: Matmul<'_, P::Tile>,
    columns: usize,
) {
    let each = part.tiles.len() / part.channels.len();
    let (several, rest) = part.channels.as_chunks::<S>();
    let (tiles, out) = (part.tiles.as_ptr(), part.out.as_mut_ptr());
    let (rows, scales, width) = (part.rows, part.row_scales, part.width);
    for (strip, channels) in several.iter().enumerate() {
        let block = strip * S;
        // SAFETY: the caller's, from the strip's first tile and column on.
        unsafe {
            let (tiles, out) = (tiles.add(block * each), out.add(block * 16));
            rows_by_channels::<P, R, S>(rows, scales, tiles, channels, out, width, columns - block * 16);
        }
    }
    for (index, channels) in rest.iter().enumerate() {
        let block = several.len() * S + index;
        // SAFETY: as above.
        unsafe {
            let (tiles, out) = (tiles.add(block * each), out.add(block * 16));
            let channels = core::array::from_ref(channels);
            rows_by_channels::<P, R, 1>(rows, scales, tiles, channels, out, width, columns - block * 16);
        }
    }
}

/// `R` rows × `S` blocks of 16 channels, of which `columns` channels exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
#[inline]
unsafe fn rows_by_channels<P: Packing, const R: usize, const S: usize>(
    rows: &[i8],
    row_scales: &[RowScale],
    tiles: *const P::Tile,
    channels: &[Channels; S],
    out: *mut f32,
    width: usize,
    columns: usize,
) {
    let depth = rows.len() / 8 / R;
    let each = P::tiles(depth);
    let mut sums = [[[_mm512_setzero_si512(); 2]; S]; R];
    for first in (0..depth).step_by(P::GROUP) {
        // SAFETY: as the caller says, `tiles` holds S blocks, and first and k are below their depth.
        let groups: [P::Group; S] =
            core::array::from_fn(|strip| unsafe { P::group(tiles.add(strip * each), first) });
        for k in first..depth.min(first.saturating_add(P::GROUP)) {
            let mut weights = [[_mm512_setzero_si512(); 2]; S];
            for (strip, weights) in weights.iter_mut().enumerate() {
                // SAFETY: as above.
                *weights = unsafe { P::read(tiles.add(strip * each), depth, k, groups[strip]) };
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
    }
    for (strip, channels) in channels.iter().enumerate() {
        let epilogue = Epilogue::new(channels, (columns - strip * 16).min(16));
        for (r, (sums, row)) in sums.iter().zip(row_scales).enumerate() {
            // SAFETY: row r's outputs of this strip start at r · width + 16 · strip.
            unsafe { epilogue.store(sums[strip], *row, out.add(r * width + strip * 16)) };
        }
    }
}

/// The first `count` of sixteen lanes.
#[inline(always)]
fn mask(count: usize) -> u16 {
    (0xffff_u32 >> (16 - count.min(16))) as u16
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
                mask: mask(columns),
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
