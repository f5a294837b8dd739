//! Boards: their firmware, and what one asks of it over a serial line. One file a verb, and those that are about firmware
//! together.

mod firmware;
mod learn;
mod line;
mod run;
mod talk;
mod update;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use electret::board::Board as Known;
use indicatif::{ProgressBar, ProgressStyle};

pub use line::{BAUD, Line};

/// Builds, runs, flashes and talks to boards.
///
/// Example: electret board run qemu-mps3-an547
#[derive(Args)]
pub struct Board {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    List(firmware::List),
    Build(firmware::Build),
    Run(run::Run),
    Flash(firmware::Flash),
    Talk(talk::Talk),
    Update(update::Update),
}

impl Board {
    pub fn run(&self) -> Result<()> {
        match &self.verb {
            Verb::List(verb) => verb.run(),
            Verb::Build(verb) => verb.run(),
            Verb::Run(verb) => verb.run(),
            Verb::Flash(verb) => verb.run(),
            Verb::Talk(verb) => verb.run(),
            Verb::Update(verb) => verb.run(),
        }
    }
}

fn known(name: &str) -> Result<&'static Known> {
    Known::find(name).with_context(|| format!("{name}: no such board; electret board list names them"))
}

fn progress_bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}
