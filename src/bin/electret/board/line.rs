//! The line to a board: a serial port, or the emulated board of that name.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use electret::board::{Board as Known, Client, Clock, Emulator};
use electret::link::Command;
use serde_json::json;

use super::firmware::Source;
use crate::ModelFile;

pub const BAUD: u32 = 115_200;
const TIMEOUT: u64 = 60;
/// Seconds in which a board on a desk says who it is, a large model looked through.
const FIRST_TIMEOUT: u64 = 20;

/// Where a board listens.
#[derive(Args)]
pub struct Line {
    /// A serial port, such as /dev/ttyACM0 or COM3, or the name of an emulated board.
    place: String,
    /// Bits a second of a serial port; a board's `src/main.rs` says how many it speaks.
    #[arg(long, default_value_t = BAUD)]
    baud: u32,
    /// Seconds of silence after which a board is asked again.
    #[arg(long, default_value_t = TIMEOUT)]
    timeout: u64,
    /// The folder that is an emulated board's flash; without it one beside its firmware, NAME.run.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
}

impl Line {
    /// A place, with the rate of its line if it is a serial port.
    pub fn at(place: &str, baud: u32) -> Self {
        Self { place: place.to_owned(), baud, timeout: TIMEOUT, folder: None, source: Source::default() }
    }

    /// Opens the serial port, or starts the emulated board of that name; refuses another protocol.
    pub fn connect(&self) -> Result<(Option<Emulator>, Client)> {
        let (emulator, client) = self.open()?;
        // Whoever is there says so soon; an emulated board takes its time to start.
        let first = if emulator.is_some() { self.timeout } else { self.timeout.min(FIRST_TIMEOUT) };
        let mut client = client.with_timeout(Duration::from_secs(first));
        client.ask(Command::Info)?.board()?;
        Ok((emulator, client.with_timeout(Duration::from_secs(self.timeout))))
    }

    fn open(&self) -> Result<(Option<Emulator>, Client)> {
        if let Some(board) = Known::find(&self.place) {
            board.machine()?;
            let firmware = self.source.build(board)?;
            let folder = self.folder.clone().unwrap_or_else(|| firmware.path.with_extension("run"));
            let model = ModelFile { model: None }.bytes()?;
            let fresh = !folder.join("slot-0.bin").exists();
            let model = fresh.then(|| model.as_slice());
            let (emulator, client) = Emulator::start(board, &firmware.path, &folder, model, Clock::Time)?;
            return Ok((Some(emulator), client));
        }
        // Debuggers whose line is a USB port hold back what nobody seems to read.
        let port = serialport::new(&self.place, self.baud).dtr_on_open(true);
        let port = port.timeout(Duration::from_millis(200)).open();
        let port = port.with_context(|| {
            format!("{}: neither a serial port nor a board of electret board list", self.place)
        })?;
        let reader = port.try_clone().with_context(|| self.place.clone())?;
        Ok((None, Client::new(reader, port)))
    }
}

/// Says who is there, and refuses another protocol; the adapter that answers.
pub fn introduce(client: &mut Client, json: bool) -> Result<Option<u8>> {
    let answers = client.ask(Command::Info)?;
    let about = answers.board()?;
    if json {
        say!(
            "{}",
            json!({"board": about.board, "firmware": about.firmware, "model": about.model, "kernels": about.kernels,
                   "tokens": about.tokens, "adapter": about.adapter, "slot": about.slot})
        );
    } else {
        let adapter = about.adapter.map_or("no adapter".to_owned(), |number| format!("adapter {number}"));
        let model = if about.model.is_empty() { "no model" } else { about.model };
        say!(
            "{}, firmware {}: {model} in slot {}, {adapter}; kernels {}, up to {} tokens",
            about.board,
            about.firmware,
            about.slot,
            about.kernels,
            about.tokens
        );
    }
    Ok(about.adapter)
}
