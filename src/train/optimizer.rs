//! Adam as ELECTRA uses it (`optimization.py`): decoupled weight decay on matrices only, ε 1e-6,
//! no bias correction, gradients clipped by their global norm; and its learning-rate schedule.

use std::collections::BTreeMap;

use burn::tensor::{
    Tensor,
    backend::{AutodiffBackend, Backend},
};

use super::weights::Weights;

/// Values of the optimiser, defaults as in the recipe.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// Whether the moments are divided by 1 − βᵗ, as Kingma & Ba do and ELECTRA does not.
    pub bias_correction: bool,
    /// How the learning rate rises and falls.
    pub schedule: Schedule,
}

/// How the learning rate rises to its peak in `warmup_steps` and falls to 0 at the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// peak · (1 − step/total) · min(1, step/warm-up): ELECTRA's, which falls during warm-up too.
    Electra,
    /// peak · step/warm-up, then from the peak straight to 0: the common one.
    Linear,
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
            bias_correction: false,
            schedule: Schedule::Electra,
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
    /// The learning rate of a step, counted from 1, of a schedule of `total` steps.
    pub fn rate(&self, step: usize, total: usize) -> f64 {
        let (step, total, warmup) = (step as f64, total as f64, self.warmup_steps as f64);
        let rise = if step < warmup { step / warmup } else { 1.0 };
        let fall = match self.schedule {
            Schedule::Electra => 1.0 - step / total,
            Schedule::Linear if step < warmup => 1.0,
            Schedule::Linear => (total - step) / (total - warmup).max(1.0),
        };
        self.learning_rate * rise * fall.max(0.0)
    }

    /// Update number `step`, counted from 1, of all weights in place; `rate` gives the learning rate of the tensor of
    /// a name. Returns the global norm of the gradients before clipping, `[1]`, and waits for no device: where the
    /// norm is not finite, neither are the weights after it.
    pub fn update<B: AutodiffBackend>(
        &self,
        step: usize,
        weights: &mut Weights<B>,
        moments: &mut Moments<B::InnerBackend>,
        gradients: Weights<B::InnerBackend>,
        rate: impl Fn(&str) -> f64,
    ) -> Tensor<B::InnerBackend, 1> {
        let squares = gradients
            .matrices
            .values()
            .map(|g| (g.clone() * g.clone()).sum())
            .chain(gradients.vectors.values().map(|g| (g.clone() * g.clone()).sum()));
        let norm = squares.reduce(|a, b| a + b).expect("a loss has gradients").sqrt();
        let clip = norm.clone().clamp_min(self.clip_norm).recip() * self.clip_norm;
        let Moments { first, second } = moments;
        for (name, gradient) in gradients.matrices {
            let gradient = gradient * clip.clone().unsqueeze();
            let maps = (&mut weights.matrices, &mut first.matrices, &mut second.matrices);
            self.update_one(step, maps, &name, gradient, self.weight_decay, rate(&name));
        }
        for (name, gradient) in gradients.vectors {
            let gradient = gradient * clip.clone();
            let maps = (&mut weights.vectors, &mut first.vectors, &mut second.vectors);
            self.update_one(step, maps, &name, gradient, 0.0, rate(&name));
        }
        norm
    }

    /// Updates the tensor of that name in the maps of weights, first and second moments.
    fn update_one<B: AutodiffBackend, const D: usize>(
        &self,
        step: usize,
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
        let (direction, m, v) = self.direction(step, gradient, first.remove(name), second.remove(name));
        let direction = direction + weight.clone() * decay;
        let updated = Tensor::from_inner(weight - direction * rate).require_grad();
        weights.insert(name.to_owned(), updated);
        first.insert(name.to_owned(), m);
        second.insert(name.to_owned(), v);
    }

    /// m / (√v + ε) after taking `gradient` into both moments, which are returned too.
    fn direction<B: Backend, const D: usize>(
        &self,
        step: usize,
        gradient: Tensor<B, D>,
        first: Option<Tensor<B, D>>,
        second: Option<Tensor<B, D>>,
    ) -> (Tensor<B, D>, Tensor<B, D>, Tensor<B, D>) {
        let squared = gradient.clone() * gradient.clone() * (1.0 - self.beta_2);
        let gradient = gradient * (1.0 - self.beta_1);
        let m = first.map_or_else(|| gradient.clone(), |m| m * self.beta_1 + gradient.clone());
        let v = second.map_or_else(|| squared.clone(), |v| v * self.beta_2 + squared.clone());
        let bias = |beta: f64| if self.bias_correction { 1.0 - beta.powf(step as f64) } else { 1.0 };
        let root = (v.clone() / bias(self.beta_2)).sqrt() + self.epsilon;
        (m.clone() / bias(self.beta_1) / root, m, v)
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
