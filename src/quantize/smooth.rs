//! Outlier channels: moved from the activations into the weights before both are quantised.
//!
//! A few channels of a BERT's residual stream are much larger than the rest, and a row's int8 range
//! is spent on them. Each channel of a product's input is divided by
//! m = (amplitude of the channel)^α / (largest weight of its column)^(1 − α), and the column
//! multiplied by m (SmoothQuant, Xiao et al. 2023). The amplitude needs no calibration text: the input is
//! a LayerNorm's output γ·z + β with z near normal, so 3·|γ| + |β| bounds nearly all of it. Query,
//! key and value have an m of their own each: one m for the three was measured to help nothing.

use ndarray::{Array1, Array2};

use crate::import::{Checkpoint, ImportError};

/// How much of a channel's amplitude moves into the weights of query, key and value. Between 0.3 and
/// 0.7 it makes little difference (MiniLM's mean cosine 0.99918 to 0.99928).
pub const ATTENTION: f32 = 0.4;

/// The same for the intermediate layer, which gains more on some models: the one of these is taken that
/// serves the model best.
pub const INTERMEDIATE: [f32; 3] = [0.4, 0.6, 0.8];

/// The LayerNorm whose output layer `layer` reads; `None` where a projection stands between.
pub fn norm_before(checkpoint: &Checkpoint, layer: usize) -> Option<String> {
    match layer.checked_sub(1) {
        Some(before) => Some(format!("electra.encoder.layer.{before}.output.LayerNorm")),
        None if checkpoint.config.has_projection() => None,
        None => Some("electra.embeddings.LayerNorm".to_owned()),
    }
}

/// 1 / m of each input channel of a dense layer that reads the output of `norm`, for the exponent `alpha`; its
/// `weight` `[outputs, inputs]` is multiplied by m.
pub fn smooth(
    checkpoint: &Checkpoint,
    weight: &mut Array2<f32>,
    norm: Option<&str>,
    alpha: f32,
) -> Result<Vec<f32>, ImportError> {
    let inputs = weight.ncols();
    let mut amplitude = Array1::<f32>::ones(inputs);
    if let Some(norm) = norm {
        let gamma = checkpoint.tensors.vector(&format!("{norm}.weight"), inputs)?;
        let beta = checkpoint.tensors.vector(&format!("{norm}.bias"), inputs)?;
        amplitude = gamma.mapv(f32::abs) * 3.0 + beta.mapv(f32::abs);
    }
    let mut largest = Array1::<f32>::from_elem(inputs, 1e-5);
    for row in weight.rows() {
        largest.zip_mut_with(&row, |max, weight| *max = max.max(weight.abs()));
    }
    let m = amplitude.mapv(|a| a.powf(alpha)) / largest.mapv(|w| w.powf(1.0 - alpha));
    // A channel that is always zero keeps an m that its column survives.
    let floor = m.fold(1e-10_f32, |max, &m| max.max(m * 1e-3));
    let m = m.mapv(|m| m.max(floor));
    *weight *= &m;
    Ok(m.iter().map(|m| 1.0 / m).collect())
}
