//! Cortex-M with Helium (M55, M85): `vmlava` adds sixteen products to a scalar register.
//!
//! A gather puts eight inputs of one channel from each of two tiles side by side, where they meet
//! sixteen activations as those lie in memory. Four rows × two channels share their loads: eight sums,
//! as many as the registers that `vmlava` can add to. The rest of the f32 work is plain loops, which the
//! compiler vectorises for `-C target-cpu=cortex-m55`.

use core::arch::asm;

use super::lanes::quantize::{row_scale, symmetric_scale};
use super::lanes::{Number, Portable, RowScale};
use super::scalar::finish;
use super::{Matmul, kernel_set};
use crate::weights::Tile;

kernel_set!("helium", Portable, quantize: quantize, quantize_symmetric);

/// The loop over pairs of channels, and in it over pairs of tiles. r1, r3, r5 and r7 go along the rows, q6 and
/// q7 along a pair's weights, 256 bytes ahead of which they stay. The first row and what is common stand here;
/// for the further rows: what sums start with, what a pair of tiles takes, what an odd last tile does under a
/// predicate of 8 bytes, and what puts pointers back and stores the sums.
macro_rules! products {
    (
        $tiles:expr, $bytes:expr, $sums:expr, $rows:expr, first: [$($first:literal),*],
        turn: [$($turn:literal),*], odd: [$($odd:literal),*], last: [$($last:literal),*]
    ) => {{
        macro_rules! turn {
            () => {
                concat!(
                    "vldrd.u64 q0, [q6, #256]!\n",
                    "vldrb.u8 q2, [r1], #16\n",
                    "vldrd.u64 q1, [q7, #256]!\n",
                    "vmlava.s8 r0, q0, q2\n",
                    "vmlava.s8 r2, q1, q2\n",
                    $($turn, "\n",)*
                )
            };
        }
        let [row0, row1, row2, row3] = $rows;
        // SAFETY: `bytes` bytes of each row and as many of each channel are read, `sums` is written. r6 and
        // r7, which the compiler keeps for itself, are put back.
        unsafe {
            asm!(
                "push {{r2, r6, r7}}",
                "mov r7, r9",
                // q5: the step from a channel to the next, in both 64-bit lanes.
                "mov r9, #8",
                "vmov.i32 q5, #0",
                "vmov.32 q5[0], r9",
                "vmov.32 q5[2], r9",
                // q4: where the channel begins in the first tile and the second, one turn back.
                "vmov.i32 q4, #0",
                "sub r0, r0, #256",
                "vmov.32 q4[0], r0",
                "add r0, r0, #128",
                "vmov.32 q4[2], r0",
                "2:",
                "vmov q6, q4",
                "vadd.i32 q7, q4, q5",
                "vadd.i32 q4, q7, q5",
                "mov r0, #0",
                "mov r2, #0",
                $($first,)*
                "tst r11, #16",
                "beq 3f",
                turn!(),
                "3:",
                "tst r11, #32",
                "beq 4f",
                turn!(),
                turn!(),
                "4:",
                "lsrs r9, r11, #6",
                "beq 6f",
                "5:",
                turn!(),
                turn!(),
                turn!(),
                turn!(),
                "subs r9, #1",
                "bne 5b",
                "6:",
                "tst r11, #8",
                "beq 7f",
                "mov r9, #8",
                "vctp.8 r9",
                "vpsttt",
                "vldrdt.u64 q0, [q6, #256]",
                "vldrdt.u64 q1, [q7, #256]",
                "vldrbt.u8 q2, [r1], #8",
                "vpstt",
                "vmlavat.s8 r0, q0, q2",
                "vmlavat.s8 r2, q1, q2",
                $($odd,)*
                "7:",
                "sub r1, r1, r11",
                "ldr r9, [sp]",
                $($last,)*
                "strd r0, r2, [r9], #8",
                "str r9, [sp]",
                // A row of sums ends where an aligned one begins.
                "tst r9, #63",
                "bne 2b",
                "pop {{r2, r6, r7}}",
                inout("r0") $tiles.as_ptr() => _, inout("r1") row0 => _, inout("r2") $sums.0.as_mut_ptr() => _,
                inout("r3") row1 => _, inout("r5") row2 => _, inout("r9") row3 => _, in("r11") $bytes,
                out("r4") _, out("r8") _, out("r10") _, out("r12") _, out("lr") _,
                out("q0") _, out("q1") _, out("q2") _, out("q3") _, out("q4") _, out("q5") _, out("q6") _,
                out("q7") _,
            );
        }
    }};
}

