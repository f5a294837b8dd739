//! An adapter merged into its model: what it left alone stays bit for bit, what it changed is rounded anew.

use super::dequantize::dense_layers;
use super::{QuantizeError, Quantizer, Recipe, checks};
use crate::Model;
use crate::import::Checkpoint;
use crate::weights::owned::{AlignedBytes, Linear};
use crate::weights::{Adapter, format, native};

/// The bytes of an `.electret` file of the model with what was learned, matrix by matrix in the precision that the model
/// has; without an adapter the model again, under another source and licence.
pub fn merge(
    model: &Model<'_>,
    adapter: Option<&Adapter<'_>>,
    source: &str,
    licence: &str,
) -> Result<Vec<u8>, QuantizeError> {
    let checkpoint = Checkpoint::of_model(model, adapter);
    let recipe = Recipe::of_model(model);
    let mut root = Quantizer::new(&checkpoint, &recipe).root(source, licence)?;
    let old = model.root();
    if adapter.is_none_or(|adapter| adapter.words().is_none()) {
        keep(&mut root.embeddings.words, &old.embeddings.words);
    }
    if let Some((new, old)) = root.embeddings.projection.as_mut().zip(old.embeddings.projection.as_ref()) {
        keep(new, old);
    }
    for (index, (new, old)) in root.layers.iter_mut().zip(old.layers.iter()).enumerate() {
        for (part, old) in dense_layers(old) {
            if adapter.is_none_or(|adapter| adapter.low_rank(index, part).is_none()) {
                keep(new.dense_mut(part), old);
            }
        }
    }
    for new in &mut root.heads {
        let Ok(old) = model.head(new.kind) else { continue };
        let trained = adapter.is_some_and(|adapter| adapter.kind == new.kind && adapter.head().is_some());
        for (new, old, stays) in
            [(&mut new.dense, &old.dense, true), (&mut new.output, &old.output, !trained)]
        {
            if let Some((new, old)) = new.as_mut().zip(old.as_ref()).filter(|_| stays) {
                keep(new, old);
            }
        }
    }
    root.checks = checks(&AlignedBytes::copy_of(&root.to_file()))?;
    Ok(root.to_file())
}

/// The old weights under the new biases.
fn keep(new: &mut Linear, old: &format::Linear) {
    new.tiles = old.tiles.to_vec();
    new.smoothing = native(&old.smoothing).to_vec();
    for (new, old) in new.channels.iter_mut().zip(old.channels.iter()) {
        (new.scale, new.column_sum) = (old.scale, old.column_sum);
    }
}
