//! Raspberry Pi 3 and later, and other aarch64 computers with Linux: a static program that says and does over a serial
//! line what a microcontroller's firmware does.
//!
//! ```text
//! raspberry-pi FOLDER [LINE]
//! ```
//!
//! FOLDER holds `slot-0.bin` and `slot-1.bin`, of which one is the model that answers and the other has room for the
//! next, and `learned/`. LINE is a serial device that `stty` has made raw, such as /dev/serial0; without it requests
//! come from standard input and answers go to standard output. `electret.service` runs this from boot on.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use electret::Error;
use electret::tune::store::{FolderStore, failed};
use electret::weights::AlignedBytes;
use electret_board::{Board, KEY, Outcome, Slots, Stack};
use embedded_io::{ErrorType, Read, Write};
use memmap2::Mmap;

/// Room for ELECTRA-large in int8. A file takes no more of a disk than what was written to it.
const SLOT_BYTES: u64 = 512 << 20;

/// Their files.
const SLOTS: [&str; 2] = ["slot-0.bin", "slot-1.bin"];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, line) = match &arguments[..] {
        [folder] => (Path::new(folder), Line::standard()?),
        [folder, device] => (Path::new(folder), Line::open(device).with_context(|| device.clone())?),
        _ => bail!("usage: raspberry-pi FOLDER [LINE], such as raspberry-pi /var/lib/electret /dev/serial0"),
    };
    let slots = Files::open(folder).with_context(|| folder.display().to_string())?;
    let store = FolderStore::open(&folder.join("learned")).with_context(|| folder.display().to_string())?;
    // Memory that no model needs is never touched, and costs nothing.
    let [mut answering, mut learning, mut adapter] = [16 << 20, 64 << 20, 16 << 20].map(AlignedBytes::zeroed);
    let mut board = Board {
        name: env!("CARGO_PKG_NAME"),
        serial: line,
        store,
        slots,
        answering: answering.as_mut_slice(),
        learning: learning.as_mut_slice(),
        adapter: adapter.as_mut_slice(),
        key: KEY,
        clock: microseconds,
        pulse: || (),
        stack,
    };
    // Another model was installed: on it goes.
    while board.serve()? == Outcome::Installed {}
    Ok(())
}

/// Two ends of the line, which for a device are the same file.
struct Line {
    requests: File,
    answers: File,
}

impl Line {
    fn standard() -> std::io::Result<Self> {
        let requests = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let answers = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { requests, answers })
    }

    fn open(device: &str) -> std::io::Result<Self> {
        // A service must not end because its line hangs up.
        let mut options = OpenOptions::new();
        let requests = options.read(true).write(true).custom_flags(libc::O_NOCTTY).open(device)?;
        Ok(Self { answers: requests.try_clone()?, requests })
    }
}

impl ErrorType for Line {
    type Error = std::io::Error;
}

impl Read for Line {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        std::io::Read::read(&mut self.requests, bytes)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::Write::write(&mut self.answers, bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::Write::flush(&mut self.answers)
    }
}

/// The slots' files, and their bytes as they are on the disk.
struct Files([(File, &'static [u8]); 2]);

impl Files {
    /// Opens the slots of a folder; what is missing is made, and holds no model yet.
    ///
    /// # Errors
    /// A model that has no room in a slot, and what the file system says.
    fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let slot = |name| {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(folder.join(name))?;
            if file.metadata()?.len() > SLOT_BYTES {
                let why = format!("{name}: longer than a slot, which has {SLOT_BYTES} bytes");
                return Err(std::io::Error::new(ErrorKind::FileTooLarge, why));
            }
            file.set_len(SLOT_BYTES)?;
            // SAFETY: the file is this program's, which keeps its length and writes to no slot whose bytes are in use.
            let bytes: &'static Mmap = Box::leak(Box::new(unsafe { Mmap::map(&file) }?));
            Ok((file, &bytes[..]))
        };
        let [first, second] = SLOTS.map(slot);
        let both: std::io::Result<_> = first.and_then(|first| Ok([first, second?]));
        // The names too, before anything says that there is a model.
        File::open(folder)?.sync_all()?;
        both.map(Self)
    }
}

impl Slots for Files {
    fn read(&self, slot: u8) -> &'static [u8] {
        self.0.get(usize::from(slot)).map_or(&[], |(_, bytes)| bytes)
    }

    fn write(&mut self, slot: u8, offset: u32, data: &[u8]) -> Result<(), Error> {
        let (file, _) = self.0.get(usize::from(slot)).ok_or(Error::StoreFailed)?;
        // On the disk before the answer: the host need not send it again after a loss of power.
        let written = file.write_all_at(data, offset.into()).and_then(|()| file.sync_data());
        written.map_err(|error| failed(Path::new(SLOTS[usize::from(slot)]), &error))
    }
}

fn microseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// What Linux has given the stack so far, of which it takes nothing back.
fn stack() -> Stack {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmStk:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok());
    Stack { deepest: kib.unwrap_or(0) * 1024, room: None }
}
