//! f32 products; tiles turned for the backward pass, and int4 tiles unpacked.

use super::{LANES, Lanes, Sum, get, parts, put};
use crate::weights::{HalfTile, Int4, Tile};

/// out\[m\] = row m of `matrix` `[out, x]` · `x`.
#[inline(always)]
pub fn dots<V: Lanes>(matrix: &[f32], x: &[f32], out: &mut [f32]) {
    for (out, row) in out.iter_mut().zip(matrix.chunks_exact(x.len().max(1))) {
        let mut sum = V::splat(0.0);
        for index in 0..parts(x) {
            sum = sum.add(get::<V>(row, index, 0.0).mul(get(x, index, 0.0)));
        }
        *out = sum.fold::<Sum>();
    }
}

/// out += F·x, where F is `[rows, depth]`, x `[depth, width]` and out `[rows, width]`.
///
/// Rows may lie apart, in wider ones, and F may stand on its side.
#[derive(Debug)]
pub struct Accumulate<'a> {
    /// Rows of the product.
    pub rows: usize,
    /// Summands of each value.
    pub depth: usize,
    /// Columns.
    pub width: usize,
    /// F\[r\]\[k\] = `factors`\[r · `factor_steps`\[0\] + k · `factor_steps`\[1\]\].
    pub factors: &'a [f32],
    /// See there.
    pub factor_steps: [usize; 2],
    /// Row k of x begins at k · `x_step`.
    pub x: &'a [f32],
    /// See there.
    pub x_step: usize,
    /// Row r begins at r · `out_step`.
    pub out: &'a mut [f32],
    /// See there.
    pub out_step: usize,
}

/// Adds each product in order of depth, so that two calls in turn give the bits of one.
#[inline(always)]
pub fn accumulate<V: Lanes>(product: Accumulate<'_>) {
    let Accumulate { rows, depth, width, factors, factor_steps: [row_step, depth_step], .. } = product;
    let mut r = 0;
    while r < rows {
        let n = if r + ROWS_AT_ONCE <= rows && V::WIDE { ROWS_AT_ONCE } else { 1 };
        for index in 0..width.div_ceil(LANES) {
            let columns = index * LANES..width.min((index + 1) * LANES);
            let place = |row: usize| {
                let start = row * product.out_step;
                start + columns.start..start + columns.end
            };
            let mut sums = [V::splat(0.0); ROWS_AT_ONCE];
            for (i, sum) in sums.iter_mut().enumerate().take(n) {
                *sum = get(product.out.get(place(r + i)).unwrap_or_default(), 0, 0.0);
            }
            for k in 0..depth {
                let start = k * product.x_step;
                let x = product.x.get(start + columns.start..start + columns.end).unwrap_or_default();
                let x: V = get(x, 0, 0.0);
                let first = r * row_step + k * depth_step;
                for (i, sum) in sums.iter_mut().enumerate().take(n) {
                    let factor = factors.get(first + i * row_step).copied().unwrap_or(0.0);
                    *sum = sum.add(V::splat(factor).mul(x));
                }
            }
            for (i, sum) in sums.into_iter().enumerate().take(n) {
                put(product.out.get_mut(place(r + i)).unwrap_or_default(), 0, sum);
            }
        }
        r += n;
    }
}

/// Rows that share each load of x, where sixteen lanes take few registers.
const ROWS_AT_ONCE: usize = 4;

/// Turns inputs `16 · strip..` of all blocks of `tiles` `[blocks][depth][16 channels][8 inputs]` into
/// `turned` `[2 · blocks][16 inputs][8 channels]`, and sums each input's weights.
#[inline(always)]
pub fn turn<V: Lanes>(tiles: &[Tile], depth: usize, strip: usize, turned: &mut [Tile]) -> [i32; 16] {
    let mut partial = [[0; 16]; 2];
    for (tiles, [first, second]) in tiles.chunks_exact(depth.max(1)).zip(turned.as_chunks_mut().0) {
        for (half, partial) in partial.iter_mut().enumerate() {
            let tile = tiles.get(2 * strip + half).copied().unwrap_or(Tile([[0; 8]; 16]));
            let inputs = 8 * half..8 * half + 8;
            for (channels, turned) in tile.0.as_chunks().0.iter().zip([&mut *first, &mut *second]) {
                let turned = turned.0.get_mut(inputs.clone()).unwrap_or_default();
                turned.copy_from_slice(&V::turn_square(channels, partial));
            }
        }
    }
    let partial = partial.as_flattened();
    core::array::from_fn(|input| partial.get(2 * input..2 * input + 2).unwrap_or_default().iter().sum())
}

