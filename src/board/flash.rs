//! Firmware and a model into the flash of a board that is at hand, by `probe-rs`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Chip;

/// Writes a board's firmware, and a model's file to where its first slot is, and starts it.
///
/// # Errors
/// If `probe-rs` is not there, or it fails.
pub fn flash(chip: &Chip, firmware: &Path, model: Option<&Path>) -> Result<()> {
    if let Some(model) = model {
        let place = format!("{:#x}", chip.model);
        probe_rs(chip, &["download", "--binary-format", "bin", "--base-address", &place], Some(model))?;
    }
    probe_rs(chip, &["download"], Some(firmware))?;
    probe_rs(chip, &["reset"], None)
}

fn probe_rs(chip: &Chip, arguments: &[&str], file: Option<&Path>) -> Result<()> {
    let mut command = Command::new("probe-rs");
    command.args(arguments).args(["--chip", chip.name]).args(file);
    let status = command.status().context(
        "probe-rs: it is needed to flash a board; cargo install probe-rs-tools --locked, or https://probe.rs",
    )?;
    ensure!(status.success(), "probe-rs {}: it failed; is the board's debug port connected?", arguments[0]);
    Ok(())
}
