//! The trainable tensors by their Hugging Face names.
//!
//! Every parameter of ELECTRA is a matrix or a vector. Matrices keep PyTorch's `[out, in]` layout
//! and take weight decay; vectors (biases, LayerNorm) do not. Holding them by name makes loading,
//! checkpointing, gradients and export one loop each, and sharing a tensor is using its name twice.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Distribution, Tensor, TensorData, backend::Backend};

use super::objective::Kind;
use crate::ElectraConfig;
use crate::import::Tensors;

/// Parameters, gradients or optimiser moments: one tensor a name.
#[derive(Clone, Debug)]
pub struct Weights<B: Backend> {
    /// Rank 2, `[out, in]`; embedding tables are `[rows, embedding_size]`.
    pub matrices: BTreeMap<String, Tensor<B, 2>>,
    /// Rank 1: biases, LayerNorm weights and biases.
    pub vectors: BTreeMap<String, Tensor<B, 1>>,
}

impl<B: Backend> Default for Weights<B> {
    fn default() -> Self {
        Self { matrices: BTreeMap::new(), vectors: BTreeMap::new() }
    }
}

impl<B: Backend> Weights<B> {
    /// The matrix of that name. Panics if the network was built without it, which is a bug of ours.
    pub fn matrix(&self, name: &str) -> Tensor<B, 2> {
        self.matrices.get(name).unwrap_or_else(|| panic!("no matrix {name}")).clone()
    }

    /// The vector of that name. Panics as [`Weights::matrix`] does.
    pub fn vector(&self, name: &str) -> Tensor<B, 1> {
        self.vectors.get(name).unwrap_or_else(|| panic!("no vector {name}")).clone()
    }

    /// Number of trainable values.
    pub fn count(&self) -> usize {
        self.matrices.values().map(|m| m.shape().num_elements()).sum::<usize>()
            + self.vectors.values().map(|v| v.shape().num_elements()).sum::<usize>()
    }

    /// Marks every tensor as a leaf whose gradient is wanted.
    pub fn require_grad(self) -> Self {
        Self {
            matrices: self.matrices.into_iter().map(|(n, t)| (n, t.require_grad())).collect(),
            vectors: self.vectors.into_iter().map(|(n, t)| (n, t.require_grad())).collect(),
        }
    }

    /// Copies plain tensors onto a device.
    pub fn from_tensors(tensors: &Tensors, device: &B::Device) -> Result<Self> {
        let mut weights = Self::default();
        for (name, tensor) in tensors.iter() {
            let values = tensor.iter().copied().collect::<Vec<f32>>();
            match *tensor.shape() {
                [rows, columns] => {
                    let data = TensorData::new(values, [rows, columns]);
                    weights.matrices.insert(name.clone(), Tensor::from_data(data, device));
                }
                [length] => {
                    let data = TensorData::new(values, [length]);
                    weights.vectors.insert(name.clone(), Tensor::from_data(data, device));
                }
                ref shape => bail!("tensor {name}: rank {} where 1 or 2 is expected", shape.len()),
            }
        }
        Ok(weights)
    }

    /// Copies every tensor back to the host.
    pub fn to_tensors(&self) -> Result<Tensors> {
        let mut tensors = Tensors::default();
        for (name, matrix) in &self.matrices {
            tensors.insert(name, &matrix.dims(), host_values(matrix.to_data(), name)?);
        }
        for (name, vector) in &self.vectors {
            tensors.insert(name, &vector.dims(), host_values(vector.to_data(), name)?);
        }
        Ok(tensors)
    }

    /// A dense layer, its bias zero.
    ///
    /// BERT's deviation of 0.02 suits BERT's width. At 128 it starts attention so close to uniform
    /// that a small model stays on the unigram plateau for millions of tokens; queries and keys
    /// therefore start at 1/√inputs.
    fn init_linear(&mut self, name: &str, outputs: usize, inputs: usize, device: &B::Device) {
        let attends = name.ends_with("query") || name.ends_with("key");
        let deviation = if attends { 1.0 / (inputs as f64).sqrt() } else { 0.02 };
        self.init_matrix(&format!("{name}.weight"), [outputs, inputs], deviation, device);
        self.vectors.insert(format!("{name}.bias"), Tensor::zeros([outputs], device));
    }

