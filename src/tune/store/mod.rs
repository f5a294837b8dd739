//! Where what was learned outlives the power: adapters, one of them active, the tuner's state and the guard's
//! memory, each a document that is replaced whole or not at all.
//!
//! [`FlashStore`] keeps them in NOR flash, [`FolderStore`] in the files of a folder. Whatever happens while one
//! is being replaced, the next boot finds the old one or the new one, and every other as it was. Learning goes
//! on with [`Store::resume`] from the last [`Store::checkpoint`], to the bits that it would have reached:
//! [`Progress::seen`](super::Progress::seen) says with which example.

mod careful;
mod flash;
#[cfg(feature = "std")]
mod folder;

pub use flash::FlashStore;
#[cfg(feature = "std")]
pub use folder::{FolderStore, failed, replace_file, replaceable};

use super::{Guard, Tuner};
use crate::Error;
use crate::weights::{Adapter, Document, FileKind, HEADER_BYTES, Header, Model, Take};

/// Where a document lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Which adapter is active.
    Active,
    /// The tuner's state.
    Tuner,
    /// The guard's memory.
    Guard,
    /// An adapter, 0..[`Place::ADAPTERS`].
    Adapter(u8),
    /// Which of several slots holds the model that runs.
    Slot,
}

impl Place {
    /// How many adapters a store holds.
    pub const ADAPTERS: u8 = 13;
    /// How many places there are.
    pub(crate) const COUNT: usize = 4 + Self::ADAPTERS as usize;

    /// A number of its own.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for an adapter beyond [`Place::ADAPTERS`].
    pub fn index(self) -> Result<u8, Error> {
        match self {
            Self::Active => Ok(0),
            Self::Tuner => Ok(1),
            Self::Guard => Ok(2),
            Self::Slot => Ok(3 + Self::ADAPTERS),
            Self::Adapter(number) if number < Self::ADAPTERS => Ok(3 + number),
            Self::Adapter(_) => {
                Err(Error::InvalidSetting { field: "adapter", range: "a number below Place::ADAPTERS" })
            }
        }
    }
}

/// A store of documents, and what is kept in it.
pub trait Store {
    /// Replaces the document of a place. On an error, and after a loss of power at any moment, the old one is
    /// there, or the new one; the old one if the document cannot be written at all.
    ///
    /// # Errors
    /// Those of [`Document::payload`]; [`Error::StoreFull`], [`Error::StoreFailed`], [`Error::StoreDamaged`].
    fn put(&mut self, place: Place, document: &impl Document) -> Result<(), Error>;

    /// Hands out the document of a place from its first byte to its last, in pieces of a multiple of 4 bytes;
    /// `false` if there is none.
    ///
    /// # Errors
    /// [`Error::StoreFailed`], [`Error::StoreDamaged`], those of `take`.
    fn get(&mut self, place: Place, take: &mut Take<'_>) -> Result<bool, Error>;

    /// Removes the document of a place, if there is one.
    ///
    /// # Errors
    /// As [`Store::put`].
    fn remove(&mut self, place: Place) -> Result<(), Error>;

    /// Keeps an adapter under a number below [`Place::ADAPTERS`].
    ///
    /// # Errors
    /// As [`Store::put`].
    fn save(&mut self, number: u8, adapter: &Adapter<'_>) -> Result<(), Error> {
        self.put(Place::Adapter(number), adapter)
    }

    /// Reads the adapter of that number into `buffer`, which starts at a multiple of 4 bytes and has room for
    /// [`Document::bytes`] of it.
    ///
    /// # Errors
    /// As [`Store::get`]; [`Error::ArenaTooSmall`]; those of [`Adapter::open`].
    fn adapter<'b>(
        &mut self,
        number: u8,
        model: &Model<'_>,
        buffer: &'b mut [u8],
    ) -> Result<Option<Adapter<'b>>, Error> {
        let (mut at, found) = (0, buffer.len());
        let any = self.get(Place::Adapter(number), &mut |piece| {
            if let Some(place) = buffer.get_mut(at..at + piece.len()) {
                place.copy_from_slice(piece);
            }
            at += piece.len();
            Ok(())
        })?;
        if at > found {
            return Err(Error::ArenaTooSmall { needed: at, found });
        }
        let file: &'b [u8] = buffer;
        any.then(|| Adapter::open(file.get(..at).unwrap_or_default(), model)).transpose()
    }

    /// Says which adapter answers from the next boot on; `None` for the model as it is.
    ///
    /// # Errors
    /// As [`Store::put`]; [`Error::InvalidSetting`] for a number that no adapter has.
    fn activate(&mut self, number: Option<u8>) -> Result<(), Error> {
        number.map(|number| Place::Adapter(number).index()).transpose()?;
        self.put(Place::Active, &Chosen(number))
    }

    /// Which adapter is active.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn active(&mut self) -> Result<Option<u8>, Error> {
        chosen(self, Place::Active)
    }

    /// Says which slot holds the model that runs from the next boot on.
    ///
    /// # Errors
    /// As [`Store::put`].
    fn choose_slot(&mut self, slot: u8) -> Result<(), Error> {
        self.put(Place::Slot, &Chosen(Some(slot)))
    }

    /// Which slot that is; `None` if it was never said.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn slot(&mut self) -> Result<Option<u8>, Error> {
        chosen(self, Place::Slot)
    }

    /// Keeps a tuner's state as of its last step.
    ///
    /// # Errors
    /// As [`Store::put`].
    fn checkpoint(&mut self, tuner: &Tuner<'_, '_>) -> Result<(), Error> {
        self.put(Place::Tuner, &tuner.state())
    }

    /// Lets a tuner go on from the last checkpoint; `false` if there is none. Nothing is buffered.
    ///
    /// # Errors
    /// As [`Store::get`], and those of [`Tuner::restore`].
    fn resume(&mut self, tuner: &mut Tuner<'_, '_>) -> Result<bool, Error> {
        restored(self, Place::Tuner, |source| tuner.restore_from(source))
    }

    /// Keeps what a guard remembers.
    ///
    /// # Errors
    /// As [`Store::put`].
    fn save_guard(&mut self, guard: &Guard<'_>) -> Result<(), Error> {
        self.put(Place::Guard, guard)
    }

    /// Gives a guard its memory back; `false` if none was kept.
    ///
    /// # Errors
    /// As [`Store::get`]; [`Error::InvalidSetting`] for a guard of another plan.
    fn restore_guard(&mut self, guard: &mut Guard<'_>) -> Result<bool, Error> {
        restored(self, Place::Guard, |source| guard.restore_from(source))
    }
}

