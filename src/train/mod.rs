//! Pre-training ELECTRA (feature `train`): raw text in, a trained generator and discriminator out.
//!
//! [`corpus`] turns text into a vocabulary and packed examples. A [`run`] is what one TOML file says; [`trainer`]
//! does its steps: [`start`] is what it begins with, [`masked`] draws them, [`placed`] is where they lie on a device, [`objective`] and [`model`] hold
//! the equations, [`kernels`] is what a backend does better, [`learner`] holds what is learnt, [`optimizer`] is the
//! recipe's Adam, [`ranks`] are the processes that share them, which sum gradients while [`tape`] still finds others.
//! [`checkpoint`] makes a run resumable to the same losses, [`curve`], [`tensorboard`] and [`report`] show it,
//! [`heldout`] judges it, [`finetune`] teaches it a task, [`export`] writes Hugging Face folders. Everything is
//! generic over Burn's backends: its own for the CPU, CUDA (feature `cuda`), libtorch (`tch`), and Vulkan, Metal or
//! DirectX (`wgpu`). The recipe, value by value, is that of google-research/electra.

pub mod checkpoint;
pub mod corpus;
#[cfg(feature = "tch")]
#[allow(unsafe_code)]
mod cuda_graph;
pub mod curve;
pub mod export;
pub mod finetune;
pub mod heldout;
pub mod kernels;
pub mod learner;
#[cfg(feature = "tch")]
mod libtorch;
pub mod masked;
pub mod model;
pub mod objective;
pub mod optimizer;
pub mod peak;
pub mod placed;
pub mod ranks;
pub mod report;
pub mod run;
pub mod start;
pub mod tape;
pub mod tensorboard;
pub mod trainer;
mod warm;
pub mod weights;
