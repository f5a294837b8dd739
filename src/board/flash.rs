//! Firmware and a model into the flash of a board that is at hand, by `probe-rs`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Chip, check_room};

/// Where a model goes that has no slot that `probe-rs` can write.
pub const OVER_THE_LINE: &str = "the board takes models over its line, at the rate that its src/main.rs names: \
    electret board update PORT MODEL --baud RATE";

/// Writes a board's firmware and starts it. With a model's file all of the flash is erased first, what was learned and
/// the other slot too, and the model becomes the one that runs; without one all of that stays. `probe_rs` is the
/// program.
///
/// # Errors
/// If the model has no room in a slot or the chip no slot that can be written so, if `probe-rs` is not there, or if it fails.
pub fn flash(probe_rs: &Path, chip: &Chip, firmware: &Path, model: Option<&Path>) -> Result<()> {
    let run = |arguments: &[&str], file: Option<&Path>| {
        let status = Command::new(probe_rs).args(arguments).args(["--chip", chip.name]).args(file).status();
        let status = status.with_context(|| {
            let name = probe_rs.display();
            format!("{name}: it flashes a board; cargo install probe-rs-tools --locked, or https://probe.rs")
        })?;
        ensure!(
            status.success(),
            "probe-rs {}: it failed; is the board's debug port connected?",
            arguments[0]
        );
        Ok(())
    };
    if let Some(model) = model {
        let bytes = std::fs::metadata(model).with_context(|| model.display().to_string())?.len();
        let slot = chip.slot.context(OVER_THE_LINE)?;
        check_room(bytes, slot.bytes)?;
        let place = format!("{:#x}", slot.address);
        let raw = ["--binary-format", "bin", "--base-address", &place];
        run(&[&["download", "--chip-erase"], &raw[..]].concat(), Some(model))?;
    }
    run(&["download"], Some(firmware))?;
    run(&["reset"], None)
}
