//! ELECTRA's joint objective: mask, let the generator fill, ask the discriminator which tokens
//! were replaced (paper §3; `pretrain_helpers.py` and `run_pretraining.py` of google-research).
//!
//! Masks and samples are drawn on the host from a generator of their own, so that a step depends
//! on the seed and its own number alone and a resumed run draws what the uninterrupted one drew.

use anyhow::Result;
use burn::tensor::{
    Int, Tensor, TensorData,
    activation::{log_softmax, softmax},
    backend::Backend,
};
use rand::Rng;

use super::corpus::Example;
use super::model::{Batch, Network};
use crate::text::SpecialTokens;

/// What a run learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Generator and discriminator together.
    Electra,
    /// Masked language modelling of the discriminator's own encoder: BERT's objective, and a start
    /// for a discriminator that would not leave the majority class by itself.
    Mlm,
}

/// The objective, the weights of its losses and the share of tokens that are chosen.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Objective {
    /// What is learnt.
    pub kind: Kind,
    /// Share of tokens chosen for prediction: 0.15 (0.25 for LARGE).
    pub mask_prob: f64,
    /// Weight of the generator's loss.
    pub gen_weight: f64,
    /// Weight of the discriminator's loss.
    pub disc_weight: f64,
}

impl Default for Objective {
    fn default() -> Self {
        Self { kind: Kind::Electra, mask_prob: 0.15, gen_weight: 1.0, disc_weight: 50.0 }
    }
}

/// A batch on the host: what was drawn before the networks run.
#[derive(Clone, Debug)]
pub struct Masked {
    size: usize,
    sequence: usize,
    /// The original tokens, `[size · sequence]`, padding 0.
    original: Vec<i32>,
    /// The generator's input: some chosen tokens replaced by `[MASK]`.
    masked: Vec<i32>,
    types: Vec<i32>,
    padding: Vec<bool>,
    /// Chosen positions as indices into `original`; a position may stand here twice.
    chosen: Vec<i32>,
}

impl Masked {
    /// Chooses positions in every example and masks 85 % of them.
    ///
    /// As in the recipe, positions are drawn with replacement from all tokens other than `[CLS]`,
    /// `[SEP]` and `[MASK]`; round(tokens · `mask_prob`) of them, at least one and at most
    /// ⌊(`mask_prob` + 0.005) · sequence⌋.
    pub fn draw(examples: &[Example], special: &SpecialTokens, mask_prob: f64, rng: &mut impl Rng) -> Self {
        let sequence = examples.iter().map(|example| example.ids.len()).max().unwrap_or(1);
        let size = examples.len();
        let mut batch = Self {
            size,
            sequence,
            original: vec![special.pad as i32; size * sequence],
            masked: Vec::new(),
            types: vec![0; size * sequence],
            padding: vec![true; size * sequence],
            chosen: Vec::new(),
        };
        for (row, example) in examples.iter().enumerate() {
            let start = row * sequence;
            for (column, &id) in example.ids.iter().enumerate() {
                batch.original[start + column] = i32::from(id);
                batch.types[start + column] = i32::from(column >= example.first_segment);
                batch.padding[start + column] = false;
            }
        }
        batch.masked = batch.original.clone();
        let most = ((mask_prob + 0.005) * sequence as f64) as usize;
        for (row, example) in examples.iter().enumerate() {
            let is_special = |&id: &u16| [special.cls, special.sep, special.mask].contains(&u32::from(id));
            let candidates: Vec<usize> =
                (0..example.ids.len()).filter(|&i| !is_special(&example.ids[i])).collect();
            if candidates.is_empty() {
                continue;
            }
            let wanted = (example.ids.len() as f64 * mask_prob).round() as usize;
            for _ in 0..wanted.clamp(1, most.max(1)) {
                let position = row * sequence + candidates[rng.random_range(0..candidates.len())];
                batch.chosen.push(position as i32);
                if rng.random_bool(0.85) {
                    batch.masked[position] = special.mask as i32;
                }
            }
        }
        batch
    }

