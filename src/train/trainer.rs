//! The training loop: draw a batch, step both networks together, report, checkpoint, resume.
//!
//! A batch is drawn by a thread of its own while the device works on the one before, and nothing is fetched from the
//! device between two reports.

use std::fs::File;
use std::mem::take;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result, ensure};
use burn::tensor::{DType, Tensor, backend::Backend};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::checkpoint::{Checkpoint, has_checkpoint};
use super::corpus::{Corpus, Example, Manifest};
use super::curve::Curve;
use super::kernels::{Computed, Differentiable};
use super::learner::{Gradients, Learner, Precision};
use super::masked::Masked;
use super::model::{Embeddings, Network};
use super::objective::{Counts, Objective, Pair, Shown, Step};
use super::peak;
use super::placed::Placed;
use super::ranks::{Pending, Ranks};
use super::report;
use super::run::{Run, Sharing};
use super::start::fresh_weights;
use super::tape::Tape;
use super::weights::{Weights, host_values, vector};
use crate::ElectraConfig;
use crate::weights::CRC_32C;

/// Batches that are drawn ahead.
const DRAWN_AHEAD: usize = 2;

/// Sentences in a report.
const REPORTED: usize = 12;

/// How often a run says something, and how far it goes now.
#[derive(Clone, Copy)]
pub struct Pace<'a> {
    /// Steps between lines of the curve.
    pub report_every: usize,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Step at which to stop for now, if before the end of the schedule.
    pub stop_at: Option<usize>,
    /// Once this is true the step that is being done is the last one for now.
    pub interrupted: &'a AtomicBool,
    /// The processes that share the run.
    pub ranks: &'a dyn Ranks,
}

/// What a step leaves: see [`Run::step`].
type Stepped<B> = (Vec<(Masked, Shown<B>)>, Tensor<B, 1>, bool);

/// The shapes of a run's two networks.
#[derive(Clone, Copy, Debug)]
pub struct Shapes {
    /// The discriminator's.
    pub discriminator: ElectraConfig,
    /// The generator's.
    pub generator: ElectraConfig,
    sharing: Sharing,
}

impl Run {
    /// The shapes of both networks with the corpus's vocabulary.
    pub fn shapes(&self, corpus: &Corpus) -> Result<Shapes> {
        let discriminator = self.config(corpus)?;
        let generator = self.generator_config(&discriminator);
        Ok(Shapes { discriminator, generator, sharing: self.generator.sharing })
    }

