//! All that a tuner needs to go on to the same bits: what was learned, AdamW's moments, how far it is.
//!
//! A file of [`FileKind::TunerState`]: the adapter's record and names, then, little-endian,
//!
//! | bytes | field |
//! |---|---|
//! | 4 | steps taken |
//! | 4 | steps and examples thrown away |
//! | 8 | examples learned |
//! | 3 · 4 · parameters | parameters, first and second moments |
//!
//! Gradients that no step has applied are not part of it: what was learned since the last step is learned
//! again.

use super::Tuner;
use crate::Error;
use crate::weights::{Adapter, Document, FileKind, Header, Take};

/// A view of a tuner's state, to be written down.
#[derive(Debug)]
pub struct State<'a> {
    adapter: Adapter<'a>,
    progress: Progress,
    first: &'a [f32],
    second: &'a [f32],
}

/// How far a tuner is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Steps taken.
    pub steps: u32,
    /// Steps and examples thrown away because they led to no finite number.
    pub skipped: u32,
    /// Examples that the steps learned from: where to go on in a stream of examples.
    pub learned: u64,
}

const PROGRESS_BYTES: usize = 16;

impl Progress {
    fn to_bytes(self) -> [u8; PROGRESS_BYTES] {
        let mut bytes = [0; PROGRESS_BYTES];
        bytes[..4].copy_from_slice(&self.steps.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.skipped.to_le_bytes());
        bytes[8..].copy_from_slice(&self.learned.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; PROGRESS_BYTES]) -> Self {
        let number = u128::from_le_bytes(*bytes);
        Self { steps: number as u32, skipped: (number >> 32) as u32, learned: (number >> 64) as u64 }
    }
}

impl Document for State<'_> {
    const KIND: FileKind = FileKind::TunerState;

    fn payload(&self, take: &mut Take<'_>) -> Result<(), Error> {
        self.adapter.preamble(take)?;
        take(&self.progress.to_bytes())?;
        for values in [self.adapter.parameters, self.first, self.second] {
            take(bytemuck::cast_slice(values))?;
        }
        Ok(())
    }
}

impl Tuner<'_, '_> {
    /// What [`Tuner::restore`] goes on from, as of the last step.
    pub fn state(&self) -> State<'_> {
        State {
            adapter: self.adapter(),
            progress: self.progress,
            first: self.moments.first,
            second: self.moments.second,
        }
    }

    /// Goes on from a written [`State`]: every step from here on gives the bits that it would have given
    /// there, under the same settings.
    ///
    /// # Errors
    /// What [`Header::parse`] and [`Header::payload`] say; [`Error::ForeignAdapter`];
    /// [`Error::InvalidTunerState`] for another task, other labels or another strategy;
    /// [`Error::NotFinite`]. The tuner is as it was then.
    pub fn restore(&mut self, file: &[u8]) -> Result<(), Error> {
        let payload = Header::parse(FileKind::TunerState, file)?.payload(file)?;
        let mut rest = self.matching(payload)?;
        let invalid = Error::InvalidTunerState { field: "length" };
        let progress = rest.split_off(..PROGRESS_BYTES).and_then(<[u8]>::first_chunk).ok_or(invalid)?;
        let moments = &mut self.moments;
        if rest.len() != 3 * size_of_val(moments.parameters) {
            return Err(invalid);
        }
        if !rest.as_chunks().0.iter().all(|&bytes| f32::from_le_bytes(bytes).is_finite()) {
            return Err(Error::NotFinite);
        }
        for values in [&mut *moments.parameters, moments.first, moments.second] {
            let values: &mut [u8] = bytemuck::cast_slice_mut(values);
            values.copy_from_slice(rest.split_off(..values.len()).unwrap_or_default());
        }
        moments.gradients.fill(0.0);
        self.pending = 0;
        self.progress = Progress::from_bytes(progress);
        Ok(())
    }

    /// What follows in `payload` behind the record and the names, which must be this tuner's.
    fn matching<'p>(&self, payload: &'p [u8]) -> Result<&'p [u8], Error> {
        let base = self.model.fingerprint();
        if let Some(found) = payload.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
            && found != base[0]
        {
            return Err(Error::ForeignAdapter { expected: found, found: base[0] });
        }
        let mut rest = payload;
        self.adapter().preamble(&mut |piece| {
            let same = rest.split_off(..piece.len()) == Some(piece);
            if same { Ok(()) } else { Err(Error::InvalidTunerState { field: "task or strategy" }) }
        })?;
        Ok(rest)
    }
}
