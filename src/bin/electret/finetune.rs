//! Every weight of a model learns a task, on the desktop.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use electret::evaluate::{LabelNames, Labelled, Metric};
use electret::import::{Checkpoint, write_atomically};
use electret::train::finetune::{Finetuned, Recipe, finetune};
use electret::train::kernels::Differentiable;
use serde_json::{Value, json};

use super::convert::open_source;
use super::device::{Device, on_device};
use super::{Output, check_out, evaluate};

/// Fine-tunes a whole network on a task, in f32: a Hugging Face folder in, a Hugging Face folder out.
///
/// Example: electret finetune electra-small/ --train sst2/train.tsv --dev sst2/dev.tsv -o sst2-small/
#[derive(Args)]
pub struct Finetune {
    /// Folder or .onnx file to start from; `electret export` makes one of a pre-training run.
    source: PathBuf,
    /// Examples: .tsv (label or score, text or text_a text_b), .conll (word, tag) or SQuAD .json.
    #[arg(long)]
    train: PathBuf,
    /// Examples that are not learned, to be scored after every epoch.
    #[arg(long)]
    dev: Option<PathBuf>,
    /// The folder to write: that of the seed which is best on --dev.
    #[arg(short, long)]
    out: PathBuf,
    /// Times that every example is learned.
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Examples a step.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Peak learning rate; without it the paper's for a model of that width (3e-4, 1e-4, 5e-5).
    #[arg(long)]
    learning_rate: Option<f64>,
    /// The learning rate's factor from a layer to the one below; without it the paper's (0.8, LARGE 0.9).
    #[arg(long)]
    layer_decay: Option<f64>,
    /// Decoupled weight decay of matrices.
    #[arg(long, default_value_t = 0.0)]
    weight_decay: f64,
    /// Share of the steps in which the learning rate rises.
    #[arg(long, default_value_t = 0.1)]
    warmup: f64,
    /// Probability of dropping an activation.
    #[arg(long, default_value_t = 0.1)]
    dropout: f64,
    /// Longest sequence in tokens; what is longer loses its end, a question's context is learned in windows. Without it 128, or the model's longest.
    #[arg(long)]
    seq: Option<usize>,
    /// Seeds of head, order and dropout, such as 1,2,3; each is a run of its own.
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seeds: Vec<u64>,
    /// Where the arithmetic is done.
    #[arg(long, value_enum, default_value = "cpu")]
    device: Device,
    #[command(flatten)]
    output: Output,
}

impl Finetune {
    pub fn run(&self) -> Result<()> {
        ensure!(self.seeds.len() == 1 || self.dev.is_some(), "--seeds: --dev says which is best");
        let start = open_source(&self.source)?;
        let train = Labelled::read(&self.train, LabelNames::OfFile)?;
        let names = || LabelNames::First(train.labels.clone());
        let dev = self.dev.as_ref().map(|path| Labelled::read(path, names())).transpose()?;
        std::fs::create_dir_all(&self.out).with_context(|| self.out.display().to_string())?;
        check_out(&self.out.join("finetune.json"))?;
        let usual = Recipe::of(&start.config);
        let mut recipe = Recipe {
            epochs: self.epochs,
            batch_size: self.batch_size,
            sequence: evaluate::tokens(&start.config, self.seq, 128)?,
            warmup: self.warmup,
            layer_decay: self.layer_decay.unwrap_or(usual.layer_decay),
            dropout: self.dropout,
            ..usual
        };
        recipe.adam.weight_decay = self.weight_decay;
        recipe.adam.learning_rate = self.learning_rate.unwrap_or(recipe.adam.learning_rate);
        log::info!(
            "{} examples of {}, {} labels",
            train.examples.len(),
            train.kind.name(),
            train.labels.len()
        );
        let (runs, best) =
            on_device!(self.device, B, at => self.learn::<B>(&start, &train, dev.as_ref(), &recipe, at))?;
        if self.output.json {
            say!("{}", self.record(&recipe, &runs, best));
        } else {
            self.say(&runs, best)?;
        }
        Ok(())
    }

    /// Every seed's run, and which is best. What a seed has learned is kept before the next one begins, which may be
    /// interrupted.
    fn learn<B: Differentiable>(
        &self,
        start: &Checkpoint,
        train: &Labelled,
        dev: Option<&Labelled>,
        recipe: &Recipe,
        device: &B::Device,
    ) -> Result<(Vec<Finetuned>, usize)> {
        let (mut runs, mut best) = (Vec::new(), 0);
        for &seed in &self.seeds {
            let run = finetune::<B>(start, train, dev, recipe, seed, device);
            runs.push(run.with_context(|| format!("seed {seed}"))?);
            let newest = runs.len() - 1;
            if newest == 0 || reached(&runs[newest]) > reached(&runs[best]) {
                best = newest;
                runs[best].checkpoint.write(&self.out)?;
            }
            let path = self.out.join("finetune.json");
            write_atomically(&path, format!("{:#}\n", self.record(recipe, &runs, best)).as_bytes())
                .with_context(|| path.display().to_string())?;
        }
        Ok((runs, best))
    }

    /// What was done, and what each seed came to.
    fn record(&self, recipe: &Recipe, runs: &[Finetuned], best: usize) -> Value {
        let rows: Vec<_> = runs
            .iter()
            .map(|run| json!({"seed": run.seed, "losses": run.losses, "dev": run.dev, "left_out": run.left_out}))
            .collect();
        json!({"source": self.source.display().to_string(), "train": self.train.display().to_string(),
               "recipe": recipe, "best_seed": runs[best].seed, "seeds": rows})
    }

    fn say(&self, runs: &[Finetuned], best: usize) -> Result<()> {
        for run in runs {
            let scores = run.dev.last().into_iter().flatten();
            let said: String =
                scores.map(|Metric { metric, value, .. }| format!("  {metric} {value:.4}")).collect();
            say!("seed {}  loss {:.4}{said}", run.seed, run.losses.last().unwrap_or(&f64::NAN));
            if run.left_out > 0 {
                log::warn!(
                    "{} examples taught nothing: without a token, or with an answer that no window has as whole tokens",
                    run.left_out
                );
            }
        }
        say!("{}: seed {}", self.out.display(), runs[best].seed);
        Ok(())
    }
}

/// The main metric on the dev file at the end; nothing is better than that there is none.
fn reached(run: &Finetuned) -> f64 {
    run.dev.last().and_then(|scores| scores.first()).map_or(f64::NEG_INFINITY, |score| score.value)
}
