//! f32 matrix → int4: scale of the channel · multiplier of 32 inputs · q.
//!
//! A channel's scale and its multipliers are those with the least squared error, tried out. With the moments of
//! the layer's inputs, what rounding takes from a column is made good in the columns to come, as far as these
//! inputs allow (GPTQ, Frantar et al. 2023): with H = Σ x·xᵀ and Uᵀ·U = H⁻¹, U upper triangular, an error e in
//! column j moves the later columns k by −e · U\[j, k\] / U\[j, j\].

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};

use crate::kernels::lanes::ROUND;
use crate::weights::format::{INT4_GROUP, INT4_MULTIPLIERS};

/// q of every weight with what it is multiplied by.
pub struct Int4Matrix {
    /// `[outputs]`.
    pub scales: Vec<f32>,
    /// `[outputs, groups]`, 1..=15.
    pub multipliers: Array2<u8>,
    /// `[outputs, inputs]`, −8..=7.
    pub q: Array2<i8>,
}

/// Half of the range of q, in steps: what the largest weight of a group is divided by, if nothing is cut off.
const HALF_RANGE: f32 = 7.5;

/// How much of a channel's largest weight its scale allows for.
const RANGES: [f32; 6] = [1.0, 0.92, 0.84, 0.76, 0.68, 0.6];

/// Added to the diagonal of the moments, as a share of its mean.
const DAMPING: f64 = 0.01;

impl Int4Matrix {
    /// Rounds `weight` `[outputs, inputs]`, compensated by `moments` `[inputs, inputs]` where they are known.
    pub fn new(mut weight: Array2<f32>, moments: Option<&Array2<f32>>) -> Self {
        let (outputs, inputs) = weight.dim();
        let compensation = moments.map(compensation);
        // How much an error in a column costs once the later ones have made good what they can.
        let importance = match &compensation {
            Some(u) => u.diag().mapv(|u| 1.0 / (u * u)),
            None => Array1::ones(inputs),
        };
        let scales = weight.rows().into_iter().map(|row| channel_scale(row, importance.view())).collect();
        let mut matrix = Self {
            scales,
            multipliers: Array2::ones((outputs, inputs.div_ceil(INT4_GROUP))),
            q: Array2::zeros((outputs, inputs)),
        };
        for group in 0..inputs.div_ceil(INT4_GROUP) {
            let columns = group * INT4_GROUP..inputs.min((group + 1) * INT4_GROUP);
            let errors =
                matrix.round_group(&mut weight, columns.clone(), importance.view(), compensation.as_ref());
            if let Some(u) = &compensation {
                let later = u.slice(s![columns.clone(), columns.end..]);
                let mut rest = weight.slice_mut(s![.., columns.end..]);
                rest -= &errors.dot(&later);
            }
        }
        matrix
    }

    /// Rounds the columns of one group; gives each column's error over U\[j, j\], `[outputs, columns]`.
    fn round_group(
        &mut self,
        weight: &mut Array2<f32>,
        columns: std::ops::Range<usize>,
        importance: ArrayView1<'_, f32>,
        compensation: Option<&Array2<f32>>,
    ) -> Array2<f32> {
        let here = s![.., columns.clone()];
        let importance = importance.slice(s![columns.clone()]);
        let mut errors = Array2::zeros((weight.nrows(), columns.len()));
        let mut group = weight.slice_mut(here);
        for (channel, mut row) in group.axis_iter_mut(Axis(0)).enumerate() {
            let (multiplier, _) = group_multiplier(row.view(), importance, self.scales[channel]);
            self.multipliers[[channel, columns.start / INT4_GROUP]] = multiplier;
            let step = self.scales[channel] * f32::from(multiplier);
            for j in 0..columns.len() {
                let q = nearest(row[j], step);
                self.q[[channel, columns.start + j]] = q as i8;
                let Some(u) = compensation else { continue };
                let u = u.slice(s![columns.start + j, columns.clone()]);
                let error = (row[j] - q * step) / u[j];
                errors[[channel, j]] = error;
                for k in j + 1..columns.len() {
                    row[k] -= error * u[k];
                }
            }
        }
        errors
    }
}

/// The q of a weight, as a number.
fn nearest(weight: f32, step: f32) -> f32 {
    if step == 0.0 { 0.0 } else { (weight / step).clamp(-8.0, 7.0) + ROUND - ROUND }
}

/// The scale whose groups lose least; 0 of a channel of zeros.
fn channel_scale(row: ArrayView1<'_, f32>, importance: ArrayView1<'_, f32>) -> f32 {
    let largest = row.fold(0.0_f32, |max, weight| max.max(weight.abs()));
    let whole = largest / (HALF_RANGE * f32::from(INT4_MULTIPLIERS));
    let loss = |scale: f32| -> f32 {
        let groups = row.axis_chunks_iter(Axis(0), INT4_GROUP);
        let groups = groups.zip(importance.axis_chunks_iter(Axis(0), INT4_GROUP));
        groups.map(|(group, importance)| group_multiplier(group, importance, scale).1).sum()
    };
    let scales = RANGES.map(|range| whole * range);
    scales
        .into_iter()
        .map(|scale| (scale, loss(scale)))
        .reduce(|a, b| if b.1 < a.1 { b } else { a })
        .map_or(0.0, |best| best.0)
}

