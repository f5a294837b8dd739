//! One NOR flash for everything: two slots for models, which are read where they lie, and what was learned.

use core::cell::RefCell;
use core::ops::Range;

use electret::Error;
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

use crate::Slots;

/// Bytes that are erased at once.
pub const SECTOR: usize = 4096;

/// A flash that can be read as memory, except while one of these runs.
pub trait Chip {
    /// Sets the bytes of the [`SECTOR`] that begins there to 0xff; `Err` if the chip does not.
    #[expect(clippy::result_unit_err, reason = "a chip says no more than no")]
    fn erase(&mut self, sector: u32) -> Result<(), ()>;

    /// Clears bits, so that erased bytes become `bytes`, which cross pages as they like. `offset` is a multiple of 4;
    /// `Err` if the chip does not.
    #[expect(clippy::result_unit_err, reason = "a chip says no more than no")]
    fn program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), ()>;
}

/// Where things lie; all but `mapped` are offsets within the flash, and multiples of [`SECTOR`].
pub struct Map {
    /// Address at which the flash is read.
    pub mapped: usize,
    /// Bytes of the flash.
    pub bytes: usize,
    /// Where the slots begin.
    pub slots: [u32; 2],
    /// Bytes of each.
    pub slot_bytes: u32,
    /// For what was learned.
    pub store: Range<u32>,
}

impl Map {
    /// What is in the flash, from there on.
    fn read(&self, offset: u32, bytes: usize) -> &'static [u8] {
        // SAFETY: the flash is mapped there, as whoever made the map says. Callers keep a slice of a part that may be
        // written only as long as a command lasts.
        unsafe { core::slice::from_raw_parts((self.mapped + offset as usize) as *const u8, bytes) }
    }
}

/// The flash, of which store and slots have a part each.
pub struct MappedFlash<'c, C> {
    pub chip: &'c RefCell<C>,
    pub map: &'c Map,
}

impl<C> ErrorType for MappedFlash<'_, C> {
    type Error = NorFlashErrorKind;
}

impl<C> ReadNorFlash for MappedFlash<'_, C> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        bytes.copy_from_slice(self.map.read(offset, bytes.len()));
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.map.bytes
    }
}

impl<C: Chip> NorFlash for MappedFlash<'_, C> {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = SECTOR;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        let mut chip = self.chip.borrow_mut();
        let mut sectors = (from..to).step_by(SECTOR);
        sectors.try_for_each(|sector| chip.erase(sector)).map_err(|()| NorFlashErrorKind::Other)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        self.chip.borrow_mut().program(offset, bytes).map_err(|()| NorFlashErrorKind::Other)
    }
}

impl<C: Chip> Slots for MappedFlash<'_, C> {
    fn read(&self, slot: u8) -> &'static [u8] {
        match self.map.slots.get(usize::from(slot)) {
            Some(&start) => self.map.read(start, self.map.slot_bytes as usize),
            None => &[],
        }
    }

    fn write(&mut self, slot: u8, offset: u32, data: &[u8]) -> Result<(), Error> {
        let start = self.map.slots.get(usize::from(slot)).ok_or(Error::StoreFailed)? + offset;
        let end = start + data.len() as u32;
        let begins = start.next_multiple_of(SECTOR as u32)..end.next_multiple_of(SECTOR as u32);
        let mut chip = self.chip.borrow_mut();
        let mut sectors = begins.step_by(SECTOR);
        let erased = sectors.try_for_each(|sector| chip.erase(sector));
        erased.and_then(|()| chip.program(start, data)).map_err(|()| Error::StoreFailed)
    }
}
