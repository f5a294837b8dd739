//! Documents in NOR flash, through `sequential-storage`, whose items are written whole or ignored.
//!
//! A document is cut into chunks. Each place has two slots: a new document goes into the one that is not in
//! use, and then one small record, itself written whole or ignored, says that this slot counts
//! from now on. So power may fail at any program or erase operation.
//!
//! Room is counted before anything is written: the chunks of both slots of all places, and the few bytes by which the
//! ring remembers that a chunk is gone.

use core::future::Future;
use core::ops::Range;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_storage::nor_flash::NorFlash;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};

use super::careful::{Careful, Fault, JOURNAL_PAGES, word_size};
use super::{Place, Store};
use crate::Error;
use crate::weights::{CRC_32C, Document, HEADER_BYTES, Take};

/// Most bytes that one item holds.
const LARGEST_ITEM: usize = 2048;
/// Chunks that a page holds at least, so that little of it is wasted.
const FEWEST_CHUNKS: usize = 4;
/// What a small record takes, beside the chunks of a page.
const RECORD_ROOM: usize = 128;
/// Bytes of a key.
const KEY: usize = 4;

type Map<F> = MapStorage<u32, Careful<F>, Cache<Uncached, Uncached, Uncached, u32>>;

/// A [`Store`] in a range of a NOR flash. It holds a buffer of 2 KiB, and takes as much of the stack while it writes.
pub struct FlashStore<F: NorFlash> {
    map: Map<F>,
    buffer: Buffer,
    /// What is said of each place.
    records: [Record; Place::COUNT],
    /// Bytes of the ring that all chunks may take together.
    capacity: usize,
}

/// Some flash controllers take aligned buffers only.
#[repr(align(32))]
struct Buffer([u8; LARGEST_ITEM]);

impl<F: NorFlash> core::fmt::Debug for FlashStore<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "FlashStore({} of {} bytes)", self.used(), self.capacity)
    }
}

/// What the flash says of one place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Record {
    /// The slot that counts; none before the first document and after a removal.
    slot: Option<u8>,
    /// Chunks that may lie in each slot.
    chunks: [u16; 2],
    /// Chunks that ever did: the ring knows all of them, be it that they are gone.
    known: [u16; 2],
    /// The document's bytes.
    bytes: u32,
    /// CRC-32C of them.
    crc: u32,
}

impl Record {
    const VERSION: u8 = 2;
    const BYTES: usize = 20;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let start = [Self::VERSION, self.slot.unwrap_or(u8::MAX), 0, 0];
        let two = |slots: [u16; 2]| bytemuck::cast(slots.map(u16::to_le_bytes));
        let (length, crc) = (self.bytes.to_le_bytes(), self.crc.to_le_bytes());
        bytemuck::cast([start, two(self.chunks), two(self.known), length, crc])
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let &[start, chunks, known, length, crc]: &[[u8; 4]; 5] = bytemuck::try_from_bytes(bytes).ok()?;
        let two = |slots: [u8; 4]| bytemuck::cast::<_, [[u8; 2]; 2]>(slots).map(u16::from_le_bytes);
        (start[0] == Self::VERSION).then(|| Self {
            slot: Some(start[1]).filter(|&slot| slot < 2),
            chunks: two(chunks),
            known: two(known),
            bytes: u32::from_le_bytes(length),
            crc: u32::from_le_bytes(crc),
        })
    }

    /// The same with room for so many chunks in a slot.
    fn with_chunks(mut self, slot: usize, chunks: u16) -> Self {
        self.chunks[slot] = chunks;
        self.known[slot] = self.known[slot].max(chunks);
        self
    }
}

/// The key of a place's record, or of a chunk of one of its slots.
fn record_key(place: u8) -> u32 {
    u32::from(place) << 24 | 0x00ff_ffff
}

fn chunk_key(place: u8, slot: u8, chunk: u16) -> u32 {
    u32::from(place) << 24 | u32::from(slot) << 16 | u32::from(chunk)
}

impl<F: NorFlash> FlashStore<F> {
    /// Bytes of a document in one chunk: the page's room in equal parts, whole words, key left out.
    const CHUNK: usize = {
        let word = word_size::<F>();
        let header = 8usize.next_multiple_of(word);
        let room = F::ERASE_SIZE.saturating_sub(2 * word + RECORD_ROOM);
        let chunks = room.div_ceil(LARGEST_ITEM);
        let chunks = if chunks < FEWEST_CHUNKS { FEWEST_CHUNKS } else { chunks };
        let item = (room / chunks).saturating_sub(header);
        let item = if item < LARGEST_ITEM { item } else { LARGEST_ITEM };
        (item / word * word).saturating_sub(KEY) / 4 * 4
    };
    /// Bytes of the ring that a chunk takes.
    const CHUNK_ITEM: usize = Self::item(Self::CHUNK);
    /// Bytes of a page between its marks.
    const PAGE: usize = F::ERASE_SIZE.saturating_sub(2 * word_size::<F>());
    /// Chunks that fit into a page.
    const CHUNKS_PER_PAGE: usize = Self::PAGE.saturating_sub(RECORD_ROOM) / Self::CHUNK_ITEM;
    /// Bytes that a chunk which is gone costs: as soon as the items that say so take more than chunks leave of a page, it
    /// has room for one chunk less.
    const GONE: usize =
        (Self::item(0) * Self::CHUNK_ITEM).div_ceil(Self::PAGE - Self::CHUNKS_PER_PAGE * Self::CHUNK_ITEM);