/// The multiplier with the least squared error, and that error.
fn group_multiplier(group: ArrayView1<'_, f32>, importance: ArrayView1<'_, f32>, scale: f32) -> (u8, f32) {
    let largest = group.fold(0.0_f32, |max, weight| max.max(weight.abs()));
    let whole = largest / HALF_RANGE / scale;
    if !(whole > 0.0 && whole.is_finite()) {
        return (1, 0.0);
    }
    let clamp = |multiplier: f32| multiplier.clamp(1.0, f32::from(INT4_MULTIPLIERS)) as u8;
    let loss = |multiplier: u8| -> f32 {
        let step = scale * f32::from(multiplier);
        let error = |weight: f32| weight - nearest(weight, step) * step;
        group.iter().zip(importance).map(|(&weight, importance)| importance * error(weight).powi(2)).sum()
    };
    let tried = clamp(whole * 0.55)..=clamp((whole * 1.1).ceil());
    let losses = tried.map(|multiplier| (multiplier, loss(multiplier)));
    losses.reduce(|a, b| if b.1 < a.1 { b } else { a }).unwrap_or((1, 0.0))
}

/// U, upper triangular, with Uᵀ·U = H⁻¹: H = R·Rᵀ with R upper triangular, and U = R⁻¹.
fn compensation(moments: &Array2<f32>) -> Array2<f32> {
    let n = moments.nrows();
    let mut h = moments.mapv(f64::from);
    let mean = h.diag().sum() / n as f64;
    let damping = if mean > 0.0 { mean * DAMPING } else { 1.0 };
    h.diag_mut().mapv_inplace(|value| value + damping);
    // Cholesky from the last row up: R[i][j] for i ≤ j.
    let mut r = Array2::<f64>::zeros((n, n));
    for i in (0..n).rev() {
        for j in (i..n).rev() {
            let behind = s![j + 1..];
            let sum = h[[i, j]] - r.row(i).slice(behind).dot(&r.row(j).slice(behind));
            r[[i, j]] = if i == j { sum.max(damping * 1e-3).sqrt() } else { sum / r[[j, j]] };
        }
    }
    inverse_of_upper(r.view()).mapv(|value| value as f32)
}

/// R⁻¹ of an upper triangular R, row by row from the last: R\[i, i\] · U\[i\] = e\[i\] − Σ R\[i, k\] · U\[k\], k > i.
fn inverse_of_upper(r: ArrayView2<'_, f64>) -> Array2<f64> {
    let n = r.nrows();
    let mut u = Array2::<f64>::zeros((n, n));
    for i in (0..n).rev() {
        let (mut above, below) = u.view_mut().split_at(Axis(0), i + 1);
        let mut row = above.row_mut(i);
        for k in i + 1..n {
            row.slice_mut(s![k..]).scaled_add(-r[[i, k]], &below.slice(s![k - i - 1, k..]));
        }
        row[i] = 1.0;
        row.mapv_inplace(|value| value / r[[i, i]]);
    }
    u
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn random(shape: (usize, usize), random: &mut Random) -> Array2<f32> {
        Array2::from_shape_simple_fn(shape, || random.unit() - 0.5)
    }

    fn values(matrix: &Int4Matrix) -> Array2<f32> {
        Array2::from_shape_fn(matrix.q.dim(), |(channel, input)| {
            let multiplier = matrix.multipliers[[channel, input / INT4_GROUP]];
            f32::from(matrix.q[[channel, input]]) * f32::from(multiplier) * matrix.scales[channel]
        })
    }

    #[test]
    fn the_triangle_is_that_of_the_inverse() {
        let x = random((200, 40), &mut Random::new(1));
        let moments = x.t().dot(&x);
        let u = compensation(&moments).mapv(f64::from);
        let mut h = moments.mapv(f64::from);
        let damping = h.diag().sum() / 40.0 * DAMPING;
        h.diag_mut().mapv_inplace(|value| value + damping);
        let identity = u.t().dot(&u).dot(&h);
        for ((i, j), value) in identity.indexed_iter() {
            assert!((value - f64::from(u8::from(i == j))).abs() < 1e-4, "{i} {j} {value}");
        }
    }

    #[test]
    fn compensation_serves_the_inputs_it_was_made_for() {
        let mut state = Random::new(2);
        // Inputs of which many depend on few.
        let x = random((500, 12), &mut state).dot(&random((12, 96), &mut state));
        let weight = random((16, 96), &mut state);
        let error = |matrix: &Int4Matrix| {
            let difference = x.dot(&(values(matrix) - &weight).t());
            (difference.mapv(|d| d * d).sum() / x.dot(&weight.t()).mapv(|y| y * y).sum()).sqrt()
        };
        let plain = error(&Int4Matrix::new(weight.clone(), None));
        let compensated = error(&Int4Matrix::new(weight.clone(), Some(&x.t().dot(&x))));
        assert!(plain < 0.12 && compensated < plain / 2.0, "{plain} {compensated}");
    }

    #[test]
    fn zeros_and_outliers_stay_in_range() {
        let mut weight = Array2::zeros((3, 50));
        weight[[1, 40]] = 1e20;
        weight[[2, 3]] = 1e-20;
        let matrix = Int4Matrix::new(weight, None);
        assert!(matrix.multipliers.iter().all(|m| (1..=15).contains(m)));
        let values = values(&matrix);
        assert!(values.row(0).iter().all(|&value| value == 0.0));
        assert!((values[[1, 40]] / 1e20 - 1.0).abs() < 0.1 && values[[1, 0]] == 0.0);
    }
}
