//! Cortex-M with Helium (M55, M85): `vmlava` adds sixteen products to a scalar register.
//!
//! A gather puts eight inputs of one channel from each of two tiles side by side, where they meet
//! sixteen activations as those lie in memory. Two rows × two channels share their loads. The f32
//! work is the portable one, which the compiler vectorises for `-C target-cpu=cortex-m55`.

use core::arch::asm;
use core::mem::MaybeUninit;

use super::lanes::{Portable, RowScale, row_scale};
use super::scalar::finish;
use super::{Matmul, kernel_set};
use crate::weights::Tile;

kernel_set!("helium", Portable, quantize: quantize);

/// Rows that share one pass over the weights.
const ROWS: usize = 2;

fn matmul(product: Matmul<'_>) {
    let Matmul { rows, row_scales, tiles, channels, out, width } = product;
    let depth = tiles.len() / channels.len().max(1);
    let groups = rows.chunks(ROWS * depth * 8).zip(row_scales.chunks(ROWS));
    let mut sums = MaybeUninit::uninit();
    for ((rows, scales), out) in groups.zip(out.chunks_mut(ROWS * width)) {
        // A single row stands for its missing partner.
        let second = rows.get(depth * 8..).filter(|row| !row.is_empty()).unwrap_or(rows);
        let blocks = tiles.chunks_exact(depth.max(1)).zip(channels);
        for (block, (tiles, channels)) in blocks.enumerate() {
            let sums = block_sums([rows, second], tiles, &mut sums);
            let columns = block * 16..width.min(block * 16 + 16);
            for ((sums, &row), out) in sums.iter().zip(scales).zip(out.chunks_mut(width)) {
                finish(sums, row, channels, out.get_mut(columns.clone()).unwrap_or_default());
            }
        }
    }
}

/// Products of two rows with 16 channels: `[rows][channels]`.
fn block_sums<'s>(
    rows: [&[i8]; ROWS],
    tiles: &[Tile],
    sums: &'s mut MaybeUninit<[[i32; 16]; ROWS]>,
) -> &'s [[i32; 16]; ROWS] {
    let Some(last) = tiles.last() else { return sums.write([[0; 16]; ROWS]) };
    // SAFETY: a row holds 8 bytes a tile. The inner loop takes two tiles a turn; the odd one, `last`, is read
    // under a predicate of 8 bytes. Rows and tiles are read only, `sums` is written whole. r6, which the
    // compiler keeps for itself, is put back.
    unsafe {
        asm!(
            "push {{r6, r7}}",
            "mov r6, #8",
            // q5: the step from a channel to the next, in both 64-bit lanes.
            "vmov.i32 q5, #0",
            "vmov.32 q5[0], r6",
            "vmov.32 q5[2], r6",
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
            "mov r3, r9",
            "mov r5, r11",
            "mov r0, #0",
            "mov r2, #0",
            "mov r4, #0",
            "mov r8, #0",
            "lsr lr, r12, #1",
            "wls lr, lr, 4f",
            "3:",
            "vldrd.u64 q0, [q6, #256]!",
            "vldrb.u8 q2, [r3], #16",
            "vldrd.u64 q1, [q7, #256]!",
            "vmlava.s8 r0, q0, q2",
            "vldrb.u8 q3, [r5], #16",
            "vmlava.s8 r2, q1, q2",
            "vmlava.s8 r4, q0, q3",
            "vmlava.s8 r8, q1, q3",
            "le lr, 3b",
            "4:",
            "tst r12, #1",
            "beq 5f",
            "mov lr, #8",
            "vctp.8 lr",
            "add lr, r1, #8",
            "vpstttt",
            "vldrbt.u8 q0, [r1]",
            "vldrbt.u8 q1, [lr]",
            "vldrbt.u8 q2, [r3]",
            "vldrbt.u8 q3, [r5]",
            "vmlava.s8 r0, q0, q2",
            "vmlava.s8 r2, q1, q2",
            "vmlava.s8 r4, q0, q3",
            "vmlava.s8 r8, q1, q3",
            "5:",
            "strd r0, r2, [r10], #8",
            "strd r4, r8, [r10, #56]",
            "add r1, r1, #16",
            "subs r6, #1",
            "bne 2b",
            "pop {{r6, r7}}",
            inout("r0") tiles.as_ptr() => _, inout("r1") last => _, in("r9") rows[0].as_ptr(),
            inout("r10") sums.as_mut_ptr() => _, in("r11") rows[1].as_ptr(), in("r12") tiles.len(),
            out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _, out("lr") _,
            out("q0") _, out("q1") _, out("q2") _, out("q3") _, out("q4") _, out("q5") _, out("q6") _,
            out("q7") _,
        );
        sums.assume_init_ref()
    }
}