/// Least and largest of 0 and the row's values, each multiplied as the further instructions say.
macro_rules! range {
    ($row:expr, $smoothing:expr $(, $smooth:literal)*) => {{
        let (mut min, mut max) = (0_u32, 0_u32);
        // SAFETY: a predicated loop reads as many values as the row has, and the smoothing is as long if it
        // is read.
        unsafe {
            asm!(
                "vmov.i32 q2, #0",
                "vmov.i32 q3, #0",
                "dlstp.32 lr, r4",
                "2:",
                "vldrw.u32 q0, [r0], #16",
                $($smooth,)*
                "vminnm.f32 q2, q2, q0",
                "vmaxnm.f32 q3, q3, q0",
                "letp lr, 2b",
                "vminnmv.f32 r2, q2",
                "vmaxnmv.f32 r3, q3",
                inout("r0") $row.as_ptr() => _, inout("r1") $smoothing.as_ptr() => _,
                inout("r2") min, inout("r3") max, in("r4") $row.len(),
                out("lr") _, out("q0") _, out("q1") _, out("q2") _, out("q3") _,
                options(readonly, nostack),
            );
        }
        (f32::from_bits(min), f32::from_bits(max))
    }};
}

/// Writes the row's values as int8, each multiplied first as the further instructions say.
macro_rules! narrow {
    ($row:expr, $smoothing:expr, $quantized:expr, $inverse:expr, $shift:expr $(, $smooth:literal)*) => {
        // SAFETY: as in `range`; as many bytes are written.
        unsafe {
            asm!(
                "vdup.32 q2, {low}",
                "vdup.32 q3, {high}",
                "dlstp.32 lr, r4",
                "2:",
                "vldrw.u32 q0, [r0], #16",
                $($smooth,)*
                "vmul.f32 q0, q0, {inverse}",
                "vadd.f32 q0, q0, {shift}",
                "vcvtn.s32.f32 q0, q0",
                "vmax.s32 q0, q0, q2",
                "vmin.s32 q0, q0, q3",
                "vstrb.32 q0, [r2], #4",
                "letp lr, 2b",
                inout("r0") $row.as_ptr() => _, inout("r1") $smoothing.as_ptr() => _,
                inout("r2") $quantized.as_mut_ptr() => _, in("r4") $row.len(),
                low = in(reg) -128, high = in(reg) 127,
                inverse = in(reg) $inverse.to_bits(), shift = in(reg) $shift.to_bits(),
                out("lr") _, out("q0") _, out("q1") _, out("q2") _, out("q3") _,
                options(nostack),
            );
        }
    };
}

/// Rows that share one pass over the weights.
const ROWS: usize = 4;

/// Sums `[rows][channels]`; by the alignment the assembly sees where a row ends.
#[repr(align(64))]
struct Sums([[i32; 16]; ROWS]);

fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let depth = tiles.len() / channels.len().max(1);
    let groups = rows.chunks(ROWS * depth * 8).zip(row_scales.chunks(ROWS));
    let mut sums = Sums([[0; 16]; ROWS]);
    for ((rows, scales), out) in groups.zip(out.chunks_mut(ROWS * width)) {
        let blocks = tiles.chunks_exact(depth.max(1)).zip(channels);
        for (block, (tiles, channels)) in blocks.enumerate() {
            block_sums(rows, tiles, &mut sums);
            let columns = block * 16..width.min(block * 16 + 16);
            for ((sums, &row), out) in sums.0.iter().zip(scales).zip(out.chunks_mut(width)) {
                finish(sums, row, channels, out.get_mut(columns.clone()).unwrap_or_default());
            }
        }
    }
}

