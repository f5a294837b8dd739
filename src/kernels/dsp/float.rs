//! What the single-precision FPU of M4F, M7 and M33 does in front of a product and behind it: loads and stores
//! of several registers, and `vcvtr` and `ssat` where portable code rounds and clamps in steps.
//!
//! The functions are naked because a compiler that knows only single precision lets no assembly say
//! which of the FPU's registers it uses; behind a call it counts on none of those that are touched here.

use core::arch::naked_asm;

use crate::kernels::lanes::quantize::{row_scale, symmetric_scale};
use crate::kernels::lanes::{Number, RowScale};
use crate::kernels::scalar;
use crate::weights::Channels;

/// [`scalar::finish`].
#[inline(always)]
pub fn finish(sums: &[i32; 16], row: RowScale, channels: &Channels, out: &mut [f32]) {
    match out.first_chunk_mut() {
        Some(out) => finish_all(sums, channels, out, &row),
        None => scalar::finish(sums, row, channels, out),
    }
}

/// Four columns a turn, sums in s4 to s7, scales in s8 to s11, biases in s12 to s15.
#[unsafe(naked)]
extern "C" fn finish_all(sums: &[i32; 16], channels: &Channels, out: &mut [f32; 16], row: &RowScale) {
    naked_asm!(
        ".fpu fpv4-sp-d16",
        "push {{r4, r5, r6, r7, r8}}",
        "vldr s0, [r3]",
        "ldr r3, [r3, #4]",
        "add r8, r1, #64",
        "add r12, r1, #128",
        ".rept 4",
        "ldrd r4, r5, [r0], #8",
        "ldrd r6, r7, [r12], #8",
        "mls r4, r3, r6, r4",
        "mls r5, r3, r7, r5",
        "vmov s4, s5, r4, r5",
        "ldrd r4, r5, [r0], #8",
        "ldrd r6, r7, [r12], #8",
        "mls r4, r3, r6, r4",
        "mls r5, r3, r7, r5",
        "vmov s6, s7, r4, r5",
        "vldm r1!, {{s8, s9, s10, s11}}",
        "vldm r8!, {{s12, s13, s14, s15}}",
        "vcvt.f32.s32 s4, s4",
        "vcvt.f32.s32 s5, s5",
        "vcvt.f32.s32 s6, s6",
        "vcvt.f32.s32 s7, s7",
        "vmul.f32 s8, s8, s0",
        "vmul.f32 s9, s9, s0",
        "vmul.f32 s10, s10, s0",
        "vmul.f32 s11, s11, s0",
        "vmul.f32 s4, s4, s8",
        "vmul.f32 s5, s5, s9",
        "vmul.f32 s6, s6, s10",
        "vmul.f32 s7, s7, s11",
        "vadd.f32 s4, s4, s12",
        "vadd.f32 s5, s5, s13",
        "vadd.f32 s6, s6, s14",
        "vadd.f32 s7, s7, s15",
        "vstm r2!, {{s4, s5, s6, s7}}",
        ".endr",
        "pop {{r4, r5, r6, r7, r8}}",
        "bx lr",
    )
}

/// [`quantize`](crate::kernels::lanes::quantize), eight values a turn.
pub fn quantize(row: &[f32], smoothing: &[f32], quantized: &mut [i8]) -> RowScale {
    let [min, max] = range(row, smoothing);
    let Some((scale, inverse, shift)) = row_scale(min, max) else {
        quantized.fill(0);
        return RowScale { scale: 1.0, zero_point: 0 };
    };
    narrow(row, smoothing, quantized, inverse, shift);
    scale
}

/// [`quantize_symmetric`](crate::kernels::lanes::quantize_symmetric).
pub fn quantize_symmetric(row: &[f32], quantized: &mut [i8]) -> f32 {
    let [min, max] = range(row, &[]);
    let Some((scale, inverse)) = symmetric_scale(max.larger(-min)) else {
        quantized.fill(0);
        return 0.0;
    };
    narrow(row, &[], quantized, inverse, 0.0);
    scale
}

/// A row in eights, and what is left of it with zeros behind it.
fn eights(row: &[f32]) -> (&[[f32; 8]], [f32; 8]) {
    let (eights, rest) = row.as_chunks();
    let mut last = [0.0; 8];
    for (place, x) in last.iter_mut().zip(rest) {
        *place = *x;
    }
    (eights, last)
}

/// Least and largest of 0 and all values. Two are compared with each other first: three comparisons for both.
fn range(row: &[f32], smoothing: &[f32]) -> [f32; 2] {
    let ((eights, rest), (factors, last)) = (eights(row), eights(smoothing));
    let mut range = [0.0_f32; 2];
    let mut take = |eight: [f32; 8]| {
        for &[a, b] in eight.as_chunks::<2>().0 {
            let [less, more] = if a < b { [a, b] } else { [b, a] };
            range = [range[0].smaller(less), range[1].larger(more)];
        }
    };
    if smoothing.is_empty() {
        eights.iter().chain([&rest]).for_each(|x| take(*x));
    } else {
        let pairs = eights.iter().zip(factors).chain([(&rest, &last)]);
        pairs.for_each(|(x, f)| take(core::array::from_fn(|i| x[i] * f[i])));
    }
    range
}

