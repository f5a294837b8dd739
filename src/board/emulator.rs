//! A board in QEMU, with a folder for what outlives it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Board, Client, Machine, check_room};

/// Bytes of the flash for what is learned.
const FLASH: usize = 256 * 4096;

/// What makes a board's clock go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Time.
    Time,
    /// Its instructions, a nanosecond each; that is slower.
    Instructions,
}

/// A running QEMU; it ends with this.
pub struct Emulator {
    process: Child,
}

impl Emulator {
    /// Starts a board's firmware in a folder, in which the slots and `flash.bin`, or `learned/`, lie; what is missing is
    /// made. `model`, if given, is put into the first slot.
    ///
    /// # Errors
    /// If the folder cannot be written, the model is too large, or QEMU does not start; if the instructions of a program
    /// of Linux are to be its clock.
    pub fn start(
        board: &Board,
        firmware: &Path,
        folder: &Path,
        model: Option<&[u8]>,
        clock: Clock,
    ) -> Result<(Self, Client)> {
        let machine = board.machine()?;
        ensure!(
            clock == Clock::Time || !machine.is_linux(),
            "{} is a program of Linux: its instructions are not counted",
            board.name
        );
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let firmware: PathBuf = firmware.canonicalize().with_context(|| firmware.display().to_string())?;
        for slot in 0..machine.slots.len().max(1) {
            let path = folder.join(format!("slot-{slot}.bin"));
            prepare(&path, machine.slot_bytes, model.filter(|_| slot == 0))
                .with_context(|| path.display().to_string())?;
        }
        let mut command = Command::new(machine.program);
        command.args(machine.arguments).current_dir(folder);
        if machine.is_linux() {
            command.arg(firmware).arg(".");
        } else {
            put_together(&mut command, machine, folder, clock)?;
            command.arg("-kernel").arg(firmware);
        }
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process =
            command.spawn().with_context(|| format!("{}: is QEMU installed?", machine.program))?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let client = Client::new(stdout.context("no pipe")?, stdin.context("no pipe")?);
        Ok((Self { process }, client))
    }

    /// Cuts the power.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The hardware around a firmware: its serial line, its flash and its slots, in files of the folder.
fn put_together(command: &mut Command, machine: &Machine, folder: &Path, clock: Clock) -> Result<()> {
    let flash = folder.join("flash.bin");
    if !flash.exists() {
        std::fs::write(&flash, vec![0xff; FLASH]).with_context(|| flash.display().to_string())?;
    }
    if clock == Clock::Instructions {
        command.args(["-icount", "shift=0"]);
    }
    command.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
    command.args(["-semihosting-config", "enable=on,target=native"]);
    for (slot, address) in machine.slots.iter().enumerate() {
        command.arg("-device");
        command.arg(format!("loader,file=slot-{slot}.bin,addr={address:#x},force-raw=on"));
    }
    Ok(())
}

/// Makes a slot's file as long as the slot, with a model in front of it if there is one to put there.
fn prepare(path: &Path, bytes: u64, model: Option<&[u8]>) -> Result<()> {
    let mut file: File = OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
    if let Some(model) = model {
        check_room(model.len() as u64, bytes)?;
        file.write_all(model)?;
    }
    file.set_len(bytes)?;
    Ok(())
}