    /// Trains from the newest checkpoint of `folder`, or from fresh weights if there is none, and returns the step
    /// that it stopped after.
    ///
    /// # Errors
    /// Another run's folder, or one in which another process trains; ranks that do not do the same; a loss that is no
    /// longer finite, what a disk says. The newest checkpoint stays whole.
    pub fn train<B: Differentiable>(
        &self,
        corpus: &Corpus,
        folder: &Path,
        pace: Pace<'_>,
        device: &B::Device,
    ) -> Result<usize> {
        let shapes = self.shapes(corpus)?;
        if self.precision == Precision::Bf16 {
            ensure!(
                B::supports_dtype(device, DType::BF16),
                "precision = \"bf16\": this device has no bf16; train in f32"
            );
        }
        let (start, _claim) = self.begin::<B::InnerBackend>(&shapes, corpus, folder, pace, device)?;
        let mut learner = Learner::<B>::new(start, self.precision, None);
        let (ranks, writes) = (pace.ranks, pace.ranks.rank() == 0);
        let stop = self.stop(pace);
        let bar = if writes { ProgressBar::new(self.steps as u64) } else { ProgressBar::hidden() };
        bar.set_position(learner.step() as u64);
        bar.set_style(ProgressStyle::with_template("{pos}/{len} {wide_bar} {eta} {msg}")?);
        let mut curve = if writes { Curve::open(folder, learner.step())? } else { Curve::unwritten() };
        let peak = if writes {
            peak::measured::<B::InnerBackend>(self.precision, device) * ranks.size() as f64
        } else {
            1.0
        };
        let operations = peak::operations_a_token(self, &shapes, corpus.manifest.sequence);
        let mut recording = B::Recording::default();
        let first = learner.step();
        std::thread::scope(|scope| {
            let (send, batches) = sync_channel(DRAWN_AHEAD);
            scope.spawn(move || {
                let mut order = Order::new(corpus.train.len(), self.seed);
                // The receiver is gone once the run has stopped.
                (first..stop).try_for_each(|step| send.send(self.draw(corpus, &mut order, step)))
            });
            for parts in batches {
                let rate = self.adam.rate(learner.step() + 1, self.steps);
                let (observed, norm, interrupted) =
                    self.step((&mut learner, &mut recording), &shapes, parts, rate, pace, device)?;
                let step = learner.step();
                curve.add(observed, norm);
                bar.inc(1);
                let last = step == stop || interrupted;
                // A line at each checkpoint, so that a resumed run's means are over the same steps.
                let checkpoint = last || step.is_multiple_of(pace.checkpoint_every);
                if checkpoint || step.is_multiple_of(pace.report_every) {
                    let row = curve.report(step, rate, ranks)?;
                    let [mlm, disc, _, auc, .., speed] = row.values;
                    let share = 100.0 * speed * operations / peak;
                    bar.set_message(format!(
                        "mlm {mlm:.3} disc {disc:.4} auc {auc:.3} {speed:.0} tokens/s, {share:.0} % of the peak"
                    ));
                }
                if checkpoint && writes {
                    learner.checkpoint().save(folder).with_context(|| {
                        format!("step {step}: not kept, the checkpoint before it is; start again from there")
                    })?;
                    report::write(self, corpus, folder, &curve.verdicts(REPORTED)?)?;
                }
                if last {
                    break;
                }
            }
            bar.finish();
            Ok(learner.step())
        })
    }

    /// The step that is the last one for now.
    fn stop(&self, pace: Pace<'_>) -> usize {
        pace.stop_at.unwrap_or(self.steps).min(self.steps)
    }

    /// What the run goes on from: the newest checkpoint, which the first rank makes where there is none; and its claim
    /// to the folder.
    fn begin<B: Backend>(
        &self,
        shapes: &Shapes,
        corpus: &Corpus,
        folder: &Path,
        pace: Pace<'_>,
        device: &B::Device,
    ) -> Result<(Checkpoint<B>, Option<File>)> {
        let ranks = pace.ranks;
        let (size, parts) = (ranks.size(), self.batch_size / self.micro());
        ensure!(
            size <= parts,
            "{size} ranks for {parts} parts of a batch: set micro_batch to batch_size / {size} or less"
        );
        let mut claim = None;
        if ranks.rank() == 0 {
            claim = Some(self.claim(folder, &corpus.manifest)?);
            if self.adam.warmup_steps >= self.steps {
                log::warn!(
                    "warm-up of {} steps in a run of {}: the learning rate never comes to {}",
                    self.adam.warmup_steps,
                    self.steps,
                    self.adam.learning_rate
                );
            }
            if !has_checkpoint(folder)? {
                corpus.verify()?;
                let weights = self.initial_weights(shapes, corpus, device)?;
                Checkpoint::<B>::fresh(weights).save(folder)?;
            }
        }
        ranks.wait();
        let start = Checkpoint::newest(folder, device)?.context("the run's folder is not shared")?;
        self.agree(&corpus.manifest, start.step, pace)?;
        Ok((start, claim))
    }

