//! WordPiece: the longest piece first, walked in the model's trie in place.

use heapless::{String, Vec};

use super::normalize::{Letter, MAX_WORD_CHARS, Word};
use super::number;
use crate::weights::format::{TRIE_BLOCK, TrieBlock, Vocabulary};

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
            if let Some(id) = self.piece_at(node) {
                found = Some((id, index + 1));
            }
        }
        found
    }

    /// The child of a node that a byte leads to.
    fn child(&self, node: usize, label: u8) -> Option<usize> {
        let start = self.first_child(node)?;
        let siblings = self.labels.get(start..start + usize::from(*self.children.get(node)?))?;
        siblings.binary_search(&label).ok().map(|index| start + index)
    }

    /// Where a node's children begin.
    fn first_child(&self, node: usize) -> Option<usize> {
        let block = self.blocks.get(node / TRIE_BLOCK)?;
        let before = self.children.get(node / TRIE_BLOCK * TRIE_BLOCK..node)?;
        Some(block.first_child.to_native() as usize + children(before))
    }

    /// The id of the piece that ends at a node.
    pub(crate) fn piece_at(&self, node: usize) -> Option<u32> {
        let block = self.blocks.get(node / TRIE_BLOCK)?;
        let (ends, bit) = (block.ends.to_native(), 1 << (node % TRIE_BLOCK));
        let before = (ends & (bit - 1)).count_ones();
        let place = (block.pieces.to_native() + before) as usize;
        (ends & bit > 0).then(|| self.ids.get(place)).flatten().map(|&id| number(id))
    }

    /// The ids of the pieces in the order of their nodes.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.ids.iter().map(|&id| number(id))
    }

    /// The piece of that id as `vocab.txt` writes it, if there is one. It is looked for among all of them.
    pub fn piece(&self, id: u32) -> Option<String<PIECE_BYTES>> {
        let place = self.ids().position(|other| other == id)? as u32;
        let block = last(&self.blocks, |block| block.pieces.to_native() <= place)?;
        let mut node =
            (block * TRIE_BLOCK..).take(TRIE_BLOCK).find(|&node| self.piece_at(node) == Some(id))?;
        let mut bytes = Vec::new();
        while node > CONTINUES {
            bytes.push(*self.labels.get(node)?).ok()?;
            node = self.parent(node)?;
        }
        if node == CONTINUES {
            bytes.extend_from_slice(b"##").ok()?;
        }
        bytes.reverse();
        String::from_utf8(bytes).ok()
    }

    /// The node that a node is a child of.
    fn parent(&self, child: usize) -> Option<usize> {
        let block = last(&self.blocks, |block| block.first_child.to_native() as usize <= child)?;
        let mut first = self.blocks.get(block)?.first_child.to_native() as usize;
        let mut nodes = (block * TRIE_BLOCK..).zip(self.children.get(block * TRIE_BLOCK..)?);
        nodes.find_map(|(node, &count)| {
            first += usize::from(count);
            (child < first).then_some(node)
        })
    }

    /// Whether the parts have the lengths of a trie, what was counted is so, every node stands behind its parent, and
    /// none lies deeper than the longest piece.
    pub(crate) fn is_whole(&self) -> bool {
        let nodes = self.labels.len();
        let lengths = nodes >= 2
            && self.children.len() == nodes
            && self.blocks.len() == nodes.div_ceil(TRIE_BLOCK)
            && self.ids.len() <= nodes;
        if !lengths {
            return false;
        }
        let (mut first_child, mut pieces, mut depth, mut level_end) = (2, 0, 0, 2);
        for (node, &count) in self.children.iter().enumerate() {
            if node.is_multiple_of(TRIE_BLOCK) {
                let Some(block) = self.blocks.get(node / TRIE_BLOCK) else { return false };
                let counted = [block.first_child.to_native(), block.pieces.to_native()];
                if counted != [first_child, pieces].map(|count| count as u32) {
                    return false;
                }
                pieces += block.ends.to_native().count_ones() as usize;
            }
            if node == level_end {
                (depth, level_end) = (depth + 1, first_child);
            }
            // Before its own children are counted: it is no child of its own.
            if node >= first_child {
                return false;
            }
            first_child += usize::from(count);
            if first_child > nodes || depth > WORD_BYTES {
                return false;
            }
        }
        first_child == nodes && pieces == self.ids.len()
    }
}

/// Bytes of the longest word that is looked up.
pub(crate) const WORD_BYTES: usize = 4 * MAX_WORD_CHARS;

/// Bytes of the longest piece, `##` included.
pub const PIECE_BYTES: usize = 2 + WORD_BYTES;

/// How many children some nodes have.
fn children(counts: &[u8]) -> usize {
    counts.iter().map(|&count| usize::from(count)).sum()
}

/// The last block for which that is so; it is for all before it.
fn last(blocks: &[TrieBlock], holds: impl Fn(&TrieBlock) -> bool) -> Option<usize> {
    blocks.partition_point(holds).checked_sub(1)
}
