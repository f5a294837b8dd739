//! A flash that can be trusted with power failing at any moment, and with worn-out pages.
//!
//! What is written is read back at once: before a page is erased, what was moved off it is known to be
//! elsewhere. And an erasure that was cut short, which leaves a page in any state whatever, is done again at the
//! next boot: a journal, in two pages of its own, says which page is being erased.
//!
//! An entry is a sequence number and a page, both also inverted, and a word that is programmed when the page is
//! erased. Only the newest entry counts. When one page of the journal is full the other is erased, in which no entry is
//! the newest: should that be cut short, what it leaves behind counts for nothing.

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind};
use embedded_storage_async::nor_flash as asynchronous;

/// Bytes of the widest word.
const WIDEST_WORD: usize = 32;
/// Bytes of an entry, without the word that finishes it.
const ENTRY: usize = 16;
/// Pages of the journal.
pub const JOURNAL_PAGES: u32 = 2;

/// The unit in which a flash is read and programmed.
pub const fn word_size<F: NorFlash>() -> usize {
    if F::WRITE_SIZE > F::READ_SIZE { F::WRITE_SIZE } else { F::READ_SIZE }
}

/// A blocking flash, for `sequential-storage`, which awaits one; it is always ready.
pub struct Careful<F> {
    flash: F,
    /// Where the journal's first page begins; the second follows it.
    journal: u32,
    /// Which of the two takes entries, 0 or 1.
    page: u32,
    /// Where the next one goes, counted from the beginning of that page.
    next: u32,
    /// The newest entry's number.
    sequence: u32,
}

/// What goes wrong with a flash.
#[derive(Debug)]
pub enum Fault<E> {
    /// It said so.
    Flash(E),
    /// It holds something else than was written.
    Worn,
}

impl<E: NorFlashError> NorFlashError for Fault<E> {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<F: NorFlash> Careful<F> {
    /// Bytes of an entry, whole words, and of it with the word that finishes it.
    const ENTRY_WORDS: u32 = ENTRY.next_multiple_of(word_size::<F>()) as u32;
    const SLOT: u32 = Self::ENTRY_WORDS + word_size::<F>() as u32;

    /// Finishes an erasure that was cut short.
    pub fn open(flash: F, journal: u32) -> Result<Self, Fault<F::Error>> {
        let mut careful = Self { flash, journal, page: 0, next: 0, sequence: 0 };
        let mut unfinished = None;
        let slots = (0..=F::ERASE_SIZE as u32 - Self::SLOT).step_by(Self::SLOT as usize);
        for (page, at) in (0..JOURNAL_PAGES).flat_map(|page| slots.clone().map(move |at| (page, at))) {
            let mut slot = [0; 2 * WIDEST_WORD + ENTRY];
            let slot = slot.get_mut(..Self::SLOT as usize).unwrap_or_default();
            let place = careful.place(page, at);
            careful.flash.read(place, slot).map_err(Fault::Flash)?;
            if slot.iter().all(|&byte| byte == 0xff) {
                continue;
            }
            if let Some((sequence, erased)) = entry(slot)
                && sequence > careful.sequence
            {
                (careful.sequence, careful.page) = (sequence, page);
                let finished = slot.get(Self::ENTRY_WORDS as usize..).unwrap_or_default();
                unfinished = finished.iter().all(|&byte| byte == 0xff).then_some((erased, place));
            }
            if page == careful.page {
                careful.next = at + Self::SLOT;
            }
        }
        if let Some((page, entry)) = unfinished {
            careful.erase_page(page)?;
            careful.finish(entry)?;
        }
        Ok(careful)
    }

    /// Where a slot of the journal lies.
    fn place(&self, page: u32, at: u32) -> u32 {
        self.journal + page * F::ERASE_SIZE as u32 + at
    }

    /// The flash.
    pub fn close(self) -> F {
        self.flash
    }

    fn erase_page(&mut self, page: u32) -> Result<(), Fault<F::Error>> {
        self.flash.erase(page, page + F::ERASE_SIZE as u32).map_err(Fault::Flash)
    }

    /// Enters the intent to erase a page: where the entry is.
    fn begin(&mut self, page: u32) -> Result<u32, Fault<F::Error>> {
        if self.next + Self::SLOT > F::ERASE_SIZE as u32 {
            let other = 1 - self.page;
            self.erase_page(self.place(other, 0))?;
            (self.page, self.next) = (other, 0);
        }
        self.sequence += 1;
        let mut bytes = [0; WIDEST_WORD + ENTRY];
        for (place, number) in
            bytes.as_chunks_mut().0.iter_mut().zip([self.sequence, page, !self.sequence, !page])
        {
            *place = number.to_le_bytes();
        }
        let entry = self.place(self.page, self.next);
        self.next += Self::SLOT;
        self.program(entry, bytes.get(..Self::ENTRY_WORDS as usize).unwrap_or_default())?;
        Ok(entry)
    }

    /// Says that the erasure which an entry is about is done.
    fn finish(&mut self, entry: u32) -> Result<(), Fault<F::Error>> {
        let word = [0; WIDEST_WORD];
        let word = word.get(..word_size::<F>()).unwrap_or_default();
        self.program(entry + Self::ENTRY_WORDS, word)
    }

    /// Writes, and reads back.
    fn program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Fault<F::Error>> {
        self.flash.write(offset, bytes).map_err(Fault::Flash)?;
        let mut buffer = [0; 2 * WIDEST_WORD];
        for (at, written) in (offset..).step_by(buffer.len()).zip(bytes.chunks(buffer.len())) {
            let found = buffer.get_mut(..written.len()).unwrap_or_default();
            self.flash.read(at, found).map_err(Fault::Flash)?;
            if found != written {
                return Err(Fault::Worn);
            }
        }
        Ok(())
    }
}

/// The sequence number and the page of an entry that was written whole.
fn entry(slot: &[u8]) -> Option<(u32, u32)> {
    let [sequence, page, not_sequence, not_page] =
        slot.as_chunks().0.first_chunk::<4>()?.map(u32::from_le_bytes);
    (sequence == !not_sequence && page == !not_page).then_some((sequence, page))
}

impl<F: NorFlash> ErrorType for Careful<F> {
    type Error = Fault<F::Error>;
}

impl<F: NorFlash> asynchronous::ReadNorFlash for Careful<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.flash.read(offset, bytes).map_err(Fault::Flash)
    }

    fn capacity(&self) -> usize {
        self.flash.capacity()
    }
}

impl<F: NorFlash> asynchronous::NorFlash for Careful<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        for page in (from..to).step_by(F::ERASE_SIZE) {
            let entry = self.begin(page)?;
            self.erase_page(page)?;
            self.finish(entry)?;
        }
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        self.program(offset, bytes)
    }
}