    /// Checks that all ranks do the same work: one that has a folder, a corpus or options of its own would spoil the
    /// sums, or wait for some that the others never begin.
    fn agree(&self, corpus: &Manifest, step: usize, pace: Pace<'_>) -> Result<()> {
        let Pace { report_every, checkpoint_every, ranks, .. } = pace;
        let stop = self.stop(pace);
        let work = toml::to_string(self)? + &serde_json::to_string(corpus)?;
        let work = work + &format!("{report_every} {checkpoint_every} {stop}");
        let hash = CRC_32C.checksum(work.as_bytes());
        // Each is a whole number that f32 has, and so are the sums.
        let own = [step as f32, (hash >> 16) as f32, (hash & 0xffff) as f32];
        let mut sums = own;
        ranks.sum(&mut sums);
        ensure!(
            sums == own.map(|value| value * ranks.size() as f32),
            "the ranks do not agree; each needs the same folder, corpus and options"
        );
        Ok(())
    }

    /// The parts of a step's batch.
    pub fn draw(&self, corpus: &Corpus, order: &mut Order, step: usize) -> Vec<Masked> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(step as u64 + 1);
        let examples: Vec<Example> = (0..self.batch_size)
            .map(|index| corpus.train.get(order.at(step * self.batch_size + index)))
            .collect();
        let (sequence, special) = (corpus.manifest.sequence, &corpus.special);
        let Objective { mask_prob, stray_prob, .. } = self.objective;
        let part = |examples| {
            let mut part = Masked::draw(examples, sequence, special, mask_prob, &mut rng);
            part.scatter(stray_prob, special, &mut rng);
            part
        };
        examples.chunks(self.micro()).map(part).collect()
    }

    /// One step: what this rank's parts computed, the norm of the whole batch's gradient, and whether any rank was
    /// interrupted.
    fn step<B: Differentiable>(
        &self,
        (learner, recording): (&mut Learner<B>, &mut B::Recording),
        shapes: &Shapes,
        parts: Vec<Masked>,
        rate: f64,
        pace: Pace<'_>,
        device: &B::Device,
    ) -> Result<Stepped<B::InnerBackend>> {
        let counts = Counts::of(&parts, self.objective.kind);
        let mut sums: Gradients<B::InnerBackend> = Vec::new();
        let mut observed = Vec::new();
        let mut interrupted = false;
        // The first of a process's parts gives its gradients at once, the others piece by piece: in the first step, for
        // which some ranks may have one part and others more, all send them at once.
        let in_pieces = learner.has_groups();
        let (rank, size) = (pace.ranks.rank(), pace.ranks.size());
        let mut parts = parts.into_iter().enumerate().filter(|(index, _)| index % size == rank).peekable();
        while let Some((index, part)) = parts.next() {
            B::seed(device, self.seed ^ (learner.step() as u64) << 20 ^ (index as u64) << 52);
            let placed = Placed::new(&part, counts, device);
            let inputs = learner.inputs(&placed);
            let Computed { gradients, shown } =
                B::part(recording, inputs, || self.part(learner, shapes, &placed, size > 1));
            let mut before = take(&mut sums).into_iter();
            let mut add = |own| match before.next() {
                Some(sum) => sum + own,
                None => own,
            };
            let pieces = gradients.map(|piece| piece.into_iter().map(&mut add).collect());
            if parts.peek().is_none() {
                (sums, interrupted) = if in_pieces {
                    over_ranks(pieces, pace, device)?
                } else {
                    over_ranks(std::iter::once(pieces.flatten().collect()), pace, device)?
                };
            } else {
                sums = pieces.flat_map(|piece: Gradients<_>| piece).collect();
            }
            observed.push((part, shown));
        }
        let norm = learner.update(&self.adam, sums, rate);
        Ok((observed, norm, interrupted))
    }

    /// Both halves of a step over one part of a batch, the second of them in pieces or at once.
    fn part<'a, B: Differentiable>(
        &self,
        learner: &'a mut Learner<B>,
        shapes: &Shapes,
        placed: &Placed<B>,
        in_pieces: bool,
    ) -> Computed<'a, B::InnerBackend> {
        let tape = in_pieces.then(Tape::default);
        let pair = Pair::new(learner.weights(), shapes, self.dropout, tape.as_ref());
        let Step { loss, shown } = self.objective.forward(&pair, placed);
        Computed { gradients: Box::new(learner.gradients(loss, tape)), shown: shown.inner() }
    }

    fn initial_weights<B: Backend>(
        &self,
        shapes: &Shapes,
        corpus: &Corpus,
        device: &B::Device,
    ) -> Result<Weights<B>> {
        let mut fresh = fresh_weights(self, &shapes.discriminator);
        if let Some(from) = &self.init_from {
            let warmed = self.warmed(fresh, from, &shapes.discriminator, corpus);
            fresh = warmed.with_context(|| from.display().to_string())?;
        }
        let mut weights = Weights::from_tensors(&fresh, device)?;
        // The unigram distribution is known; learning it would take the first thousand steps.
        let frequencies = Tensor::from_floats(corpus.log_frequencies().as_slice(), device);
        for name in ["generator_lm_head.bias", "electra_lm_head.bias"] {
            if let Some(bias) = weights.vectors.get_mut(name) {
                *bias = frequencies.clone();
            }
        }
        Ok(weights)
    }
}