/// [`lanes::quantize`](super::lanes::quantize), four values a turn.
fn quantize(row: &[f32], smoothing: &[f32], quantized: &mut [i8]) -> RowScale {
    // Without smoothing the row is multiplied by a one that does not move on.
    let ones = [1.0; 4];
    let (factors, step) = if smoothing.is_empty() { (&ones[..], 0) } else { (smoothing, 16) };
    let length = row.len().min(quantized.len());
    if length == 0 || (step != 0 && smoothing.len() < length) {
        quantized.fill(0);
        return RowScale { scale: 1.0, zero_point: 0 };
    }
    let (min, max) = range(row, factors, step, length);
    let Some((scale, inverse, shift)) = row_scale(min, max) else {
        quantized.fill(0);
        return RowScale { scale: 1.0, zero_point: 0 };
    };
    // SAFETY: a predicated loop touches `length` values of the row and of the factors, or the same four
    // ones again and again, and `length` bytes of the result.
    unsafe {
        asm!(
            "vdup.32 q2, {low}",
            "vdup.32 q3, {high}",
            "dlstp.32 lr, {length}",
            "2:",
            "vldrw.u32 q0, [{x}], #16",
            "vldrw.u32 q1, [{f}]",
            "vmul.f32 q0, q0, q1",
            "vmul.f32 q0, q0, {inverse}",
            "vadd.f32 q0, q0, {shift}",
            "add {f}, {f}, {step}",
            "vcvtn.s32.f32 q0, q0",
            "vmax.s32 q0, q0, q2",
            "vmin.s32 q0, q0, q3",
            "vstrb.32 q0, [{q}], #4",
            "letp lr, 2b",
            x = inout(reg) row.as_ptr() => _, f = inout(reg) factors.as_ptr() => _,
            q = inout(reg) quantized.as_mut_ptr() => _, step = in(reg) step, length = in(reg) length,
            low = in(reg) -128, high = in(reg) 127,
            inverse = in(reg) inverse.to_bits(), shift = in(reg) shift.to_bits(),
            out("lr") _, out("q0") _, out("q1") _, out("q2") _, out("q3") _,
            options(nostack),
        );
    }
    quantized.get_mut(length..).unwrap_or_default().fill(0);
    scale
}

/// Least and largest of 0 and `length` values of row · factors, whose pointer moves on by `step` bytes.
fn range(row: &[f32], factors: &[f32], step: usize, length: usize) -> (f32, f32) {
    let (mut min, mut max) = (0_u32, 0_u32);
    // SAFETY: as in `quantize`; read only.
    unsafe {
        asm!(
            "vmov.i32 q2, #0",
            "vmov.i32 q3, #0",
            "dlstp.32 lr, {length}",
            "2:",
            "vldrw.u32 q0, [{x}], #16",
            "vldrw.u32 q1, [{f}]",
            "vmul.f32 q0, q0, q1",
            "add {f}, {f}, {step}",
            "vminnm.f32 q2, q2, q0",
            "vmaxnm.f32 q3, q3, q0",
            "letp lr, 2b",
            "vminnmv.f32 {min}, q2",
            "vmaxnmv.f32 {max}, q3",
            x = inout(reg) row.as_ptr() => _, f = inout(reg) factors.as_ptr() => _,
            step = in(reg) step, length = in(reg) length, min = inout(reg) min, max = inout(reg) max,
            out("lr") _, out("q0") _, out("q1") _, out("q2") _, out("q3") _,
            options(readonly, nostack),
        );
    }
    (f32::from_bits(min), f32::from_bits(max))
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
