//! The generator's question: which piece stands here?

use super::{Session, head};
use crate::Error;
use crate::encoder::{Block, Scratch, Workspace, quantize_rows};
use crate::kernels::{KernelSet, Matmul};
use crate::text::{Input, Token};
use crate::weights::format::Head;
use crate::weights::{HeadKind, Model};

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
        self.model.head(HeadKind::FillMask)?;
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
        let head = self.model.head(HeadKind::FillMask)?;
        let mut workspace = Workspace::carve(self.arena, &self.plan)?;
        predict(&self.model, head, self.kernels, &mut workspace, length);
        let Workspace { tokens, residual, .. } = workspace;
        let predictions = residual.get(..length * 2).unwrap_or_default();
        let tokens = tokens.get(..length).unwrap_or_default();
        Ok((tokens, bytemuck::try_cast_slice(predictions).unwrap_or_default()))
    }
}

/// Writes each token's prediction over the front of the residual stream. The vocabulary's logits
/// are never all there: they are computed in blocks of channels, of which the largest is kept.
fn predict(
    model: &Model<'_>,
    head: &Head,
    kernels: &KernelSet,
    workspace: &mut Workspace<'_>,
    length: usize,
) {
    let config = model.config();
    let words = &model.root().embeddings.words;
    let depth = config.embedding_size.div_ceil(8);
    for index in 0..length {
        let here = index * config.hidden_size..(index + 1) * config.hidden_size;
        let x = workspace.residual.get(here).unwrap_or_default();
        let block = &mut workspace.block;
        let Block { rows, scales, wide, narrow } = block;
        let mut scratch = Scratch { rows, scales, smoothed: &mut [] };
        let features = head::features(model, head, kernels, x, &mut scratch, narrow);
        quantize_rows(kernels, rows, scales, features, config.embedding_size);
        let mut best = Prediction { id: 0, logit: f32::NEG_INFINITY };
        let channels_at_once = (wide.len() / 16).max(1);
        let parts = words.channels.chunks(channels_at_once).zip(words.tiles.chunks(channels_at_once * depth));
        for (part, (channels, tiles)) in parts.enumerate() {
            let first = part * channels_at_once * 16;
            let width = (channels.len() * 16).min(config.vocab_size - first);
            let logits = wide.get_mut(..width).unwrap_or_default();
            (kernels.matmul)(Matmul {
                rows: rows.get(..depth * 8).unwrap_or_default(),
                row_scales: scales.get(..1).unwrap_or_default(),
                tiles,
                channels,
                out: logits,
                width,
            });
            for (id, &logit) in (first as u32..).zip(logits.iter()) {
                if logit > best.logit {
                    best = Prediction { id, logit };
                }
            }
        }
        if let Some(place) = workspace.residual.get_mut(index * 2..index * 2 + 2) {
            place.copy_from_slice(&[f32::from_bits(best.id), best.logit]);
        }
    }
}
