//! What a backend does better than Burn's operations one after another.
//!
//! The defaults are the equations as [`Network`] has them, which Burn differentiates: one node of its graph, and one or
//! more launches on a device, an operation. A backend that has whole pieces of a network of its own puts them in their
//! place; it owes the same values and gradients, to rounding.

use burn::tensor::{
    Tensor,
    activation::log_softmax,
    backend::{AutodiffBackend, Backend},
};

use super::model::Network;

/// A backend that networks can be run on.
pub trait Kernels: Backend {
    /// One encoder layer, `[batch · sequence, hidden]` in and out: see [`Network::layer`].
    fn layer(
        network: &Network<'_, Self>,
        name: &str,
        x: Tensor<Self, 2>,
        mask: &Mask<Self>,
    ) -> Tensor<Self, 2> {
        network.layer(name, x, mask)
    }

    /// ln softmax of each row of `[rows, classes]`.
    fn log_probabilities(logits: Tensor<Self, 2>) -> Tensor<Self, 2> {
        log_softmax(logits, 1)
    }
}

/// A backend that networks can be trained on.
pub trait Differentiable: Kernels + AutodiffBackend<InnerBackend: Kernels> {}

impl<B: Kernels + AutodiffBackend<InnerBackend: Kernels>> Differentiable for B {}

/// What is added to attention's scores, `[batch, 1, 1, sequence]`: 0 on tokens, −10,000 on padding.
pub type Mask<B> = Tensor<B, 4>;

impl Kernels for burn::backend::Flex {}
impl Kernels for burn::backend::Autodiff<burn::backend::Flex> {}
#[cfg(feature = "wgpu")]
impl Kernels for burn::backend::Wgpu {}
#[cfg(feature = "wgpu")]
impl Kernels for burn::backend::Autodiff<burn::backend::Wgpu> {}
#[cfg(feature = "cuda")]
impl Kernels for burn::backend::Cuda {}
#[cfg(feature = "cuda")]
impl Kernels for burn::backend::Autodiff<burn::backend::Cuda> {}
