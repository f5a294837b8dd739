//! A text as one vector.

use super::Session;
use crate::Error;
use crate::kernels::lanes::sqrt;
use crate::rows::Rows;
use crate::text::Input;
use crate::weights::check_finite;

/// How the tokens' vectors become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean, special tokens included, as sentence-transformers does.
    Mean,
    /// The first token's, `[CLS]`.
    First,
}

impl Session<'_, '_> {
    /// The embedding `[hidden]`, of length 1.
    ///
    /// # Errors
    /// Those of [`Session::encode`].
    pub fn embed(&mut self, input: Input<'_>, pooling: Pooling) -> Result<&[f32], Error> {
        let hidden = self.network.model.config().hidden_size;
        let (workspace, length) = self.encoded(input)?;
        let count = match pooling {
            Pooling::Mean => length,
            Pooling::First => 1,
        };
        let (first, rest) = workspace.residual.split_at_mut_checked(hidden).unwrap_or_default();
        for row in rest.rows(hidden).take(count - 1) {
            for (sum, &x) in first.iter_mut().zip(row) {
                *sum += x;
            }
        }
        let squares: f32 = first.iter().map(|x| x * x).sum();
        let inverse = 1.0 / sqrt(squares);
        for x in first.iter_mut() {
            *x *= inverse;
        }
        check_finite(first)?;
        Ok(first)
    }
}
