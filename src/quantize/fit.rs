//! Mixed precision: which matrices to make int4 so that a file fits, at the least cost.
//!
//! What a matrix costs is measured: the model with this one in int4 and all others in int8 reads the sentences, and its
//! last hidden states are compared with the reference's. Squared errors of matrices add up well enough to go by: those
//! that cost least for each byte they save go first.

use std::collections::BTreeSet;

use ndarray::Array2;
use serde::Serialize;

use super::calibrate::tokenised;
use super::{CHECK_SENTENCES, QuantizeError, Quantizer, Recipe, layer_name, matrices, quantize_by};
use crate::encoder::{Network, Workspace};
use crate::import::Checkpoint;
use crate::reference::{Reference, Sequence};
use crate::text::Token;
use crate::weights::AlignedBytes;
use crate::weights::owned::{Linear, Root};
use crate::weights::strategy::Part;
use crate::{Model, Plan, kernels};

/// What one matrix in int4 costs and saves.
#[derive(Clone, Debug, Serialize)]
pub struct Sensitivity {
    /// Its name.
    pub matrix: String,
    /// Bytes that it saves.
    pub saved: usize,
    /// Relative error of the last hidden states with it alone in int4.
    pub relative_error: f64,
    /// Whether the file has it in int4.
    pub int4: bool,
}

/// What became of a model that had to fit.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The `.electret` file.
    pub file: Vec<u8>,
    /// Relative error of the last hidden states with all in int8.
    pub int8_error: f64,
    /// Every matrix that may be int4, those that cost least for a saved byte first.
    pub matrices: Vec<Sensitivity>,
}

/// The bytes of the `.electret` file with as little in int4 as makes it `budget` bytes or smaller; `calibration` as in
/// [`Recipe`], also what the costs are measured on.
///
/// # Errors
/// [`QuantizeError::DoesNotFit`] if it is larger with all in int4.
pub fn fit(
    checkpoint: &Checkpoint,
    source: &str,
    licence: &str,
    calibration: &[String],
    budget: usize,
) -> Result<Fitted, QuantizeError> {
    let mut texts = calibration.to_vec();
    if texts.is_empty() {
        texts.extend(CHECK_SENTENCES.map(str::to_owned));
    }
    let names = matrices(checkpoint);
    let recipe = |int4: BTreeSet<String>| Recipe { int4, calibration: calibration.to_vec() };
    let mut int8 = Quantizer::new(checkpoint, &recipe(BTreeSet::new())).root(source, licence)?;
    let mut int4 =
        Quantizer::new(checkpoint, &recipe(names.iter().cloned().collect())).root(source, licence)?;
    let yardstick = Yardstick::new(checkpoint, &texts)?;
    let int8_error = yardstick.relative_error(&int8)?;
    let mut found = Vec::new();
    for name in &names {
        let saved = bytes(linear(&mut int8, name)).saturating_sub(bytes(linear(&mut int4, name)));
        core::mem::swap(linear(&mut int8, name), linear(&mut int4, name));
        let relative_error = yardstick.relative_error(&int8)?;
        core::mem::swap(linear(&mut int8, name), linear(&mut int4, name));
        found.push(Sensitivity { matrix: name.clone(), saved, relative_error, int4: false });
    }
    let cost = |matrix: &Sensitivity| {
        let more = (matrix.relative_error.powi(2) - int8_error.powi(2)).max(0.0);
        more / matrix.saved.max(1) as f64
    };
    found.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    let mut needed = int8.to_file().len().saturating_sub(budget);
    loop {
        choose(&mut found, needed);
        let chosen = found.iter().filter(|matrix| matrix.int4).map(|matrix| matrix.matrix.clone());
        let file = quantize_by(checkpoint, source, licence, &recipe(chosen.collect()))?;
        if file.len() <= budget {
            return Ok(Fitted { file, int8_error, matrices: found });
        }
        if found.iter().all(|matrix| matrix.int4) {
            return Err(QuantizeError::DoesNotFit { budget, smallest: file.len() });
        }
        // The file has checks too, and its parts are padded to whole lines.
        needed += file.len() - budget;
    }
}

/// Marks the first matrices that save as many bytes together, less those without which the others still do.
fn choose(matrices: &mut [Sensitivity], needed: usize) {
    let mut saved = 0;
    for matrix in &mut *matrices {
        matrix.int4 = saved < needed;
        saved += if matrix.int4 { matrix.saved } else { 0 };
    }
    for matrix in matrices.iter_mut().rev().filter(|matrix| matrix.int4) {
        if saved - matrix.saved >= needed {
            matrix.int4 = false;
            saved -= matrix.saved;
        }
    }
}

/// A matrix of [`matrices`] by name.
fn linear<'r>(root: &'r mut Root, name: &str) -> &'r mut Linear {
    for (index, layer) in root.layers.iter_mut().enumerate() {
        if let Some(part) = Part::ALL.into_iter().find(|&part| layer_name(index, part) == name) {
            return layer.dense_mut(part);
        }
    }
    &mut root.embeddings.words
}

fn bytes(linear: &Linear) -> usize {
    size_of_val(linear.tiles.as_slice())
}

/// Sequences with the reference's last hidden states.
struct Yardstick {
    sequences: Vec<(Vec<Token>, Array2<f32>)>,
}

impl Yardstick {
    fn new(checkpoint: &Checkpoint, texts: &[String]) -> Result<Self, QuantizeError> {
        let mut sequences = Vec::new();
        for tokens in tokenised(checkpoint, texts)? {
            let states = Reference(checkpoint).hidden_states(&Sequence::of(&tokens))?;
            sequences.extend(states.into_iter().next_back().map(|last| (tokens, last)));
        }
        Ok(Self { sequences })
    }

    /// √(Σ (ours − reference)² / Σ reference²).
    fn relative_error(&self, root: &Root) -> Result<f64, QuantizeError> {
        let file = AlignedBytes::copy_of(&root.to_file());
        let model = Model::open(file.as_slice())?;
        let plan = Plan::inference(model.config(), model.config().max_position_embeddings).for_model(&model);
        let mut arena = AlignedBytes::zeroed(plan.bytes());
        let (mut error, mut all) = (0.0, 0.0);
        for (tokens, expected) in &self.sequences {
            let mut workspace = Workspace::carve(arena.as_mut_slice(), &plan)?;
            workspace.tokens[..tokens.len()].copy_from_slice(tokens);
            Network::new(model, kernels::best()).encode(&mut workspace, tokens.len())?;
            for (&expected, &ours) in expected.iter().zip(&*workspace.residual) {
                error += f64::from(expected - ours).powi(2);
                all += f64::from(expected).powi(2);
            }
        }
        Ok((error / f64::MIN_POSITIVE.max(all)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(saved: &[usize], needed: usize) -> Vec<bool> {
        let matrix =
            |&saved: &usize| Sensitivity { matrix: String::new(), saved, relative_error: 0.0, int4: true };
        let mut matrices: Vec<Sensitivity> = saved.iter().map(matrix).collect();
        choose(&mut matrices, needed);
        matrices.iter().map(|matrix| matrix.int4).collect()
    }

    #[test]
    fn as_few_are_chosen_as_save_enough() {
        assert_eq!(chosen(&[3, 5, 7], 0), [false, false, false]);
        assert_eq!(chosen(&[3, 5, 7], 8), [true, true, false]);
        assert_eq!(chosen(&[3, 5, 9], 9), [false, false, true]);
        assert_eq!(chosen(&[3, 5, 7], 99), [true, true, true]);
    }
}
