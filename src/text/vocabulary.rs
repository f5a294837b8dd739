//! WordPiece: the longest piece first, walked in the model's trie in place.

use super::normalize::{Letter, Word};
use crate::weights::format::Vocabulary;

/// Roots of the trie.
const BEGINS_WORD: usize = 0;
const CONTINUES: usize = 1;

impl Vocabulary {
    /// Hands the pieces of a word to `take`: id, letters `from..to`, whether it continues the word.
    /// Answers `false`, having handed out nothing, if the word cannot be spelled.
    pub(super) fn spell(&self, word: &Word, mut take: impl FnMut(u32, usize, usize, bool)) -> bool {
        if word.too_long || !self.walk(&word.letters, |_, _, _| {}) {
            return false;
        }
        self.walk(&word.letters, |id, from, to| take(id, from, to, from > 0))
    }

    fn walk(&self, letters: &[Letter], mut take: impl FnMut(u32, usize, usize)) -> bool {
        let mut from = 0;
        while from < letters.len() {
            let root = if from == 0 { BEGINS_WORD } else { CONTINUES };
            let Some((id, length)) = self.longest(root, letters.get(from..).unwrap_or_default()) else {
                return false;
            };
            take(id, from, from + length);
            from += length;
        }
        true
    }

    /// The longest piece below `root` that `letters` begin with, and its length in letters.
    fn longest(&self, root: usize, letters: &[Letter]) -> Option<(u32, usize)> {
        let mut node = root;
        let mut found = None;
        for (index, letter) in letters.iter().enumerate() {
            for &byte in letter.char.encode_utf8(&mut [0; 4]).as_bytes() {
                match self.child(node, byte) {
                    Some(child) => node = child,
                    None => return found,
                }
            }
            match self.piece.get(node).map(|id| id.to_native()) {
                Some(u32::MAX) | None => {}
                Some(id) => found = Some((id, index + 1)),
            }
        }
        found
    }

    fn child(&self, node: usize, label: u8) -> Option<usize> {
        let bound = |node: usize| self.first_child.get(node).map(|child| child.to_native() as usize);
        let (start, end) = (bound(node)?, bound(node + 1)?);
        let siblings = self.labels.get(start..end)?;
        siblings.binary_search(&label).ok().map(|index| start + index)
    }

    /// The piece of that id as `vocab.txt` writes it.
    pub fn piece_text(&self, id: u32) -> Option<&str> {
        let id = id as usize;
        let end = self.ends.get(id)?.to_native() as usize;
        let start = match id.checked_sub(1) {
            Some(before) => self.ends.get(before)?.to_native() as usize,
            None => 0,
        };
        self.text.get(start..end)
    }
}