/// Unpacks `tiles.len()` tiles of a block of 16 channels in int4, `depth` blocks of 8 inputs deep, from the
/// `first` on.
#[inline(always)]
pub fn unpack<V: Lanes>(block: &[HalfTile], depth: usize, first: usize, tiles: &mut [Tile]) {
    let block = Int4::new(block, depth);
    let (mut k, mut rest) = (first, tiles);
    while !rest.is_empty() {
        let (multipliers, nibbles) = block.group(k);
        let count = nibbles.len().min(rest.len());
        // Nothing is left of the block; or some of a group.
        let Some((tiles, behind)) = rest.split_at_mut_checked(count.max(1)) else { return };
        V::unpack_group(multipliers, nibbles, tiles);
        (k, rest) = (k + count.max(1), behind);
    }
}

/// What [`Lanes::unpack_group`] is.
#[inline(always)]
pub(super) fn unpack_group<V: Lanes>(multipliers: &[u8; 16], nibbles: &[[[u8; 8]; 8]], tiles: &mut [Tile]) {
    if V::WIDE {
        let factors = Factors::new(multipliers);
        for (nibbles, tile) in nibbles.iter().zip(tiles) {
            factors.multiply(nibbles, tile);
        }
    } else {
        for (nibbles, tile) in nibbles.iter().zip(tiles) {
            multiply(nibbles, multipliers, tile);
        }
    }
}

/// Half bytes n = 0..=15 → multiplier · (n − 8), for multipliers 1..=15. No product exceeds a byte, so that one
/// multiplication does for four.
#[inline(always)]
fn multiply(nibbles: &[[u8; 8]; 8], multipliers: &[u8; 16], tile: &mut Tile) {
    const TOP: u32 = 0x8080_8080;
    let nibbles = nibbles.iter().cycle();
    for (channel, ((row, nibbles), &multiplier)) in
        tile.0.iter_mut().zip(nibbles).zip(multipliers).enumerate()
    {
        let shift = if channel < 8 { 0 } else { 4 };
        for (weights, nibbles) in row.as_chunks_mut::<4>().0.iter_mut().zip(nibbles.as_chunks::<4>().0) {
            let n = u32::from_le_bytes(*nibbles) >> shift & 0x0f0f_0f0f;
            let product = n.wrapping_mul(multiplier.into());
            let offset = 0x0808_0808_u32.wrapping_mul(multiplier.into());
            // Byte by byte: the top bit is there to be borrowed, and put right afterwards.
            let difference = (product | TOP).wrapping_sub(offset) ^ !product & TOP;
            *weights = difference.to_le_bytes().map(|byte| byte as i8);
        }
    }
}

/// The same in steps that vector instructions have, two bytes a multiplication and then a subtraction a byte, with
/// the multipliers of both halves laid out beforehand.
struct Factors([([u16; 32], [u8; 64]); 2]);

impl Factors {
    #[inline(always)]
    fn new(multipliers: &[u8; 16]) -> Self {
        let of = |half: usize| {
            let multiplier = |channel: usize| multipliers[(half * 8 + channel) % 16];
            let factors = core::array::from_fn(|pair| multiplier(pair / 4).into());
            (factors, core::array::from_fn(|byte| multiplier(byte / 8).wrapping_mul(8)))
        };
        Self([of(0), of(1)])
    }

    #[inline(always)]
    fn multiply(&self, nibbles: &[[u8; 8]; 8], tile: &mut Tile) {
        let pairs: [u16; 32] = bytemuck::cast(*nibbles);
        let halves: &mut [[i8; 64]; 2] = bytemuck::cast_mut(&mut tile.0);
        for (half, ((factors, offsets), weights)) in self.0.iter().zip(halves).enumerate() {
            let mut products = [0_u16; 32];
            for (product, (pair, factor)) in products.iter_mut().zip(pairs.iter().zip(factors)) {
                *product = (pair >> (4 * half) & 0x0f0f).wrapping_mul(*factor);
            }
            let products: [u8; 64] = bytemuck::cast(products);
            for (weight, (product, offset)) in weights.iter_mut().zip(products.iter().zip(offsets)) {
                *weight = product.wrapping_sub(*offset) as i8;
            }
        }
    }
}

/// The transpose of 8 × 8 bytes: halves, quarters and eighths of the square change places across the
/// diagonal.
pub(super) fn transposed(square: &[[i8; 8]; 8]) -> [[i8; 8]; 8] {
    let mut rows = square.map(|row| u64::from_le_bytes(row.map(|byte| byte as u8)));
    for (apart, shift, mask) in
        [(4, 32, 0x0000_0000_ffff_ffff), (2, 16, 0x0000_ffff_0000_ffff), (1, 8, 0x00ff_00ff_00ff_00ff_u64)]
    {
        for group in rows.chunks_exact_mut(2 * apart) {
            let (upper, lower) = group.split_at_mut(apart);
            for (upper, lower) in upper.iter_mut().zip(lower) {
                let exchanged = (*upper >> shift ^ *lower) & mask;
                *lower ^= exchanged;
                *upper ^= exchanged << shift;
            }
        }
    }
    rows.map(|row| row.to_le_bytes().map(|byte| byte as i8))
}
