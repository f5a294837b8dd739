//! Dropout (Srivastava et al. 2014) of what a dense layer adds to the residual stream, while it is learned from.
//!
//! Nothing is remembered of which values fell: the backward pass draws the same numbers again, a row's from the
//! example, the layer, the place and the token.

use crate::random::Random;
use crate::rows::Rows;
use crate::weights::strategy::NormPart;

/// One example's dropout.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// The example's seed.
    pub seed: u64,
    /// How likely a value falls, above 0.0 and below 1.0.
    pub rate: f32,
}

impl Dropout {
    /// Drops values of `rows` `[n, width]`, the first of which is token `first`'s, in front of a LayerNorm; those
    /// that stay grow by 1 / (1 − rate).
    pub fn apply(&self, layer: usize, place: NormPart, first: usize, rows: &mut [f32], width: usize) {
        let kept = 1.0 / (1.0 - self.rate);
        for (token, row) in (first as u64..).zip(rows.rows_mut(width)) {
            let row_number = (token << 16 | layer as u64) << 1 | place as u64;
            let mut random = Random::new(self.seed ^ row_number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            // The first numbers of neighbouring seeds are alike.
            random.next();
            for x in row {
                *x = if random.unit() < self.rate { 0.0 } else { *x * kept };
            }
        }
    }
}
