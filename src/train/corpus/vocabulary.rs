//! A WordPiece vocabulary learned from a corpus, by Hugging Face's `tokenizers`.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Result, anyhow};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer};

use super::source::Lines;
use crate::import::write_vocabulary;
use crate::text::SpecialTokens;

/// Of so many lines one is learned from.
const EVERY: usize = 4;

/// Bytes of text that are learned from at most: word counts of more would only fill memory.
const MOST_BYTES: usize = 256 << 20;

/// Trains an uncased WordPiece vocabulary of `pieces` pieces on every fourth line of the sources, and writes it.
///
/// # Errors
/// What reading a source says.
pub fn train(sources: &[PathBuf], pieces: usize, path: &Path) -> Result<()> {
    let mut tokenizer = Tokenizer::new(WordPiece::default());
    tokenizer.with_normalizer(Some(BertNormalizer::default()));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let special = SpecialTokens::NAMES.map(|name| AddedToken::from(name, true));
    let trainer = WordPieceTrainer::builder()
        .vocab_size(pieces)
        .limit_alphabet(256)
        .special_tokens(special.to_vec())
        .show_progress(false)
        .build();
    log::info!("training a vocabulary of {pieces} pieces");
    // The trainer takes lines, not errors: the first one ends them and is found here.
    let failed = Mutex::new(None);
    let sample = sources.iter().flat_map(|source| lines(source, &failed)).step_by(EVERY);
    let sample = sample.scan(0, |bytes, line| {
        *bytes += line.len();
        (*bytes <= MOST_BYTES).then_some(line)
    });
    tokenizer.train(&mut TrainerWrapper::from(trainer), sample).map_err(|error| anyhow!("{error}"))?;
    if let Some(error) = failed.into_inner().unwrap_or_default() {
        return Err(error);
    }
    let mut pieces: Vec<(String, u32)> = tokenizer.get_vocab(true).into_iter().collect();
    pieces.sort_by_key(|&(_, id)| id);
    let pieces: Vec<String> = pieces.into_iter().map(|(piece, _)| piece).collect();
    Ok(write_vocabulary(path, &pieces)?)
}

/// The lines of a source up to the first that cannot be read, which is kept in `failed`.
fn lines(source: &Path, failed: &Mutex<Option<anyhow::Error>>) -> impl Iterator<Item = String> {
    let fail = |error| {
        if let Ok(mut failed) = failed.lock() {
            failed.get_or_insert(error);
        }
    };
    let mut opened = match Lines::open(source) {
        Ok(lines) => Some(lines),
        Err(error) => {
            fail(error);
            None
        }
    };
    let mut batch = Vec::new();
    std::iter::from_fn(move || match opened.as_mut()?.next_batch(&mut batch) {
        Ok(true) => Some(std::mem::take(&mut batch)),
        Ok(false) => None,
        Err(error) => {
            fail(error);
            opened = None;
            None
        }
    })
    .flatten()
}
