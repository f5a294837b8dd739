//! The generator's question: which piece stands here?

use super::{Session, head};
use crate::Error;
use crate::encoder::{Network, Scratch, Workspace, product, quantize_finely};
use crate::text::{Input, Token};
use crate::weights::{HeadKind, check_finite};

/// The likeliest piece at a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Prediction {
    /// Its id.
    pub id: u32,
    /// Its logit.
    pub logit: f32,
}

impl Session<'_, '_> {
    /// The tokens, and the likeliest piece at each.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`], and those of [`Session::encode`].
    pub fn fill_mask(&mut self, input: Input<'_>) -> Result<(&[Token], &[Prediction]), Error> {
        self.network.head(HeadKind::FillMask)?;
        let (_, length) = self.encoded(input)?;
        self.finish_predictions(length)
    }

    /// The same for tokens that are already there.
    ///
    /// # Errors
    /// As [`Session::token_logits_of`].
    pub fn predictions_of(&mut self, tokens: &[Token]) -> Result<&[Prediction], Error> {
        self.encode_tokens(tokens)?;
        Ok(self.finish_predictions(tokens.len())?.1)
    }

    fn finish_predictions(&mut self, length: usize) -> Result<(&[Token], &[Prediction]), Error> {
        let mut workspace = Workspace::carve(self.arena, &self.plan)?;
        predict(&self.network, &mut workspace, length)?;
        let Workspace { tokens, residual, .. } = workspace;
        let predictions = residual.get(..length * 2).unwrap_or_default();
        let tokens = tokens.get(..length).unwrap_or_default();
        Ok((tokens, bytemuck::try_cast_slice(predictions).unwrap_or_default()))
    }
}

/// Writes each token's prediction over the front of the residual stream. The vocabulary's logits
/// are never all there: they are computed in blocks of channels, of which the largest is kept.
///
/// Among 30,000 pieces the first two are often close, so the features go in with 16 bits, as two
/// rows of int8: what 8 bits say, and what they leave over.
fn predict(network: &Network<'_>, workspace: &mut Workspace<'_>, length: usize) -> Result<(), Error> {
    let (head, kernels) = (network.head(HeadKind::FillMask)?, network.kernels);
    let config = network.model.config();
    let words = &network.model.root().embeddings.words;
    for index in 0..length {
        let here = index * config.hidden_size..(index + 1) * config.hidden_size;
        let x = workspace.residual.get(here).unwrap_or_default();
        let (mut scratch, wide, narrow) = workspace.block.split();
        let n = head::features(network, &head, x, &mut scratch, narrow).len();
        let features = narrow.get_mut(..n).unwrap_or_default();
        let Scratch { rows, strip, .. } = scratch;
        let rows = rows.get_mut(..2 * words.depth() * 8).unwrap_or_default();
        let scales = quantize_finely(kernels, features, rows);
        let mut best = Prediction { id: 0, logit: f32::NEG_INFINITY };
        let channels_at_once = (wide.len() / 32).max(1);
        let starts = (0..).step_by(channels_at_once);
        for (block, channels) in starts.zip(words.channels.chunks(channels_at_once)) {
            let first = block * 16;
            let width = (channels.len() * 16).min(config.vocab_size - first);
            let logits = wide.get_mut(..2 * width).unwrap_or_default();
            let blocks = block..block + channels.len();
            product(kernels, words, blocks, (rows, &scales), strip, logits);
            let (coarse, fine) = logits.split_at_checked(width).unwrap_or_default();
            let biases = channels.iter().flat_map(|channels| &channels.bias);
            for (id, ((coarse, fine), bias)) in (first as u32..).zip(coarse.iter().zip(fine).zip(biases)) {
                // Both products carry the bias.
                let logit = coarse + (fine - bias);
                if logit > best.logit {
                    best = Prediction { id, logit };
                }
            }
        }
        check_finite(&[best.logit])?;
        if let Some(place) = workspace.residual.get_mut(index * 2..index * 2 + 2) {
            place.copy_from_slice(&[f32::from_bits(best.id), best.logit]);
        }
    }
    Ok(())
}
