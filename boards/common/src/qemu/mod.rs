//! What QEMU's machines share. They have no flash: what is to outlive a reset lies in files of the folder in
//! which QEMU runs, reached by semihosting.
//!
//! `flash.bin` is the flash for what is learned. `slot-0.bin` and `slot-1.bin` hold models; QEMU's loader puts
//! them into memory, where they are read as from flash that is mapped.

#[cfg(target_arch = "aarch64")]
pub mod aarch64;
#[cfg(target_arch = "arm")]
pub mod cortex_m;

use core::ffi::CStr;

use electret::Error;
use electret::tune::store::FlashStore;
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
use semihosting::fs::{File, OpenOptions};
use semihosting::io::{Read, Seek, SeekFrom, Write};

use crate::flash::{SECTOR, imitate};
use crate::{Board, KEY, Outcome, Slots, painted_stack};

/// The file of a folder that QEMU runs in, to be read and written.
fn open(name: &CStr) -> Result<File, Fault> {
    OpenOptions::new().read(true).write(true).open(name).map_err(|_| Fault::Host)
}

/// A NOR flash in `flash.bin`, with sectors of 4 KiB and programs of 4 bytes.
pub struct FileFlash {
    file: File,
    bytes: usize,
}

/// Why a flash in a file refused.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The host's file system did.
    Host,
    /// The request was out of range or out of line.
    Request(NorFlashErrorKind),
}

impl NorFlashError for Fault {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Host => NorFlashErrorKind::Other,
            Self::Request(kind) => *kind,
        }
    }
}

impl FileFlash {
    /// Opens the flash, whose size is the file's.
    ///
    /// # Errors
    /// [`Fault::Host`] if the host has no such file.
    pub fn open() -> Result<Self, Fault> {
        let mut file = open(c"flash.bin")?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(|_| Fault::Host)? as usize;
        Ok(Self { file, bytes })
    }

    fn seek(&mut self, offset: u32) -> Result<(), Fault> {
        self.file.seek(SeekFrom::Start(offset.into())).map(|_| ()).map_err(|_| Fault::Host)
    }
}

impl ErrorType for FileFlash {
    type Error = Fault;
}

impl ReadNorFlash for FileFlash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Fault> {
        check_read(self, offset, bytes.len()).map_err(Fault::Request)?;
        self.seek(offset)?;
        self.file.read_exact(bytes).map_err(|_| Fault::Host)
    }

    fn capacity(&self) -> usize {
        self.bytes
    }
}

impl NorFlash for FileFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = SECTOR;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Fault> {
        check_erase(self, from, to).map_err(Fault::Request)?;
        self.seek(from)?;
        for _ in (from..to).step_by(256) {
            self.file.write_all(&[0xff; 256]).map_err(|_| Fault::Host)?;
        }
        Ok(())
    }

    /// Bits only fall, as in the real thing.
    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Fault> {
        check_write(self, offset, bytes.len()).map_err(Fault::Request)?;
        for (at, piece) in (offset..).step_by(256).zip(bytes.chunks(256)) {
            let mut there = [0; 256];
            let there = there.get_mut(..piece.len()).unwrap_or_default();
            self.read(at, there)?;
            there.iter_mut().zip(piece).for_each(|(old, new)| *old &= new);
            self.seek(at)?;
            self.file.write_all(there).map_err(|_| Fault::Host)?;
        }
        Ok(())
    }
}

/// Two slots in memory, each with its file.
pub struct FileSlots {
    /// Where they begin.
    places: [*mut u8; 2],
    bytes: usize,
}

impl FileSlots {
    /// # Safety
    /// At both places lie as many bytes that nothing else uses. A null place is no slot.
    pub const unsafe fn new(places: [*mut u8; 2], bytes: usize) -> Self {
        Self { places, bytes }
    }
}

impl Slots for FileSlots {
    fn read(&self, slot: u8) -> &'static [u8] {
        match self.places.get(usize::from(slot)) {
            // SAFETY: `new` was promised that it is there. The slot that runs is not written.
            Some(place) if !place.is_null() => unsafe { core::slice::from_raw_parts(*place, self.bytes) },
            _ => &[],
        }
    }

    fn write(&mut self, slot: u8, offset: u32, data: &[u8]) -> Result<(), Error> {
        let place = self.places.get(usize::from(slot)).filter(|place| !place.is_null());
        let place = place.ok_or(Error::StoreFailed)?;
        // SAFETY: the slot, which nobody reads at the moment: a slice of it lives only as long as a command.
        let memory = unsafe { core::slice::from_raw_parts_mut(*place, self.bytes) };
        let changed = imitate(memory, offset as usize, data).ok_or(Error::StoreFailed)?;
        let name = if slot == 0 { c"slot-0.bin" } else { c"slot-1.bin" };
        let kept = open(name).ok().and_then(|mut file| {
            file.seek(SeekFrom::Start(offset.into())).ok()?;
            file.write_all(memory.get(changed)?).ok()
        });
        kept.ok_or(Error::StoreFailed)
    }
}

/// What differs between the machines; see [`Board`].
#[expect(missing_docs, reason = "the fields are a board's")]
pub struct Machine<S> {
    pub name: &'static str,
    pub serial: S,
    pub slots: FileSlots,
    pub answering: &'static mut [u8],
    pub learning: &'static mut [u8],
    pub adapter: &'static mut [u8],
    pub clock: fn() -> u64,
}

/// Serves until the line is closed.
pub fn run<S: embedded_io::Read + embedded_io::Write>(machine: Machine<S>) -> ! {
    let Machine { name, serial, slots, answering, learning, adapter, clock } = machine;
    let flash = FileFlash::open().unwrap_or_else(|error| fail(format_args!("{name}: flash.bin: {error:?}")));
    let range = 0..flash.capacity() as u32;
    let Ok(store) = FlashStore::open(flash, range) else {
        fail(format_args!("{name}: flash.bin is no store"))
    };
    // QEMU's machines have no watchdog to feed.
    let pulse = || ();
    let mut board = Board {
        name,
        serial,
        store,
        slots,
        answering,
        learning,
        adapter,
        key: KEY,
        clock,
        pulse,
        stack: painted_stack,
    };
    while let Ok(Outcome::Installed) = board.serve() {}
    fail(format_args!("{name}: the line is closed"))
}

/// Says something on the host's error output and ends QEMU, as failed.
pub fn fail(what: core::fmt::Arguments<'_>) -> ! {
    if let Ok(mut error) = semihosting::io::stderr() {
        let _ = writeln!(error, "{what}");
    }
    semihosting::process::exit(1)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    fail(format_args!("{info}"))
}
