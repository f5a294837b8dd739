//! `vocab.txt`: one WordPiece a line, the line's number its id.

use std::collections::HashMap;
use std::path::Path;

use super::{ImportError, write_atomically};
use crate::text::{SpecialTokens, WORD_BYTES};

/// Writes the pieces by id, as [`read_vocabulary`] reads them.
pub fn write_vocabulary(path: &Path, pieces: &[String]) -> Result<(), ImportError> {
    write_atomically(path, (pieces.join("\n") + "\n").as_bytes())
        .map_err(|error| ImportError::io(path, error))
}

/// Reads the pieces by id and finds the special tokens. A piece that stands twice or is longer than
/// any word, an empty line between pieces or a missing special token is an error.
pub fn read_vocabulary(path: &Path) -> Result<(Vec<String>, SpecialTokens), ImportError> {
    let wrong = |message| ImportError::Vocabulary { path: path.to_owned(), message };
    let text = std::fs::read_to_string(path).map_err(|error| ImportError::io(path, error))?;
    let pieces: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
    let mut ids = HashMap::new();
    for (id, piece) in pieces.iter().enumerate() {
        if piece.is_empty() {
            return Err(wrong(format!("line {} is empty", id + 1)));
        }
        if piece.len() > WORD_BYTES {
            let (line, bytes) = (id + 1, piece.len());
            return Err(wrong(format!("line {line} has {bytes} bytes; no word has more than {WORD_BYTES}")));
        }
        if let Some(first) = ids.insert(piece.as_str(), id) {
            return Err(wrong(format!("{piece:?} stands on lines {} and {}", first + 1, id + 1)));
        }
    }
    let find = |name| {
        let id = ids.get(name).ok_or_else(|| wrong(format!("the special token {name} is missing")));
        id.map(|&id| id as u32)
    };
    let [pad, unk, cls, sep, mask] = SpecialTokens::NAMES;
    let special = SpecialTokens {
        pad: find(pad)?,
        unk: find(unk)?,
        cls: find(cls)?,
        sep: find(sep)?,
        mask: find(mask)?,
    };
    Ok((pieces, special))
}