    /// A normal distribution cut at two deviations.
    fn init_matrix(&mut self, name: &str, shape: [usize; 2], deviation: f64, device: &B::Device) {
        let normal = Tensor::random(shape, Distribution::Normal(0.0, deviation), device);
        self.matrices.insert(name.to_owned(), normal.clamp(-2.0 * deviation, 2.0 * deviation));
    }

    fn init_norm(&mut self, name: &str, width: usize, device: &B::Device) {
        self.vectors.insert(format!("{name}.weight"), Tensor::ones([width], device));
        self.vectors.insert(format!("{name}.bias"), Tensor::zeros([width], device));
    }

    fn init_encoder(&mut self, prefix: &str, config: &ElectraConfig, device: &B::Device) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        if config.has_projection() {
            let name = format!("{prefix}.embeddings_project");
            self.init_linear(&name, hidden, config.embedding_size, device);
        }
        for layer in 0..config.num_hidden_layers {
            let layer = format!("{prefix}.encoder.layer.{layer}");
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                self.init_linear(&format!("{layer}.attention.{part}"), hidden, hidden, device);
            }
            self.init_norm(&format!("{layer}.attention.output.LayerNorm"), hidden, device);
            self.init_linear(&format!("{layer}.intermediate.dense"), inner, hidden, device);
            self.init_linear(&format!("{layer}.output.dense"), hidden, inner, device);
            self.init_norm(&format!("{layer}.output.LayerNorm"), hidden, device);
        }
    }

    /// Fresh weights for a run. For ELECTRA a discriminator and the generator that trains it: one
    /// set of embeddings under `electra.embeddings`, the generator's own encoder under `generator`.
    /// For masked language modelling the discriminator's encoder with a generator's head.
    pub fn init_pretraining(config: &ElectraConfig, kind: Kind, seed: u64, device: &B::Device) -> Self {
        B::seed(device, seed);
        let mut weights = Self::default();
        let (embedding, hidden) = (config.embedding_size, config.hidden_size);
        for (table, rows) in [
            ("word_embeddings", config.vocab_size),
            ("position_embeddings", config.max_position_embeddings),
            ("token_type_embeddings", config.type_vocab_size),
        ] {
            let name = format!("electra.embeddings.{table}.weight");
            weights.init_matrix(&name, [rows, embedding], 0.02, device);
        }
        weights.init_norm("electra.embeddings.LayerNorm", embedding, device);
        weights.init_encoder("electra", config, device);
        let filler = match kind {
            Kind::Mlm => hidden,
            Kind::Electra => {
                weights.init_linear("discriminator_predictions.dense", hidden, hidden, device);
                weights.init_linear("discriminator_predictions.dense_prediction", 1, hidden, device);
                let generator = config.generator();
                weights.init_encoder("generator", &generator, device);
                generator.hidden_size
            }
        };
        weights.init_linear("generator_predictions.dense", embedding, filler, device);
        weights.init_norm("generator_predictions.LayerNorm", embedding, device);
        let bias = Tensor::zeros([config.vocab_size], device);
        weights.vectors.insert("generator_lm_head.bias".to_owned(), bias);
        weights
    }

    /// Takes the encoder `electra.…` of other weights over, which must have the same shapes.
    pub fn adopt_encoder(&mut self, other: &Self) -> Result<()> {
        for (name, tensor) in self.matrices.iter_mut().filter(|(name, _)| name.starts_with("electra.")) {
            let found = other.matrices.get(name).with_context(|| format!("tensor {name}: missing"))?;
            ensure!(found.dims() == tensor.dims(), "tensor {name}: another shape");
            *tensor = found.clone();
        }
        for (name, tensor) in self.vectors.iter_mut().filter(|(name, _)| name.starts_with("electra.")) {
            let found = other.vectors.get(name).with_context(|| format!("tensor {name}: missing"))?;
            ensure!(found.dims() == tensor.dims(), "tensor {name}: another shape");
            *tensor = found.clone();
        }
        Ok(())
    }
}

fn host_values(data: TensorData, name: &str) -> Result<Vec<f32>> {
    data.to_vec::<f32>()
        .map_err(|error| anyhow::anyhow!("{error:?}"))
        .with_context(|| format!("tensor {name}: not f32 on this backend"))
}