    /// Number of chosen positions, one that was chosen twice counting twice.
    pub fn chosen(&self) -> usize {
        self.chosen.len()
    }

    /// Length of a padded row.
    pub fn sequence(&self) -> usize {
        self.sequence
    }

    /// The original tokens with samples put at the chosen positions, and the labels: 1 only where
    /// the sample differs from the original. The first of several samples at one position counts.
    pub fn corrupt(&self, samples: &[i32]) -> (Vec<i32>, Vec<f32>) {
        let mut corrupted = self.original.clone();
        let mut done = vec![false; corrupted.len()];
        for (&position, &sample) in self.chosen.iter().zip(samples) {
            let position = position as usize;
            if !std::mem::replace(&mut done[position], true) {
                corrupted[position] = sample;
            }
        }
        let replaced = corrupted.iter().zip(&self.original).map(|(a, b)| f32::from(u8::from(a != b)));
        let labels = replaced.collect();
        (corrupted, labels)
    }

    /// The tensors of a batch with these ids in the place of the original ones.
    pub fn batch<B: Backend>(&self, ids: &[i32], device: &B::Device) -> Batch<B> {
        let shape = [self.size, self.sequence];
        let int =
            |values: &[i32]| Tensor::<B, 2, Int>::from_data(TensorData::new(values.to_vec(), shape), device);
        Batch {
            input_ids: int(ids),
            token_type_ids: int(&self.types),
            padding: Tensor::from_data(TensorData::new(self.padding.clone(), shape), device),
        }
    }
}

/// What one step computed.
#[derive(Debug)]
pub struct Step<B: Backend> {
    /// The tensor to differentiate: `gen_weight · MLM + disc_weight · RTD`, or the MLM loss.
    pub loss: Tensor<B, 1>,
    /// Mean cross-entropy over the chosen positions, nats.
    pub mlm_loss: Tensor<B, 1>,
    /// Share of chosen positions where the sample is the original.
    pub generator_accuracy: f64,
    /// The discriminator's part, where there is one.
    pub detection: Option<Detected<B>>,
}

/// The discriminator's part of a step.
#[derive(Debug)]
pub struct Detected<B: Backend> {
    /// Mean binary cross-entropy over all tokens, nats.
    pub loss: Tensor<B, 1>,
    /// Logit of each non-padding token.
    pub logits: Vec<f32>,
    /// Whether that token was replaced.
    pub replaced: Vec<bool>,
}

/// A generator's answer to a masked batch.
struct Filled<B: Backend> {
    loss: Tensor<B, 1>,
    samples: Vec<i32>,
    accuracy: f64,
}

fn fill<B: Backend>(
    generator: &Network<'_, B>,
    masked: &Masked,
    rng: &mut impl Rng,
    device: &B::Device,
) -> Result<Filled<B>> {
    let chosen = masked.chosen.len();
    let positions: Tensor<B, 1, Int> =
        Tensor::from_data(TensorData::new(masked.chosen.clone(), [chosen]), device);
    let hidden = generator.encode(&masked.batch(&masked.masked, device));
    let logits = generator.generator_head(hidden.select(0, positions));
    let samples = sample(logits.clone().detach(), rng)?;
    let targets: Vec<i32> = masked.chosen.iter().map(|&p| masked.original[p as usize]).collect();
    let hits = samples.iter().zip(&targets).filter(|(sample, target)| sample == target).count();
    let loss = cross_entropy(logits, targets, device);
    Ok(Filled { loss, samples, accuracy: hits as f64 / chosen.max(1) as f64 })
}

/// What a generator puts at the chosen positions.
pub fn sample_replacements<B: Backend>(
    generator: &Network<'_, B>,
    masked: &Masked,
    rng: &mut impl Rng,
    device: &B::Device,
) -> Result<Vec<i32>> {
    Ok(fill(generator, masked, rng, device)?.samples)
}

