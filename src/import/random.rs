//! A checkpoint of any shape with random weights: what speed and memory are measured on before
//! there is a trained model.

use super::{Checkpoint, HeadTensors, Tensors};
use crate::ElectraConfig;
use crate::random::Random;
use crate::text::SpecialTokens;

impl Checkpoint {
    /// A discriminator with weights like those of an untrained one: uniform with a standard
    /// deviation of 0.02, LayerNorms at one and zero; the same for the same seed. It knows no
    /// words.
    pub fn random(name: &str, config: ElectraConfig, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut tensors = Tensors::default();
        let ElectraConfig { embedding_size, hidden_size, intermediate_size, .. } = config;
        let mut checkpoint = Self {
            name: name.to_owned(),
            config,
            tensors: Tensors::default(),
            heads: vec![HeadTensors::discriminator(hidden_size)],
            pieces: SpecialTokens::NAMES.map(str::to_owned).to_vec(),
            special: SpecialTokens { pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 },
            uncased: true,
        };
        for (table, rows) in checkpoint.embedding_tables() {
            tensors.insert(&table, &[rows, embedding_size], values(&mut random, rows * embedding_size));
        }
        let mut linear = |name: String, outputs: usize, inputs: usize| {
            tensors.insert(
                &format!("{name}.weight"),
                &[outputs, inputs],
                values(&mut random, outputs * inputs),
            );
            tensors.insert(&format!("{name}.bias"), &[outputs], values(&mut random, outputs));
        };
        if config.has_projection() {
            linear("electra.embeddings_project".to_owned(), hidden_size, embedding_size);
        }
        for layer in 0..config.num_hidden_layers {
            let name = |part: &str| format!("electra.encoder.layer.{layer}.{part}");
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                linear(name(&format!("attention.{part}")), hidden_size, hidden_size);
            }
            linear(name("intermediate.dense"), intermediate_size, hidden_size);
            linear(name("output.dense"), hidden_size, intermediate_size);
        }
        linear("discriminator_predictions.dense".to_owned(), hidden_size, hidden_size);
        linear("discriminator_predictions.dense_prediction".to_owned(), 1, hidden_size);

        let layers = (0..config.num_hidden_layers).flat_map(|layer| {
            ["attention.output", "output"]
                .map(|part| (format!("electra.encoder.layer.{layer}.{part}.LayerNorm"), hidden_size))
        });
        let first = ("electra.embeddings.LayerNorm".to_owned(), embedding_size);
        for (name, width) in core::iter::once(first).chain(layers) {
            tensors.insert(&format!("{name}.weight"), &[width], vec![1.0; width]);
            tensors.insert(&format!("{name}.bias"), &[width], vec![0.0; width]);
        }
        checkpoint.tensors = tensors;
        checkpoint
    }
}

/// `count` weights.
fn values(random: &mut Random, count: usize) -> Vec<f32> {
    // A uniform number in ±√3·σ has the standard deviation σ.
    let width = 2.0 * 3.0_f32.sqrt() * 0.02;
    (0..count).map(|_| (random.unit() - 0.5) * width).collect()
}
