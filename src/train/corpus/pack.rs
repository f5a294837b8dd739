//! Paragraphs → sentences → examples, as ELECTRA's `build_pretraining_dataset.py` packs them.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::Example;
use crate::text::SpecialTokens;

/// Cuts a paragraph after `.`, `!` or `?` and a space, where an upper-case letter or a quote
/// follows. A blank line gives one empty sentence: the end of a document.
pub fn sentences(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    for (at, mark) in line.match_indices(['.', '!', '?']) {
        let after = &line[at + mark.len()..];
        let mut next = after.chars();
        let opens =
            next.next() == Some(' ') && next.next().is_some_and(|c| c.is_uppercase() || c == '"' || c == '“');
        if opens {
            found.push(line[start..at + mark.len()].trim());
            start = at + mark.len() + 1;
        }
    }
    found.push(line[start..].trim());
    found.retain(|sentence| !sentence.is_empty() || line.trim().is_empty());
    found
}

/// Packs sentences into examples. What it holds between two sentences can be kept and gone on with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Packer {
    sequence: usize,
    cls: u16,
    sep: u16,
    rng: ChaCha8Rng,
    sentences: Vec<Vec<u16>>,
    length: usize,
    target: usize,
}

impl Packer {
    /// Examples of up to `sequence` tokens, by that seed.
    pub fn new(sequence: usize, special: SpecialTokens, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let (cls, sep) = (special.cls as u16, special.sep as u16);
        Self { sequence, cls, sep, rng, sentences: Vec::new(), length: 0, target: sequence }
    }

    /// Takes a sentence, and gives an example where it completes one.
    pub fn add(&mut self, ids: Vec<u16>) -> Option<Example> {
        self.length += ids.len();
        self.sentences.push(ids);
        (self.length >= self.target).then(|| self.pack())
    }

    /// What is left at the end of a document.
    pub fn end_document(&mut self) -> Option<Example> {
        (self.length > 0).then(|| self.pack())
    }

    /// One example of all sentences held. One in ten is a single segment; of the others, the
    /// first segment takes what fits into half, and a sentence that would overflow it half the time.
    /// One in twenty aims at a random shorter length.
    fn pack(&mut self) -> Example {
        let single = self.rng.random_bool(0.1);
        let first_target = if single { usize::MAX } else { self.target.saturating_sub(3) / 2 };
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for sentence in self.sentences.drain(..) {
            let fits = first.len() + sentence.len() < first_target;
            let overflows = second.is_empty() && first.len() < first_target;
            if first.is_empty() || fits || (overflows && self.rng.random_bool(0.5)) {
                first.extend(sentence);
            } else {
                second.extend(sentence);
            }
        }
        first.truncate(self.sequence - 2);
        second.truncate((self.sequence - first.len()).saturating_sub(3));
        self.length = 0;
        let short = self.rng.random_bool(0.05);
        self.target = if short { self.rng.random_range(5..=self.sequence) } else { self.sequence };

        let (cls, sep) = (self.cls, self.sep);
        let first_segment = first.len() + 2;
        let mut ids = vec![cls];
        ids.extend(first);
        ids.push(sep);
        if !second.is_empty() {
            ids.extend(second);
            ids.push(sep);
        }
        Example { ids, first_segment }
    }
}
