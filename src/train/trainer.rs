//! The training loop: draw a batch, step both networks together, report, checkpoint, resume.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Tensor, backend::AutodiffBackend};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, newest_weights};
use super::corpus::{Corpus, Example};
use super::model::Network;
use super::objective::{Kind, Masked, Objective, Step, joint_step, mlm_step};
use super::optimizer::{Adam, Moments, gradients, scalar};
use super::start::fresh_weights;
use super::weights::Weights;
use crate::ElectraConfig;
use crate::evaluate::roc_auc;
use crate::import::write_atomically;

/// Everything that decides a run; saved beside it as `run.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// `tiny`, `small`, `base` or `large`.
    pub preset: String,
    /// Steps of the whole schedule.
    pub steps: usize,
    /// Examples a step.
    pub batch_size: usize,
    /// Probability of dropping an activation.
    pub dropout: f64,
    /// Seed of initial weights, order, masks, samples and dropout.
    pub seed: u64,
    /// A run whose newest encoder this one starts from.
    pub init_from: Option<PathBuf>,
    /// What is learnt, loss weights and mask share.
    pub objective: Objective,
    /// Optimiser and schedule.
    pub adam: Adam,
}

/// How often a run says something, and how far it goes now.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Steps between lines of the curve.
    pub report_every: usize,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Step at which to stop for now, if before the end of the schedule.
    pub stop_at: Option<usize>,
}

/// The two networks of a run over one set of weights.
pub struct Pair<'a, B: burn::tensor::backend::Backend> {
    /// Fills masked tokens.
    pub generator: Network<'a, B>,
    /// Tells replaced tokens.
    pub discriminator: Network<'a, B>,
}

impl Run {
    /// Reads a run's `run.json`.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("run.json");
        let json = std::fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&json).with_context(|| path.display().to_string())
    }

    /// The discriminator's shape with the corpus's vocabulary.
    pub fn config(&self, corpus: &Corpus) -> Result<ElectraConfig> {
        let preset = ElectraConfig::preset(&self.preset)
            .with_context(|| format!("preset {:?}: tiny, small, base or large", self.preset))?;
        let config = ElectraConfig { vocab_size: corpus.manifest.vocab_size, ..preset };
        ensure!(
            corpus.manifest.sequence <= config.max_position_embeddings,
            "the corpus has examples of {} tokens, the preset {} takes {}",
            corpus.manifest.sequence,
            self.preset,
            config.max_position_embeddings
        );
        Ok(config)
    }

    /// Trains from the newest checkpoint of `folder`, or from fresh weights if there is none.
    pub fn train<B: AutodiffBackend>(
        &self,
        corpus: &Corpus,
        folder: &Path,
        pace: Pace,
        device: &B::Device,
    ) -> Result<()> {
        let config = self.config(corpus)?;
        let generator = config.generator();
        self.claim(folder)?;
        let mut state = match Checkpoint::<B>::newest(folder, device)? {
            Some(checkpoint) => checkpoint,
            None => Checkpoint {
                step: 0,
                weights: self.initial_weights(&config, corpus, device)?.require_grad(),
                moments: Moments::default(),
            },
        };
        let stop = pace.stop_at.unwrap_or(self.steps).min(self.steps);
        let bar = ProgressBar::new(self.steps as u64).with_position(state.step as u64);
        bar.set_style(ProgressStyle::with_template("{pos}/{len} {wide_bar} {eta} {msg}")?);
        let mut curve = Curve::open(folder, state.step)?;
        let mut order = Order::new(corpus.train.len(), self.seed);
        while state.step < stop {
            let mut rng = self.rng(state.step);
            let examples: Vec<Example> = (0..self.batch_size)
                .map(|i| corpus.train.get(order.at(state.step * self.batch_size + i)))
                .collect();
            let tokens: usize = examples.iter().map(|example| example.ids.len()).sum();
            let masked = Masked::draw(&examples, &corpus.special, self.objective.mask_prob, &mut rng);
            B::seed(device, self.seed ^ (state.step as u64) << 20);
            let pair = Pair::new(&state.weights, &config, &generator, self.dropout);
            let Pair { generator, discriminator } = &pair;
            let step = match self.objective.kind {
                Kind::Mlm => mlm_step(discriminator, &masked, &mut rng, device)?,
                Kind::Electra => {
                    joint_step(generator, discriminator, &self.objective, &masked, &mut rng, device)?
                }
            };
            let grads = gradients(&state.weights, &step.loss.backward());
            state.step += 1;
            let rate = self.adam.rate(state.step, self.steps);
            self.adam.update(&mut state.weights, &mut state.moments, &grads, rate).with_context(|| {
                format!("step {}: stopped; the last checkpoint is whole. Lower the learning rate", state.step)
            })?;
            curve.add(tokens, &step);
            bar.inc(1);
            if state.step % pace.report_every == 0 || state.step == stop {
                bar.set_message(curve.report(state.step, rate)?);
            }
            if state.step % pace.checkpoint_every == 0 || state.step == stop {
                state.save(folder)?;
            }
        }
        bar.finish();
        Ok(())
    }

    fn initial_weights<B: AutodiffBackend>(
        &self,
        config: &ElectraConfig,
        corpus: &Corpus,
        device: &B::Device,
    ) -> Result<Weights<B>> {
        let fresh = fresh_weights(config, self.objective.kind, self.seed);
        let mut weights = Weights::from_tensors(&fresh, device)?;
        // The unigram distribution is known; learning it would take the first thousand steps.
        let frequencies = Tensor::from_floats(corpus.log_frequencies().as_slice(), device);
        weights.vectors.insert("generator_lm_head.bias".to_owned(), frequencies);
        if let Some(other) = &self.init_from {
            let (step, tensors) = newest_weights(other)?;
            log::info!("starting from the encoder of {} at step {step}", other.display());
            weights.adopt_encoder(&Weights::from_tensors(&tensors, device)?)?;
        }
        Ok(weights)
    }

    /// The host's random numbers of one step.
    fn rng(&self, step: usize) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(step as u64 + 1);
        rng
    }

    /// Writes `run.json`, or checks that the folder's own says the same.
    fn claim(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join("run.json");
        if path.exists() {
            ensure!(
                Self::open(folder)? == *self,
                "{}: this run was started with other settings; use those or another folder",
                path.display()
            );
        } else {
            write_atomically(&path, &serde_json::to_vec_pretty(self)?)?;
        }
        Ok(())
    }
}

