//! What a run begins with: drawn on the host, so that a seed gives the same weights on every backend.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::objective::Kind;
use crate::ElectraConfig;
use crate::import::Tensors;

/// Fresh weights for a run. For ELECTRA a discriminator and the generator that trains it: one set of embeddings under
/// `electra.embeddings`, the generator's own encoder under `generator`. For masked language modelling the
/// discriminator's encoder with a generator's head.
pub fn fresh_weights(config: &ElectraConfig, kind: Kind, seed: u64) -> Tensors {
    let mut start = Start { tensors: Tensors::default(), random: ChaCha8Rng::seed_from_u64(seed) };
    let (embedding, hidden) = (config.embedding_size, config.hidden_size);
    for (table, rows) in [
        ("word_embeddings", config.vocab_size),
        ("position_embeddings", config.max_position_embeddings),
        ("token_type_embeddings", config.type_vocab_size),
    ] {
        start.matrix(&format!("electra.embeddings.{table}.weight"), [rows, embedding], 0.02);
    }
    start.norm("electra.embeddings.LayerNorm", embedding);
    start.encoder("electra", config);
    let filler = match kind {
        Kind::Mlm => hidden,
        Kind::Electra => {
            start.linear("discriminator_predictions.dense", hidden, hidden);
            start.linear("discriminator_predictions.dense_prediction", 1, hidden);
            let generator = config.generator();
            start.encoder("generator", &generator);
            generator.hidden_size
        }
    };
    start.linear("generator_predictions.dense", embedding, filler);
    start.norm("generator_predictions.LayerNorm", embedding);
    start.vector("generator_lm_head.bias", config.vocab_size, 0.0);
    start.tensors
}

struct Start {
    tensors: Tensors,
    random: ChaCha8Rng,
}

impl Start {
    fn encoder(&mut self, prefix: &str, config: &ElectraConfig) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        if config.has_projection() {
            self.linear(&format!("{prefix}.embeddings_project"), hidden, config.embedding_size);
        }
        for layer in 0..config.num_hidden_layers {
            let layer = format!("{prefix}.encoder.layer.{layer}");
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                self.linear(&format!("{layer}.attention.{part}"), hidden, hidden);
            }
            self.norm(&format!("{layer}.attention.output.LayerNorm"), hidden);
            self.linear(&format!("{layer}.intermediate.dense"), inner, hidden);
            self.linear(&format!("{layer}.output.dense"), hidden, inner);
            self.norm(&format!("{layer}.output.LayerNorm"), hidden);
        }
    }

    /// A dense layer, its bias zero.
    ///
    /// BERT's deviation of 0.02 suits BERT's width. At 128 it starts attention so close to uniform that a small model
    /// stays on the unigram plateau for millions of tokens; queries and keys therefore start at 1/√inputs.
    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) {
        let attends = name.ends_with("query") || name.ends_with("key");
        let deviation = if attends { 1.0 / (inputs as f32).sqrt() } else { 0.02 };
        self.matrix(&format!("{name}.weight"), [outputs, inputs], deviation);
        self.vector(&format!("{name}.bias"), outputs, 0.0);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.vector(&format!("{name}.weight"), width, 1.0);
        self.vector(&format!("{name}.bias"), width, 0.0);
    }

    fn vector(&mut self, name: &str, length: usize, value: f32) {
        self.tensors.insert(name, &[length], vec![value; length]);
    }

    /// A normal distribution cut at two deviations (Box & Muller 1958).
    fn matrix(&mut self, name: &str, shape: [usize; 2], deviation: f32) {
        let mut draw = || {
            let (radius, angle) = (1.0 - self.random.random::<f32>(), self.random.random::<f32>());
            let normal = (-2.0 * radius.ln()).sqrt() * (std::f32::consts::TAU * angle).cos();
            deviation * normal.clamp(-2.0, 2.0)
        };
        let values = (0..shape[0] * shape[1]).map(|_| draw()).collect();
        self.tensors.insert(name, &shape, values);
    }
}
