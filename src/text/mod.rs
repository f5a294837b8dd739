//! Text → token ids, segments and byte offsets, in the caller's buffer.
//!
//! The result is that of Hugging Face's `tokenizers` (BertNormalizer, BertPreTokenizer, WordPiece,
//! BertProcessing) to the last id and offset; `tests/tokenizer.rs` compares them. Time is linear in
//! the text, memory is fixed whatever its length. Special tokens written out in a text, such as
//! `[SEP]`, are text: no input can forge a segment.

mod normalize;
mod special;
#[rustfmt::skip]
mod tables;
mod vocabulary;

pub use normalize::{MAX_WORD_CHARS, Span};
pub use special::SpecialTokens;
pub use vocabulary::PIECE_BYTES;
#[cfg(feature = "convert")]
pub(crate) use vocabulary::WORD_BYTES;

use crate::Error;
use crate::weights::format::Vocabulary;

/// One token of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Token {
    /// Id in the vocabulary.
    pub id: u32,
    /// First byte of the text it stands for; 0 for a special token.
    pub start: u32,
    /// One past its last byte; 0 for a special token.
    pub end: u32,
    /// 0 for the first text, 1 for the second.
    pub type_id: u8,
    /// 1 if it continues the word that the token before it began.
    pub continues: u8,
    /// 1 for `[CLS]` and `[SEP]`.
    pub special: u8,
    /// Zero.
    reserved: u8,
}

impl Token {
    /// The token of an id that stands for no particular text.
    pub fn of(id: u32, type_id: u8) -> Self {
        Self { id, type_id, ..Self::default() }
    }
}

/// What is to become a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Input<'t> {
    /// The text, segment 0.
    pub text: &'t str,
    /// A second text, segment 1.
    pub pair: Option<&'t str>,
    /// Whether a sequence that does not fit loses its end (the longer text first) or is refused.
    pub truncate: bool,
}

impl<'t> From<&'t str> for Input<'t> {
    fn from(text: &'t str) -> Self {
        Self { text, pair: None, truncate: false }
    }
}

/// The tokeniser of one vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'m> {
    vocabulary: &'m Vocabulary,
}

impl<'m> Tokenizer<'m> {
    /// The tokeniser over a model's vocabulary.
    pub fn new(vocabulary: &'m Vocabulary) -> Self {
        Self { vocabulary }
    }

    /// Ids of the special tokens.
    pub fn special(&self) -> SpecialTokens {
        let [pad, unk, cls, sep, mask] = self.vocabulary.special.map(|id| id.to_native());
        SpecialTokens { pad, unk, cls, sep, mask }
    }

    /// Writes `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]` into `tokens` and returns how
    /// many they are.
    ///
    /// # Errors
    /// [`Error::SequenceTooLong`] if they do not fit and `truncate` is off;
    /// [`Error::SequenceTooShort`], [`Error::TextTooLong`].
    pub fn encode(&self, input: Input<'_>, tokens: &mut [Token]) -> Result<usize, Error> {
        let specials = if input.pair.is_some() { 3 } else { 2 };
        let limit = tokens.len();
        let room = limit.checked_sub(specials).filter(|&room| room > 0).ok_or(Error::SequenceTooShort)?;
        let first = self.fill(input.text, 0, tokens.get_mut(1..=room).unwrap_or_default())?;
        let second = input.pair.map_or(Ok(0), |pair| self.fill(pair, 1, &mut []))?;
        if first + second > room && !input.truncate {
            return Err(Error::SequenceTooLong { tokens: first + second + specials, limit });
        }
        let (first, second) = truncated(first, second, room, input.pair.is_some());

        let special = self.special();
        let mut put = |at: usize, id, type_id| {
            if let Some(token) = tokens.get_mut(at) {
                *token = Token { id, type_id, special: 1, ..Token::default() };
            }
        };
        put(0, special.cls, 0);
        put(first + 1, special.sep, 0);
        if let Some(pair) = input.pair {
            put(first + second + 2, special.sep, 1);
            let start = first + 2;
            self.fill(pair, 1, tokens.get_mut(start..start + second).unwrap_or_default())?;
        }
        Ok(first + second + specials)
    }

    /// Writes a text's tokens into `tokens` as far as they fit and counts them all.
    fn fill(&self, text: &str, type_id: u8, tokens: &mut [Token]) -> Result<usize, Error> {
        if u32::try_from(text.len()).is_err() {
            return Err(Error::TextTooLong);
        }
        let mut count = 0;
        let mut put = |id, start, end, continues: bool| {
            if let Some(token) = tokens.get_mut(count) {
                let continues = u8::from(continues);
                *token = Token { id, start, end, type_id, continues, ..Token::default() };
            }
            count += 1;
        };
        normalize::words(text, self.vocabulary.uncased, |word| {
            let spelled = self.vocabulary.spell(word, |id, from, to, continues| {
                let span = |index: usize| word.letters.get(index).map_or(word.span, |letter| letter.span);
                put(id, span(from).start, span(to - 1).end, continues);
            });
            if !spelled {
                put(self.special().unk, word.span.start, word.span.end, false);
            }
        });
        Ok(count)
    }
}

/// A number of three bytes, little-endian.
fn number([low, middle, high]: [u8; 3]) -> u32 {
    u32::from_le_bytes([low, middle, high, 0])
}

/// Lengths after Hugging Face's "longest first" truncation to `room` tokens.
fn truncated(first: usize, second: usize, room: usize, pair: bool) -> (usize, usize) {
    if first + second <= room {
        return (first, second);
    }
    if !pair {
        return (room, 0);
    }
    let (mut short, mut long) = (first.min(second), first.max(second));
    long = if short > room { short } else { short.max(room - short).min(long) };
    if short + long > room {
        short = room / 2;
        long = short + room % 2;
    }
    if first > second { (long, short) } else { (short, long) }
}
