//! How well a run's discriminator tells replaced tokens.

use std::path::PathBuf;

use anyhow::Result;
use burn::backend::Flex;
use clap::Args;
use electret::Model;
use electret::train::checkpoint::newest_weights;
use electret::train::corpus::Corpus;
use electret::train::heldout::{Replacement, score};
use electret::train::run::Run;
use electret::train::weights::Weights;

use super::{ModelFile, Output};

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

impl Heldout {
    pub fn run(&self) -> Result<()> {
        let corpus = Corpus::open(&self.corpus)?;
        let run = Run::open(&self.run)?;
        Run::shares_vocabulary(&self.run, &corpus.manifest)?;
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
