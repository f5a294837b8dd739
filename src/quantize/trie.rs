//! The pieces of a vocabulary → the trie that the tokeniser walks.

use std::collections::{BTreeMap, VecDeque};

use crate::text::SpecialTokens;
use crate::weights::owned::{AlignedBytes, Vocabulary};

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

/// Both tries, breadth first, and the pieces' text; rows of the embedding table beyond the pieces
/// have no text.
pub fn vocabulary(pieces: &[String], special: &SpecialTokens, uncased: bool, rows: usize) -> Vocabulary {
    let (mut begins, mut continues) = (Node::default(), Node::default());
    let (mut text, mut ends) = (String::new(), Vec::new());
    for (piece, id) in pieces.iter().zip(0..) {
        match piece.strip_prefix("##").filter(|rest| !rest.is_empty()) {
            Some(rest) => continues.insert(rest.as_bytes(), id),
            None => begins.insert(piece.as_bytes(), id),
        }
        text.push_str(piece);
        ends.push(text.len() as u32);
    }
    ends.resize(rows, text.len() as u32);

    let mut flat = Vocabulary {
        labels: Vec::new(),
        first_child: Vec::new(),
        piece: Vec::new(),
        text,
        ends,
        special: [special.pad, special.unk, special.cls, special.sep, special.mask],
        uncased,
    };
    let mut queue = VecDeque::from([(0, &begins), (0, &continues)]);
    let mut next = queue.len() as u32;
    while let Some((label, node)) = queue.pop_front() {
        flat.labels.push(label);
        flat.first_child.push(next);
        flat.piece.push(node.piece.unwrap_or(u32::MAX));
        next += node.children.len() as u32;
        queue.extend(node.children.iter().map(|(&label, child)| (label, child)));
    }
    flat.first_child.push(next);
    flat
}

/// A vocabulary by itself, as [`access_vocabulary`](crate::weights::access_vocabulary) reads it:
/// a tokeniser without a model.
pub fn vocabulary_archive(pieces: &[String], special: &SpecialTokens, uncased: bool) -> AlignedBytes {
    let Ok(bytes) =
        rkyv::to_bytes::<rkyv::rancor::Panic>(&vocabulary(pieces, special, uncased, pieces.len()));
    AlignedBytes::copy_of(&bytes)
}
