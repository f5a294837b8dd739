//! What goes into each dense layer while the f32 reference reads a calibration text.

use std::collections::BTreeMap;

use ndarray::Array2;

use super::dequantize::layer_name;
use super::{QuantizeError, vocabulary_archive};
use crate::import::Checkpoint;
use crate::reference::{Reference, Sequence};
use crate::text::{Input, Token, Tokenizer};
use crate::weights::access_vocabulary;
use crate::weights::strategy::Part;

/// Σ x·xᵀ over the inputs x of dense layers `[inputs, inputs]`, by the layers' names.
pub type Moments = BTreeMap<String, Array2<f32>>;

/// The sequences of a text on their way through the layers, one layer at a time.
pub struct Calibration<'a> {
    reference: Reference<'a>,
    sequences: Vec<Sequence>,
    states: Vec<Array2<f32>>,
}

impl<'a> Calibration<'a> {
    /// The sequences before the first layer.
    pub fn new(checkpoint: &'a Checkpoint, texts: &[String]) -> Result<Self, QuantizeError> {
        let reference = Reference(checkpoint);
        let sequences = tokenised(checkpoint, texts)?;
        let sequences: Vec<Sequence> = sequences.iter().map(|tokens| Sequence::of(tokens)).collect();
        let states = sequences.iter().map(|sequence| reference.embed(sequence)).collect::<Result<_, _>>()?;
        Ok(Self { reference, sequences, states })
    }

    /// The moments of the next layer's dense layers; the layers come in order.
    pub fn layer(&mut self, layer: usize) -> Result<Moments, QuantizeError> {
        let mut moments = Moments::new();
        for (state, sequence) in self.states.iter_mut().zip(&self.sequences) {
            *state = self.reference.layer(layer, state, sequence, &mut |part, x| {
                let product = x.t().dot(&x);
                let name = format!("electra.encoder.layer.{layer}.{part}");
                moments.entry(name).and_modify(|sum| *sum += &product).or_insert(product);
            })?;
        }
        if let Some(read) = moments.get(&layer_name(layer, Part::Query)).cloned() {
            moments.insert(layer_name(layer, Part::Key), read.clone());
            moments.insert(layer_name(layer, Part::Value), read);
        }
        Ok(moments)
    }
}

/// The texts as tokens; those that do not fit are truncated, empty ones passed over.
pub fn tokenised(checkpoint: &Checkpoint, texts: &[String]) -> Result<Vec<Vec<Token>>, QuantizeError> {
    let archive = vocabulary_archive(&checkpoint.pieces, &checkpoint.special, checkpoint.uncased);
    let tokenizer = Tokenizer::new(access_vocabulary(archive.as_slice())?);
    let mut tokens = vec![Token::default(); checkpoint.config.max_position_embeddings];
    let mut sequences = Vec::new();
    for text in texts {
        let length = tokenizer.encode(Input { text, pair: None, truncate: true }, &mut tokens)?;
        if length > 2 {
            sequences.push(tokens[..length].to_vec());
        }
    }
    Ok(sequences)
}
