//! Boards from the host's side: which there are, how their firmware is built, how an emulated one is started and
//! another one flashed, and how one talks to any of them.
//!
//! The firmware itself is in `boards/`, a package a board; what it says is in [`link`](crate::link).

mod build;
mod client;
mod emulator;
mod flash;
mod reader;
mod update;

pub use build::{Firmware, build, compile};
pub use client::{Answers, Client, Failure};
pub use emulator::{Clock, Emulator};
pub use flash::{OVER_THE_LINE, flash};
pub use reader::BoardReader;
pub use update::update;

use anyhow::{Result, bail, ensure};

/// A board that `boards/` has firmware for.
#[derive(Clone, Copy, Debug)]
pub struct Board {
    /// Its folder in `boards/`.
    pub name: &'static str,
    /// Its processor.
    pub processor: &'static str,
    /// Rust's name for it.
    pub target: &'static str,
    /// Where it is.
    pub place: Place,
}

/// Where a board is.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// In QEMU.
    Emulator(Machine),
    /// On a desk.
    Hardware(Chip),
    /// On a desk, with a chip that has no flash within: a debugger loads the firmware into RAM.
    Loaded,
}

/// How a board is flashed.
#[derive(Clone, Copy, Debug)]
pub struct Chip {
    /// What `probe-rs` calls it.
    pub name: &'static str,
    /// The first slot for models, if `probe-rs` can write it.
    pub slot: Option<Slot>,
}

/// A place for a model in a chip's memory.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Where it begins.
    pub address: u32,
    /// How much has room.
    pub bytes: u64,
}

/// How QEMU runs a board.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// QEMU's program.
    pub program: &'static str,
    /// Its arguments, beside those that every board has.
    pub arguments: &'static [&'static str],
    /// Where QEMU puts the files of the slots; nowhere, if the board is a program of Linux, which opens them itself.
    pub slots: &'static [u32],
    /// Bytes of each.
    pub slot_bytes: u64,
}

/// All of them.
pub const BOARDS: &[Board] = &[
    Board {
        name: "qemu-mps2-an386",
        processor: "Cortex-M4",
        target: "thumbv7em-none-eabihf",
        place: Place::Emulator(Machine {
            program: "qemu-system-arm",
            arguments: &["-M", "mps2-an386"],
            slots: &[0x2100_0000, 0x2140_0000],
            slot_bytes: 2560 << 10,
        }),
    },
    Board {
        name: "qemu-mps2-an500",
        processor: "Cortex-M7",
        target: "thumbv7em-none-eabihf",
        place: Place::Emulator(Machine {
            program: "qemu-system-arm",
            arguments: &["-M", "mps2-an500"],
            slots: &[0x6000_0000],
            slot_bytes: 16 << 20,
        }),
    },
    Board {
        name: "qemu-mps3-an547",
        processor: "Cortex-M55, Helium",
        target: "thumbv8m.main-none-eabihf",
        place: Place::Emulator(Machine {
            program: "qemu-system-arm",
            arguments: &["-M", "mps3-an547"],
            slots: &[0x6000_0000, 0x6100_0000],
            slot_bytes: 16 << 20,
        }),
    },
    Board {
        name: "qemu-virt-aarch64",
        processor: "Cortex-A72, NEON",
        target: "aarch64-unknown-none",
        place: Place::Emulator(Machine {
            program: "qemu-system-aarch64",
            arguments: &["-M", "virt", "-cpu", "cortex-a72", "-m", "256", "-nic", "none"],
            slots: &[0x4800_0000, 0x4900_0000],
            slot_bytes: 16 << 20,
        }),
    },
    Board {
        name: "raspberry-pi",
        processor: "aarch64 with Linux",
        target: "aarch64-unknown-linux-gnu",
        place: Place::Emulator(Machine {
            program: "qemu-aarch64",
            arguments: &["-cpu", "cortex-a72"],
            slots: &[],
            slot_bytes: 512 << 20,
        }),
    },
    Board {
        name: "rp2350",
        processor: "RP2350, Cortex-M33",
        target: "thumbv8m.main-none-eabihf",
        place: Place::Hardware(Chip {
            name: "RP235x",
            slot: Some(Slot { address: 0x1010_0000, bytes: 7 << 20 }),
        }),
    },
    Board {
        name: "nrf5340-dk",
        processor: "nRF5340, Cortex-M33",
        target: "thumbv8m.main-none-eabihf",
        place: Place::Hardware(Chip { name: "nRF5340_xxAA", slot: None }),
    },
    Board {
        name: "stm32h747i-disco",
        processor: "STM32H747, Cortex-M7",
        target: "thumbv7em-none-eabihf",
        place: Place::Hardware(Chip { name: "STM32H747XIHx", slot: None }),
    },
    Board {
        name: "stm32n6570-dk",
        processor: "STM32N657, Cortex-M55, Helium",
        target: "thumbv8m.main-none-eabihf",
        place: Place::Loaded,
    },
];

impl Machine {
    /// Whether the board is a program of Linux, and not the firmware of a machine of its own.
    pub fn is_linux(&self) -> bool {
        self.slots.is_empty()
    }
}

/// Whether a model has room in a slot.
fn check_room(model: u64, slot: u64) -> Result<()> {
    ensure!(model <= slot, "the slot has {slot} bytes, the model {model}");
    Ok(())
}

impl Board {
    /// How QEMU runs it.
    ///
    /// # Errors
    /// If it is hardware.
    pub fn machine(&self) -> Result<&Machine> {
        match &self.place {
            Place::Emulator(machine) => Ok(machine),
            _ => bail!(
                "{} is not emulated: name the serial port that it is connected to, such as /dev/ttyACM0; electret board flash \
                 brings firmware there",
                self.name
            ),
        }
    }

    /// How it is flashed.
    ///
    /// # Errors
    /// If it is emulated, or has no flash that firmware stays in.
    pub fn chip(&self) -> Result<&Chip> {
        match &self.place {
            Place::Emulator(machine) if machine.is_linux() => bail!(
                "{} is a program of Linux, to be copied there: boards/{0}/electret.service says how",
                self.name
            ),
            Place::Emulator(_) => bail!("{} is emulated: electret board run {0}", self.name),
            Place::Loaded => bail!(
                "{} has no flash within its chip: boards/{0}/src/main.rs says how its firmware is started, and kept",
                self.name
            ),
            Place::Hardware(chip) => Ok(chip),
        }
    }

    /// The board of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        BOARDS.iter().find(|board| board.name == name)
    }
}
