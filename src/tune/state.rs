//! All that a tuner needs to go on to the same bits: what was learned, AdamW's moments, how far it is.
//!
//! A file of [`FileKind::TunerState`]: the adapter's record and names, then, little-endian,
//!
//! | bytes | field |
//! |---|---|
//! | 4 | steps taken |
//! | 4 | steps and examples thrown away |
//! | 8 | examples seen |
//! | 3 · 4 · parameters | parameters, first and second moments |
//!
//! Gradients that no step has applied are not part of it: what was learned since the last step is learned
//! again.

use super::Tuner;
use super::optimizer::Moments;
use super::store::{Source, check_payload, copy_overlap, take_payload};
use crate::Error;
use crate::weights::{Adapter, Document, FileKind, Take, check_finite};

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
    /// Examples shown before the last step, those that were refused too: where to go on in a stream of examples.
    pub seen: u64,
}

const PROGRESS_BYTES: usize = 16;

impl Progress {
    fn to_bytes(self) -> [u8; PROGRESS_BYTES] {
        let mut bytes = [0; PROGRESS_BYTES];
        bytes[..4].copy_from_slice(&self.steps.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.skipped.to_le_bytes());
        bytes[8..].copy_from_slice(&self.seen.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; PROGRESS_BYTES]) -> Self {
        let number = u128::from_le_bytes(*bytes);
        Self { steps: number as u32, skipped: (number >> 32) as u32, seen: (number >> 64) as u64 }
    }
}

impl Document for State<'_> {
    const KIND: FileKind = FileKind::TunerState;

    fn payload(&self, take: &mut Take<'_>) -> Result<(), Error> {
        // What could not be gone on from is not written.
        check_finite(self.adapter.parameters)?;
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
    /// What [`Header::parse`](crate::weights::Header::parse) says, [`Error::FileTruncated`],
    /// [`Error::PayloadDamaged`]; [`Error::ForeignAdapter`]; [`Error::InvalidTunerState`] for another task,
    /// other labels or another strategy, or numbers that are not finite. The tuner is as it was then.
    pub fn restore(&mut self, file: &[u8]) -> Result<(), Error> {
        self.restore_from(&mut |take| take(file))
    }

    /// The same from a document that comes piece by piece.
    pub(super) fn restore_from(&mut self, source: &mut Source<'_>) -> Result<(), Error> {
        let here = self.adapter();
        let (preamble, base) = (here.preamble_bytes(), here.base);
        let floats = preamble + PROGRESS_BYTES;
        let end = floats + 3 * size_of_val(here.parameters);
        let check = |at: usize, piece: &[u8]| {
            if let Some(found) = piece.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
                && at == 0
                && found != base[0]
            {
                return Err(Error::ForeignAdapter { expected: found, found: base[0] });
            }
            if at + piece.len() > end || !here.preamble_agrees(at, piece) {
                return Err(Error::InvalidTunerState { field: "task or strategy" });
            }
            let values = piece.get(floats.saturating_sub(at)..).unwrap_or_default();
            let finite = values.as_chunks().0.iter().all(|&bytes| f32::from_le_bytes(bytes).is_finite());
            if finite { Ok(()) } else { Err(Error::InvalidTunerState { field: "parameters" }) }
        };
        if check_payload(FileKind::TunerState, source, check)? != end {
            return Err(Error::InvalidTunerState { field: "length" });
        }
        let Moments { parameters, gradients, first, second } = &mut self.moments;
        let mut progress = [0; PROGRESS_BYTES];
        take_payload(source, |at, piece| {
            copy_overlap(at, piece, preamble, &mut progress);
            let mut start = floats;
            for values in [&mut **parameters, first, second] {
                let values: &mut [u8] = bytemuck::cast_slice_mut(values);
                copy_overlap(at, piece, start, values);
                start += values.len();
            }
            Ok(())
        })?;
        gradients.fill(0.0);
        (self.pending, self.shown) = (0, 0);
        self.progress = Progress::from_bytes(&progress);
        Ok(())
    }
}