/// Restores something from the document of a place; `false` if there is none.
fn restored(
    store: &mut (impl Store + ?Sized),
    place: Place,
    restore: impl FnOnce(&mut Source<'_>) -> Result<(), Error>,
) -> Result<bool, Error> {
    let mut there = true;
    let result = restore(&mut |take| {
        there = store.get(place, take)?;
        Ok(())
    });
    if there { result.map(|()| true) } else { Ok(false) }
}

/// A choice that is kept: a payload of four bytes, the number last.
struct Chosen(Option<u8>);

impl Chosen {
    const NONE: u8 = u8::MAX;
}

impl Document for Chosen {
    const KIND: FileKind = FileKind::Active;

    fn payload(&self, take: &mut Take<'_>) -> Result<(), Error> {
        take(&[0, 0, 0, self.0.unwrap_or(Self::NONE)])
    }
}

/// The choice that is kept in a place.
fn chosen(store: &mut (impl Store + ?Sized), place: Place) -> Result<Option<u8>, Error> {
    let mut last = Chosen::NONE;
    restored(store, place, |source| {
        let payload = check_payload(FileKind::Active, source, |_, piece| {
            last = piece.last().copied().unwrap_or(last);
            Ok(())
        });
        payload.map(drop)
    })?;
    Ok(Some(last).filter(|&number| number != Chosen::NONE))
}

/// Something that hands out the same document again and again.
pub(super) type Source<'s> = dyn FnMut(&mut Take<'_>) -> Result<(), Error> + 's;

/// Reads a document, compares it with its header and hands each piece of the payload to `check` with its
/// place: the payload's length.
pub(super) fn check_payload(
    kind: FileKind,
    source: &mut Source<'_>,
    mut check: impl FnMut(usize, &[u8]) -> Result<(), Error>,
) -> Result<usize, Error> {
    let mut start = [0; HEADER_BYTES];
    let (mut found, mut at) = (Header::begin(kind), 0);
    let read = source(&mut |piece| {
        each_payload_piece(&mut at, &mut start, piece, |place, piece| {
            found.add(piece);
            check(place, piece)
        })
    });
    // What is no such document at all is called that, whatever else is wrong with it.
    let header = Header::parse(kind, start.get(..at).unwrap_or(&start));
    if at >= HEADER_BYTES {
        header?;
    }
    read?;
    header?.compare(&found.finish())?;
    Ok(at - HEADER_BYTES)
}

/// Hands out a document's payload, each piece with its place.
pub(super) fn take_payload(
    source: &mut Source<'_>,
    mut take: impl FnMut(usize, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut start, mut at) = ([0; HEADER_BYTES], 0);
    source(&mut |piece| each_payload_piece(&mut at, &mut start, piece, &mut take))
}

/// Copies what of a piece at place `at` of a payload falls into `target`, which begins at place `start`.
pub(super) fn copy_overlap(at: usize, piece: &[u8], start: usize, target: &mut [u8]) {
    let piece = piece.get(start.saturating_sub(at)..).unwrap_or_default();
    let target = target.get_mut(at.saturating_sub(start)..).unwrap_or_default();
    for (place, byte) in target.iter_mut().zip(piece) {
        *place = *byte;
    }
}

/// Splits a piece of a file that begins at byte `at` into what belongs to the header and what follows.
fn each_payload_piece(
    at: &mut usize,
    header: &mut [u8],
    piece: &[u8],
    mut take: impl FnMut(usize, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let place = header.get_mut(*at..).unwrap_or_default();
    let (first, rest) = piece.split_at(place.len().min(piece.len()));
    place.get_mut(..first.len()).unwrap_or_default().copy_from_slice(first);
    let payload = (*at + first.len()).saturating_sub(header.len());
    *at += piece.len();
    if rest.is_empty() { Ok(()) } else { take(payload, rest) }
}
