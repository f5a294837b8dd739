//! Extractive question answering: where in the context does the answer stand?

use super::{Session, TokenLogits};
use crate::Error;
use crate::text::{Input, Token};
use crate::weights::HeadKind;

/// Longest answer in tokens.
const MAX_ANSWER_TOKENS: usize = 30;

/// A span of the context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// First byte in the context.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Sum of the logits of its first and last token.
    pub score: f32,
}

impl Session<'_, '_> {
    /// The best answer of at most 30 tokens. A context that does not fit beside the question is read in windows, each
    /// from the middle of the one before: it takes some twice the time of a pass over it, and no more memory. Of a question
    /// that is longer than half a window its end is not read.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`], [`Error::EmptyText`] for an empty context, those of
    /// [`Session::encode`].
    pub fn answer(&mut self, question: &str, context: &str) -> Result<Answer, Error> {
        let mut windows = Windows::new(context);
        while let Some(part) = windows.part() {
            let input = Input { text: question, pair: Some(part), truncate: true };
            windows.take(&self.token_logits(HeadKind::Answer, input)?);
        }
        windows.best().ok_or(Error::EmptyText)
    }
}

/// The windows in which a context is read, as SQuAD's scripts read long ones: each begins at a word in the middle of the
/// one before, so that whatever is shorter than half a window stands in one of them whole.
#[derive(Debug)]
pub(crate) struct Windows<'c> {
    context: &'c str,
    /// First byte of the next window; `None` when the end was seen.
    next: Option<usize>,
    /// One past the last byte that was in a window.
    seen: usize,
    best: Option<Answer>,
}

/// Bytes of a context that are tokenised for a window, so that a long one is not tokenised to its end for each. 512 tokens
/// of prose have fewer.
const PART: usize = 1 << 12;

impl<'c> Windows<'c> {
    pub(crate) const fn new(context: &'c str) -> Self {
        Self { context, next: Some(0), seen: 0, best: None }
    }

    /// The text to read next, of which a window may hold the beginning only; none when all was read.
    pub(crate) fn part(&self) -> Option<&'c str> {
        let rest = self.context.get(self.next?..)?;
        rest.get(..rest.floor_char_boundary(PART))
    }

    /// First byte of that text in the context.
    pub(crate) fn start(&self) -> usize {
        self.next.unwrap_or(self.context.len())
    }

    /// Goes on behind a window with those tokens.
    pub(crate) fn advance(&mut self, tokens: &[Token]) {
        let (start, part) = (self.start(), self.part().unwrap_or_default());
        let context = || tokens.iter().filter(|token| token.type_id == 1 && token.special == 0);
        let end = start + context().next_back().map_or(0, |token| token.end as usize);
        let middle = || context().skip(context().count() / 2).filter(|token| token.start > 0);
        let word = middle().find(|token| token.continues == 0).or_else(|| middle().next());
        let next = match word {
            Some(word) if end > self.seen => start + word.start as usize,
            _ if end > start => end,
            // Nothing here is a token, or none had room.
            _ => start + part.len(),
        };
        let rest = self.context.get(end..).unwrap_or_default();
        self.next = Some(next).filter(|&next| next < self.context.len() && !rest.trim_start().is_empty());
        self.seen = self.seen.max(end);
    }

    /// Takes an answer head's logits of the window, and goes on behind it.
    pub(crate) fn take(&mut self, read: &TokenLogits<'_>) {
        let start = self.start();
        let here = read.best_answer().map(|answer| Answer {
            start: start + answer.start,
            end: start + answer.end,
            ..answer
        });
        if let Some(here) = here.filter(|here| self.best.is_none_or(|best| here.score > best.score)) {
            self.best = Some(here);
        }
        self.advance(read.tokens);
    }

    /// The best answer of all windows; none if none had a token of the context.
    pub(crate) const fn best(&self) -> Option<Answer> {
        self.best
    }
}

impl TokenLogits<'_> {
    /// The best answer of at most 30 tokens by an answer head's logits; none without a context.
    fn best_answer(&self) -> Option<Answer> {
        let (logits, _) = self.logits.as_chunks::<2>();
        let context =
            || self.tokens.iter().zip(logits).filter(|(token, _)| token.type_id == 1 && token.special == 0);
        let mut best: Option<Answer> = None;
        for (index, (first, [start_logit, _])) in context().enumerate() {
            for (last, [_, end_logit]) in context().skip(index).take(MAX_ANSWER_TOKENS) {
                let score = start_logit + end_logit;
                if best.is_none_or(|best| score > best.score) {
                    best = Some(Answer { start: first.start as usize, end: last.end as usize, score });
                }
            }
        }
        best
    }
}