/// The forward half of a step of masked language modelling.
pub fn mlm_step<B: Backend>(
    network: &Network<'_, B>,
    masked: &Masked,
    rng: &mut impl Rng,
    device: &B::Device,
) -> Result<Step<B>> {
    let Filled { loss, accuracy, .. } = fill(network, masked, rng, device)?;
    Ok(Step { loss: loss.clone(), mlm_loss: loss, generator_accuracy: accuracy, detection: None })
}

/// Generator, samples, discriminator: the forward half of a joint step.
pub fn joint_step<B: Backend>(
    generator: &Network<'_, B>,
    discriminator: &Network<'_, B>,
    objective: &Objective,
    masked: &Masked,
    rng: &mut impl Rng,
    device: &B::Device,
) -> Result<Step<B>> {
    let Filled { loss: mlm_loss, samples, accuracy } = fill(generator, masked, rng, device)?;
    let (corrupted, labels) = masked.corrupt(&samples);
    let hidden = discriminator.encode(&masked.batch(&corrupted, device));
    let logits = discriminator.discriminator_head(hidden);
    let real: Vec<usize> = (0..masked.padding.len()).filter(|&i| !masked.padding[i]).collect();
    let values = logits.to_data().to_vec::<f32>().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let replaced = real.iter().map(|&i| labels[i] != 0.0).collect();
    let kept = real.iter().map(|&i| values[i]).collect();
    let loss = replaced_token_loss(logits, labels, &masked.padding, device);
    Ok(Step {
        loss: mlm_loss.clone() * objective.gen_weight + loss.clone() * objective.disc_weight,
        mlm_loss,
        generator_accuracy: accuracy,
        detection: Some(Detected { loss, logits: kept, replaced }),
    })
}

/// Mean cross-entropy of `[rows, classes]` logits against class ids; one value, nats.
pub fn cross_entropy<B: Backend>(
    logits: Tensor<B, 2>,
    targets: Vec<i32>,
    device: &B::Device,
) -> Tensor<B, 1> {
    let rows = targets.len();
    let targets: Tensor<B, 2, Int> = Tensor::from_data(TensorData::new(targets, [rows, 1]), device);
    log_softmax(logits, 1).gather(1, targets).mean().neg()
}

/// Mean sigmoid cross-entropy over the tokens that are no padding; one value, nats.
/// Written as max(x, 0) − x·y + ln(1 + e^−|x|), which no logit overflows.
pub fn replaced_token_loss<B: Backend>(
    logits: Tensor<B, 1>,
    labels: Vec<f32>,
    padding: &[bool],
    device: &B::Device,
) -> Tensor<B, 1> {
    let length = labels.len();
    let real: Vec<f32> = padding.iter().map(|&padding| f32::from(u8::from(!padding))).collect();
    let count: f32 = real.iter().sum();
    let vector = |values| Tensor::<B, 1>::from_data(TensorData::new(values, [length]), device);
    let log_term = (logits.clone().abs().neg().exp() + 1.0).log();
    let loss = logits.clone().clamp_min(0.0) - logits * vector(labels) + log_term;
    (loss * vector(real)).sum() / (count + 1e-6)
}

/// One id a row of `[rows, vocabulary]` logits, from softmax at temperature 1: the distribution
/// that adding Gumbel noise and taking the largest gives, by inverting the cumulative sum.
fn sample<B: Backend>(logits: Tensor<B, 2>, rng: &mut impl Rng) -> Result<Vec<i32>> {
    let vocabulary = logits.dims()[1];
    let probabilities = softmax(logits, 1).into_data();
    let probabilities = probabilities.as_slice::<f32>().map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let draw = |row: &[f32]| {
        let mut left: f32 = rng.random::<f32>();
        for (id, probability) in row.iter().enumerate() {
            left -= probability;
            if left < 0.0 {
                return id as i32;
            }
        }
        vocabulary as i32 - 1
    };
    Ok(probabilities.chunks_exact(vocabulary).map(draw).collect())
}
