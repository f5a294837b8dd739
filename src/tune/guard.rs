//! Did the last round make it worse? A small memory of examples that are not learned, by which each round is
//! judged, and of examples that are learned again, so that new lessons do not drive out old ones.
//!
//! A round goes [`Guard::begin`], [`Guard::offer`] for every example (it says whether the example is to be
//! learned), [`Guard::replay`] as often as one likes, [`Guard::judge`]. The examples of a round are candidates
//! only: those of a round that is rolled back are forgotten, so that nobody's wrong labels judge later rounds.
//! Among those that stay, every example ever seen is in memory with the same probability (Vitter 1985,
//! algorithm R).
//!
//! Before the first held-out example there is nothing to judge by, and a round is kept unseen; a maker who
//! knows the task puts some in first ([`Guard::hold_out`]).

use super::slot::{PREFIX, decode, encode, encoded_bytes};
use super::store::{Source, check_payload, copy_overlap, take_payload};
use super::{Target, Tuner};
use crate::Error;
use crate::random::Random;
use crate::text::Input;
use crate::weights::{Document, FileKind, Take};

/// How much a guard remembers. Its memory takes [`GuardPlan::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardPlan {
    /// Examples that judge.
    pub held_out: usize,
    /// Examples that are learned again.
    pub replayed: usize,
    /// Bytes of the longest example that is remembered: its texts, what it teaches, and 16 more. A longer one
    /// is learned, but not remembered.
    pub example_bytes: usize,
    /// Every how many of a round's examples one is held out, at least 2.
    pub hold_out_every: usize,
    /// Bytes of the tuner's state ([`Document::bytes`] of [`Tuner::state`]), to be rolled back to.
    pub state_bytes: usize,
}

impl GuardPlan {
    /// Bytes of a guard's memory: both sets twice, as they are and with a round's candidates, and the state.
    pub const fn bytes(&self) -> usize {
        self.state_bytes + 2 * self.kept_bytes()
    }

    /// What decides where an example lies in a guard's memory, as it is kept beside that.
    const fn shape(&self) -> [u32; 3] {
        [self.held_out as u32, self.replayed as u32, self.example_bytes as u32]
    }

    const fn slots(&self) -> usize {
        self.held_out + self.replayed
    }

    const fn kept_bytes(&self) -> usize {
        self.slots() * self.example_bytes
    }
}

/// When a round counts as harmful.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// By how much the mean held-out loss may grow, in nats.
    pub growth: f32,
    /// What one example's loss counts at most, so that a few surprises do not outweigh many small harms.
    pub largest_loss: f32,
}

impl Default for Tolerance {
    /// A tenth of a nat, and no example counts more than one: for classes and tags.
    fn default() -> Self {
        Self { growth: 0.1, largest_loss: 1.0 }
    }
}

/// What became of a round. Losses are means over the held-out examples, in nats, no example's
/// counting more than [`Tolerance::largest_loss`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The held-out loss did not grow by more than the tolerance.
    Kept {
        /// Before the round.
        before: f32,
        /// After it.
        after: f32,
    },
    /// It did, or was no number; the tuner is as it was before the round, to the last bit.
    RolledBack {
        /// Before the round.
        before: f32,
        /// After it.
        after: f32,
    },
    /// Nothing was held out yet; the round stays.
    Unjudged,
}

/// How many rounds ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rounds {
    /// Kept, judged or not.
    pub kept: u32,
    /// Rolled back.
    pub rolled_back: u32,
}

/// The guard of one tuner.
pub struct Guard<'a> {
    plan: GuardPlan,
    tolerance: Tolerance,
    /// The tuner's state before the round.
    snapshot: &'a mut [u8],
    /// Slots of the held-out set, then of the replayed one, `example_bytes` each.
    kept: &'a mut [u8],
    /// The same with the candidates of the round under way.
    candidates: &'a mut [u8],
    tally: Tally,
    /// As of the beginning of the round.
    tally_before: Tally,
    loss_before: Option<f32>,
    /// Bytes of the snapshot; none outside a round.
    snapshot_bytes: Option<usize>,
}

/// What a guard counts; all zeros at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Tally {
    /// Candidates for the held-out set so far.
    held_out: u32,
    /// Candidates for the replayed set so far.
    replayed: u32,
    /// Examples offered, of which every so many-th is held out.
    offered: u32,
    /// Examples replayed.
    replays: u32,
    kept: u32,
    rolled_back: u32,
}

