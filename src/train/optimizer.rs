//! Adam as ELECTRA uses it (`optimization.py`): decoupled weight decay on matrices only, ε 1e-6, no bias correction,
//! gradients clipped by their global norm; and its learning-rate schedule. [`super::learner`] does the updates.

use burn::tensor::{Tensor, backend::Backend};

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

    /// m / (√v + ε) after taking `gradient` into both moments, at update number `step`, counted from 1.
    pub fn direction<B: Backend>(
        &self,
        step: usize,
        gradient: Tensor<B, 1>,
        first: &mut Tensor<B, 1>,
        second: &mut Tensor<B, 1>,
    ) -> Tensor<B, 1> {
        *second = second.clone() * self.beta_2 + gradient.clone() * gradient.clone() * (1.0 - self.beta_2);
        *first = first.clone() * self.beta_1 + gradient * (1.0 - self.beta_1);
        if !self.bias_correction {
            return first.clone() / (second.clone().sqrt() + self.epsilon);
        }
        let bias = |beta: f64| 1.0 - beta.powf(step as f64);
        first.clone() / bias(self.beta_1) / ((second.clone() / bias(self.beta_2)).sqrt() + self.epsilon)
    }
}

/// The value of a one-element tensor.
pub fn scalar<B: Backend>(tensor: Tensor<B, 1>) -> f32 {
    use burn::tensor::ElementConversion;
    tensor.into_scalar().elem()
}
