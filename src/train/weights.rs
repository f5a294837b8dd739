//! The trainable tensors by their Hugging Face names.
//!
//! Every parameter of ELECTRA is a matrix or a vector. Matrices keep PyTorch's `[out, in]` layout
//! and take weight decay; vectors (biases, LayerNorm) do not. Holding them by name makes loading,
//! checkpointing and export one loop each, and sharing a tensor is using its name twice.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use burn::tensor::{
    Int, Tensor, TensorData,
    backend::{AutodiffBackend, Backend},
};

use crate::import::Tensors;

/// Parameters or optimiser moments: one tensor a name.
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

    /// Tensors as leaves, of which gradients are wanted.
    pub fn leaves(inner: Weights<B::InnerBackend>) -> Self
    where
        B: AutodiffBackend,
    {
        let matrices = inner.matrices.into_iter().map(|(n, t)| (n, Tensor::from_inner(t).require_grad()));
        let vectors = inner.vectors.into_iter().map(|(n, t)| (n, Tensor::from_inner(t).require_grad()));
        Self { matrices: matrices.collect(), vectors: vectors.collect() }
    }

    /// The same tensors without what differentiation needs.
    pub fn inner(&self) -> Weights<B::InnerBackend>
    where
        B: AutodiffBackend,
    {
        let matrices = self.matrices.iter().map(|(name, tensor)| (name.clone(), tensor.clone().inner()));
        let vectors = self.vectors.iter().map(|(name, tensor)| (name.clone(), tensor.clone().inner()));
        Weights { matrices: matrices.collect(), vectors: vectors.collect() }
    }

    /// Takes a tensor's values out, row by row.
    pub fn take_flat(&mut self, name: &str) -> Option<Tensor<B, 1>> {
        let matrix = self.matrices.remove(name).map(|matrix| matrix.flatten(0, 1));
        matrix.or_else(|| self.vectors.remove(name))
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
}

/// The values of a tensor of that name on the host.
pub(super) fn host_values(data: TensorData, name: &str) -> Result<Vec<f32>> {
    data.to_vec::<f32>()
        .map_err(|error| anyhow::anyhow!("{error:?}"))
        .with_context(|| format!("tensor {name}: not f32 on this backend"))
}

/// Values of the host as a vector of the device.
pub fn vector<B: Backend>(values: Vec<f32>, device: &B::Device) -> Tensor<B, 1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

/// Ids of the host as a vector of the device.
pub fn ids<B: Backend>(values: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
