//! ELECTRA's joint objective: let the generator fill the masks, ask the discriminator which tokens were replaced
//! (paper §3, `run_pretraining.py`), and beside it the objectives that the paper compares it with (§3.4).
//!
//! All of a step after [`Placed`] happens on the device, and nothing is fetched from there.

use burn::tensor::{
    Int, Tensor,
    activation::{log_sigmoid, softmax},
    backend::{AutodiffBackend, Backend},
};

use super::kernels::Kernels;
use super::masked::Masked;
use super::model::Network;
use super::placed::Placed;

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
    /// Share of the chosen tokens that are replaced by one from elsewhere in the part of the batch instead of the
    /// generator's sample. The recipe has none: what plainly does not belong is what a generator writes while it is
    /// weak, and no longer once it is strong, so that a discriminator forgets it.
    #[serde(default, skip_serializing_if = "is_none")]
    pub stray_prob: f64,
}

/// Runs that do without keep the `run.toml` that they had.
fn is_none(stray_prob: &f64) -> bool {
    *stray_prob == 0.0
}

impl Objective {
    /// The recipe's values for that kind.
    pub fn of(kind: Kind) -> Self {
        let disc_weight = if kind.detects() { 50.0 } else { 1.0 };
        Self { kind, mask_prob: 0.15, gen_weight: 1.0, disc_weight, stray_prob: 0.0 }
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
    /// What is learnt, which says what is judged.
    pub kind: Kind,
    /// Chosen positions.
    pub chosen: usize,
    /// Positions that are judged.
    pub judged: usize,
}

impl Counts {
    /// Of all parts together.
    pub fn of(parts: &[Masked], kind: Kind) -> Self {
        let chosen = parts.iter().map(|part| part.chosen().len()).sum();
        let judged = parts.iter().map(|part| part.judged(kind).count()).sum();
        Self { kind, chosen, judged }
    }
}

/// The forward half of a step over one part of a batch.
#[derive(Debug)]
pub struct Step<B: Backend> {
    /// The tensor to differentiate: `gen_weight · MLM + disc_weight · discriminator`.
    pub loss: Tensor<B, 1>,
    /// What came of it beside.
    pub shown: Shown<B>,
}

/// What one part of a batch shows of a step, still on its device. Losses are shares of the batch's means, which they
/// sum up to; nats.
#[derive(Debug)]
pub struct Shown<B: Backend> {
    /// Cross-entropy at the chosen positions.
    pub mlm_loss: Tensor<B, 1>,
    /// Share of the chosen positions where the sample is the original.
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

impl<B: AutodiffBackend> Shown<B> {
    /// The same without what differentiation needs.
    pub fn inner(self) -> Shown<B::InnerBackend> {
        Shown {
            mlm_loss: self.mlm_loss.inner(),
            generator_accuracy: self.generator_accuracy.inner(),
            discriminator: self.discriminator.map(|judged| Judged {
                loss: judged.loss.inner(),
                corrupted: judged.corrupted.inner(),
                logits: judged.logits.map(Tensor::inner),
            }),
        }
    }
}

impl Objective {
    /// The forward half of a step over one part of a batch.
    pub fn forward<B: Kernels>(&self, pair: &Pair<'_, B>, part: &Placed<B>) -> Step<B> {
        let filler = if self.kind == Kind::Mlm { &pair.discriminator } else { &pair.generator };
        let Filled { loss: mlm_loss, samples, targets } = fill(filler, part);
        let hits = samples.clone().equal(targets.clone()).float();
        let generator_accuracy = (hits * part.chosen_share()).sum();
        if self.kind == Kind::Mlm {
            let shown = Shown { mlm_loss: mlm_loss.clone(), generator_accuracy, discriminator: None };
            return Step { loss: mlm_loss, shown };
        }
        let judged = self.judge(&pair.discriminator, part, part.corrupt(samples), targets);
        let loss = mlm_loss.clone() * self.gen_weight + judged.loss.clone() * self.disc_weight;
        Step { loss, shown: Shown { mlm_loss, generator_accuracy, discriminator: Some(judged) } }
    }

    /// What the discriminator makes of the corrupted tokens, `[size · sequence]`; `targets` `[slots]` stood at the
    /// chosen positions.
    fn judge<B: Kernels>(
        &self,
        network: &Network<'_, B>,
        part: &Placed<B>,
        corrupted: Tensor<B, 1, Int>,
        targets: Tensor<B, 1, Int>,
    ) -> Judged<B> {
        let hidden = network.encode(&part.batch(corrupted.clone()));
        let mean = |losses: Tensor<B, 1>| (losses * part.judged_share()).sum();
        match self.kind {
            Kind::Electra | Kind::Electra15 => {
                let logits = network.discriminator_head(hidden);
                let replaced = corrupted.clone().not_equal(part.originals()).float();
                let loss = mean(binary_cross_entropy(logits.clone(), replaced));
                Judged { loss, corrupted, logits: Some(logits) }
            }
            Kind::ReplaceMlm => {
                let logits = network.language_head("electra", hidden.select(0, part.chosen()));
                let loss = chosen_cross_entropy(part, logits, targets);
                Judged { loss, corrupted, logits: None }
            }
            Kind::AllTokensMlm => {
                // p(original) = σ(−x)·[input is the original] + σ(x)·softmax(words): x says "do not copy".
                let logits = network.discriminator_head(hidden.clone());
                let kept = corrupted.clone().equal(part.originals()).float();
                let words = log_probabilities(network.language_head("electra", hidden), part.originals());
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
    /// What it puts at the chosen positions, `[slots]`.
    samples: Tensor<B, 1, Int>,
    /// What stood there.
    targets: Tensor<B, 1, Int>,
}

fn fill<B: Kernels>(generator: &Network<'_, B>, part: &Placed<B>) -> Filled<B> {
    let hidden = generator.encode(&part.batch(part.masked()));
    let logits = generator.language_head("generator", hidden.select(0, part.chosen()));
    let targets = part.originals().select(0, part.chosen());
    let samples = sample(logits.clone().detach(), part.uniform());
    Filled { loss: chosen_cross_entropy(part, logits, targets.clone()), samples, targets }
}

/// A part's share of the batch's mean cross-entropy at the chosen positions, from their logits `[slots, vocabulary]`.
fn chosen_cross_entropy<B: Kernels>(
    part: &Placed<B>,
    logits: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    (log_probabilities(logits, targets) * part.chosen_share()).sum().neg()
}

/// What a generator puts at the chosen positions, `[slots]`.
pub fn sample_replacements<B: Kernels>(generator: &Network<'_, B>, part: &Placed<B>) -> Tensor<B, 1, Int> {
    fill(generator, part).samples
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
