//! ELECTRA's joint objective: let the generator fill the masks, ask the discriminator which tokens were replaced
//! (paper §3, `run_pretraining.py`), and beside it the objectives that the paper compares it with (§3.4).
//!
//! All of a step after [`Masked`] happens on the device, and nothing is fetched from there.

use burn::tensor::{
    Int, Tensor, TensorData,
    activation::{log_sigmoid, softmax},
    backend::Backend,
};

use super::kernels::Kernels;
use super::masked::Masked;
use super::model::Network;

/// What a run learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Generator and discriminator together; every token is judged.
    Electra,
    /// The same, but only the chosen positions are judged.
    #[serde(rename = "electra-15")]
    Electra15,
    /// Masked language modelling where the masks were filled by the generator: no `[MASK]` is ever seen.
    ReplaceMlm,
    /// The same, predicting every token, with a switch for copying the input.
    AllTokensMlm,
    /// Masked language modelling of the discriminator's own encoder: BERT's objective, and a start for a
    /// discriminator that would not leave the majority class by itself.
    Mlm,
}

impl Kind {
    /// Whether the encoder learns to tell replaced tokens.
    pub fn detects(self) -> bool {
        matches!(self, Self::Electra | Self::Electra15)
    }
}

/// The objective, the weights of its losses and the share of tokens that are chosen.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// What is learnt.
    pub kind: Kind,
    /// Share of tokens chosen for prediction: 0.15 (0.25 for LARGE).
    pub mask_prob: f64,
    /// Weight of the generator's loss.
    pub gen_weight: f64,
    /// Weight of the discriminator's loss: 50 where it detects, 1 where it predicts words.
    pub disc_weight: f64,
}

impl Objective {
    /// The recipe's values for that kind.
    pub fn of(kind: Kind) -> Self {
        let disc_weight = if kind.detects() { 50.0 } else { 1.0 };
        Self { kind, mask_prob: 0.15, gen_weight: 1.0, disc_weight }
    }
}

/// The two networks of a run over one set of weights.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a, B: Backend> {
    /// Fills masked tokens.
    pub generator: Network<'a, B>,
    /// Tells replaced tokens.
    pub discriminator: Network<'a, B>,
}

/// Counts of the whole batch, of which a part sees some: losses are means over them.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Chosen positions.
    pub chosen: usize,
    /// Positions that are judged.
    pub judged: usize,
}

impl Counts {
    /// Of all parts together.
    pub fn of(parts: &[Masked], kind: Kind) -> Self {
        let judged = |part: &Masked| part.judged(kind == Kind::Electra15).count();
        Self { chosen: parts.iter().map(Masked::chosen).sum(), judged: parts.iter().map(judged).sum() }
    }

    /// The share of the chosen positions that a part has.
    fn chosen_share(&self, part: &Masked) -> f64 {
        part.chosen() as f64 / self.chosen.max(1) as f64
    }
}

/// What one part of a batch computed. Losses are shares of the batch's means, which they sum up to; nats.
#[derive(Debug)]
pub struct Step<B: Backend> {
    /// The tensor to differentiate: `gen_weight · MLM + disc_weight · discriminator`.
    pub loss: Tensor<B, 1>,
    /// Cross-entropy at the chosen positions.
    pub mlm_loss: Tensor<B, 1>,
    /// Share of chosen positions where the sample is the original.
    pub generator_accuracy: Tensor<B, 1>,
    /// The other network's part, where there is one.
    pub discriminator: Option<Judged<B>>,
}

/// The discriminator's part of a step.
#[derive(Debug)]
pub struct Judged<B: Backend> {
    /// Its loss.
    pub loss: Tensor<B, 1>,
    /// What it read, `[size · sequence]`.
    pub corrupted: Tensor<B, 1, Int>,
    /// Logit of each token that it was replaced; none where words are predicted.
    pub logits: Option<Tensor<B, 1>>,
}

impl Objective {
    /// The forward half of a step over one part of a batch.
    pub fn forward<B: Kernels>(
        &self,
        pair: &Pair<'_, B>,
        part: &Masked,
        counts: Counts,
        device: &B::Device,
    ) -> Step<B> {
        let filler = if self.kind == Kind::Mlm { &pair.discriminator } else { &pair.generator };
        let chosen_share = counts.chosen_share(part);
        let originals = part.originals(device);
        let filled = fill(filler, part, originals.clone(), device);
        let mlm_loss = filled.loss * chosen_share;
        let accuracy = filled.samples.clone().equal(filled.targets.clone()).float().mean() * chosen_share;
        if self.kind == Kind::Mlm {
            let loss = mlm_loss.clone();
            return Step { loss, mlm_loss, generator_accuracy: accuracy, discriminator: None };
        }
        let corrupted = part.corrupt(filled.samples, originals.clone(), device);
        let read = Read { corrupted, originals, targets: filled.targets };
        let judged = self.judge(&pair.discriminator, part, read, counts, device);
        Step {
            loss: mlm_loss.clone() * self.gen_weight + judged.loss.clone() * self.disc_weight,
            mlm_loss,
            generator_accuracy: accuracy,
            discriminator: Some(judged),
        }
    }

