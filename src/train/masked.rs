//! What a step draws before the networks run (`pretrain_helpers.mask` of google-research/electra): positions, masks,
//! and the number by which each sample will be taken.
//!
//! All of it is drawn on the host from the seed and the step's number alone, so that a resumed run, another device
//! and another number of machines draw what the uninterrupted one drew.

use rand::Rng;

use super::corpus::Example;
use super::objective::Kind;
use crate::text::SpecialTokens;

/// A padded part of a batch with some positions chosen for prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct Masked {
    size: usize,
    sequence: usize,
    /// The most positions that can be chosen.
    slots: usize,
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
    /// For each position, the other one whose token takes its place.
    stray: Vec<Option<u32>>,
}

impl Masked {
    /// Pads every example to `sequence` tokens, chooses positions in it and masks 85 % of them.
    ///
    /// As in the recipe, positions are drawn with replacement from all tokens other than `[CLS]`, `[SEP]` and
    /// `[MASK]`; round(tokens · `mask_prob`) of them, at least one and at most ⌊(`mask_prob` + 0.005) · sequence⌋.
    pub fn draw(
        examples: &[Example],
        sequence: usize,
        special: &SpecialTokens,
        mask_prob: f64,
        rng: &mut impl Rng,
    ) -> Self {
        let mut part = Self::padded(examples, sequence, special);
        let most = (((mask_prob + 0.005) * sequence as f64) as usize).max(1);
        part.slots = part.size * most;
        for (row, example) in examples.iter().enumerate() {
            let is_special = |&id: &u16| [special.cls, special.sep, special.mask].contains(&u32::from(id));
            let candidates: Vec<usize> =
                (0..example.ids.len()).filter(|&i| !is_special(&example.ids[i])).collect();
            if candidates.is_empty() {
                continue;
            }
            let wanted = (example.ids.len() as f64 * mask_prob).round() as usize;
            for _ in 0..wanted.clamp(1, most) {
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

    /// Gives each chosen position, with that probability, a token from anywhere in the part instead of the generator's
    /// sample. Special tokens do not go astray.
    pub fn scatter(&mut self, stray_prob: f64, special: &SpecialTokens, rng: &mut impl Rng) {
        if stray_prob == 0.0 {
            return;
        }
        let special = [special.cls, special.sep, special.mask].map(|id| id as i32);
        let words: Vec<u32> = (0..self.original.len() as u32)
            .filter(|&at| !self.padding[at as usize] && !special.contains(&self.original[at as usize]))
            .collect();
        for at in (0..self.slot.len()).filter(|&at| self.slot[at].is_some()) {
            if rng.random_bool(stray_prob) {
                self.stray[at] = Some(words[rng.random_range(0..words.len())]);
            }
        }
    }

    /// Nothing chosen yet.
    fn padded(examples: &[Example], sequence: usize, special: &SpecialTokens) -> Self {
        let size = examples.len();
        let mut part = Self {
            size,
            sequence,
            slots: 0,
            original: vec![special.pad as i32; size * sequence],
            masked: Vec::new(),
            types: vec![0; size * sequence],
            padding: vec![true; size * sequence],
            chosen: Vec::new(),
            uniform: Vec::new(),
            slot: vec![None; size * sequence],
            stray: vec![None; size * sequence],
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

    /// Sequences in the part.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Length of a padded row.
    pub fn sequence(&self) -> usize {
        self.sequence
    }

    /// The most positions that could have been chosen.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The original tokens, padding included, `[size · sequence]`.
    pub fn originals(&self) -> &[i32] {
        &self.original
    }

    /// The generator's input, `[size · sequence]`.
    pub fn masked(&self) -> &[i32] {
        &self.masked
    }

    /// The segment of each token, `[size · sequence]`.
    pub fn types(&self) -> &[i32] {
        &self.types
    }

    /// Whether a position holds no token.
    pub fn is_padding(&self, at: usize) -> bool {
        self.padding[at]
    }

    /// The chosen positions as indices into `[size · sequence]`, one that was chosen twice standing there twice.
    pub fn chosen(&self) -> &[i32] {
        &self.chosen
    }

    /// A number from 0 to 1 for each of them.
    pub fn uniform(&self) -> &[f32] {
        &self.uniform
    }

    /// Where the corrupted text's token at a position stands in \[samples, originals\]: a sample where the position was
    /// chosen, the first of several; another position's token where that went astray; else its own.
    pub fn source(&self, at: usize) -> usize {
        let original = |at: usize| self.slots + at;
        match (self.stray[at], self.slot[at]) {
            (Some(other), _) => original(other as usize),
            (None, Some(slot)) => slot as usize,
            (None, None) => original(at),
        }
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

    /// The positions that a discriminator's loss is taken over: all but padding, or the chosen ones alone.
    pub fn judged(&self, kind: Kind) -> impl Iterator<Item = usize> {
        let chosen_only = kind == Kind::Electra15;
        let wanted = move |&at: &usize| if chosen_only { self.slot[at].is_some() } else { !self.padding[at] };
        (0..self.padding.len()).filter(wanted)
    }
}
