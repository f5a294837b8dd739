//! What a step draws before the networks run (`pretrain_helpers.mask` of google-research/electra): positions, masks,
//! and the number by which each sample will be taken.
//!
//! All of it is drawn on the host from the seed and the step's number alone, so that a resumed run, another device
//! and another number of machines draw what the uninterrupted one drew.

use burn::tensor::{Bool, Int, Tensor, TensorData, backend::Backend};
use rand::Rng;

use super::corpus::Example;
use super::model::Batch;
use super::objective::{ids, vector};
use crate::text::SpecialTokens;

/// A padded part of a batch with some positions chosen for prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Masked {
    size: usize,
    sequence: usize,
    /// The original tokens, `[size · sequence]`, padding included.
    original: Vec<i32>,
    /// The generator's input: some chosen tokens replaced by `[MASK]`.
    masked: Vec<i32>,
    types: Vec<i32>,
    padding: Vec<bool>,
    /// Chosen positions as indices into `original`; a position may stand here twice.
    chosen: Vec<i32>,
    /// One number from 0 to 1 for each of them.
    uniform: Vec<f32>,
    /// For each position, which of `chosen` names it first.
    slot: Vec<Option<u32>>,
}

impl Masked {
    /// Chooses positions in every example and masks 85 % of them.
    ///
    /// As in the recipe, positions are drawn with replacement from all tokens other than `[CLS]`, `[SEP]` and
    /// `[MASK]`; round(tokens · `mask_prob`) of them, at least one and at most ⌊(`mask_prob` + 0.005) · sequence⌋.
    pub fn draw(examples: &[Example], special: &SpecialTokens, mask_prob: f64, rng: &mut impl Rng) -> Self {
        let mut part = Self::padded(examples, special);
        let most = ((mask_prob + 0.005) * part.sequence as f64) as usize;
        for (row, example) in examples.iter().enumerate() {
            let is_special = |&id: &u16| [special.cls, special.sep, special.mask].contains(&u32::from(id));
            let candidates: Vec<usize> =
                (0..example.ids.len()).filter(|&i| !is_special(&example.ids[i])).collect();
            if candidates.is_empty() {
                continue;
            }
            let wanted = (example.ids.len() as f64 * mask_prob).round() as usize;
            for _ in 0..wanted.clamp(1, most.max(1)) {
                let position = row * part.sequence + candidates[rng.random_range(0..candidates.len())];
                part.slot[position].get_or_insert(part.chosen.len() as u32);
                part.chosen.push(position as i32);
                if rng.random_bool(0.85) {
                    part.masked[position] = special.mask as i32;
                }
                part.uniform.push(rng.random());
            }
        }
        part
    }

    /// Nothing chosen yet.
    fn padded(examples: &[Example], special: &SpecialTokens) -> Self {
        let sequence = examples.iter().map(|example| example.ids.len()).max().unwrap_or(1);
        let size = examples.len();
        let mut part = Self {
            size,
            sequence,
            original: vec![special.pad as i32; size * sequence],
            masked: Vec::new(),
            types: vec![0; size * sequence],
            padding: vec![true; size * sequence],
            chosen: Vec::new(),
            uniform: Vec::new(),
            slot: vec![None; size * sequence],
        };
        for (row, example) in examples.iter().enumerate() {
            let start = row * sequence;
            for (column, &id) in example.ids.iter().enumerate() {
                part.original[start + column] = i32::from(id);
                part.types[start + column] = i32::from(column >= example.first_segment);
                part.padding[start + column] = false;
            }
        }
        part.masked = part.original.clone();
        part
    }

    /// Number of chosen positions, one that was chosen twice counting twice.
    pub fn chosen(&self) -> usize {
        self.chosen.len()
    }

    /// Length of a padded row.
    pub fn sequence(&self) -> usize {
        self.sequence
    }

    /// Tokens that are no padding.
    pub fn tokens(&self) -> usize {
        self.padding.iter().filter(|&&padding| !padding).count()
    }

    /// The positions of each example's tokens.
    pub fn rows(&self) -> impl Iterator<Item = impl Iterator<Item = usize>> {
        let row = |start: usize| (start..start + self.sequence).filter(|&at| !self.padding[at]);
        (0..self.size).map(move |index| row(index * self.sequence))
    }

    /// The original token of a position.
    pub fn original(&self, at: usize) -> u32 {
        self.original[at] as u32
    }

    /// The positions that a discriminator's loss is taken over: all but padding, or the chosen ones alone.
    pub fn judged(&self, chosen_only: bool) -> impl Iterator<Item = usize> {
        let wanted = move |&at: &usize| if chosen_only { self.slot[at].is_some() } else { !self.padding[at] };
        (0..self.padding.len()).filter(wanted)
    }

    /// 1 where [`Masked::judged`] says so, else 0, `[size · sequence]`.
    pub fn judged_mask<B: Backend>(&self, chosen_only: bool, device: &B::Device) -> Tensor<B, 1> {
        let mut mask = vec![0.0; self.padding.len()];
        self.judged(chosen_only).for_each(|at| mask[at] = 1.0);
        vector(mask, device)
    }

    /// The original tokens, `[size · sequence]`.
    pub fn originals<B: Backend>(&self, device: &B::Device) -> Tensor<B, 1, Int> {
        ids(self.original.clone(), device)
    }

    /// The generator's input, `[size · sequence]`.
    pub fn masked<B: Backend>(&self, device: &B::Device) -> Tensor<B, 1, Int> {
        ids(self.masked.clone(), device)
    }

    /// The chosen positions as indices into `[size · sequence]`.
    pub fn positions<B: Backend>(&self, device: &B::Device) -> Tensor<B, 1, Int> {
        ids(self.chosen.clone(), device)
    }

    /// A number from 0 to 1 for each of them.
    pub fn uniform<B: Backend>(&self, device: &B::Device) -> Tensor<B, 1> {
        vector(self.uniform.clone(), device)
    }

    /// [`Masked::originals`] with `samples` put at the chosen positions, `[size · sequence]`. Of several samples at
    /// one position the first counts.
    pub fn corrupt<B: Backend>(
        &self,
        samples: Tensor<B, 1, Int>,
        originals: Tensor<B, 1, Int>,
        device: &B::Device,
    ) -> Tensor<B, 1, Int> {
        let slots = ids(self.slot.iter().map(|slot| slot.unwrap_or(0) as i32).collect(), device);
        let untouched: Vec<bool> = self.slot.iter().map(Option::is_none).collect();
        let length = untouched.len();
        let untouched = Tensor::<B, 1, Bool>::from_data(TensorData::new(untouched, [length]), device);
        samples.select(0, slots).mask_where(untouched, originals)
    }

    /// The tensors of the part with these ids, `[size · sequence]`, in the place of the original ones.
    pub fn batch<B: Backend>(&self, ids: Tensor<B, 1, Int>, device: &B::Device) -> Batch<B> {
        let shape = [self.size, self.sequence];
        Batch {
            input_ids: ids.reshape(shape),
            token_type_ids: Tensor::from_data(TensorData::new(self.types.clone(), shape), device),
            padding: Tensor::from_data(TensorData::new(self.padding.clone(), shape), device),
        }
    }
}