    /// Bytes of an item with a value of so many.
    const fn item(value: usize) -> usize {
        let word = word_size::<F>();
        8usize.next_multiple_of(word) + (value + KEY).next_multiple_of(word)
    }

    /// Opens the store in a range of `flash`, in bytes, that starts and ends at a page and has at least five: two
    /// for the journal of erasures, two to turn the ring, the rest for documents. An erased range is an empty store.
    ///
    /// # Errors
    /// [`Error::FlashGeometry`]; [`Error::StoreFailed`] if the flash cannot be read;
    /// [`Error::StoreDamaged`].
    pub fn open(flash: F, range: Range<u32>) -> Result<Self, Error> {
        if range.end as usize > flash.capacity() || range.start > range.end {
            return Err(Error::FlashGeometry("range: it must lie within the flash"));
        }
        let pages = (range.end - range.start) as usize / F::ERASE_SIZE;
        if pages < 5 || Self::CHUNK < 32 {
            return Err(Error::FlashGeometry("range: it must have five pages, of at least 512 bytes each"));
        }
        let ring = range.start + JOURNAL_PAGES * F::ERASE_SIZE as u32..range.end;
        let config = MapConfig::try_new(ring).map_err(|_| {
            Error::FlashGeometry("range: it must start and end at a page, and words have at most 32 bytes")
        })?;
        let flash = flash_result(Some(Careful::open(flash, range.start).map_err(fault)))?;
        let map = MapStorage::new(flash, config, Cache::new_uncached());
        let capacity = (pages - 4) * Self::CHUNKS_PER_PAGE * Self::CHUNK_ITEM;
        let (records, buffer) = ([Record::default(); Place::COUNT], Buffer([0; LARGEST_ITEM]));
        let mut store = Self { map, buffer, records, capacity };
        store.read_records()?;
        Ok(store)
    }

    /// Reads every place's record, in one walk over all items from the oldest to the newest.
    fn read_records(&mut self) -> Result<(), Error> {
        let Self { map, buffer, records, .. } = self;
        let mut items = flash_result(ready(map.fetch_all_items(&mut buffer.0)))?;
        while let Some((key, value)) = flash_result(ready(items.next::<&[u8]>(&mut buffer.0)))? {
            let place = (key >> 24) as u8;
            if let Some(record) = records.get_mut(usize::from(place))
                && key == record_key(place)
            {
                *record = Record::from_bytes(value).ok_or(Error::StoreDamaged)?;
            }
        }
        Ok(())
    }

    /// Gives the flash back.
    pub fn close(self) -> F {
        self.map.destroy().0.close()
    }

    /// Bytes of documents that fit in all, each counted twice. Each place keeps for ever a tenth or so of what it once held
    /// and holds no more; erasing the range brings that back.
    pub fn capacity(&self) -> usize {
        Self::of_documents(self.capacity)
    }

    /// Bytes of documents in the chunks that fit into so many bytes of the ring.
    fn of_documents(bytes: usize) -> usize {
        bytes.div_ceil(Self::CHUNK_ITEM) * Self::CHUNK
    }

    /// Bytes of the ring that all chunks take, and what is known of those that are gone.
    fn used(&self) -> usize {
        self.records.iter().map(Self::room).sum()
    }

    /// What of that is one place's.
    fn room(record: &Record) -> usize {
        let [chunks, known] =
            [record.chunks, record.known].map(|slots| slots.map(usize::from).iter().sum::<usize>());
        chunks * Self::CHUNK_ITEM + known.saturating_sub(chunks) * Self::GONE
    }

    fn record(&self, place: u8) -> Record {
        self.records.get(usize::from(place)).copied().unwrap_or_default()
    }

    fn fetch(&mut self, key: u32) -> Result<Option<&[u8]>, Error> {
        flash_result(ready(self.map.fetch_item::<&[u8]>(&mut self.buffer.0, &key)))
    }

    fn store(&mut self, key: u32, value: &[u8]) -> Result<(), Error> {
        let full = Error::StoreFull { needed: Self::of_documents(self.used()), capacity: self.capacity() };
        let stored = ready(self.map.store_item(&mut self.buffer.0, &key, &value));
        if let Some(Err(sequential_storage::Error::FullStorage)) = stored {
            return Err(full);
        }
        flash_result(stored)
    }

    /// Writes a place's record, and remembers it.
    fn set_record(&mut self, place: u8, record: Record) -> Result<(), Error> {
        self.store(record_key(place), &record.to_bytes())?;
        if let Some(known) = self.records.get_mut(usize::from(place)) {
            *known = record;
        }
        Ok(())
    }