/// Products of up to four rows of `tiles.len()` · 8 bytes with 16 channels. Where a row is missing, another
/// stands for it.
fn block_sums(rows: &[i8], tiles: &[Tile], sums: &mut Sums) {
    let bytes = tiles.len() * 8;
    let row = |index: usize| rows.get(index * bytes..).filter(|row| !row.is_empty()).unwrap_or(rows).as_ptr();
    if rows.len() <= 2 * bytes {
        products!(
            tiles, bytes, sums, [row(0), row(1), row(1), row(1)],
            first: ["mov r4, #0", "mov r6, #0"],
            turn: ["vldrb.u8 q3, [r3], #16", "vmlava.s8 r4, q0, q3", "vmlava.s8 r6, q1, q3"],
            odd: ["vpsttt", "vldrbt.u8 q3, [r3], #8", "vmlavat.s8 r4, q0, q3", "vmlavat.s8 r6, q1, q3"],
            last: ["sub r3, r3, r11", "strd r4, r6, [r9, #64]"]
        );
    } else {
        products!(
            tiles, bytes, sums, [row(0), row(1), row(2), row(3)],
            first: [
                "mov r4, #0", "mov r6, #0", "mov r8, #0", "mov r10, #0", "mov r12, #0", "mov lr, #0"
            ],
            turn: [
                "vldrb.u8 q3, [r3], #16", "vmlava.s8 r4, q0, q3", "vmlava.s8 r6, q1, q3",
                "vldrb.u8 q2, [r5], #16", "vmlava.s8 r8, q0, q2", "vmlava.s8 r10, q1, q2",
                "vldrb.u8 q3, [r7], #16", "vmlava.s8 r12, q0, q3", "vmlava.s8 lr, q1, q3"
            ],
            odd: [
                "vpsttt", "vldrbt.u8 q3, [r3], #8", "vmlavat.s8 r4, q0, q3", "vmlavat.s8 r6, q1, q3",
                "vpsttt", "vldrbt.u8 q2, [r5], #8", "vmlavat.s8 r8, q0, q2", "vmlavat.s8 r10, q1, q2",
                "vpsttt", "vldrbt.u8 q3, [r7], #8", "vmlavat.s8 r12, q0, q3", "vmlavat.s8 lr, q1, q3"
            ],
            last: [
                "sub r3, r3, r11", "sub r5, r5, r11", "sub r7, r7, r11", "strd r4, r6, [r9, #64]",
                "strd r8, r10, [r9, #128]", "strd r12, lr, [r9, #192]"
            ]
        );
    }
}

/// [`lanes::quantize`](super::lanes::quantize), four values a turn.
fn quantize(row: &[f32], smoothing: &[f32], quantized: &mut [i8]) -> RowScale {
    let length = row.len().min(quantized.len());
    let fits = length > 0 && (smoothing.is_empty() || smoothing.len() >= length);
    let row = row.get(..length).unwrap_or_default();
    let (min, max) = match smoothing.is_empty() {
        _ if !fits => (0.0, 0.0),
        true => range!(row, smoothing),
        false => range!(row, smoothing, "vldrw.u32 q1, [r1], #16", "vmul.f32 q0, q0, q1"),
    };
    let Some((scale, inverse, shift)) = row_scale(min, max) else {
        quantized.fill(0);
        return RowScale { scale: 1.0, zero_point: 0 };
    };
    if smoothing.is_empty() {
        narrow!(row, smoothing, quantized, inverse, shift);
    } else {
        narrow!(row, smoothing, quantized, inverse, shift, "vldrw.u32 q1, [r1], #16", "vmul.f32 q0, q0, q1");
    }
    quantized.get_mut(length..).unwrap_or_default().fill(0);
    scale
}

/// [`lanes::quantize_symmetric`](super::lanes::quantize_symmetric).
fn quantize_symmetric(row: &[f32], quantized: &mut [i8]) -> f32 {
    let row = row.get(..row.len().min(quantized.len())).unwrap_or_default();
    let (min, max) = if row.is_empty() { (0.0, 0.0) } else { range!(row, [0.0_f32; 0]) };
    let Some((scale, inverse)) = symmetric_scale(max.larger(-min)) else {
        quantized.fill(0);
        return 0.0;
    };
    narrow!(row, [0.0_f32; 0], quantized, inverse, 0.0_f32);
    quantized.get_mut(row.len()..).unwrap_or_default().fill(0);
    scale
}

/// `vmlava` on registers, 16 multiply-accumulates each.
fn peak(rounds: usize) -> usize {
    let (mut a, mut b) = (0, 0);
    for _ in 0..rounds {
        // SAFETY: registers only.
        unsafe {
            asm!("vmlava.s8 r0, q0, q1", "vmlava.s8 r2, q0, q1", inout("r0") a, inout("r2") b,
                options(nomem, nostack));
        }
    }
    core::hint::black_box([a, b]);
    rounds * 2 * 16
}
