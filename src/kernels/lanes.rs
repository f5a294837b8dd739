//! f32 arithmetic with one meaning on every machine.
//!
//! Only IEEE add, subtract, multiply, divide, square root and comparisons, in a fixed order: a
//! reduction runs in 16 lanes and then down one fixed tree. A kernel set compiles these functions
//! for its own instructions (they are inlined into it, and the loops vectorise), which changes
//! their speed and not one bit of their results. Nothing here fuses a multiply with an add.
//!
//! Inputs are finite; what is not finite stays so and is refused by the callers' checks.

/// Lanes of a reduction.
const LANES: usize = 16;

/// 1.5 · 2²³: adding it rounds an f32 of magnitude below 2²² to the nearest integer, ties to even,
/// and leaves that integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Scale and zero point of one row of int8 activations: x ≈ scale · (q − zero_point).
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RowScale {
    /// Step between two neighbouring values.
    pub scale: f32,
    /// The int8 that stands for 0, −128..=127.
    pub zero_point: i32,
}

/// Folds `row` in 16 lanes, lane i taking elements i, i + 16, …, and then pairwise: lanes 8 apart,
/// 4 apart, 2, 1.
#[inline(always)]
fn reduce(row: &[f32], start: f32, fold: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = fold(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = fold(*lane, value);
    }
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (a, &b) in low.iter_mut().zip(high.iter()) {
            *a = join(*a, b);
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn sum(row: &[f32]) -> f32 {
    reduce(row, 0.0, |a, b| a + b, |a, b| a + b)
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// eˣ for x in −87..=88, clamped there; within 2 ulp.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, e^r by a polynomial of degree 6 fitted for relative error.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = smaller(larger(x, -87.0), 88.0);
    let shifted = x * core::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first short enough that n times it is exact
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.383_683_5e-3_f32;
    let p = p * r + 8.374_824e-3;
    let p = p * r + 4.166_822_6e-2;
    let p = p * r + 0.166_664_2;
    let p = p * r + 0.499_999_9;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    let two_to_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    p * two_to_n
}

/// The error function; absolute error below 4e-7.
///
/// x·P(x²)/Q(x²), both of degree 5, fitted for relative error on |x| ≤ 3.93 where erf rounds to 1.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = smaller(larger(x, -3.93), 3.93);
    let t = x * x;
    let p = 2.041_975_2e-6_f32;
    let p = p * t + 2.848_081_3e-4;
    let p = p * t + 3.779_587_3e-3;
    let p = p * t + 5.279_022e-2;
    let p = p * t + 0.190_783_32;
    let p = p * t + core::f32::consts::FRAC_2_SQRT_PI;
    let q = 3.800_409_5e-5_f32;
    let q = q * t + 1.165_207_5e-3;
    let q = q * t + 1.499_739_4e-2;
    let q = q * t + 0.114_257_31;
    let q = q * t + 0.502_410_05;
    let q = q * t + 1.0;
    smaller(larger(x * p / q, -1.0), 1.0)
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// GELU in its exact erf form, x·Φ(x), over a slice in place.
#[inline(always)]
pub fn gelu(row: &mut [f32]) {
    for x in row {
        *x = 0.5 * *x * (1.0 + erf(*x * core::f32::consts::FRAC_1_SQRT_2));
    }
}

/// Softmax of one row in place.
#[inline(always)]
pub fn softmax(row: &mut [f32]) {
    let max = reduce(row, f32::NEG_INFINITY, larger, larger);
    for x in row.iter_mut() {
        *x = exp(*x - max);
    }
    let inverse = 1.0 / sum(row);
    for x in row {
        *x *= inverse;
    }
}

/// LayerNorm of one row in place: (x − mean) / √(variance + ε) · weight + bias.
#[inline(always)]
pub fn layer_norm(row: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let length = row.len() as f32;
    let mean = sum(row) / length;
    for x in row.iter_mut() {
        *x -= mean;
    }
    let squares = reduce(row, 0.0, |lane, x| lane + x * x, |a, b| a + b);
    let inverse = 1.0 / libm::sqrtf(squares / length + epsilon);
    for ((x, &weight), &bias) in row.iter_mut().zip(weight).zip(bias) {
        *x = *x * inverse * weight + bias;
    }
}

/// Adds `other` to `row`.
#[inline(always)]
pub fn add(row: &mut [f32], other: &[f32]) {
    for (x, &y) in row.iter_mut().zip(other) {
        *x += y;
    }
}

/// Quantises one row to int8 over its own range, 0 included. `quantized` may be longer than `row`;
/// the rest becomes 0.
#[inline(always)]
pub fn quantize(row: &[f32], quantized: &mut [i8]) -> RowScale {
    let min = reduce(row, 0.0, smaller, smaller);
    let max = reduce(row, 0.0, larger, larger);
    let range = max - min;
    quantized.fill(0);
    // A row of zeros, or one so small that its inverse would overflow.
    if range < 1e-30 {
        return RowScale { scale: 1.0, zero_point: 0 };
    }
    let inverse = 255.0 / range;
    let zero = -128.0 - min * inverse + ROUND - ROUND;
    for (q, &x) in quantized.iter_mut().zip(row) {
        let value = smaller(larger(x * inverse + zero, -128.0), 127.0);
        *q = (value + ROUND).to_bits() as i8;
    }
    RowScale { scale: range / 255.0, zero_point: zero as i32 }
}

/// Quantises one row to −127..=127 with zero at 0; x ≈ returned scale · q.
#[inline(always)]
pub fn quantize_symmetric(row: &[f32], quantized: &mut [i8]) -> f32 {
    let max = reduce(row, 0.0, |a, b| larger(a, if b < 0.0 { -b } else { b }), larger);
    quantized.fill(0);
    if max < 1e-30 {
        return 0.0;
    }
    let inverse = 127.0 / max;
    for (q, &x) in quantized.iter_mut().zip(row) {
        let value = smaller(larger(x * inverse, -127.0), 127.0);
        *q = (value + ROUND).to_bits() as i8;
    }
    max / 127.0
}
