//! Examples that a board learns, sent one by one.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use electret::HeadKind;
use electret::board::Client;
use electret::evaluate::{Example, LabelNames, Labelled};
use electret::link::{Command, Lesson, Truth};
use electret::tune::Target;
use electret::tune::store::Place;

use super::progress_bar;

/// Learns examples and keeps what they taught, or nothing.
#[derive(Args)]
pub struct Learn {
    /// Examples: .tsv with a label and a text in each line, or .conll with a word and its tag.
    examples: PathBuf,
    /// The number to keep it under; it answers from then on.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..i64::from(Place::ADAPTERS)))]
    adapter: u8,
    /// head, bias[:LAYERS], words:RANK, lora:RANK:LAYERS[:qkvaio or all], or several joined by +.
    #[arg(long, default_value = "head+lora:4:2")]
    strategy: String,
    /// Times that every example is learned.
    #[arg(long, default_value_t = 3)]
    epochs: u32,
    /// Examples a step.
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    /// Largest learning rate.
    #[arg(long, default_value_t = 2e-3)]
    learning_rate: f32,
}

impl Learn {
    /// Teaches a board what the examples say, and has it kept.
    pub fn teach(&self, client: &mut Client) -> Result<()> {
        ensure!(self.epochs > 0 && self.batch_size > 0, "--epochs and --batch-size must be at least 1");
        let Labelled { kind, labels, examples } = Labelled::read(&self.examples, LabelNames::OfFile)?;
        let lesson = match kind {
            HeadKind::Classify => Lesson::Classify,
            HeadKind::Tag => Lesson::Tag,
            _ => bail!("{}: a board learns labels of texts or of words", self.examples.display()),
        };
        let single = examples.iter().all(|example| example.input().pair.is_none());
        ensure!(single, "{}: a board learns single texts, no pairs", self.examples.display());
        let (labels, learning_rate) = (labels.join("\n"), self.learning_rate);
        client.ask(Command::Teach { lesson, labels: &labels, strategy: &self.strategy, learning_rate })?;
        let learned = self.learn(client, &examples);
        // The lesson ends either way: what was committed answers, and nothing else.
        let ended = client.ask(Command::Rollback);
        learned?;
        ended?;
        Ok(())
    }

    fn learn(&self, client: &mut Client, examples: &[Example]) -> Result<()> {
        let bar = progress_bar(u64::from(self.epochs) * examples.len() as u64);
        for _ in 0..self.epochs {
            for (batch, first) in examples.chunks(self.batch_size).zip((1..).step_by(self.batch_size)) {
                for (example, number) in batch.iter().zip(first..) {
                    let mut tags = Vec::new();
                    let truth = match example.target() {
                        Target::Class(label) => Truth::Class(label as u16),
                        Target::Tags(labels) => {
                            // A board takes at most 32 labels.
                            tags.extend(labels.iter().map(|&label| label as u8));
                            Truth::Tags(&tags)
                        }
                        _ => bail!("a board learns labels of texts or of words"),
                    };
                    client
                        .ask(Command::Learn { text: example.input().text, truth })
                        .with_context(|| format!("{}, example {number}", self.examples.display()))?;
                    bar.inc(1);
                }
                client.ask(Command::Step)?;
            }
        }
        bar.finish();
        client.ask(Command::Commit { adapter: self.adapter })?;
        Ok(())
    }
}