    /// What the discriminator makes of the corrupted tokens.
    fn judge<B: Kernels>(
        &self,
        network: &Network<'_, B>,
        part: &Masked,
        read: Read<B>,
        counts: Counts,
        device: &B::Device,
    ) -> Judged<B> {
        let Read { corrupted, originals, targets } = read;
        let hidden = network.encode(&part.batch(corrupted.clone(), device));
        let judged = part.judged_mask(self.kind == Kind::Electra15, device);
        let mean = |losses: Tensor<B, 1>| (losses * judged.clone()).sum() / counts.judged.max(1) as f64;
        match self.kind {
            Kind::Electra | Kind::Electra15 => {
                let logits = network.discriminator_head(hidden);
                let replaced = corrupted.clone().not_equal(originals).float();
                let loss = mean(binary_cross_entropy(logits.clone(), replaced));
                Judged { loss, corrupted, logits: Some(logits) }
            }
            Kind::ReplaceMlm => {
                let rows = hidden.select(0, part.positions(device));
                let loss = cross_entropy(network.language_head("electra", rows), targets);
                let loss = loss * counts.chosen_share(part);
                Judged { loss, corrupted, logits: None }
            }
            Kind::AllTokensMlm => {
                // p(original) = σ(−x)·[input is the original] + σ(x)·softmax(words): x says "do not copy".
                let logits = network.discriminator_head(hidden.clone());
                let kept = corrupted.clone().equal(originals.clone()).float();
                let words = log_probabilities(network.language_head("electra", hidden), originals);
                let predicted = (log_sigmoid(logits.clone()) + words).exp();
                let copied = log_sigmoid(logits.clone().neg()).exp() * kept;
                let loss = mean((predicted + copied + 1e-9).log().neg());
                Judged { loss, corrupted, logits: Some(logits) }
            }
            Kind::Mlm => unreachable!("masked language modelling has no second network"),
        }
    }
}

/// A generator's answer to a masked part.
struct Filled<B: Backend> {
    loss: Tensor<B, 1>,
    samples: Tensor<B, 1, Int>,
    /// What stood at the chosen positions.
    targets: Tensor<B, 1, Int>,
}

/// What a discriminator gets: tokens `[size · sequence]` as they are and as they were, and what stood at the chosen
/// positions.
struct Read<B: Backend> {
    corrupted: Tensor<B, 1, Int>,
    originals: Tensor<B, 1, Int>,
    targets: Tensor<B, 1, Int>,
}

fn fill<B: Kernels>(
    generator: &Network<'_, B>,
    part: &Masked,
    originals: Tensor<B, 1, Int>,
    device: &B::Device,
) -> Filled<B> {
    let hidden = generator.encode(&part.batch(part.masked(device), device));
    let positions = part.positions(device);
    let logits = generator.language_head("generator", hidden.select(0, positions.clone()));
    let targets = originals.select(0, positions);
    let samples = sample(logits.clone().detach(), part.uniform(device));
    Filled { loss: cross_entropy(logits, targets.clone()), samples, targets }
}

/// What a generator puts at the chosen positions.
pub fn sample_replacements<B: Kernels>(
    generator: &Network<'_, B>,
    part: &Masked,
    device: &B::Device,
) -> Tensor<B, 1, Int> {
    fill(generator, part, part.originals(device), device).samples
}

/// ln softmax of `[rows, classes]` logits at each row's class; `[rows]`.
fn log_probabilities<B: Kernels>(logits: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> Tensor<B, 1> {
    B::log_probabilities(logits).gather(1, targets.unsqueeze_dim(1)).squeeze_dim(1)
}

/// Mean cross-entropy of `[rows, classes]` logits against class ids `[rows]`; one value, nats.
pub fn cross_entropy<B: Kernels>(logits: Tensor<B, 2>, targets: Tensor<B, 1, Int>) -> Tensor<B, 1> {
    log_probabilities(logits, targets).mean().neg()
}

/// Sigmoid cross-entropy of each logit, nats, as max(x, 0) − x·y + ln(1 + e^−|x|), which no logit overflows.
pub fn binary_cross_entropy<B: Backend>(logits: Tensor<B, 1>, labels: Tensor<B, 1>) -> Tensor<B, 1> {
    let log_term = (logits.clone().abs().neg().exp() + 1.0).log();
    logits.clone().clamp_min(0.0) - logits * labels + log_term
}

/// One id a row of `[rows, vocabulary]` logits, from softmax at temperature 1: the distribution that adding Gumbel
/// noise and taking the largest gives, by inverting the cumulative sum at `uniform` `[rows]`. One number a row
/// comes from the host, so that every device draws the same ids.
fn sample<B: Backend>(logits: Tensor<B, 2>, uniform: Tensor<B, 1>) -> Tensor<B, 1, Int> {
    let last = logits.dims()[1] as i64 - 1;
    let cumulative = softmax(logits, 1).cumsum(1);
    let below = cumulative.lower_equal(uniform.unsqueeze_dim(1)).int().sum_dim(1);
    below.squeeze_dim::<1>(1).clamp_max(last)
}

/// Values of the host as a vector of the device.
pub fn vector<B: Backend>(values: Vec<f32>, device: &B::Device) -> Tensor<B, 1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

/// Ids of the host as a vector of the device.
pub fn ids<B: Backend>(values: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
