//! f32 arithmetic with one meaning on every machine.
//!
//! Only IEEE add, subtract, multiply, divide, square root and comparisons, in a fixed order: a
//! reduction runs in 16 lanes and then down one fixed tree. The functions are written once over
//! [`Lanes`], sixteen numbers; a kernel set gives its own registers for them, which changes their
//! speed and not one bit of their results. Nothing here fuses a multiply with an add.
//!
//! Inputs are finite; what is not finite stays so and is refused by the callers' checks.

mod products;
pub(super) mod quantize;

use crate::weights::Tile;
pub use products::{Accumulate, accumulate, dots, turn, unpack};
pub use quantize::{RowScale, attention_weights, quantize, quantize_symmetric};

use products::{transposed, unpack_group};

/// How many values are worked at once.
pub const LANES: usize = 16;

/// 1.5 · 2²³: adding it rounds an f32 of magnitude below 2²² to the nearest integer, ties to even,
/// and leaves that integer in the low bits.
pub const ROUND: f32 = 12_582_912.0;

/// One f32, or several in registers: what the polynomials are written over.
pub trait Number: Copy {
    /// `x`, in every lane.
    fn splat(x: f32) -> Self;
    /// self + other.
    fn add(self, other: Self) -> Self;
    /// self − other.
    fn sub(self, other: Self) -> Self;
    /// self · other.
    fn mul(self, other: Self) -> Self;
    /// self / other.
    fn div(self, other: Self) -> Self;
    /// The larger of two numbers; of two zeros either.
    fn larger(self, other: Self) -> Self;
    /// The smaller of two numbers; of two zeros either.
    fn smaller(self, other: Self) -> Self;
    /// 2ⁿ, where self = 1.5 · 2²³ + n with −126 ≤ n ≤ 127.
    fn power_of_two(self) -> Self;
}

/// Sixteen f32 in the registers of one instruction set.
///
/// An implementation is made of instructions that the processor may lack: values of it exist only
/// inside functions that are compiled for them and reached after they were detected.
pub trait Lanes: Number {
    /// Reads sixteen.
    fn load(from: &[f32; LANES]) -> Self;
    /// Writes sixteen.
    fn store(self, to: &mut [f32; LANES]);
    /// Reads fewer than sixteen; the lanes that are missing are `fill`.
    #[inline(always)]
    fn load_part(from: &[f32], fill: f32) -> Self {
        Self::load(&padded(from, fill))
    }
    /// Writes fewer than sixteen.
    #[inline(always)]
    fn store_part(self, to: &mut [f32]) {
        let mut all = [0.0; LANES];
        self.store(&mut all);
        copy(to, &all);
    }
    /// Nearest integers, ties to even, cut to −128..=127.
    fn narrow(self, to: &mut [i8; LANES]);
    /// Whether sixteen lanes take so few registers that several of them fit.
    const WIDE: bool = false;
    /// Changes the rows of a square for its columns. The sum of each new row is added to two partial sums that
    /// stand beside each other.
    #[inline(always)]
    fn turn_square(square: &[[i8; 8]; 8], sums: &mut [i32; 16]) -> [[i8; 8]; 8] {
        let turned = transposed(square);
        for (sum, row) in sums.iter_mut().step_by(2).zip(&turned) {
            *sum += row.iter().map(|&weight| i32::from(weight)).sum::<i32>();
        }
        turned
    }
    /// Unpacks up to four tiles of int4 weights that share the multipliers of their 16 channels; low half bytes are
    /// those of channels 0 to 7, high ones of 8 to 15.
    #[inline(always)]
    fn unpack_group(multipliers: &[u8; 16], nibbles: &[[[u8; 8]; 8]], tiles: &mut [Tile]) {
        unpack_group::<Self>(multipliers, nibbles, tiles);
    }
    /// Which bits of an activation's byte are turned for the set's multiply instruction: 0x80 where
    /// that takes unsigned activations.
    const FLIP: u8 = 0;
    /// [`Lanes::narrow`] with [`Lanes::FLIP`].
    #[inline(always)]
    fn narrow_activation(self, to: &mut [i8; LANES]) {
        self.narrow(to);
    }
    /// [`exp`] of each lane.
    #[inline(always)]
    fn exp(self) -> Self {
        exp(self)
    }
    /// [`erf`] of each lane.
    #[inline(always)]
    fn erf(self) -> Self {
        erf(self)
    }
    /// GELU of each lane.
    #[inline(always)]
    fn gelu(self) -> Self {
        gelu_of(self)
    }
    /// Lane i joined with lane i + 8, then 4, 2 and 1 apart: what stands in the first lane.
    fn fold<J: Join>(self) -> f32;
}

