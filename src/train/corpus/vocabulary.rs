//! A WordPiece vocabulary learned from a corpus, by Hugging Face's `tokenizers`.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Result, anyhow};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer};

use super::source::Lines;
use crate::import::write_vocabulary;
use crate::text::SpecialTokens;

/// Bytes of each source that are learned from line by line; of what follows one line in [`EVERY`] is drawn.
const WHOLE_BYTES: usize = 4 << 20;
const EVERY: u32 = 4;

/// Bytes of text that are learned from at most, the same share of them of each source: word counts of more would only
/// fill memory.
const MOST_BYTES: usize = 256 << 20;

/// Trains an uncased WordPiece vocabulary of `pieces` pieces on a sample of the sources' lines, and writes it.
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
    let most = MOST_BYTES / sources.len().max(1);
    let sample = sources.iter().flat_map(|source| sample(lines(source, &failed), most));
    tokenizer.train(&mut TrainerWrapper::from(trainer), sample).map_err(|error| anyhow!("{error}"))?;
    if let Some(error) = failed.into_inner().unwrap_or_default() {
        return Err(error);
    }
    let mut pieces: Vec<(String, u32)> = tokenizer.get_vocab(true).into_iter().collect();
    pieces.sort_by_key(|&(_, id)| id);
    let pieces: Vec<String> = pieces.into_iter().map(|(piece, _)| piece).collect();
    Ok(write_vocabulary(path, &pieces)?)
}

/// The first lines, then some: drawn, for every fourth might be of a kind, such as titles; up to so many bytes.
fn sample(lines: impl Iterator<Item = String>, most: usize) -> impl Iterator<Item = String> {
    let (mut random, mut bytes) = (ChaCha8Rng::seed_from_u64(0), 0);
    let drawn = lines.map_while(move |line| {
        let taken = !line.is_empty() && (bytes < WHOLE_BYTES || random.random_ratio(1, EVERY));
        bytes += if taken { line.len() } else { 0 };
        (bytes <= most).then(|| taken.then_some(line))
    });
    drawn.flatten()
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
