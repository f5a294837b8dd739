//! A run's network as a Hugging Face folder.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use electret::train::export::{Which, export};

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

impl Export {
    pub fn run(&self) -> Result<()> {
        let which = if self.generator { Which::Generator } else { Which::Discriminator };
        let step = export(&self.run, &self.corpus, which, &self.out)?;
        say!("{}: {which:?} after {step} steps", self.out.display());
        Ok(())
    }
}
