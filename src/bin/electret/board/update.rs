//! Another model, or an adapter, for a board that runs.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use electret::board::update;
use electret::link::Install;
use electret::tune::store::Place;

use super::line::{Line, introduce};
use super::progress_bar;
use crate::Output;

/// Sends another model, or an adapter, into the slot that does not run, and has it installed; goes on where an
/// earlier attempt stopped.
///
/// Example: electret board update /dev/ttyACM0 better.electret
#[derive(Args)]
pub struct Update {
    #[command(flatten)]
    line: Line,
    /// An .electret or .adapter file.
    file: PathBuf,
    /// The number under which an adapter is kept, in the place of what had it; it answers if that number is active.
    #[arg(long, value_parser = clap::value_parser!(u8).range(..i64::from(Place::ADAPTERS)))]
    adapter: Option<u8>,
    /// An Ed25519 signature of the file, 64 bytes, for a board that wants one.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Update {
    pub fn run(&self) -> Result<()> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
        let bytes = read(&self.file)?;
        let signature = self.signature.as_ref().map_or(Ok(Vec::new()), read)?;
        let kind = if self.file.extension().is_some_and(|extension| extension == "adapter") {
            Install::Adapter(self.adapter.context("--adapter: under which number is it to be kept?")?)
        } else {
            ensure!(self.adapter.is_none(), "--adapter: {} is not called .adapter", self.file.display());
            Install::Model
        };
        let (_emulator, mut client) = self.line.connect()?;
        let bar = progress_bar(bytes.len() as u64);
        update(&mut client, &bytes, kind, &signature, |at, _| bar.set_position(at as u64))?;
        bar.finish();
        let active = introduce(&mut client, self.output.json)?;
        if let Install::Adapter(number) = kind
            && active != Some(number)
        {
            eprintln!(
                "it is kept as adapter {number}, and answers after: electret board talk … activate {number}"
            );
        }
        Ok(())
    }
}
