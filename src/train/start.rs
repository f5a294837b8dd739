//! What a run begins with: drawn on the host, so that a seed gives the same weights on every backend.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::model::WORD_DELTA;
use super::objective::Kind;
use super::run::{Positions, Run, Sharing};
use crate::ElectraConfig;
use crate::import::{HeadTensors, Tensors};

/// Fresh weights for a run: the discriminator's encoder under `electra`, its heads, and, unless it is trained by
/// masked language modelling alone, the generator beside it, with what the two do not share.
pub fn fresh_weights(run: &Run, config: &ElectraConfig) -> Tensors {
    let mut start = Start { tensors: Tensors::default(), random: ChaCha8Rng::seed_from_u64(run.seed) };
    let kind = run.objective.kind;
    start.embeddings("electra", config, run.positions);
    start.encoder("electra", config);
    if kind.detects() || kind == Kind::AllTokensMlm {
        start.linear("discriminator_predictions.dense", config.hidden_size, config.hidden_size);
        start.linear("discriminator_predictions.dense_prediction", 1, config.hidden_size);
    }
    if kind == Kind::Mlm {
        start.language_head("generator", config);
        return start.tensors;
    }
    let generator = run.generator_config(config);
    match run.generator.sharing {
        Sharing::Embeddings => start.encoder("generator", &generator),
        Sharing::Gdes => {
            start.encoder("generator", &generator);
            start.zeros(WORD_DELTA, [config.vocab_size, config.embedding_size]);
        }
        Sharing::None => {
            start.embeddings("generator", &generator, run.positions);
            start.encoder("generator", &generator);
        }
        Sharing::All => {}
    }
    start.language_head("generator", &generator);
    if !kind.detects() {
        start.language_head("electra", config);
    }
    start.tensors
}

/// A task's head by its tensors' names, drawn as the rest is.
pub fn fresh_head(head: &HeadTensors, hidden: usize, seed: u64) -> Tensors {
    let mut start = Start { tensors: Tensors::default(), random: ChaCha8Rng::seed_from_u64(seed) };
    let mut width = hidden;
    if let Some((name, outputs)) = head.dense {
        start.linear(name, outputs, width);
        width = outputs;
    }
    if let Some(name) = head.output {
        start.linear(name, head.labels.len(), width);
    }
    start.tensors
}

struct Start {
    tensors: Tensors,
    random: ChaCha8Rng,
}

impl Start {
    fn embeddings(&mut self, prefix: &str, config: &ElectraConfig, positions: Positions) {
        let name = |table: &str| format!("{prefix}.embeddings.{table}.weight");
        let (words, width) = (config.vocab_size, config.embedding_size);
        self.matrix(&name("word_embeddings"), [words, width], 0.02);
        let shape = [config.max_position_embeddings, width];
        match positions {
            Positions::Random => self.matrix(&name("position_embeddings"), shape, 0.02),
            Positions::Sinusoids => self.sinusoids(&name("position_embeddings"), shape),
        }
        self.matrix(&name("token_type_embeddings"), [config.type_vocab_size, width], 0.02);
        self.norm(&format!("{prefix}.embeddings.LayerNorm"), width);
    }

    fn language_head(&mut self, name: &str, config: &ElectraConfig) {
        self.linear(&format!("{name}_predictions.dense"), config.embedding_size, config.hidden_size);
        self.norm(&format!("{name}_predictions.LayerNorm"), config.embedding_size);
        self.vector(&format!("{name}_lm_head.bias"), config.vocab_size, 0.0);
    }

    fn zeros(&mut self, name: &str, shape: [usize; 2]) {
        self.tensors.insert(name, &shape, vec![0.0; shape[0] * shape[1]]);
    }

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

    /// Sine and cosine of each row's number at falling frequencies (Vaswani et al. 2017, §3.5): a step to the left is
    /// the same rotation everywhere, so that attention learns it once and not for each position. At 0.12 in the mean
    /// square they are six times as loud as words: masks alone, 2 layers × 64, came below a loss of 5.4 after 750 steps of
    /// 4,096 tokens (three times as loud 1,090, twelve times 820, as loud 1,600; drawn at random 1,790).
    fn sinusoids(&mut self, name: &str, [rows, width]: [usize; 2]) {
        let amplitude = 0.12 * std::f32::consts::SQRT_2;
        let values = (0..rows * width).map(|index| {
            let (row, column) = (index / width, index % width);
            let angle = row as f32 * 10_000_f32.powf(-2.0 * (column / 2) as f32 / width as f32);
            amplitude * if column % 2 == 0 { angle.sin() } else { angle.cos() }
        });
        self.tensors.insert(name, &[rows, width], values.collect());
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