    /// Writes a document's chunks into a slot: its CRC.
    fn write_chunks(&mut self, place: u8, slot: u8, document: &impl Document) -> Result<u32, Error> {
        let mut crc = CRC_32C.digest();
        let mut chunk = [0; LARGEST_ITEM];
        let (mut filled, mut number) = (0, 0);
        document.file(&mut |mut piece| {
            crc.update(piece);
            while !piece.is_empty() {
                let free = chunk.get_mut(filled..Self::CHUNK).unwrap_or_default();
                let (now, later) = piece.split_at(piece.len().min(free.len()));
                free.get_mut(..now.len()).unwrap_or_default().copy_from_slice(now);
                filled += now.len();
                piece = later;
                if filled == Self::CHUNK {
                    self.store(chunk_key(place, slot, number), chunk.get(..filled).unwrap_or_default())?;
                    (filled, number) = (0, number + 1);
                }
            }
            Ok(())
        })?;
        if filled > 0 {
            self.store(chunk_key(place, slot, number), chunk.get(..filled).unwrap_or_default())?;
        }
        Ok(crc.finalize())
    }

    /// Hands out `bytes` bytes of a slot; they have the CRC `crc`, or the flash is damaged.
    fn read_chunks(
        &mut self,
        place: u8,
        slot: u8,
        bytes: u32,
        crc: u32,
        take: &mut Take<'_>,
    ) -> Result<(), Error> {
        let mut digest = CRC_32C.digest();
        let mut left = bytes as usize;
        let mut number = 0;
        while left > 0 {
            let chunk = self.fetch(chunk_key(place, slot, number))?.ok_or(Error::StoreDamaged)?;
            if chunk.len() != left.min(Self::CHUNK) {
                return Err(Error::StoreDamaged);
            }
            digest.update(chunk);
            take(chunk)?;
            left -= chunk.len();
            number += 1;
        }
        if digest.finalize() == crc { Ok(()) } else { Err(Error::StoreDamaged) }
    }

    /// Lets the ring forget chunks `from..to` of a slot.
    fn forget(&mut self, place: u8, slot: u8, from: u16, to: u16) -> Result<(), Error> {
        (from..to).try_for_each(|number| self.store(chunk_key(place, slot, number), &[]))
    }
}

impl<F: NorFlash> Store for FlashStore<F> {
    fn put(&mut self, place: Place, document: &impl Document) -> Result<(), Error> {
        let place = place.index()?;
        let old = self.record(place);
        let slot = old.slot.map_or(0, |slot| 1 - slot);
        let bytes = HEADER_BYTES + document.header()?.payload_length as usize;
        let there = old.chunks[usize::from(slot)];
        let chunks = u16::try_from(bytes.div_ceil(Self::CHUNK)).unwrap_or(u16::MAX);
        let claimed = old.with_chunks(slot.into(), chunks.max(there));
        let needed = self.used() - Self::room(&old) + Self::room(&old.with_chunks(slot.into(), chunks));
        if needed > self.capacity || usize::from(chunks) * Self::CHUNK < bytes {
            let needed = Self::of_documents(needed).max(bytes);
            return Err(Error::StoreFull { needed, capacity: self.capacity() });
        }
        if chunks > there {
            // A torn write must not take room that nobody knows of.
            self.set_record(place, claimed)?;
        }
        let crc = self.write_chunks(place, slot, document)?;
        let record = Record { slot: Some(slot), bytes: bytes as u32, crc, ..claimed };
        self.set_record(place, record)?;
        if chunks < there {
            self.forget(place, slot, chunks, there)?;
            self.set_record(place, record.with_chunks(slot.into(), chunks))?;
        }
        Ok(())
    }

    fn get(&mut self, place: Place, take: &mut Take<'_>) -> Result<bool, Error> {
        let place = place.index()?;
        let Record { slot: Some(slot), bytes, crc, .. } = self.record(place) else { return Ok(false) };
        self.read_chunks(place, slot, bytes, crc, take)?;
        Ok(true)
    }

    fn remove(&mut self, place: Place) -> Result<(), Error> {
        let place = place.index()?;
        let old = self.record(place);
        if old.slot.is_none() && old.chunks == [0; 2] {
            return Ok(());
        }
        self.set_record(place, Record { slot: None, ..old })?;
        for slot in 0..2 {
            self.forget(place, slot, 0, old.chunks[usize::from(slot)])?;
        }
        self.set_record(place, Record { known: old.known, ..Record::default() })
    }
}

/// Runs a future over a [`Careful`] flash, which never waits.
fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn flash_result<T, E: core::fmt::Debug>(
    result: Option<Result<T, sequential_storage::Error<E>>>,
) -> Result<T, Error> {
    match result {
        Some(Ok(value)) => Ok(value),
        Some(Err(sequential_storage::Error::Storage { value, .. })) => {
            log::warn!("the flash refused: {value:?}");
            Err(Error::StoreFailed)
        }
        _ => Err(Error::StoreDamaged),
    }
}

fn fault<E>(value: Fault<E>) -> sequential_storage::Error<Fault<E>> {
    sequential_storage::Error::Storage { value }
}
