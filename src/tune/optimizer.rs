//! AdamW (Loshchilov & Hutter 2019) over all trained tensors: global-norm clipping, warm-up and linear decay,
//! decoupled weight decay of matrices, and a learning rate that falls from layer to layer downwards.

use core::ops::Range;

use crate::Error;
use crate::kernels::KernelSet;
use crate::kernels::lanes::sqrt;
use crate::weights::strategy::{Layout, NormPart, Part};

/// How fast and how long to learn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Largest learning rate.
    pub learning_rate: f32,
    /// Steps taken before warm-up begins, in earlier rounds.
    pub first_step: u32,
    /// Steps in which it grows from 0.
    pub warmup_steps: u32,
    /// Steps, warm-up included, after which it is 0; 0 if it stays.
    pub total_steps: u32,
    /// Decoupled weight decay of matrices; biases and LayerNorms have none.
    pub weight_decay: f32,
    /// Largest norm of a step's gradient.
    pub clip_norm: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of the latter.
    pub epsilon: f32,
    /// The learning rate's factor from a layer to the one below; the head has the whole.
    pub layer_decay: f32,
    /// How likely a value that a dense layer adds to the residual stream falls while it is learned from,
    /// 0.0..1.0.
    pub dropout: f32,
    /// Seed of what is random.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            first_step: 0,
            warmup_steps: 0,
            total_steps: 0,
            weight_decay: 0.01,
            clip_norm: 1.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-6,
            layer_decay: 1.0,
            dropout: 0.0,
            seed: 0,
        }
    }
}

impl Settings {
    pub(super) fn check(&self) -> Result<(), Error> {
        let positive = |x: f32| x > 0.0 && x.is_finite();
        let checks = [
            ("learning_rate", positive(self.learning_rate), "above 0"),
            ("weight_decay", self.weight_decay >= 0.0 && self.weight_decay.is_finite(), "0 or more"),
            ("clip_norm", positive(self.clip_norm), "above 0"),
            ("beta1", (0.0..1.0).contains(&self.beta1), "0.0 or more and below 1.0"),
            ("beta2", (0.0..1.0).contains(&self.beta2), "0.0 or more and below 1.0"),
            ("epsilon", positive(self.epsilon), "above 0"),
            ("dropout", (0.0..1.0).contains(&self.dropout), "0.0 or more and below 1.0"),
            ("layer_decay", self.layer_decay > 0.0 && self.layer_decay <= 1.0, "above 0.0 and at most 1.0"),
        ];
        match checks.into_iter().find(|&(_, holds, _)| !holds) {
            Some((field, _, range)) => Err(Error::InvalidSetting { field, range }),
            None => Ok(()),
        }
    }

    /// The learning rate of step `step`, which counts from 1.
    fn rate(&self, step: u32) -> f32 {
        let step = step.saturating_sub(self.first_step);
        if self.warmup_steps > 0 && step <= self.warmup_steps {
            return self.learning_rate * step as f32 / self.warmup_steps as f32;
        }
        if self.total_steps == 0 {
            return self.learning_rate;
        }
        let end = self.total_steps.saturating_add(1);
        let left = end.saturating_sub(step) as f32;
        let span = end.saturating_sub(self.warmup_steps).max(1) as f32;
        self.learning_rate * (left / span).min(1.0)
    }
}

/// The parameters and what AdamW remembers of each.
#[derive(Debug)]
pub struct Moments<'a> {
    pub parameters: &'a mut [f32],
    pub gradients: &'a mut [f32],
    pub first: &'a mut [f32],
    pub second: &'a mut [f32],
}

/// xⁿ by squaring.
fn power(mut x: f32, mut n: u32) -> f32 {
    let mut power = 1.0;
    while n > 0 {
        if n & 1 == 1 {
            power *= x;
        }
        x *= x;
        n >>= 1;
    }
    power
}

impl Moments<'_> {
    /// The norm of the gradient of `examples` examples' mean.
    pub fn gradient_norm(&self, kernels: &KernelSet, examples: u32) -> f32 {
        let mut squares = 0.0;
        (kernels.dots)(self.gradients, self.gradients, core::slice::from_mut(&mut squares));
        sqrt(squares) / examples as f32
    }

    /// One step with the mean of `examples` gradients, whose norm is `norm`; clears them.
    pub fn step(&mut self, layout: &Layout, settings: &Settings, step: u32, examples: u32, norm: f32) {
        let clip = if norm > settings.clip_norm { settings.clip_norm / norm } else { 1.0 };
        let scale = clip / examples as f32;
        let correction = |beta: f32| 1.0 - power(beta, step);
        let (first, second) = (correction(settings.beta1), correction(settings.beta2));
        let rate = settings.rate(step);
        each_tensor(layout, |range, layer, is_matrix| {
            let depth = layout.config.num_hidden_layers.saturating_sub(layer);
            let rate = rate * power(settings.layer_decay, depth as u32);
            let decay = if is_matrix { settings.weight_decay } else { 0.0 };
            let parameters = self.parameters.get_mut(range.clone()).unwrap_or_default().iter_mut();
            let gradients = self.gradients.get_mut(range.clone()).unwrap_or_default().iter_mut();
            let means = self.first.get_mut(range.clone()).unwrap_or_default().iter_mut();
            let squares = self.second.get_mut(range).unwrap_or_default().iter_mut();
            for (((w, g), m), v) in parameters.zip(gradients).zip(means).zip(squares) {
                let gradient = *g * scale;
                *g = 0.0;
                *m = settings.beta1 * *m + (1.0 - settings.beta1) * gradient;
                *v = settings.beta2 * *v + (1.0 - settings.beta2) * (gradient * gradient);
                let update = (*m / first) / (sqrt(*v / second) + settings.epsilon);
                *w -= rate * (update + decay * *w);
            }
        });
    }
}

/// Calls `each` with where a tensor lies, its layer (the number of layers for the head's) and whether it is a
/// matrix, whose values decay.
fn each_tensor(layout: &Layout, mut each: impl FnMut(Range<usize>, usize, bool)) {
    let layers = layout.config.num_hidden_layers;
    if let Some((weight, bias)) = layout.head() {
        each(weight, layers, true);
        each(bias, layers, false);
    }
    if let Some((pieces, directions)) = layout.words() {
        each(pieces, 0, true);
        each(directions, 0, true);
    }
    for layer in 0..layers {
        for part in Part::ALL {
            if let Some((a, b)) = layout.low_rank(layer, part) {
                each(a, layer, true);
                each(b, layer, true);
            }
            if let Some(bias) = layout.bias(layer, part) {
                each(bias, layer, false);
            }
        }
        for norm in [NormPart::Attention, NormPart::Output] {
            if let Some((weight, bias)) = layout.norm(layer, norm) {
                each(weight, layer, false);
                each(bias, layer, false);
            }
        }
    }
}
