//! Documents in NOR flash, through `sequential-storage`, whose items are written whole or ignored.
//!
//! A document is cut into chunks. Each place has two slots: a new document goes into the one that is not in
//! use, and then one small record, itself written whole or ignored, says that this slot counts
//! from now on. So power may fail at any program or erase operation.
//!
//! Room is counted in chunks before anything is written: both slots of all places.

use core::future::Future;
use core::ops::Range;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_storage::nor_flash::NorFlash;
use sequential_storage::cache::{Cache, Uncached};
use sequential_storage::map::{MapConfig, MapStorage};

use super::careful::{Careful, Fault, word_size};
use super::{Place, Store};
use crate::Error;
use crate::weights::{CRC_32C, Document, Take};

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
    /// Chunks that all documents may take together.
    capacity: usize,
}

/// Some flash controllers take aligned buffers only.
#[repr(align(32))]
struct Buffer([u8; LARGEST_ITEM]);

impl<F: NorFlash> core::fmt::Debug for FlashStore<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "FlashStore({} of {} chunks)", self.used(), self.capacity)
    }
}

/// What the flash says of one place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Record {
    /// The slot that counts; none before the first document and after a removal.
    slot: Option<u8>,
    /// Chunks that may lie in each slot.
    chunks: [u16; 2],
    /// The document's bytes.
    bytes: u32,
    /// CRC-32C of them.
    crc: u32,
}

impl Record {
    const VERSION: u8 = 1;
    const BYTES: usize = 16;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = Self::VERSION;
        bytes[1] = self.slot.unwrap_or(u8::MAX);
        bytes[4..6].copy_from_slice(&self.chunks[0].to_le_bytes());
        bytes[6..8].copy_from_slice(&self.chunks[1].to_le_bytes());
        bytes[8..12].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[12..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let &[Self::VERSION, slot, _, _, a0, a1, b0, b1, n0, n1, n2, n3, c0, c1, c2, c3] = bytes else {
            return None;
        };
        Some(Self {
            slot: Some(slot).filter(|&slot| slot < 2),
            chunks: [u16::from_le_bytes([a0, a1]), u16::from_le_bytes([b0, b1])],
            bytes: u32::from_le_bytes([n0, n1, n2, n3]),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        })
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
    /// Chunks that fit into a page.
    const CHUNKS_PER_PAGE: usize = {
        let word = word_size::<F>();
        let header = 8usize.next_multiple_of(word);
        let item = header + (Self::CHUNK + KEY).next_multiple_of(word);
        F::ERASE_SIZE.saturating_sub(2 * word + RECORD_ROOM) / item
    };

    /// Opens the store in a range of `flash`, in bytes, that starts and ends at a page and has at least four: one
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
        if pages < 4 || Self::CHUNK < 32 {
            return Err(Error::FlashGeometry("range: it must have four pages, of at least 512 bytes each"));
        }
        let ring = range.start + F::ERASE_SIZE as u32..range.end;
        let config = MapConfig::try_new(ring).map_err(|_| {
            Error::FlashGeometry("range: it must start and end at a page, and words have at most 32 bytes")
        })?;
        let flash = flash_result(Some(Careful::open(flash, range.start).map_err(fault)))?;
        let map = MapStorage::new(flash, config, Cache::new_uncached());
        let capacity = (pages - 3) * Self::CHUNKS_PER_PAGE;
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

    /// Bytes of documents that fit in all, each counted twice.
    pub fn capacity(&self) -> usize {
        self.capacity * Self::CHUNK
    }

    /// Chunks that all documents take.
    fn used(&self) -> usize {
        self.records.iter().flat_map(|record| record.chunks).map(usize::from).sum()
    }

    fn record(&self, place: u8) -> Record {
        self.records.get(usize::from(place)).copied().unwrap_or_default()
    }

    fn fetch(&mut self, key: u32) -> Result<Option<&[u8]>, Error> {
        flash_result(ready(self.map.fetch_item::<&[u8]>(&mut self.buffer.0, &key)))
    }

    fn store(&mut self, key: u32, value: &[u8]) -> Result<(), Error> {
        let full = Error::StoreFull { needed: self.used() * Self::CHUNK, capacity: self.capacity() };
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
        let bytes = document.bytes();
        let chunks = bytes.div_ceil(Self::CHUNK);
        let there = old.chunks[usize::from(slot)];
        let needed = self.used() - usize::from(there) + chunks;
        let too_much = Error::StoreFull { needed: needed * Self::CHUNK, capacity: self.capacity() };
        let chunks = u16::try_from(chunks).map_err(|_| too_much)?;
        if needed > self.capacity {
            return Err(too_much);
        }
        let mut claimed = old;
        if chunks > there {
            // A torn write must not take room that nobody knows of.
            claimed.chunks[usize::from(slot)] = chunks;
            self.set_record(place, claimed)?;
        }
        let crc = self.write_chunks(place, slot, document)?;
        let mut record = Record { slot: Some(slot), chunks: claimed.chunks, bytes: bytes as u32, crc };
        self.set_record(place, record)?;
        if chunks < there {
            self.forget(place, slot, chunks, there)?;
            record.chunks[usize::from(slot)] = chunks;
            self.set_record(place, record)?;
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
        if old == Record::default() {
            return Ok(());
        }
        self.set_record(place, Record { chunks: old.chunks, ..Record::default() })?;
        for slot in 0..2 {
            self.forget(place, slot, 0, old.chunks[usize::from(slot)])?;
        }
        self.set_record(place, Record::default())
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