/// The gradients of all ranks together, those of a piece on their way while the next one is computed, and whether any
/// of the ranks was interrupted meanwhile.
fn over_ranks<B: Backend>(
    pieces: impl Iterator<Item = Gradients<B>>,
    pace: Pace<'_>,
    device: &B::Device,
) -> Result<(Gradients<B>, bool)> {
    let interrupted = || pace.interrupted.load(Ordering::Relaxed);
    if pace.ranks.size() == 1 {
        return Ok((pieces.flatten().collect(), interrupted()));
    }
    let mut begun = Vec::new();
    for piece in pieces.filter(|piece| !piece.is_empty()) {
        let lengths: Vec<usize> = piece.iter().map(|gradient| gradient.dims()[0]).collect();
        let values = host_values(Tensor::cat(piece, 0).into_data(), "gradients")?;
        begun.push((lengths, pace.ranks.begin(values)));
    }
    let interruptions = pace.ranks.begin(vec![f32::from(u8::from(interrupted()))]);
    let split = |(lengths, sums): (_, Pending)| vector(sums(), device).split_with_sizes(lengths, 0);
    Ok((begun.into_iter().flat_map(split).collect(), interruptions() != [0.0]))
}

impl<'a, B: Backend> Pair<'a, B> {
    /// Generator and discriminator as [`fresh_weights`] lays them out.
    pub fn new(weights: &'a Weights<B>, shapes: &'a Shapes, dropout: f64, tape: Option<&'a Tape<B>>) -> Self {
        let (filler, reader, prefix) = match shapes.sharing {
            Sharing::Embeddings => (Embeddings::Shared, Embeddings::Shared, "generator"),
            Sharing::Gdes => (Embeddings::Shared, Embeddings::Disentangled, "generator"),
            Sharing::All => (Embeddings::Shared, Embeddings::Shared, "electra"),
            Sharing::None => (Embeddings::Generator, Embeddings::Shared, "generator"),
        };
        let (generator, discriminator) = (&shapes.generator, &shapes.discriminator);
        Self {
            generator: Network { weights, prefix, embeddings: filler, config: generator, dropout, tape },
            discriminator: Network {
                weights,
                prefix: "electra",
                embeddings: reader,
                config: discriminator,
                dropout,
                tape,
            },
        }
    }
}

/// The order of the examples: a fresh permutation each epoch, from the seed alone.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    epoch: Option<usize>,
    indices: Vec<usize>,
}

impl Order {
    /// Of so many examples.
    pub fn new(examples: usize, seed: u64) -> Self {
        Self { seed, epoch: None, indices: (0..examples).collect() }
    }

    /// The example at a position of the endless row of epochs.
    pub fn at(&mut self, position: usize) -> usize {
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
