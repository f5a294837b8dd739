//! Frames on a serial line: 0, COBS(message, CRC-32C), 0.

use embedded_io::Write;
use serde::Serialize;

use crate::weights::checksum;

/// Longest message in bytes.
pub const MESSAGE: usize = 1024;
/// Bytes of the checksum.
const CHECKSUM: usize = 4;
/// Longest frame without its zeros: COBS adds a byte to every 254.
pub const FRAME: usize = MESSAGE + CHECKSUM + (MESSAGE + CHECKSUM).div_ceil(254) + 1;

/// Writes a message as a frame. A zero goes in front of it: whatever noise came before ends there.
///
/// # Errors
/// Those of the writer. A message longer than [`MESSAGE`] is not written, and `false`.
pub fn write<W: Write>(writer: &mut W, message: &impl Serialize) -> Result<bool, W::Error> {
    let mut plain = [0; MESSAGE + CHECKSUM];
    let mut coded = [0; FRAME];
    let (body, _) = plain.split_at_mut(MESSAGE);
    let Ok(length) = postcard::to_slice(message, body).map(|body| body.len()) else { return Ok(false) };
    let crc = checksum(plain.get(..length).unwrap_or_default());
    let place = plain.get_mut(length..length + CHECKSUM).unwrap_or_default();
    place.copy_from_slice(&crc.to_le_bytes());
    let Ok(length) = cobs::try_encode(plain.get(..length + CHECKSUM).unwrap_or_default(), &mut coded) else {
        return Ok(false);
    };
    writer.write_all(&[0])?;
    writer.write_all(coded.get(..length).unwrap_or_default())?;
    writer.write_all(&[0])?;
    writer.flush()?;
    Ok(true)
}

/// Finds frames in a stream of bytes.
pub struct Frames {
    buffer: [u8; FRAME],
    /// Bytes since the last zero; more than the buffer holds if the frame is too long.
    length: usize,
    damaged: u32,
}

impl core::fmt::Debug for Frames {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Frames({} bytes, {} damaged)", self.length, self.damaged)
    }
}

impl Default for Frames {
    fn default() -> Self {
        Self { buffer: [0; FRAME], length: 0, damaged: 0 }
    }
}

impl Frames {
    /// Takes the next byte of the stream; the length of the message that it completed.
    pub fn push(&mut self, byte: u8) -> Option<usize> {
        if byte != 0 {
            if let Some(place) = self.buffer.get_mut(self.length) {
                *place = byte;
            }
            self.length = (self.length + 1).min(FRAME + 1);
            return None;
        }
        let length = core::mem::take(&mut self.length);
        if length == 0 {
            return None;
        }
        let message = self.decode(length);
        self.damaged = self.damaged.wrapping_add(message.is_none().into());
        message
    }

    fn decode(&mut self, length: usize) -> Option<usize> {
        let length = cobs::decode_in_place(self.buffer.get_mut(..length)?).ok()?;
        let (message, crc) = self.buffer.get(..length)?.split_last_chunk::<CHECKSUM>()?;
        (checksum(message) == u32::from_le_bytes(*crc)).then_some(message.len())
    }

    /// The message of that length that [`Frames::push`] has completed, until the next byte is pushed.
    pub fn message(&self, length: usize) -> &[u8] {
        self.buffer.get(..length).unwrap_or_default()
    }

    /// Frames that were thrown away.
    pub fn damaged(&self) -> u32 {
        self.damaged
    }
}