/// x · inverse + shift of each x = row · smoothing, rounded to int8; zeros behind them.
fn narrow(row: &[f32], smoothing: &[f32], quantized: &mut [i8], inverse: f32, shift: f32) {
    let ((eights, rest), (factors, last)) = (eights(row), eights(smoothing));
    let smooth = !smoothing.is_empty();
    let write = |x: &[[f32; 8]], factors: &[[f32; 8]], bytes: &mut [[i8; 8]]| {
        let count = x.len().min(bytes.len()).min(if smooth { factors.len() } else { usize::MAX });
        if count > 0 {
            let range = Range { inverse, shift, eights: count };
            let narrow = if smooth { narrow_smoothed } else { narrow_plain };
            // SAFETY: there are that many eights of values, of bytes, and of factors where those are read.
            unsafe { narrow(x.as_ptr().cast(), factors.as_ptr().cast(), bytes.as_mut_ptr().cast(), &range) }
        }
    };
    write(eights, factors, quantized.as_chunks_mut().0);
    let behind = quantized.get_mut(eights.len() * 8..).unwrap_or_default();
    behind.fill(0);
    if !row.len().is_multiple_of(8) {
        let mut bytes = [[0; 8]];
        write(&[rest], &[last], &mut bytes);
        for (place, byte) in behind.iter_mut().zip(bytes.as_flattened()).take(row.len() % 8) {
            *place = *byte;
        }
    }
}

/// How a row becomes int8: x · inverse + shift, rounded.
#[repr(C)]
struct Range {
    inverse: f32,
    shift: f32,
    /// Eights of values, one at least.
    eights: usize,
}

/// Both narrowing functions, with what they do first to each eight, s0 to s7. `vcvtr` rounds to the nearest, ties
/// to even, unless somebody has changed the processor's mode.
macro_rules! narrow_eights {
    ($($smooth:literal),*) => {
        naked_asm!(
            ".fpu fpv4-sp-d16",
            "push {{r4, r5}}",
            "vpush {{s16, s17}}",
            "vldr s16, [r3]",
            "vldr s17, [r3, #4]",
            "ldr r3, [r3, #8]",
            "2:",
            "vldm r0!, {{s0, s1, s2, s3, s4, s5, s6, s7}}",
            $($smooth,)*
            ".irp i, 0, 1, 2, 3, 4, 5, 6, 7",
            "vmul.f32 s\\i, s\\i, s16",
            "vadd.f32 s\\i, s\\i, s17",
            "vcvtr.s32.f32 s\\i, s\\i",
            ".endr",
            "vmov r4, r5, s0, s1",
            "ssat r4, #8, r4",
            "ssat r5, #8, r5",
            "strb r4, [r2], #1",
            "strb r5, [r2], #1",
            "vmov r4, r5, s2, s3",
            "ssat r4, #8, r4",
            "ssat r5, #8, r5",
            "strb r4, [r2], #1",
            "strb r5, [r2], #1",
            "vmov r4, r5, s4, s5",
            "ssat r4, #8, r4",
            "ssat r5, #8, r5",
            "strb r4, [r2], #1",
            "strb r5, [r2], #1",
            "vmov r4, r5, s6, s7",
            "ssat r4, #8, r4",
            "ssat r5, #8, r5",
            "strb r4, [r2], #1",
            "strb r5, [r2], #1",
            "subs r3, #1",
            "bne 2b",
            "vpop {{s16, s17}}",
            "pop {{r4, r5}}",
            "bx lr",
        )
    };
}

/// int8 of a row.
#[unsafe(naked)]
unsafe extern "C" fn narrow_plain(row: *const f32, smoothing: *const f32, quantized: *mut i8, range: &Range) {
    narrow_eights!()
}

/// int8 of row · smoothing.
#[unsafe(naked)]
unsafe extern "C" fn narrow_smoothed(
    row: *const f32,
    smoothing: *const f32,
    quantized: *mut i8,
    range: &Range,
) {
    narrow_eights!(
        "vldm r1!, {{s8, s9, s10, s11, s12, s13, s14, s15}}",
        "vmul.f32 s0, s0, s8",
        "vmul.f32 s1, s1, s9",
        "vmul.f32 s2, s2, s10",
        "vmul.f32 s3, s3, s11",
        "vmul.f32 s4, s4, s12",
        "vmul.f32 s5, s5, s13",
        "vmul.f32 s6, s6, s14",
        "vmul.f32 s7, s7, s15"
    )
}
