//! Cortex-M with the DSP extension (M4, M7, M33): `smlad` adds two 16-bit products.
//!
//! A group of rows is widened to 16 bits once, in the order in which the products take it; a
//! channel's weights are widened as they are read, and serve all rows of the group.

use core::arch::asm;
use core::mem::MaybeUninit;

use super::lanes::Portable;
use super::{Matmul, kernel_set, scalar};
use crate::rows::Rows;
use crate::weights::Tile;

#[cfg(target_abi = "eabihf")]
mod float;
#[cfg(not(target_abi = "eabihf"))]
use super::scalar::finish;
#[cfg(target_abi = "eabihf")]
use float::{finish, quantize, quantize_symmetric};

#[cfg(target_abi = "eabihf")]
kernel_set!("dsp", Portable, quantize: quantize, quantize_symmetric);
#[cfg(not(target_abi = "eabihf"))]
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
    let mut sums = [[0; 16]; ROWS];
    let groups = rows.parts(ROWS * depth * 8).zip(row_scales.parts(ROWS));
    for ((rows, scales), out) in groups.zip(out.parts_mut(ROWS * width)) {
        let widened = widen(rows, depth, buffer);
        let blocks = tiles.rows(depth.max(1)).zip(channels);
        for (block, (tiles, channels)) in blocks.enumerate() {
            let columns = block * 16..width.min(block * 16 + 16);
            block_sums(widened, tiles, columns.len(), &mut sums);
            for (r, (sums, &row)) in sums.iter().zip(scales).enumerate() {
                let columns = r * width + columns.start..r * width + columns.end;
                finish(sums, row, channels, out.get_mut(columns).unwrap_or_default());
            }
        }
    }
}

/// Widens up to four rows of `depth` · 8 bytes; what is missing repeats the last row.
fn widen<'b>(rows: &[i8], depth: usize, buffer: &'b mut [MaybeUninit<Widened>]) -> &'b [Widened] {
    let (blocks, _) = rows.as_chunks::<8>();
    let last = (blocks.len() / depth.max(1)).saturating_sub(1);
    for r in 0..ROWS {
        let row = blocks.get(r.min(last) * depth..).unwrap_or_default();
        for (bytes, place) in row.iter().zip(&mut *buffer) {
            let word = |at: usize| u32::from_le_bytes(core::array::from_fn(|i| bytes[at + i] as u8));
            // SAFETY: a place of the buffer, written and not read.
            unsafe {
                (&raw mut (*place.as_mut_ptr())[0][r]).write(halves(word(0)));
                (&raw mut (*place.as_mut_ptr())[1][r]).write(halves(word(4)));
            }
        }
    }
    // SAFETY: the places' four rows were written.
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
macro_rules! tile_steps {
    ($times:literal) => {
        concat!(
            ".rept ",
            $times,
            r"
            ldrd r6, r7, [r0], #128
            .irp weights, r6, r7
            ldm r1!, {{r2, r3, r4, r5}}
            sxtb16 r12, \weights, ror #8
            sxtb16 \weights, \weights
            smlad r8, r2, \weights, r8
            smlad r9, r4, \weights, r9
            smlad r8, r3, r12, r8
            smlad r9, r5, r12, r9
            ldm r1!, {{r2, r3, r4, r5}}
            smlad r10, r2, \weights, r10
            smlad r11, r4, \weights, r11
            smlad r10, r3, r12, r10
            smlad r11, r5, r12, r11
            .endr
            .endr"
        )
    };
}

/// Products of the four rows with the first `lanes` channels of a block, `sums` being `[rows][channels]`.
fn block_sums(widened: &[Widened], tiles: &[Tile], lanes: usize, sums: &mut [[i32; 16]; ROWS]) {
    if tiles.is_empty() || lanes == 0 {
        *sums = [[0; 16]; ROWS];
        return;
    }
    let first = sums.as_mut_ptr().cast::<i32>();
    // SAFETY: both pointers go over `tiles.len()` elements, one Widened and one Tile at a time, and are read
    // only; sums of up to 16 lanes are written. On the stack lie the lane's first weights, the widened rows,
    // where the lane's sums go, where they end, and the depth. r6 and r7, which the compiler keeps for itself,
    // are put back.
    unsafe {
        asm!(
            "push {{r0, r1, r2, r3, r6, r7, lr}}",
            "2:",
            "mov r8, #0",
            "mov r9, #0",
            "mov r10, #0",
            "mov r11, #0",
            "tst lr, #1",
            "beq 3f",
            tile_steps!(1),
            "3:",
            "tst lr, #2",
            "beq 4f",
            tile_steps!(2),
            "4:",
            "tst lr, #4",
            "beq 5f",
            tile_steps!(4),
            "5:",
            "lsrs lr, lr, #3",
            "beq 7f",
            "6:",
            tile_steps!(8),
            "subs lr, lr, #1",
            "bne 6b",
            "7:",
            "ldm sp, {{r0, r1, r2, r3}}",
            "ldr lr, [sp, #24]",
            "str r9, [r2, #64]",
            "str r10, [r2, #128]",
            "str r11, [r2, #192]",
            "str r8, [r2], #4",
            "add r0, r0, #8",
            "str r0, [sp]",
            "str r2, [sp, #8]",
            "cmp r2, r3",
            "bne 2b",
            "add sp, sp, #16",
            "pop {{r6, r7, lr}}",
            inout("r0") tiles.as_ptr() => _, inout("r1") widened.as_ptr() => _, inout("r2") first => _,
            inout("r3") first.wrapping_add(lanes.min(16)) => _, inout("lr") tiles.len() => _,
            out("r4") _, out("r5") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _,
        );
    }
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