impl<'a, B: burn::tensor::backend::Backend> Pair<'a, B> {
    /// Generator and discriminator as [`fresh_weights`] lays them out.
    pub fn new(
        weights: &'a Weights<B>,
        discriminator: &'a ElectraConfig,
        generator: &'a ElectraConfig,
        dropout: f64,
    ) -> Self {
        Self {
            generator: Network { weights, prefix: "generator", config: generator, dropout },
            discriminator: Network { weights, prefix: "electra", config: discriminator, dropout },
        }
    }
}

/// The order of the examples: a fresh permutation each epoch, from the seed alone.
struct Order {
    seed: u64,
    epoch: Option<usize>,
    indices: Vec<usize>,
}

impl Order {
    fn new(examples: usize, seed: u64) -> Self {
        Self { seed, epoch: None, indices: (0..examples).collect() }
    }

    fn at(&mut self, position: usize) -> usize {
        let epoch = position / self.indices.len();
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            self.indices.sort_unstable();
            let seed = self.seed.wrapping_add(epoch as u64).rotate_left(32);
            self.indices.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        }
        self.indices[position % self.indices.len()]
    }
}

/// `curve.tsv`: means over the steps since the last line.
struct Curve {
    file: std::fs::File,
    since: Instant,
    tokens: usize,
    steps: usize,
    mlm: f64,
    rtd: f64,
    generator: f64,
    logits: Vec<f32>,
    replaced: Vec<bool>,
}

impl Curve {
    const HEADER: &str =
        "step\tmlm_loss\trtd_loss\tgenerator_accuracy\trtd_auc\tlearning_rate\ttokens_per_second";

    /// Opens the curve, without the lines after `step`, which a resumed run writes again.
    fn open(folder: &Path, step: usize) -> Result<Self> {
        let path = folder.join("curve.tsv");
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let is_past = |line: &&str| {
            line.split('\t').next().and_then(|s| s.parse::<usize>().ok()).is_some_and(|s| s <= step)
        };
        let mut file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
        writeln!(file, "{}", Self::HEADER)?;
        for line in old.lines().filter(is_past) {
            writeln!(file, "{line}")?;
        }
        Ok(Self {
            file,
            since: Instant::now(),
            tokens: 0,
            steps: 0,
            mlm: 0.0,
            rtd: 0.0,
            generator: 0.0,
            logits: Vec::new(),
            replaced: Vec::new(),
        })
    }

    fn add<B: burn::tensor::backend::Backend>(&mut self, tokens: usize, step: &Step<B>) {
        self.tokens += tokens;
        self.steps += 1;
        self.mlm += f64::from(scalar(step.mlm_loss.clone()));
        self.generator += step.generator_accuracy;
        if let Some(detection) = &step.detection {
            self.rtd += f64::from(scalar(detection.loss.clone()));
            self.logits.extend(&detection.logits);
            self.replaced.extend(&detection.replaced);
        }
    }

    fn report(&mut self, step: usize, rate: f64) -> Result<String> {
        let steps = self.steps as f64;
        let (mlm, rtd) = (self.mlm / steps, self.rtd / steps);
        let generator = self.generator / steps;
        let auc = roc_auc(&self.logits, &self.replaced).unwrap_or(f64::NAN);
        let speed = self.tokens as f64 / self.since.elapsed().as_secs_f64();
        writeln!(self.file, "{step}\t{mlm:.4}\t{rtd:.5}\t{generator:.4}\t{auc:.4}\t{rate:.3e}\t{speed:.0}")?;
        (self.tokens, self.steps, self.since) = (0, 0, Instant::now());
        (self.mlm, self.rtd, self.generator) = (0.0, 0.0, 0.0);
        self.logits.clear();
        self.replaced.clear();
        Ok(format!("mlm {mlm:.3} rtd {rtd:.4} auc {auc:.3} {speed:.0} tokens/s"))
    }
}
