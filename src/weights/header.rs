//! The 64 bytes in front of a payload.
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic: `\x89ELECTRT` of a model, `\x89ELADAPT` of an adapter, … ([`FileKind`]) |
//! | 8..12 | format version |
//! | 12..16 | flags, 0 |
//! | 16..24 | payload length in bytes |
//! | 24..28 | CRC-32C of the payload |
//! | 28..60 | zero |
//! | 60..64 | CRC-32C of bytes 0..60 |

use crc::{CRC_32_ISCSI, Crc, Digest, Table};

use crate::Error;

/// The format of models. 1 and 2, in which vocabularies took four times the room, were never released.
pub const FORMAT_VERSION: u32 = 3;

/// The format of everything else.
const FIRST_FORMAT: u32 = 1;

/// Bytes of a header; the payload follows.
pub const HEADER_BYTES: usize = 64;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// An `.electret` model.
    Model,
    /// An [`Adapter`](super::Adapter).
    Adapter,
    /// All that a [`Tuner`](crate::tune::Tuner) needs to go on.
    TunerState,
    /// What a [`Guard`](crate::tune::Guard) remembers.
    Guard,
    /// Which adapter of a [`Store`](crate::tune::store::Store) is active.
    Active,
}

impl FileKind {
    const fn magic(self) -> [u8; 8] {
        match self {
            Self::Model => *b"\x89ELECTRT",
            Self::Adapter => *b"\x89ELADAPT",
            Self::TunerState => *b"\x89ELTUNER",
            Self::Guard => *b"\x89ELGUARD",
            Self::Active => *b"\x89ELACTIV",
        }
    }

    const fn format(self) -> u32 {
        if matches!(self, Self::Model) { FORMAT_VERSION } else { FIRST_FORMAT }
    }
}

pub(crate) static CRC_32C: Crc<u32, CrcTable> = Crc::<u32, CrcTable>::new(&CRC_32_ISCSI);

/// CRC-32C of some bytes: of a payload, of a message in its frame, of what an update sends.
pub fn checksum(bytes: &[u8]) -> u32 {
    CRC_32C.checksum(bytes)
}

/// A board has no 16 KiB to spare for speed.
type CrcTable = Table<{ if cfg!(feature = "std") { 16 } else { 1 } }>;

/// A header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: FileKind,
    /// Format version.
    pub version: u32,
    /// Bytes after the header.
    pub payload_length: u64,
    /// Their CRC-32C.
    pub payload_crc: u32,
}

impl Header {
    /// The header that goes in front of `payload`.
    pub fn of(kind: FileKind, payload: &[u8]) -> Self {
        let mut header = Self::begin(kind);
        header.add(payload);
        header.finish()
    }

    /// The header of a payload that comes piece by piece.
    pub(crate) fn begin(kind: FileKind) -> HeaderDigest {
        HeaderDigest { kind, payload_length: 0, crc: CRC_32C.digest() }
    }

    /// As it stands in a file.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.kind.magic());
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.payload_length.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = checksum(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    ///
    /// # Errors
    /// In this order: too few bytes, wrong magic, wrong byte order, another format, damage.
    pub fn parse(kind: FileKind, file: &[u8]) -> Result<Self, Error> {
        let Some(bytes) = file.first_chunk::<HEADER_BYTES>() else {
            return Err(Error::FileTruncated { expected: 64, found: file.len() as u64 });
        };
        let word = |at: usize| {
            bytes.get(at..at + 4).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b))
        };
        if !bytes.starts_with(&kind.magic()) {
            return Err(match kind {
                FileKind::Model => Error::NotAnElectretFile,
                FileKind::Adapter => Error::NotAnAdapter,
                FileKind::TunerState => Error::NotATunerState,
                FileKind::Guard | FileKind::Active => Error::StoreDamaged,
            });
        }
        let version = word(8);
        if version != 0 && version.swap_bytes() <= kind.format() {
            return Err(Error::WrongByteOrder);
        }
        if version != kind.format() {
            return Err(Error::UnsupportedVersion { found: version, read: kind.format() });
        }
        if checksum(bytes.get(..60).unwrap_or_default()) != word(60) {
            return Err(Error::HeaderDamaged);
        }
        let payload_length = u64::from(word(16)) | u64::from(word(20)) << 32;
        Ok(Self { kind, version, payload_length, payload_crc: word(24) })
    }

    /// Whether the payload that `found` was made of is this header's.
    ///
    /// # Errors
    /// [`Error::FileTruncated`], [`Error::PayloadDamaged`].
    pub(crate) fn compare(&self, found: &Self) -> Result<(), Error> {
        if found.payload_length != self.payload_length {
            let whole = |length: u64| length.saturating_add(HEADER_BYTES as u64);
            let (expected, found) = (whole(self.payload_length), whole(found.payload_length));
            return Err(Error::FileTruncated { expected, found });
        }
        if found.payload_crc == self.payload_crc { Ok(()) } else { Err(Error::PayloadDamaged) }
    }

    /// The payload behind the header, whole and undamaged.
    pub fn payload<'a>(&self, file: &'a [u8]) -> Result<&'a [u8], Error> {
        let rest = file.get(HEADER_BYTES..).unwrap_or_default();
        let payload = usize::try_from(self.payload_length).ok().and_then(|length| rest.get(..length));
        let Some(payload) = payload else {
            let expected = self.payload_length.saturating_add(HEADER_BYTES as u64);
            return Err(Error::FileTruncated { expected, found: file.len() as u64 });
        };
        if checksum(payload) == self.payload_crc { Ok(payload) } else { Err(Error::PayloadDamaged) }
    }
}

/// A header whose payload is being read.
pub(crate) struct HeaderDigest {
    kind: FileKind,
    payload_length: u64,
    crc: Digest<'static, u32, CrcTable>,
}

impl HeaderDigest {
    pub fn add(&mut self, piece: &[u8]) {
        self.payload_length += piece.len() as u64;
        self.crc.update(piece);
    }

    pub fn finish(self) -> Header {
        let Self { kind, payload_length, crc } = self;
        Header { kind, version: kind.format(), payload_length, payload_crc: crc.finalize() }
    }
}
