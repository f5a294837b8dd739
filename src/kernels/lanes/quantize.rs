//! Rows of activations to int8, each over its own range.

use super::{LANES, Lanes, Max, Min, ROUND, copy, exponentials, get, parts};

/// Scale and zero point of one row of int8 activations: x ≈ scale · (q − zero_point).
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RowScale {
    /// Step between two neighbouring values.
    pub scale: f32,
    /// The int8 that stands for 0, −128..=127.
    pub zero_point: i32,
}

/// What is quantised, computed part by part from one row or two.
trait Values {
    /// Whether none is below zero.
    const POSITIVE: bool = false;
    fn length(&self) -> usize;
    fn get<V: Lanes>(&self, index: usize) -> V;
}

/// A row as it is.
struct Plain<'a>(&'a [f32]);

/// row · factors.
struct Smoothed<'a>(&'a [f32], &'a [f32]);

/// row · inverse · factors.
struct Normalised<'a>(&'a [f32], f32, &'a [f32]);

impl Values for Plain<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn get<V: Lanes>(&self, index: usize) -> V {
        get(self.0, index, 0.0)
    }
}

impl Values for Smoothed<'_> {
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn get<V: Lanes>(&self, index: usize) -> V {
        get::<V>(self.0, index, 0.0).mul(get(self.1, index, 0.0))
    }
}

impl Values for Normalised<'_> {
    const POSITIVE: bool = true;
    #[inline(always)]
    fn length(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn get<V: Lanes>(&self, index: usize) -> V {
        get::<V>(self.0, index, 0.0).mul(V::splat(self.1)).mul(get(self.2, index, 0.0))
    }
}

/// Quantises `row · smoothing`, element by element, to int8 over its own range, 0 included; an empty
/// `smoothing` is all ones. `quantized` may be longer than `row`; the rest becomes zero bytes. Bytes
/// have the bits of [`Lanes::FLIP`] turned.
#[inline(always)]
pub fn quantize<V: Lanes>(row: &[f32], smoothing: &[f32], quantized: &mut [i8]) -> RowScale {
    if smoothing.is_empty() {
        quantize_values::<V, _>(&Plain(row), quantized)
    } else {
        quantize_values::<V, _>(&Smoothed(row, smoothing), quantized)
    }
}

/// softmax(scores) · value_scales, quantised like [`quantize`]; `scores` is left as scratch.
#[inline(always)]
pub fn attention_weights<V: Lanes>(
    scores: &mut [f32],
    value_scales: &[f32],
    quantized: &mut [i8],
) -> RowScale {
    let inverse = exponentials::<V>(scores);
    quantize_values::<V, _>(&Normalised(scores, inverse, value_scales), quantized)
}

#[inline(always)]
fn quantize_values<V: Lanes, X: Values>(values: &X, quantized: &mut [i8]) -> RowScale {
    let (mut low, mut high) = (V::splat(0.0), V::splat(0.0));
    for index in 0..values.length().div_ceil(LANES) {
        let x = values.get(index);
        if !X::POSITIVE {
            low = low.smaller(x);
        }
        high = high.larger(x);
    }
    let min = if X::POSITIVE { 0.0 } else { low.fold::<Min>() };
    let max = high.fold::<Max>();
    let Some((scale, inverse, shift)) = row_scale(min, max) else {
        quantized.fill(V::FLIP as i8);
        return RowScale { scale: 1.0, zero_point: 0 };
    };
    let (inverse, shift) = (V::splat(inverse), V::splat(shift));
    for index in 0..values.length().div_ceil(LANES) {
        let x = values.get::<V>(index).mul(inverse).add(shift);
        let (parts, rest) = quantized.as_chunks_mut();
        match parts.get_mut(index) {
            Some(part) => x.narrow_activation(part),
            None => {
                let mut all = [0; LANES];
                x.narrow_activation(&mut all);
                copy(rest, &all);
            }
        }
    }
    clear_from(quantized, values.length());
    scale
}

/// The scale of a row whose values go from `min` ≤ 0 to `max` ≥ 0, and the factor and summand that bring
/// them to −128..=127; `None` for a row of zeros, or one so small that its inverse would overflow.
#[inline(always)]
pub(in crate::kernels) fn row_scale(min: f32, max: f32) -> Option<(RowScale, f32, f32)> {
    let range = max - min;
    if range < 1e-30 {
        return None;
    }
    let inverse = 255.0 / range;
    let zero = -128.0 - min * inverse + ROUND - ROUND;
    Some((RowScale { scale: range / 255.0, zero_point: zero as i32 }, inverse, zero))
}

/// The scale of a row of magnitudes up to `max`, and the factor that brings them to −127..=127: no product rounds to more.
/// `None` as of [`row_scale`].
#[inline(always)]
pub(in crate::kernels) fn symmetric_scale(max: f32) -> Option<(f32, f32)> {
    if max < 1e-30 { None } else { Some((max / 127.0, 127.0 / max)) }
}

/// Quantises one row to −127..=127 with zero at 0; x ≈ returned scale · q.
#[inline(always)]
pub fn quantize_symmetric<V: Lanes>(row: &[f32], quantized: &mut [i8]) -> f32 {
    let zero = V::splat(0.0);
    let mut max = zero;
    for index in 0..parts(row) {
        let x = get(row, index, 0.0);
        max = max.larger(x).larger(zero.sub(x));
    }
    let max = max.fold::<Max>();
    let Some((scale, inverse)) = symmetric_scale(max) else {
        quantized.fill(0);
        return 0.0;
    };
    let (inverse, end) = (V::splat(inverse), V::splat(127.0));
    for index in 0..parts(row) {
        let x = get::<V>(row, index, 0.0).mul(inverse);
        let x = x.larger(zero.sub(end)).smaller(end);
        let (parts, rest) = quantized.as_chunks_mut();
        match parts.get_mut(index) {
            Some(part) => x.narrow(part),
            None => {
                let mut all = [0; LANES];
                x.narrow(&mut all);
                copy(rest, &all);
            }
        }
    }
    clear_from(quantized, row.len());
    scale
}

/// Zeros from place `length` on.
#[inline(always)]
fn clear_from(quantized: &mut [i8], length: usize) {
    if let Some(rest @ [_, ..]) = quantized.get_mut(length..) {
        rest.fill(0);
    }
}
