//! The desktop side: corpus, pre-training, evaluation, export.

use std::path::PathBuf;

use anyhow::Result;
#[cfg(feature = "wgpu")]
use burn::backend::Wgpu;
use burn::backend::{Autodiff, Flex};
#[cfg(feature = "tch")]
use burn::backend::{LibTorch, libtorch::LibTorchDevice};
use clap::{Args, Subcommand, ValueEnum};
use electret::Model;
use electret::train::checkpoint::newest_weights;
use electret::train::corpus::{BuildOptions, Corpus, build};
use electret::train::export::{Which, export};
use electret::train::heldout::{Replacement, score};
use electret::train::objective::{Kind, Objective};
use electret::train::optimizer::Adam;
use electret::train::trainer::{Pace, Run};
use electret::train::weights::Weights;

use super::{ModelFile, Output};

/// Text → vocabulary and training examples.
#[derive(Args)]
pub struct CorpusVerb {
    #[command(subcommand)]
    verb: CorpusSubverb,
}

#[derive(Subcommand)]
enum CorpusSubverb {
    Build(CorpusBuild),
}

/// Pack text files into a corpus folder.
///
/// Example: electret corpus build wiki.txt.zst novels.txt -o corpus/
#[derive(Args)]
struct CorpusBuild {
    /// Text, plain or .zst: a paragraph a line, a blank line between documents.
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// The folder to write.
    #[arg(short, long)]
    out: PathBuf,
    /// A vocab.txt to use instead of training one.
    #[arg(long)]
    vocab: Option<PathBuf>,
    /// Pieces of the vocabulary to train.
    #[arg(long, default_value_t = 8192)]
    vocab_size: usize,
    /// Longest example in tokens.
    #[arg(long, default_value_t = 128)]
    seq: usize,
    /// Seed of the packing.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

/// Pre-train an ELECTRA; a run that is there already goes on where it stopped.
///
/// Example: electret pretrain corpus/ -o run/ --preset tiny --steps 20000
#[derive(Args)]
pub struct Pretrain {
    /// A folder that `corpus build` wrote.
    corpus: PathBuf,
    /// The run's folder: settings, checkpoints, curve.
    #[arg(short, long)]
    out: PathBuf,
    /// tiny, small, base or large.
    #[arg(long, default_value = "tiny")]
    preset: String,
    /// electra, or mlm for BERT's objective on the same encoder.
    #[arg(long, value_enum, default_value = "electra")]
    objective: Objectives,
    /// A run whose encoder this one starts from.
    #[arg(long)]
    init_from: Option<PathBuf>,
    /// Steps of the whole schedule.
    #[arg(long, default_value_t = 20_000)]
    steps: usize,
    /// Examples a step.
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    /// Peak learning rate.
    #[arg(long, default_value_t = 5e-4)]
    learning_rate: f64,
    /// Steps of linear warm-up.
    #[arg(long, default_value_t = 1000)]
    warmup_steps: usize,
    /// Probability of dropping an activation.
    #[arg(long, default_value_t = 0.1)]
    dropout: f64,
    /// Seed of weights, order, masks and samples.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the arithmetic is done.
    #[arg(long, value_enum, default_value = "cpu")]
    device: Device,
    /// Stop for now at this step.
    #[arg(long)]
    stop_at: Option<usize>,
    /// Steps between two lines of the curve.
    #[arg(long, default_value_t = 50)]
    report_every: usize,
    /// Steps between two checkpoints.
    #[arg(long, default_value_t = 500)]
    checkpoint_every: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Objectives {
    Electra,
    Mlm,
}

/// How well a run's discriminator, in f32 and in int8, tells replaced tokens of held-out text.
///
/// Example: electret heldout run/ --corpus corpus/ --model tiny.electret
#[derive(Args)]
pub struct Heldout {
    /// The run.
    run: PathBuf,
    /// Its corpus.
    #[arg(long)]
    corpus: PathBuf,
    #[command(flatten)]
    model: ModelFile,
    /// Held-out examples.
    #[arg(long, default_value_t = 1000)]
    examples: usize,
    #[command(flatten)]
    output: Output,
}

/// A run → Hugging Face folder.
///
/// Example: electret export run/ --corpus corpus/ -o electra-tiny/
#[derive(Args)]
pub struct Export {
    /// The run.
    run: PathBuf,
    /// Its corpus.
    #[arg(long)]
    corpus: PathBuf,
    /// The folder to write.
    #[arg(short, long)]
    out: PathBuf,
    /// The generator instead of the discriminator.
    #[arg(long)]
    generator: bool,
}

/// Where the arithmetic of a run is done. Each but the first is a feature of the build.
#[derive(Clone, Copy, ValueEnum)]
enum Device {
    /// The processor, by Burn itself.
    Cpu,
    /// libtorch's processor backend.
    #[cfg(feature = "tch")]
    Tch,
    /// libtorch's first CUDA device.
    #[cfg(feature = "tch")]
    TchCuda,
    /// The first GPU that Vulkan, Metal or DirectX finds.
    #[cfg(feature = "wgpu")]
    Wgpu,
}

impl CorpusVerb {
    pub fn run(&self) -> Result<()> {
        let CorpusSubverb::Build(verb) = &self.verb;
        let manifest = build(&BuildOptions {
            sources: verb.sources.clone(),
            out: verb.out.clone(),
            vocab: verb.vocab.clone(),
            vocab_size: verb.vocab_size,
            sequence: verb.seq,
            seed: verb.seed,
        })?;
        if verb.output.json {
            say!("{}", serde_json::to_string(&manifest)?);
        } else {
            say!(
                "{} documents, {} tokens: {} examples to train on, {} held out, {} pieces",
                manifest.documents,
                manifest.tokens,
                manifest.train_examples,
                manifest.heldout_examples,
                manifest.vocab_size
            );
        }
        Ok(())
    }
}

impl Pretrain {
    pub fn run(&self) -> Result<()> {
        let corpus = Corpus::open(&self.corpus)?;
        let kind = match self.objective {
            Objectives::Electra => Kind::Electra,
            Objectives::Mlm => Kind::Mlm,
        };
        let run = Run {
            preset: self.preset.clone(),
            steps: self.steps,
            batch_size: self.batch_size,
            dropout: self.dropout,
            seed: self.seed,
            init_from: self.init_from.clone(),
            objective: Objective { kind, ..Objective::default() },
            adam: Adam {
                learning_rate: self.learning_rate,
                warmup_steps: self.warmup_steps,
                ..Adam::default()
            },
        };
        let pace = Pace {
            report_every: self.report_every.max(1),
            checkpoint_every: self.checkpoint_every.max(1),
            stop_at: self.stop_at,
        };
        let (corpus, out) = (&corpus, self.out.as_path());
        match self.device {
            Device::Cpu => run.train::<Autodiff<Flex>>(corpus, out, pace, &Default::default()),
            #[cfg(feature = "tch")]
            Device::Tch => run.train::<Autodiff<LibTorch>>(corpus, out, pace, &LibTorchDevice::Cpu),
            #[cfg(feature = "tch")]
            Device::TchCuda => run.train::<Autodiff<LibTorch>>(corpus, out, pace, &LibTorchDevice::Cuda(0)),
            #[cfg(feature = "wgpu")]
            Device::Wgpu => run.train::<Autodiff<Wgpu>>(corpus, out, pace, &Default::default()),
        }
    }
}

impl Heldout {
    pub fn run(&self) -> Result<()> {
        let corpus = Corpus::open(&self.corpus)?;
        let run = Run::open(&self.run)?;
        let device = Default::default();
        let (step, tensors) = newest_weights(&self.run)?;
        let weights = Weights::<Flex>::from_tensors(&tensors, &device)?;
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let mut rows = Vec::new();
        for replacement in [Replacement::Generator, Replacement::RandomWord] {
            let scores = score(&run, &corpus, &weights, &model, replacement, self.examples, &device)?;
            if !self.output.json {
                say!(
                    "{replacement:?}: {} tokens, {:.1} % replaced, ROC AUC f32 {:.4}, int8 {:.4}, frequency alone {:.4}, \
                     f32 and int8 agree on {:.4}",
                    scores.tokens,
                    scores.replaced * 100.0,
                    scores.auc_f32,
                    scores.auc_int8,
                    scores.auc_frequency,
                    scores.agreement
                );
            }
            rows.push(scores);
        }
        if self.output.json {
            say!("{}", serde_json::json!({"step": step, "scores": rows}));
        }
        Ok(())
    }
}

impl Export {
    pub fn run(&self) -> Result<()> {
        let which = if self.generator { Which::Generator } else { Which::Discriminator };
        let step = export(&self.run, &self.corpus, which, &self.out)?;
        say!("{}: {which:?} after {step} steps", self.out.display());
        Ok(())
    }
}
