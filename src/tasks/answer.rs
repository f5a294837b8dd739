//! Extractive question answering: where in the context does the answer stand?

use super::{Session, TokenLogits};
use crate::Error;
use crate::text::Input;
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
    /// The best answer of at most 30 tokens. A context that does not fit loses its end.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`], [`Error::EmptyText`] for an empty context, those of
    /// [`Session::encode`].
    pub fn answer(&mut self, question: &str, context: &str) -> Result<Answer, Error> {
        let input = Input { text: question, pair: Some(context), truncate: true };
        self.token_logits(HeadKind::Answer, input)?.best_answer().ok_or(Error::EmptyText)
    }
}

impl TokenLogits<'_> {
    /// The best answer of at most 30 tokens by an answer head's logits; none without a context.
    pub(crate) fn best_answer(&self) -> Option<Answer> {
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
