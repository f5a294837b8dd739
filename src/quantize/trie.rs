//! The pieces of a vocabulary → the trie that the tokeniser walks, and back.

use std::collections::{BTreeMap, VecDeque};

use crate::text::SpecialTokens;
use crate::weights::format::{self, TRIE_BLOCK};
use crate::weights::owned::{AlignedBytes, TrieBlock, Vocabulary};

#[derive(Default)]
struct Node {
    children: BTreeMap<u8, Node>,
    piece: Option<u32>,
}

impl Node {
    fn insert(&mut self, bytes: &[u8], id: u32) {
        match bytes {
            [] => self.piece = Some(id),
            [first, rest @ ..] => self.children.entry(*first).or_default().insert(rest, id),
        }
    }
}

/// Both tries, breadth first. Of a piece that stands twice the last id counts.
pub fn vocabulary(pieces: &[String], special: &SpecialTokens, uncased: bool) -> Vocabulary {
    let (mut begins, mut continues) = (Node::default(), Node::default());
    for (piece, id) in pieces.iter().zip(0..) {
        match piece.strip_prefix("##").filter(|rest| !rest.is_empty()) {
            Some(rest) => continues.insert(rest.as_bytes(), id),
            None => begins.insert(piece.as_bytes(), id),
        }
    }
    let mut nodes = Vec::new();
    let mut queue = VecDeque::from([(0, &begins), (0, &continues)]);
    while let Some((label, node)) = queue.pop_front() {
        nodes.push((label, node.children.len() as u8, node.piece));
        queue.extend(node.children.iter().map(|(&label, child)| (label, child)));
    }
    let (mut first_child, mut pieces) = (2, 0);
    let blocks = nodes.chunks(TRIE_BLOCK).map(|part| {
        let ends = part.iter().rev().fold(0, |ends, (.., piece)| ends << 1 | u32::from(piece.is_some()));
        let block = TrieBlock { first_child, pieces, ends };
        first_child += part.iter().map(|&(_, children, _)| u32::from(children)).sum::<u32>();
        pieces += ends.count_ones();
        block
    });
    Vocabulary {
        blocks: blocks.collect(),
        labels: nodes.iter().map(|node| node.0).collect(),
        children: nodes.iter().map(|node| node.1).collect(),
        ids: nodes.iter().filter_map(|node| node.2).map(three_bytes).collect(),
        special: [special.pad, special.unk, special.cls, special.sep, special.mask],
        uncased,
    }
}

fn three_bytes(id: u32) -> [u8; 3] {
    let [low, middle, high, _] = id.to_le_bytes();
    [low, middle, high]
}

/// The pieces of an opened vocabulary by id, as `vocab.txt` writes them; those between that are none are empty.
pub fn pieces(vocabulary: &format::Vocabulary) -> Vec<String> {
    let mut ways = vec![Vec::new(), b"##".to_vec()];
    let mut labels = vocabulary.labels.iter().skip(ways.len());
    let mut pieces = Vec::new();
    for (node, &children) in vocabulary.children.iter().enumerate() {
        let way = std::mem::take(&mut ways[node]);
        ways.extend(labels.by_ref().take(children.into()).map(|&label| [&way[..], &[label]].concat()));
        let Some(id) = vocabulary.piece_at(node) else { continue };
        let id = id as usize;
        pieces.resize(pieces.len().max(id + 1), String::new());
        pieces[id] = String::from_utf8_lossy(&way).into_owned();
    }
    pieces
}

/// A vocabulary by itself, as [`access_vocabulary`](crate::weights::access_vocabulary) reads it:
/// a tokeniser without a model.
pub fn vocabulary_archive(pieces: &[String], special: &SpecialTokens, uncased: bool) -> AlignedBytes {
    let Ok(bytes) = rkyv::to_bytes::<rkyv::rancor::Panic>(&vocabulary(pieces, special, uncased));
    AlignedBytes::copy_of(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::access_vocabulary;

    const SPECIAL: SpecialTokens = SpecialTokens { pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 };

    /// Special tokens, every lead byte of UTF-8 at both roots, and pieces that begin with each other.
    fn all_kinds() -> Vec<String> {
        let letters = (0..).step_by(61).take(900).filter_map(char::from_u32).map(String::from);
        let letters: Vec<String> = letters.filter(|letter| letter != "\0").collect();
        let specials = SpecialTokens::NAMES.map(str::to_owned);
        let runs = (1..100).flat_map(|length| ["a".repeat(length), format!("##{}", "é".repeat(length))]);
        let continued = letters.iter().map(|letter| format!("##{letter}")).collect::<Vec<_>>();
        specials.into_iter().chain(runs).chain(letters).chain(continued).chain(["##".to_owned()]).collect()
    }

    #[test]
    fn pieces_come_back() {
        let written = all_kinds();
        let archive = vocabulary_archive(&written, &SPECIAL, true);
        let vocabulary = access_vocabulary(archive.as_slice()).unwrap();
        assert_eq!(pieces(vocabulary), written);
        for (id, written) in (0..).zip(&written) {
            assert_eq!(vocabulary.piece(id).as_deref(), Some(written.as_str()));
        }
        assert_eq!(vocabulary.piece(written.len() as u32), None);
    }

    #[test]
    fn a_trie_deeper_than_any_word_is_refused() {
        for (letters, kept) in [(400, true), (401, false)] {
            let mut written = all_kinds();
            written.push("x".repeat(letters));
            let archive = vocabulary_archive(&written, &SPECIAL, true);
            let vocabulary = access_vocabulary(archive.as_slice());
            assert_eq!(vocabulary.is_ok(), kept);
            let Ok(vocabulary) = vocabulary else { continue };
            assert_eq!(pieces(vocabulary), written);
            assert_eq!(vocabulary.piece(written.len() as u32 - 1).unwrap().len(), letters);
        }
    }

    /// All counts agree, and yet nobody is its parent but the node itself.
    #[test]
    fn a_node_that_is_its_own_child_is_refused() {
        let mut archive = vocabulary_archive(&all_kinds(), &SPECIAL, true);
        let start = archive.as_slice().as_ptr() as usize;
        let children = access_vocabulary(archive.as_slice()).unwrap().children.as_ptr() as usize - start;
        let [first, second, third] = archive.as_mut_slice()[children..].first_chunk_mut().unwrap();
        (*first, *second, *third) = (0, 0, *first + *second + *third);
        assert!(access_vocabulary(archive.as_slice()).is_err());
    }

    /// What was counted wrongly is refused, and nothing else panics.
    #[test]
    fn every_byte_may_be_wrong() {
        let written: Vec<String> = all_kinds().into_iter().take(100).collect();
        let archive = vocabulary_archive(&written, &SPECIAL, true);
        let mut refused = 0;
        for at in 0..archive.as_slice().len() {
            let mut damaged = archive.clone();
            damaged.as_mut_slice()[at] ^= 1 << (at % 8);
            let Ok(vocabulary) = access_vocabulary(damaged.as_slice()) else {
                refused += 1;
                continue;
            };
            pieces(vocabulary);
            for id in [0, 7, 99, 200, 0xff_ffff] {
                let _ = vocabulary.piece(id);
            }
        }
        assert!(refused > archive.as_slice().len() / 4, "{refused}");
    }
}
