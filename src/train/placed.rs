//! A drawn part of a batch on a device.
//!
//! Two vectors are sent, one of ids and one of numbers, whose lengths are the same at every step of a run: what a
//! device does for a part does not depend on what was drawn, so that it may be recorded once and repeated.

use burn::tensor::{Int, Tensor, backend::Backend};

use super::kernels::Kernels;
use super::masked::Masked;
use super::model::Batch;
use super::objective::Counts;

/// A part of `size` sequences of `sequence` tokens with `slots` positions to predict. Losses are sums over it, weighted
/// by what each position has in the mean over the whole batch.
#[derive(Clone, Debug)]
pub struct Placed<B: Backend> {
    size: usize,
    sequence: usize,
    slots: usize,
    ids: Tensor<B, 1, Int>,
    numbers: Tensor<B, 1>,
}

impl<B: Backend> Placed<B> {
    /// Sends a part of a batch, of which `counts` says how much is chosen and judged in all.
    pub fn new(part: &Masked, counts: Counts, device: &B::Device) -> Self
    where
        B: Kernels,
    {
        let (positions, slots) = (part.originals().len(), part.slots());
        let mut sent = Vec::with_capacity(5 * positions + slots);
        sent.extend_from_slice(part.originals());
        sent.extend_from_slice(part.masked());
        sent.extend_from_slice(part.types());
        sent.extend((0..positions).map(|at| i32::from(part.is_padding(at))));
        // Where each token of the corrupted text stands in [samples, originals].
        sent.extend((0..positions).map(|at| part.source(at) as i32));
        sent.extend_from_slice(part.chosen());
        sent.resize(5 * positions + slots, 0);

        let mut numbers = vec![0.0; positions + 2 * slots];
        part.judged(counts.kind).for_each(|at| numbers[at] = 1.0 / counts.judged as f32);
        let chosen = part.chosen().len();
        numbers[positions..][..chosen].fill(1.0 / counts.chosen as f32);
        numbers[positions + slots..][..chosen].copy_from_slice(part.uniform());
        let (ids, numbers) = B::send(sent, numbers, device);
        Self { size: part.size(), sequence: part.sequence(), slots, ids, numbers }
    }

    /// What was sent.
    pub fn sent(&self) -> (&Tensor<B, 1, Int>, &Tensor<B, 1>) {
        (&self.ids, &self.numbers)
    }

    /// The vector of that index, of those that have an entry for each position.
    fn by_position(&self, index: usize) -> Tensor<B, 1, Int> {
        let positions = self.size * self.sequence;
        self.ids.clone().narrow(0, index * positions, positions)
    }

    /// The original tokens, padding included, `[size · sequence]`.
    pub fn originals(&self) -> Tensor<B, 1, Int> {
        self.by_position(0)
    }

    /// The generator's input: some chosen tokens replaced by `[MASK]`, `[size · sequence]`.
    pub fn masked(&self) -> Tensor<B, 1, Int> {
        self.by_position(1)
    }

    /// The tensors of the part with these tokens, `[size · sequence]`, in the place of the original ones.
    pub fn batch(&self, tokens: Tensor<B, 1, Int>) -> Batch<B> {
        let shape = [self.size, self.sequence];
        Batch {
            input_ids: tokens.reshape(shape),
            token_type_ids: self.by_position(2).reshape(shape),
            padding: self.by_position(3).equal_elem(1).reshape(shape),
        }
    }

    /// The original tokens with `samples` `[slots]` put at the chosen positions, but where a token went astray to one,
    /// `[size · sequence]`. Of several samples at one position the first counts.
    pub fn corrupt(&self, samples: Tensor<B, 1, Int>) -> Tensor<B, 1, Int> {
        Tensor::cat(vec![samples, self.originals()], 0).select(0, self.by_position(4))
    }

    /// The chosen positions as indices into `[size · sequence]`, and 0 where no more were chosen; `[slots]`.
    pub fn chosen(&self) -> Tensor<B, 1, Int> {
        self.ids.clone().narrow(0, 5 * self.size * self.sequence, self.slots)
    }

    /// What each of [`Placed::chosen`] has in the batch's mean over them, 0 where no more were chosen; `[slots]`.
    pub fn chosen_share(&self) -> Tensor<B, 1> {
        self.numbers.clone().narrow(0, self.size * self.sequence, self.slots)
    }

    /// A number from 0 to 1 by which each sample is taken, `[slots]`.
    pub fn uniform(&self) -> Tensor<B, 1> {
        self.numbers.clone().narrow(0, self.size * self.sequence + self.slots, self.slots)
    }

    /// What each position has in the batch's mean over those that are judged, 0 elsewhere; `[size · sequence]`.
    pub fn judged_share(&self) -> Tensor<B, 1> {
        self.numbers.clone().narrow(0, 0, self.size * self.sequence)
    }
}
