//! What a backend does better than Burn's operations one after another.
//!
//! The defaults are the equations as [`Network`] has them, which Burn differentiates: one node of its graph, and one or
//! more launches on a device, an operation. A backend that has whole pieces of a network of its own puts them in their
//! place; it owes the same values and gradients, to rounding.

use burn::tensor::{
    Int, Tensor,
    activation::log_softmax,
    backend::{AutodiffBackend, Backend},
};

use super::learner::Gradients;
use super::model::Network;
use super::objective::Shown;
use super::weights;

/// A backend that networks can be run on.
pub trait Kernels: Backend {
    /// Values of the host as vectors of a device, not waiting for what the device still has to do if that can be helped.
    fn send(
        ids: Vec<i32>,
        numbers: Vec<f32>,
        device: &Self::Device,
    ) -> (Tensor<Self, 1, Int>, Tensor<Self, 1>) {
        (weights::ids(ids, device), weights::vector(numbers, device))
    }

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
pub trait Differentiable: Kernels + AutodiffBackend<InnerBackend: Kernels> {
    /// What a device was told to do for a part of a batch, if it can repeat that without being told again.
    type Recording: Default;

    /// What `compute` returns, which does the same at every call of a run, from nothing but `inputs`.
    fn part<'a>(
        recording: &mut Self::Recording,
        inputs: Inputs<Self::InnerBackend>,
        compute: impl FnOnce() -> Computed<'a, Self::InnerBackend>,
    ) -> Computed<'a, Self::InnerBackend>;
}

/// All tensors that change from one part of a batch to the next.
#[derive(Clone, Debug)]
pub struct Inputs<B: Backend> {
    /// A part's ids.
    pub ids: Tensor<B, 1, Int>,
    /// Its numbers, and the weights.
    pub vectors: Vec<Tensor<B, 1>>,
}

/// What one part of a batch gives, still on its device.
pub struct Computed<'a, B: Backend> {
    /// The gradients of what the run minimises, each piece computed when it is asked for: see
    /// [`Learner::gradients`](super::learner::Learner::gradients).
    pub gradients: Box<dyn Iterator<Item = Gradients<B>> + 'a>,
    /// What there is to see.
    pub shown: Shown<B>,
}

/// What is added to attention's scores, `[batch, 1, 1, sequence]`: 0 on tokens, −10,000 on padding.
pub type Mask<B> = Tensor<B, 4>;

/// A backend that does everything as Burn tells it, each time.
macro_rules! plain {
    ($backend:ty) => {
        impl Kernels for $backend {}
        impl Kernels for burn::backend::Autodiff<$backend> {}
        impl Differentiable for burn::backend::Autodiff<$backend> {
            type Recording = ();

            fn part<'a>(
                (): &mut (),
                _: Inputs<$backend>,
                compute: impl FnOnce() -> Computed<'a, $backend>,
            ) -> Computed<'a, $backend> {
                compute()
            }
        }
    };
}

plain!(burn::backend::Flex);
#[cfg(feature = "wgpu")]
plain!(burn::backend::Wgpu);
#[cfg(feature = "cuda")]
plain!(burn::backend::Cuda);
