//! Cortex-M with the DSP extension (M4, M7, M33): `smlad` adds two 16-bit products.
//!
//! A group of rows is widened to 16 bits once, in the order in which the products take it; a
//! channel's weights are widened as they are read, and serve all rows of the group.

use core::arch::asm;
use core::mem::MaybeUninit;

use super::lanes::Portable;
use super::scalar::{self, finish};
use super::{Matmul, kernel_set};
use crate::weights::Tile;

kernel_set!("dsp", Portable);

/// Rows that share one pass over the weights, as many accumulators.
const ROWS: usize = 4;

/// Widest input that is widened on the stack, 8 KiB.
const INPUTS: usize = 1024;

/// Eight inputs of a group of rows, widened: first and second four, of each row the values 0 and 2,
/// and 1 and 3.
type Widened = [[[u32; 2]; ROWS]; 2];

fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let depth = tiles.len() / channels.len().max(1);
    if depth * 8 > INPUTS {
        let product = Matmul { rows, row_scales, tiles, channels, out, width };
        return (scalar::KERNELS.matmul)(product);
    }
    let mut buffer = [const { MaybeUninit::<Widened>::uninit() }; INPUTS / 8];
    let Some(buffer) = buffer.get_mut(..depth) else { return };
    let groups = rows.chunks(ROWS * depth * 8).zip(row_scales.chunks(ROWS));
    for ((rows, scales), out) in groups.zip(out.chunks_mut(ROWS * width)) {
        let widened = widen(rows, depth, buffer);
        let blocks = tiles.chunks_exact(depth.max(1)).zip(channels);
        for (block, (tiles, channels)) in blocks.enumerate() {
            let mut sums = [[0; 16]; ROWS];
            let lanes = (width - block * 16).min(16);
            for lane in 0..lanes {
                for (sums, sum) in sums.iter_mut().zip(sums_of(widened, tiles, lane)) {
                    sums[lane] = sum;
                }
            }
            for ((sums, &row), out) in sums.iter().zip(scales).zip(out.chunks_mut(width)) {
                let out = out.get_mut(block * 16..block * 16 + lanes).unwrap_or_default();
                finish(sums, row, channels, out);
            }
        }
    }
}

/// Widens up to four rows of `depth` · 8 bytes; what is missing repeats the last row.
fn widen<'b>(rows: &[i8], depth: usize, buffer: &'b mut [MaybeUninit<Widened>]) -> &'b [Widened] {
    let (blocks, _) = rows.as_chunks::<8>();
    let last = (blocks.len() / depth.max(1)).saturating_sub(1);
    for (k, place) in buffer.iter_mut().enumerate() {
        let mut widened = Widened::default();
        for r in 0..ROWS {
            let Some(bytes) = blocks.get(r.min(last) * depth + k) else { continue };
            let word = |at: usize| u32::from_le_bytes(core::array::from_fn(|i| bytes[at + i] as u8));
            widened[0][r] = halves(word(0));
            widened[1][r] = halves(word(4));
        }
        place.write(widened);
    }
    // SAFETY: every place was written.
    unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast(), buffer.len()) }
}

/// Four bytes → the 16-bit pairs 0 and 2, and 1 and 3.
#[inline(always)]
fn halves(word: u32) -> [u32; 2] {
    let (even, odd);
    // SAFETY: registers only.
    unsafe {
        asm!("sxtb16 {0}, {2}", "sxtb16 {1}, {2}, ror #8", out(reg) even, out(reg) odd, in(reg) word,
            options(pure, nomem, nostack, preserves_flags));
    }
    [even, odd]
}

/// One tile's row of weights × the same eight inputs of four rows: r0 and r1 move on, r8 to r11 grow.
macro_rules! tile_step {
    () => {
        concat!(
            "ldrd r6, r7, [r0], #128\n",
            "ldm r1!, {{r2, r3, r4, r5}}\n",
            "sxtb16 r12, r6, ror #8\n",
            "sxtb16 r6, r6\n",
            "smlad r8, r2, r6, r8\n",
            "smlad r9, r4, r6, r9\n",
            "smlad r8, r3, r12, r8\n",
            "smlad r9, r5, r12, r9\n",
            "ldm r1!, {{r2, r3, r4, r5}}\n",
            "smlad r10, r2, r6, r10\n",
            "smlad r11, r4, r6, r11\n",
            "smlad r10, r3, r12, r10\n",
            "smlad r11, r5, r12, r11\n",
            "ldm r1!, {{r2, r3, r4, r5}}\n",
            "sxtb16 r12, r7, ror #8\n",
            "sxtb16 r7, r7\n",
            "smlad r8, r2, r7, r8\n",
            "smlad r9, r4, r7, r9\n",
            "smlad r8, r3, r12, r8\n",
            "smlad r9, r5, r12, r9\n",
            "ldm r1!, {{r2, r3, r4, r5}}\n",
            "smlad r10, r2, r7, r10\n",
            "smlad r11, r4, r7, r11\n",
            "smlad r10, r3, r12, r10\n",
            "smlad r11, r5, r12, r11\n",
        )
    };
}

/// Products of the four rows with one channel.
#[inline(always)]
fn sums_of(widened: &[Widened], tiles: &[Tile], lane: usize) -> [i32; ROWS] {
    let Some(first) = tiles.first() else { return [0; ROWS] };
    let weights = first.0[lane].as_ptr();
    let (mut a, mut b, mut c, mut d) = (0, 0, 0, 0);
    // SAFETY: both pointers go over `depth` elements, one Widened and one Tile at a time, and are read
    // only. r6 and r7, which the compiler keeps for itself, are put back.
    unsafe {
        asm!(
            "push {{r6, r7}}",
            // The odd tile first: the shift leaves it in the carry.
            "lsrs lr, lr, #1",
            "bcc 2f",
            tile_step!(),
            "2:",
            "cmp lr, #0",
            "beq 4f",
            "3:",
            tile_step!(),
            tile_step!(),
            "subs lr, lr, #1",
            "bne 3b",
            "4:",
            "pop {{r6, r7}}",
            inout("r0") weights => _, inout("r1") widened.as_ptr() => _, inout("lr") tiles.len() => _,
            inout("r8") a, inout("r9") b, inout("r10") c, inout("r11") d,
            out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r12") _,
            options(readonly),
        );
    }
    [a, b, c, d]
}

/// 4 chains of `smlad`, 2 multiply-accumulates each.
fn peak(rounds: usize) -> usize {
    let one = 0x0001_0001_u32;
    let (mut a, mut b, mut c, mut d) = (0, 0, 0, 0);
    for _ in 0..rounds {
        // SAFETY: registers only.
        unsafe {
            asm!("smlad {0}, {4}, {4}, {0}", "smlad {1}, {4}, {4}, {1}", "smlad {2}, {4}, {4}, {2}",
                "smlad {3}, {4}, {4}, {3}", inout(reg) a, inout(reg) b, inout(reg) c, inout(reg) d,
                in(reg) one, options(nomem, nostack));
        }
    }
    core::hint::black_box([a, b, c, d]);
    rounds * 4 * 2
}
