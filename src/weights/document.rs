//! What is written down whole: a header and a payload that comes piece by piece, so that nothing needs
//! a second copy in memory.

use super::header::{FileKind, HEADER_BYTES, Header};
use crate::Error;

/// Takes the next piece of a document.
pub type Take<'t> = dyn FnMut(&[u8]) -> Result<(), Error> + 't;

/// Something that a file, or a place in flash, holds.
pub trait Document {
    /// What the header says it is.
    const KIND: FileKind;

    /// Hands out the payload from its first byte to its last; the same bytes every time.
    ///
    /// # Errors
    /// Those of `take`.
    fn payload(&self, take: &mut Take<'_>) -> Result<(), Error>;

    /// The header in front of the payload.
    ///
    /// # Errors
    /// Those of [`Document::payload`].
    fn header(&self) -> Result<Header, Error> {
        let mut header = Header::begin(Self::KIND);
        self.payload(&mut |piece| {
            header.add(piece);
            Ok(())
        })?;
        Ok(header.finish())
    }

    /// Hands out the whole file.
    ///
    /// # Errors
    /// Those of `take`.
    fn file(&self, take: &mut Take<'_>) -> Result<(), Error> {
        take(&self.header()?.to_bytes())?;
        self.payload(take)
    }

    /// Bytes of the file; 0 for one that cannot be written.
    fn bytes(&self) -> usize {
        self.header().map_or(0, |header| HEADER_BYTES + header.payload_length as usize)
    }

    /// The file in memory of its own.
    ///
    /// # Errors
    /// Those of [`Document::payload`].
    #[cfg(feature = "std")]
    fn to_vec(&self) -> Result<Vec<u8>, Error> {
        let mut file = Vec::with_capacity(self.bytes());
        self.file(&mut |piece| {
            file.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(file)
    }

    /// Writes the file to the front of `out`, [`Document::bytes`] long.
    ///
    /// # Errors
    /// [`Error::ArenaTooSmall`] if it does not fit.
    fn write<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8], Error> {
        let (needed, found) = (self.bytes(), out.len());
        let too_small = Error::ArenaTooSmall { needed, found };
        let mut at = 0;
        self.file(&mut |piece| {
            out.get_mut(at..at + piece.len()).ok_or(too_small)?.copy_from_slice(piece);
            at += piece.len();
            Ok(())
        })?;
        Ok(out.get(..at).unwrap_or_default())
    }
}