impl core::fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Guard({:?})", self.rounds())
    }
}

impl<'a> Guard<'a> {
    /// A guard that remembers nothing yet, in `memory` of [`GuardPlan::bytes`].
    ///
    /// # Errors
    /// [`Error::ArenaTooSmall`]; [`Error::InvalidSetting`].
    pub fn new(memory: &'a mut [u8], plan: GuardPlan, tolerance: Tolerance) -> Result<Self, Error> {
        let (needed, found) = (plan.bytes(), memory.len());
        let invalid = |field, range| Err(Error::InvalidSetting { field, range });
        if plan.hold_out_every < 2 {
            return invalid("hold_out_every", "2 or more");
        }
        if plan.held_out == 0 || plan.example_bytes <= PREFIX {
            return invalid("held_out and example_bytes", "above 0, and above 16");
        }
        if !(tolerance.growth >= 0.0 && tolerance.largest_loss > 0.0) {
            return invalid("tolerance", "0 or more, with a largest loss above 0");
        }
        let memory = memory.get_mut(..needed).ok_or(Error::ArenaTooSmall { needed, found })?;
        let (snapshot, sets) = memory.split_at_mut(plan.state_bytes.min(needed));
        let (kept, candidates) = sets.split_at_mut(plan.kept_bytes().min(sets.len()));
        kept.fill(0);
        candidates.fill(0);
        Ok(Self {
            plan,
            tolerance,
            snapshot,
            kept,
            candidates,
            tally: Tally::default(),
            tally_before: Tally::default(),
            loss_before: None,
            snapshot_bytes: None,
        })
    }

    /// Puts a trusted example into the held-out set, outside a round; `false` if it is too long for a slot.
    pub fn hold_out(&mut self, input: Input<'_>, target: Target<'_>) -> bool {
        let fits = self.remember(true, input, target);
        self.kept.copy_from_slice(self.candidates);
        fits
    }

    /// Begins a round: remembers the tuner as it is, and its held-out loss.
    ///
    /// # Errors
    /// [`Error::ArenaTooSmall`] if the plan has no room for the tuner's state.
    pub fn begin(&mut self, tuner: &mut Tuner<'_, '_>) -> Result<(), Error> {
        let written = tuner.state().write(self.snapshot)?.len();
        self.snapshot_bytes = Some(written);
        self.candidates.copy_from_slice(self.kept);
        self.tally_before = self.tally;
        self.loss_before = self.held_out_loss(tuner);
        Ok(())
    }

    /// Shows an example of the round: `true` if it is to be learned, `false` if it is held out.
    pub fn offer(&mut self, input: Input<'_>, target: Target<'_>) -> bool {
        self.tally.offered = self.tally.offered.wrapping_add(1);
        let held_out = (self.tally.offered as usize).is_multiple_of(self.plan.hold_out_every);
        let fits = self.remember(held_out, input, target);
        !(held_out && fits)
    }

    /// Learns one of the remembered examples again: its loss, or `None` if there is none.
    ///
    /// # Errors
    /// Those of [`Tuner::learn`].
    pub fn replay(&mut self, tuner: &mut Tuner<'_, '_>) -> Result<Option<f32>, Error> {
        let Self { plan, kept, tally, .. } = self;
        let slots = kept.chunks_exact(plan.example_bytes).skip(plan.held_out);
        let filled = slots.clone().take_while(|slot| decode(slot).is_some()).count();
        if filled == 0 {
            return Ok(None);
        }
        let index = tally.replays as usize % filled;
        tally.replays = tally.replays.wrapping_add(1);
        let Some((input, target)) = slots.clone().nth(index).and_then(decode) else { return Ok(None) };
        tuner.learn(input, target.as_target()).map(Some)
    }

