//! The pieces of a vocabulary → the trie that the tokeniser walks.

use std::collections::{BTreeMap, VecDeque};

use crate::import::Checkpoint;
use crate::weights::owned::Vocabulary;

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

/// Both tries, breadth first, and the pieces' text.
pub fn vocabulary(checkpoint: &Checkpoint) -> Vocabulary {
    let (mut begins, mut continues) = (Node::default(), Node::default());
    let (mut text, mut ends) = (String::new(), Vec::new());
    for (piece, id) in checkpoint.pieces.iter().zip(0..) {
        match piece.strip_prefix("##").filter(|rest| !rest.is_empty()) {
            Some(rest) => continues.insert(rest.as_bytes(), id),
            None => begins.insert(piece.as_bytes(), id),
        }
        text.push_str(piece);
        ends.push(text.len() as u32);
    }
    // Rows of the embedding table beyond the vocabulary have no text.
    ends.resize(checkpoint.config.vocab_size, text.len() as u32);

    let special = &checkpoint.special;
    let mut flat = Vocabulary {
        labels: Vec::new(),
        first_child: Vec::new(),
        piece: Vec::new(),
        text,
        ends,
        special: [special.pad, special.unk, special.cls, special.sep, special.mask],
        uncased: checkpoint.uncased,
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