/// What a [`Lanes::fold`] does with two values. Types instead of closures, because those would not be
/// compiled for the instructions of the function that they are passed to.
pub trait Join {
    /// Both together.
    fn join<V: Lanes>(a: V, b: V) -> V;
}

/// a + b.
pub struct Sum;
/// The larger.
pub struct Max;
/// The smaller.
pub struct Min;

impl Join for Sum {
    #[inline(always)]
    fn join<V: Lanes>(a: V, b: V) -> V {
        a.add(b)
    }
}
impl Join for Max {
    #[inline(always)]
    fn join<V: Lanes>(a: V, b: V) -> V {
        a.larger(b)
    }
}
impl Join for Min {
    #[inline(always)]
    fn join<V: Lanes>(a: V, b: V) -> V {
        a.smaller(b)
    }
}

impl Number for f32 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self + other
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self - other
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self * other
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self / other
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        if self < other { self } else { other }
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        f32::from_bits((self.to_bits() << 23).wrapping_add(0x3f80_0000))
    }
}

/// Lanes for any machine.
#[derive(Clone, Copy, Debug)]
pub struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(core::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Number for Portable {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; LANES])
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, f32::add)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, f32::sub)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, f32::mul)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, f32::div)
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        self.zip(other, f32::larger)
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        self.zip(other, f32::smaller)
    }
    #[inline(always)]
    fn power_of_two(self) -> Self {
        Self(self.0.map(f32::power_of_two))
    }
}

impl Lanes for Portable {
    #[inline(always)]
    fn load(from: &[f32; LANES]) -> Self {
        Self(*from)
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }
    #[inline(always)]
    fn narrow(self, to: &mut [i8; LANES]) {
        let rounded = self.larger(Self::splat(-128.0)).smaller(Self::splat(127.0)).add(Self::splat(ROUND));
        for (to, x) in to.iter_mut().zip(rounded.0) {
            *to = x.to_bits() as i8;
        }
    }
    // Lane by lane: sixteen at once would need more registers than most machines have.
    #[inline(always)]
    fn exp(mut self) -> Self {
        for x in &mut self.0 {
            *x = exp(*x);
        }
        self
    }
    #[inline(always)]
    fn erf(mut self) -> Self {
        for x in &mut self.0 {
            *x = erf(*x);
        }
        self
    }
    #[inline(always)]
    fn gelu(mut self) -> Self {
        for x in &mut self.0 {
            *x = gelu_of(*x);
        }
        self
    }
    #[inline(always)]
    fn fold<J: Join>(self) -> f32 {
        let apart = |v: Self, by: usize| Self(core::array::from_fn(|i| v.0[(i + by) % LANES]));
        let v = J::join(self, apart(self, 8));
        let v = J::join(v, apart(v, 4));
        let v = J::join(v, apart(v, 2));
        J::join(v, apart(v, 1)).0[0]
    }
}

/// How many parts of sixteen a row has, the last perhaps not whole.
#[inline(always)]
fn parts(row: &[f32]) -> usize {
    row.len().div_ceil(LANES)
}

/// Part `index` of a row; what is missing of it is `fill`.
#[inline(always)]
fn get<V: Lanes>(row: &[f32], index: usize, fill: f32) -> V {
    let (parts, rest) = row.as_chunks();
    match parts.get(index) {
        Some(part) => V::load(part),
        None => V::load_part(rest, fill),
    }
}

/// Writes part `index` of a row, as far as the row goes; what was written, 0 where the row had ended.
#[inline(always)]
fn put<V: Lanes>(row: &mut [f32], index: usize, value: V) -> V {
    let (parts, rest) = row.as_chunks_mut();
    match parts.get_mut(index) {
        Some(part) => {
            value.store(part);
            value
        }
        None => {
            value.store_part(rest);
            V::load_part(rest, 0.0)
        }
    }
}

#[cold]
fn padded(rest: &[f32], fill: f32) -> [f32; LANES] {
    let mut all = [fill; LANES];
    for (place, &value) in all.iter_mut().zip(rest) {
        *place = value;
    }
    all
}

#[cold]
fn copy<T: Copy>(rest: &mut [T], all: &[T; LANES]) {
    for (place, &value) in rest.iter_mut().zip(all) {
        *place = value;
    }
}

