//! A label for each word.

use super::Session;
use crate::Error;
use crate::encoder::Workspace;
use crate::rows::Rows;
use crate::text::Input;
use crate::weights::HeadKind;

/// A word with the label of its first piece.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tagged {
    /// First byte in the text.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Number of the likeliest label.
    pub label: usize,
    /// Its probability.
    pub score: f32,
}

impl Session<'_, '_> {
    /// The likeliest label of each word, in order.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`], and those of [`Session::encode`].
    pub fn tag(&mut self, input: Input<'_>) -> Result<impl Iterator<Item = Tagged>, Error> {
        let labels = self.label_count(HeadKind::Tag)?;
        let length = self.token_logits(HeadKind::Tag, input)?.tokens.len();
        let Workspace { tokens, residual, .. } = Workspace::carve(self.arena, &self.plan)?;
        let scores = residual.get_mut(..length * labels).unwrap_or_default();
        scores.rows_mut(labels).for_each(self.network.kernels.softmax);
        let tokens = tokens.get(..length).unwrap_or_default();
        let first_pieces = tokens.iter().zip(scores.rows(labels)).enumerate();
        let first_pieces = first_pieces.filter(|(_, (token, _))| token.special == 0 && token.continues == 0);
        Ok(first_pieces.map(|(index, (token, scores))| {
            let rest = tokens.get(index + 1..).unwrap_or_default();
            let last = rest.iter().take_while(|token| token.continues == 1).last().unwrap_or(token);
            let best = scores.iter().copied().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
            let (label, score) = best.unwrap_or_default();
            Tagged { start: token.start, end: last.end, label, score }
        }))
    }
}
