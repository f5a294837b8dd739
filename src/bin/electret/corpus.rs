//! Text packed into a corpus.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use electret::train::corpus::{BuildOptions, build};

use super::Output;

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

/// Pack text files into a corpus folder. A build that was interrupted goes on where it stopped.
///
/// Example: electret corpus build wiki.txt.zst crawl.jsonl novels.txt -o corpus/
#[derive(Args)]
struct CorpusBuild {
    /// Text with a paragraph a line and a blank line between documents; .jsonl with a document's text a line; either
    /// as .zst; - for text from standard input.
    #[arg(required = true)]
    sources: Vec<PathBuf>,
    /// The folder to write.
    #[arg(short, long)]
    out: PathBuf,
    /// A vocab.txt to use instead of training one.
    #[arg(long)]
    vocab: Option<PathBuf>,
    /// Pieces of the vocabulary to train. Ties fall differently from time to time: keep vocab.txt to build the same again.
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