    /// Ends the round: keeps it, or puts the tuner back to where [`Guard::begin`] saw it.
    ///
    /// # Errors
    /// Those of [`Tuner::restore`], which a snapshot of the same tuner does not meet.
    pub fn judge(&mut self, tuner: &mut Tuner<'_, '_>) -> Result<Verdict, Error> {
        let Some(bytes) = self.snapshot_bytes.take() else { return Ok(Verdict::Unjudged) };
        let after = self.held_out_loss(tuner);
        let verdict = match (self.loss_before, after) {
            (Some(before), Some(after)) if after <= before + self.tolerance.growth => {
                Verdict::Kept { before, after }
            }
            (Some(before), after) => Verdict::RolledBack { before, after: after.unwrap_or(f32::INFINITY) },
            (None, _) => Verdict::Unjudged,
        };
        if let Verdict::RolledBack { .. } = verdict {
            tuner.restore(self.snapshot.get(..bytes).unwrap_or_default())?;
            self.tally = self.tally_before;
            self.tally.rolled_back += 1;
            self.candidates.copy_from_slice(self.kept);
        } else {
            self.tally.kept += 1;
            self.kept.copy_from_slice(self.candidates);
        }
        Ok(verdict)
    }

    /// How the rounds so far ended.
    pub fn rounds(&self) -> Rounds {
        Rounds { kept: self.tally.kept, rolled_back: self.tally.rolled_back }
    }

    /// Examples that judge by now.
    pub fn held_out(&self) -> usize {
        self.held_out_slots().filter_map(decode).count()
    }

    fn held_out_slots(&self) -> impl Iterator<Item = &[u8]> {
        self.kept.chunks_exact(self.plan.example_bytes).take(self.plan.held_out)
    }

    /// Mean loss of the held-out set, each example's capped; `None` if it is empty or no example of it gives a number.
    fn held_out_loss(&self, tuner: &mut Tuner<'_, '_>) -> Option<f32> {
        let (mut sum, mut count) = (0.0, 0u32);
        for (input, target) in self.held_out_slots().filter_map(decode) {
            match tuner.loss(input, target.as_target()) {
                Ok(loss) => (sum, count) = (sum + loss.min(self.tolerance.largest_loss), count + 1),
                // A diverged model judges itself.
                Err(Error::NotFinite) => return Some(f32::INFINITY),
                // What the tuner cannot take, such as a text that is too long for it, judges nothing.
                Err(_) => {}
            }
        }
        (count > 0).then(|| sum / count as f32)
    }

    /// Algorithm R over the candidates of a set: `false` if the example is too long for a slot.
    fn remember(&mut self, held_out: bool, input: Input<'_>, target: Target<'_>) -> bool {
        let (first, slots, seen) = if held_out {
            (0, self.plan.held_out, &mut self.tally.held_out)
        } else {
            (self.plan.held_out, self.plan.replayed, &mut self.tally.replayed)
        };
        if encoded_bytes(input, target) > self.plan.example_bytes {
            return false;
        }
        let number = *seen as usize;
        *seen = seen.wrapping_add(1);
        let slot = if number < slots {
            number
        } else {
            // The same choice whenever the same examples come in the same order.
            Random::new(0x9e37_79b9_7f4a_7c15 ^ (number as u64) << 1).below(number + 1)
        };
        if slot < slots
            && let Some(slot) = self.candidates.chunks_exact_mut(self.plan.example_bytes).nth(first + slot)
        {
            encode(input, target, slot);
        }
        true
    }

    /// Takes a written guard's memory over.
    pub(super) fn restore_from(&mut self, source: &mut Source<'_>) -> Result<(), Error> {
        let mut tally = [0; size_of::<Tally>()];
        let (own, mut shape) = (self.plan.shape(), [0; size_of::<[u32; 3]>()]);
        let length = check_payload(FileKind::Guard, source, |at, piece| {
            copy_overlap(at, piece, tally.len(), &mut shape);
            Ok(())
        })?;
        if shape != bytemuck::bytes_of(&own) || length != tally.len() + shape.len() + self.kept.len() {
            let range = "that of the guard that was saved";
            return Err(Error::InvalidSetting { field: "plan", range });
        }
        take_payload(source, |at, piece| {
            copy_overlap(at, piece, 0, &mut tally);
            copy_overlap(at, piece, tally.len() + shape.len(), self.kept);
            Ok(())
        })?;
        self.candidates.copy_from_slice(self.kept);
        self.tally = bytemuck::pod_read_unaligned(&tally);
        self.snapshot_bytes = None;
        Ok(())
    }
}

impl Document for Guard<'_> {
    const KIND: FileKind = FileKind::Guard;

    fn payload(&self, take: &mut Take<'_>) -> Result<(), Error> {
        take(bytemuck::bytes_of(&self.tally))?;
        take(bytemuck::bytes_of(&self.plan.shape()))?;
        take(self.kept)
    }
}