/// eˣ for x in −80..=87, clamped there; within 2 ulp. Neither a softmax of a thousand numbers nor a sigmoid then becomes
/// so small that Helium, which knows no denormal numbers, would make it 0.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, e^r by a polynomial of degree 6 fitted for relative error.
#[inline(always)]
pub fn exp<V: Number>(x: V) -> V {
    let x = x.larger(V::splat(-80.0)).smaller(V::splat(87.0));
    let shifted = x.mul(V::splat(core::f32::consts::LOG2_E)).add(V::splat(ROUND));
    let n = shifted.sub(V::splat(ROUND));
    // ln 2 in two parts, the first short enough that n times it is exact
    let r = x.sub(n.mul(V::splat(0.693_359_4))).add(n.mul(V::splat(2.121_944_4e-4)));
    polynomial(r, &[1.383_683_5e-3, 8.374_824e-3, 4.166_822_6e-2, 0.166_664_2, 0.499_999_9, 1.0, 1.0])
        .mul(shifted.power_of_two())
}

/// Horner's rule, the highest power's coefficient first.
#[inline(always)]
fn polynomial<V: Number, const N: usize>(x: V, coefficients: &[f32; N]) -> V {
    let mut value = V::splat(coefficients[0]);
    for &coefficient in coefficients.iter().skip(1) {
        value = value.mul(x).add(V::splat(coefficient));
    }
    value
}

/// The error function; absolute error below 4e-7.
///
/// x·P(x²)/Q(x²), both of degree 5, fitted for relative error on |x| ≤ 3.93 where erf rounds to 1.
#[inline(always)]
pub fn erf<V: Number>(x: V) -> V {
    const P: [f32; 6] = [
        2.041_975_2e-6,
        2.848_081_3e-4,
        3.779_587_3e-3,
        5.279_022e-2,
        0.190_783_32,
        core::f32::consts::FRAC_2_SQRT_PI,
    ];
    const Q: [f32; 6] = [3.800_409_5e-5, 1.165_207_5e-3, 1.499_739_4e-2, 0.114_257_31, 0.502_410_05, 1.0];
    let x = x.larger(V::splat(-3.93)).smaller(V::splat(3.93));
    let t = x.mul(x);
    let ratio = x.mul(polynomial(t, &P)).div(polynomial(t, &Q));
    ratio.larger(V::splat(-1.0)).smaller(V::splat(1.0))
}

/// 1 / (1 + e⁻ˣ).
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// x·Φ(x).
#[inline(always)]
fn gelu_of<V: Number>(x: V) -> V {
    let erf = erf(x.mul(V::splat(core::f32::consts::FRAC_1_SQRT_2)));
    V::splat(0.5).mul(x).mul(V::splat(1.0).add(erf))
}

/// GELU in its exact erf form over a slice in place.
#[inline(always)]
pub fn gelu<V: Lanes>(row: &mut [f32]) {
    for index in 0..parts(row) {
        put(row, index, get::<V>(row, index, 0.0).gelu());
    }
}

/// d = d · GELU′(x) of rows that stand beside each other, where GELU′(x) = Φ(x) + x·φ(x).
#[inline(always)]
pub fn gelu_backward<V: Lanes>(d: &mut [f32], x: &[f32]) {
    /// 1 / √(2π), φ's factor.
    const FACTOR: f32 = 0.398_942_3;
    let half = V::splat(0.5);
    for index in 0..parts(d) {
        let x: V = get(x, index, 0.0);
        let erf = x.mul(V::splat(core::f32::consts::FRAC_1_SQRT_2)).erf();
        let density = x.mul(x).mul(V::splat(-0.5)).exp().mul(V::splat(FACTOR));
        let slope = half.mul(V::splat(1.0).add(erf)).add(x.mul(density));
        put(d, index, get::<V>(d, index, 0.0).mul(slope));
    }
}

/// √x, to the last bit what IEEE says, by the processor where `std` lets it be asked for.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    #[cfg(feature = "std")]
    let root = x.sqrt();
    #[cfg(not(feature = "std"))]
    let root = libm::sqrtf(x);
    root
}

/// Replaces a row by the numerators of its softmax, e^(x − max), and returns 1 / their sum.
#[inline(always)]
fn exponentials<V: Lanes>(row: &mut [f32]) -> f32 {
    let mut max = V::splat(f32::NEG_INFINITY);
    for index in 0..parts(row) {
        max = max.larger(get(row, index, f32::NEG_INFINITY));
    }
    let max = V::splat(max.fold::<Max>());
    let mut sum = V::splat(0.0);
    for index in 0..parts(row) {
        sum = sum.add(put(row, index, get::<V>(row, index, 0.0).sub(max).exp()));
    }
    1.0 / sum.fold::<Sum>()
}

