//! Adam as ELECTRA uses it (`optimization.py`): decoupled weight decay on matrices only, ε 1e-6,
//! no bias correction, gradients clipped by their global norm; and its learning-rate schedule.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};

use super::weights::Weights;

/// Values of the optimiser, defaults as in the recipe.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Adam {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay of matrices, times the learning rate.
    pub weight_decay: f64,
    /// Largest global norm of the gradients.
    pub clip_norm: f64,
}

impl Default for Adam {
    fn default() -> Self {
        Self {
            learning_rate: 5e-4,
            warmup_steps: 10_000,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-6,
            weight_decay: 0.01,
            clip_norm: 1.0,
        }
    }
}

/// First and second moments, by the names of the weights.
#[derive(Clone, Debug)]
pub struct Moments<B: Backend> {
    /// Running mean of the gradients.
    pub first: Weights<B>,
    /// Running mean of their squares.
    pub second: Weights<B>,
}

impl<B: Backend> Default for Moments<B> {
    fn default() -> Self {
        Self { first: Weights::default(), second: Weights::default() }
    }
}

/// Tensors of one rank by name.
type Named<B, const D: usize> = BTreeMap<String, Tensor<B, D>>;

impl Adam {
    /// peak · (1 − step/total) · min(1, step/warm-up): the decay runs during warm-up too.
    pub fn rate(&self, step: usize, total: usize) -> f64 {
        let decay = 1.0 - step as f64 / total as f64;
        let warmup = (step as f64 / self.warmup_steps.max(1) as f64).min(1.0);
        self.learning_rate * decay.max(0.0) * warmup
    }

    /// One update of all weights in place. Returns the global norm of the gradients before
    /// clipping; where it is not finite nothing is changed and an error says so.
    pub fn update<B: AutodiffBackend>(
        &self,
        weights: &mut Weights<B>,
        moments: &mut Moments<B::InnerBackend>,
        gradients: &Weights<B::InnerBackend>,
        rate: f64,
    ) -> Result<f64> {
        let squares = gradients
            .matrices
            .values()
            .map(|g| (g.clone() * g.clone()).sum())
            .chain(gradients.vectors.values().map(|g| (g.clone() * g.clone()).sum()));
        let norm = squares.reduce(|a, b| a + b).map_or(0.0, |sum| f64::from(scalar(sum).sqrt()));
        ensure!(norm.is_finite(), "the gradients are not finite");
        let clip = self.clip_norm / norm.max(self.clip_norm);
        let Moments { first, second } = moments;
        for (name, gradient) in &gradients.matrices {
            let gradient = gradient.clone() * clip;
            let maps = (&mut weights.matrices, &mut first.matrices, &mut second.matrices);
            self.update_one(maps, name, gradient, self.weight_decay, rate);
        }
        for (name, gradient) in &gradients.vectors {
            let gradient = gradient.clone() * clip;
            let maps = (&mut weights.vectors, &mut first.vectors, &mut second.vectors);
            self.update_one(maps, name, gradient, 0.0, rate);
        }
        Ok(norm)
    }

    /// Updates the tensor of that name in the maps of weights, first and second moments.
    fn update_one<B: AutodiffBackend, const D: usize>(
        &self,
        (weights, first, second): (
            &mut Named<B, D>,
            &mut Named<B::InnerBackend, D>,
            &mut Named<B::InnerBackend, D>,
        ),
        name: &str,
        gradient: Tensor<B::InnerBackend, D>,
        decay: f64,
        rate: f64,
    ) {
        let Some(weight) = weights.remove(name).map(Tensor::inner) else { return };
        let (direction, m, v) = self.direction(gradient, first.remove(name), second.remove(name));
        let direction = direction + weight.clone() * decay;
        let updated = Tensor::from_inner(weight - direction * rate).require_grad();
        weights.insert(name.to_owned(), updated);
        first.insert(name.to_owned(), m);
        second.insert(name.to_owned(), v);
    }

    /// m / (√v + ε) after taking `gradient` into both moments, which are returned too.
    fn direction<B: Backend, const D: usize>(
        &self,
        gradient: Tensor<B, D>,
        first: Option<Tensor<B, D>>,
        second: Option<Tensor<B, D>>,
    ) -> (Tensor<B, D>, Tensor<B, D>, Tensor<B, D>) {
        let squared = gradient.clone() * gradient.clone() * (1.0 - self.beta_2);
        let gradient = gradient * (1.0 - self.beta_1);
        let m = first.map_or_else(|| gradient.clone(), |m| m * self.beta_1 + gradient.clone());
        let v = second.map_or_else(|| squared.clone(), |v| v * self.beta_2 + squared.clone());
        (m.clone() / (v.clone().sqrt() + self.epsilon), m, v)
    }
}

/// The gradients of all weights that took part in a loss.
pub fn gradients<B: AutodiffBackend>(
    weights: &Weights<B>,
    gradients: &B::Gradients,
) -> Weights<B::InnerBackend> {
    let matrices = weights.matrices.iter();
    let vectors = weights.vectors.iter();
    Weights {
        matrices: matrices.filter_map(|(n, t)| Some((n.clone(), t.grad(gradients)?))).collect(),
        vectors: vectors.filter_map(|(n, t)| Some((n.clone(), t.grad(gradients)?))).collect(),
    }
}

/// The value of a one-element tensor.
pub fn scalar<B: Backend>(tensor: Tensor<B, 1>) -> f32 {
    use burn::tensor::ElementConversion;
    tensor.into_scalar().elem()
}
