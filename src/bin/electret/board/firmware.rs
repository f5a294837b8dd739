//! Which boards there are, what their firmware weighs, and how it comes onto one.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use electret::Model;
use electret::board::{BOARDS, Board as Known, Firmware, OVER_THE_LINE, Place, build, flash};
use serde_json::json;

use super::known;
use crate::{ModelFile, Output};

/// Which boards are there?
#[derive(Args)]
pub struct List {
    #[command(flatten)]
    output: Output,
}

impl List {
    pub fn run(&self) -> Result<()> {
        for board in BOARDS {
            let place = if matches!(board.place, Place::Emulator(_)) { "QEMU" } else { "hardware" };
            if self.output.json {
                let Known { name, processor, target, .. } = board;
                say!("{}", json!({"name": name, "processor": processor, "target": target, "runs": place}));
            } else {
                say!("{:20} {:30} {:28} {place}", board.name, board.processor, board.target);
            }
        }
        Ok(())
    }
}

const BOARDS_FOLDER: &str = "boards";

/// Where the firmware is.
#[derive(Args)]
pub struct Source {
    /// The folder boards of a clone of electret.
    #[arg(long, default_value = BOARDS_FOLDER, value_name = "FOLDER")]
    boards: PathBuf,
    /// Public key, 64 hexadecimal digits, of those whose updates this firmware takes; without it everybody's. Every build needs it.
    #[arg(long, value_name = "HEX")]
    key: Option<String>,
}

impl Default for Source {
    fn default() -> Self {
        Self { boards: BOARDS_FOLDER.into(), key: None }
    }
}

impl Source {
    pub fn build(&self, board: &Known) -> Result<Firmware> {
        let digits =
            |key: &String| key.len() == 64 && key.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        ensure!(self.key.as_ref().is_none_or(digits), "--key: 64 digits of 0 to 9 and a to f are expected");
        build(board, &self.boards, self.key.as_deref())
    }
}

/// Builds the firmware of a board and says what it weighs.
///
/// Example: electret board build qemu-mps2-an500
#[derive(Args)]
pub struct Build {
    /// The board, or all.
    board: String,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    output: Output,
}

impl Build {
    pub fn run(&self) -> Result<()> {
        let all = self.board == "all";
        let boards: Vec<&Known> = if all { BOARDS.iter().collect() } else { vec![known(&self.board)?] };
        for board in boards {
            let firmware = self.source.build(board)?;
            if self.output.json {
                let path = firmware.path.display().to_string();
                say!(
                    "{}",
                    json!({"name": board.name, "elf": path, "flash": firmware.flash, "ram": firmware.ram})
                );
            } else {
                let kib = |bytes: u64| bytes as f64 / 1024.0;
                let Known { name, .. } = board;
                say!(
                    "{name:20} flash {:7.1} KiB, RAM without stack {:7.1} KiB",
                    kib(firmware.flash),
                    kib(firmware.ram)
                );
            }
        }
        Ok(())
    }
}

/// Flashes a board that is connected to a debug probe, with firmware and, where the probe reaches it, a model.
///
/// With the model all that the board has learned is erased; models of some boards go over their line instead.
///
/// Example: electret board flash rp2350
#[derive(Args)]
pub struct Flash {
    /// The board.
    board: String,
    /// Leaves models and what was learned as they are.
    #[arg(long, conflicts_with = "model")]
    firmware_only: bool,
    /// The program that talks to the debug probe.
    #[arg(long, value_name = "PROGRAM", default_value = "probe-rs")]
    probe_rs: PathBuf,
    #[command(flatten)]
    model: ModelFile,
    #[command(flatten)]
    source: Source,
}

impl Flash {
    pub fn run(&self) -> Result<()> {
        let board = known(&self.board)?;
        let chip = board.chip()?;
        let firmware = self.source.build(board)?;
        if self.firmware_only || (chip.slot.is_none() && self.model.model.is_none()) {
            flash(&self.probe_rs, chip, &firmware.path, None)?;
            if chip.slot.is_none() {
                eprintln!("{OVER_THE_LINE}");
            }
            return Ok(());
        }
        let bytes = self.model.bytes()?;
        let model = Model::open(bytes.as_slice())?;
        let path = firmware.path.with_extension("electret");
        std::fs::write(&path, &bytes.as_slice()[..model.bytes()])
            .with_context(|| path.display().to_string())?;
        flash(&self.probe_rs, chip, &firmware.path, Some(&path))
    }
}