/// Softmax of one row in place.
#[inline(always)]
pub fn softmax<V: Lanes>(row: &mut [f32]) {
    let inverse = V::splat(exponentials::<V>(row));
    for index in 0..parts(row) {
        put(row, index, get::<V>(row, index, 0.0).mul(inverse));
    }
}

/// d = p ∘ (d − Σ p·d): the gradient before a softmax from that after it, `p` being what it gave.
#[inline(always)]
pub fn softmax_backward<V: Lanes>(d: &mut [f32], p: &[f32]) {
    let mut sum = V::splat(0.0);
    for index in 0..parts(d) {
        sum = sum.add(get::<V>(p, index, 0.0).mul(get(d, index, 0.0)));
    }
    let sum = V::splat(sum.fold::<Sum>());
    for index in 0..parts(d) {
        put(d, index, get::<V>(p, index, 0.0).mul(get::<V>(d, index, 0.0).sub(sum)));
    }
}

/// What a LayerNorm learned, and its ε.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// Factor of each column.
    pub weight: &'a [f32],
    /// Summand of each column.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

/// x = LayerNorm(x + y) of one row: with z = x + y, (z − mean) / √(variance + ε) · weight + bias.
/// An empty `y` adds nothing.
#[inline(always)]
pub fn add_and_norm<V: Lanes>(row: &mut [f32], y: &[f32], norm: &LayerNorm<'_>) {
    let &LayerNorm { weight, bias, epsilon } = norm;
    let length = row.len() as f32;
    let mut sum = V::splat(0.0);
    for index in 0..parts(row) {
        let z = get::<V>(row, index, 0.0).add(get(y, index, 0.0));
        sum = sum.add(put(row, index, z));
    }
    let mean = V::splat(sum.fold::<Sum>() / length);
    let mut squares = V::splat(0.0);
    for index in 0..parts(row) {
        let x = put(row, index, get::<V>(row, index, 0.0).sub(mean));
        squares = squares.add(x.mul(x));
    }
    let variance = squares.fold::<Sum>() / length;
    let inverse = V::splat(1.0 / sqrt(variance + epsilon));
    for index in 0..parts(row) {
        let x = get::<V>(row, index, 0.0).mul(inverse);
        put(row, index, x.mul(get(weight, index, 0.0)).add(get(bias, index, 0.0)));
    }
}

/// Row d after a LayerNorm → d before it, where `z` is what it normalised (x + y of [`add_and_norm`]) and
/// becomes the normalised ẑ: d = (w∘d − mean(w∘d) − ẑ·mean(w∘d∘ẑ)) / √(variance + ε). The gradients of
/// the LayerNorm's weight, d∘ẑ, and bias, d, are added to `dweight` and `dbias` unless those are empty.
#[inline(always)]
pub fn norm_backward<V: Lanes>(
    d: &mut [f32],
    z: &mut [f32],
    norm: &LayerNorm<'_>,
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let length = d.len() as f32;
    let mut sum = V::splat(0.0);
    for index in 0..parts(z) {
        sum = sum.add(get(z, index, 0.0));
    }
    let mean = V::splat(sum.fold::<Sum>() / length);
    let mut squares = V::splat(0.0);
    for index in 0..parts(z) {
        let x = put(z, index, get::<V>(z, index, 0.0).sub(mean));
        squares = squares.add(x.mul(x));
    }
    let inverse = V::splat(1.0 / sqrt(squares.fold::<Sum>() / length + norm.epsilon));
    let (mut sum, mut along) = (V::splat(0.0), V::splat(0.0));
    for index in 0..parts(z) {
        let z = put(z, index, get::<V>(z, index, 0.0).mul(inverse));
        let after = get::<V>(d, index, 0.0);
        if !dweight.is_empty() {
            put(dweight, index, get::<V>(dweight, index, 0.0).add(after.mul(z)));
            put(dbias, index, get::<V>(dbias, index, 0.0).add(after));
        }
        let before = put(d, index, after.mul(get(norm.weight, index, 0.0)));
        sum = sum.add(before);
        along = along.add(before.mul(z));
    }
    let mean = V::splat(sum.fold::<Sum>() / length);
    let along = V::splat(along.fold::<Sum>() / length);
    for index in 0..parts(d) {
        let x = get::<V>(d, index, 0.0).sub(mean).sub(get::<V>(z, index, 0.0).mul(along));
        put(d, index, x.mul(inverse));
    }
}
