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

/// Writes into memory that stands for a flash, from `begin` on, and says what has changed: a sector is erased when its first
/// byte is written, and bits only fall. Nothing is done if it does not fit.
pub fn imitate(memory: &mut [u8], begin: usize, data: &[u8]) -> Option<Range<usize>> {
    let end = begin.checked_add(data.len()).filter(|&end| end <= memory.len())?;
    let mut changed = begin..end;
    for sector in (begin.next_multiple_of(SECTOR)..end).step_by(SECTOR) {
        changed.end = (sector + SECTOR).min(memory.len());
        memory.get_mut(sector..changed.end)?.fill(0xff);
    }
    memory.get_mut(begin..end)?.iter_mut().zip(data).for_each(|(old, new)| *old &= new);
    Some(changed)
}

/// Where things lie in a flash.
pub struct Map {
    mapped: usize,
    bytes: usize,
    slots: [u32; 2],
    slot_bytes: u32,
    store: [u32; 2],
}

impl Map {
    /// Of a flash of so many bytes, the first of which is read at the address `mapped`: where the two slots begin and how
    /// large they are, and what is for the store, all in multiples of [`SECTOR`]. One that does not fit does not build.
    ///
    /// # Safety
    /// The flash can be read there whenever its [`Chip`] does nothing.
    pub const unsafe fn new(
        mapped: usize,
        bytes: usize,
        slots: [u32; 2],
        slot_bytes: u32,
        store: Range<u32>,
    ) -> Self {
        assert!(slots[0] + slot_bytes <= slots[1] && slots[1] + slot_bytes <= store.start);
        assert!(store.start < store.end && store.end as usize <= bytes);
        assert!((slots[0] | slots[1] | slot_bytes | store.start | store.end).is_multiple_of(SECTOR as u32));
        Self { mapped, bytes, slots, slot_bytes, store: [store.start, store.end] }
    }

    /// The part for what was learned.
    pub const fn store(&self) -> Range<u32> {
        self.store[0]..self.store[1]
    }

    /// What is in the flash, from there on.
    fn read(&self, offset: u32, bytes: usize) -> &'static [u8] {
        // SAFETY: `new` was promised that the flash is there. Callers keep a slice of a part that may be written only as
        // long as a command lasts.
        unsafe { core::slice::from_raw_parts((self.mapped + offset as usize) as *const u8, bytes) }
    }
}

/// The flash, of which store and slots have a part each.
pub struct MappedFlash<'c, C> {
    chip: &'c RefCell<C>,
    map: &'c Map,
    feed: fn(),
}

impl<'c, C: Chip> MappedFlash<'c, C> {
    /// A share of it. `feed` feeds the watchdog, before whatever takes a while.
    pub const fn new(chip: &'c RefCell<C>, map: &'c Map, feed: fn()) -> Self {
        Self { chip, map, feed }
    }

    fn erase_sectors(&self, range: Range<u32>) -> Result<(), ()> {
        let mut chip = self.chip.borrow_mut();
        range.step_by(SECTOR).try_for_each(|sector| {
            (self.feed)();
            chip.erase(sector)
        })
    }

    fn program(&self, offset: u32, bytes: &[u8]) -> Result<(), ()> {
        (self.feed)();
        self.chip.borrow_mut().program(offset, bytes)
    }
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
        self.erase_sectors(from..to).map_err(|()| NorFlashErrorKind::Other)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        self.program(offset, bytes).map_err(|()| NorFlashErrorKind::Other)
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
        if !start.is_multiple_of(Self::WRITE_SIZE as u32) {
            return Err(Error::StoreFailed);
        }
        let end = start + data.len() as u32;
        let begins = start.next_multiple_of(SECTOR as u32)..end.next_multiple_of(SECTOR as u32);
        let erased = self.erase_sectors(begins);
        erased.and_then(|()| self.program(start, data)).map_err(|()| Error::StoreFailed)
    }
}
