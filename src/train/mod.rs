//! Pre-training ELECTRA (feature `train`): raw text in, a trained generator and discriminator out.
//!
//! [`corpus`] turns text into a vocabulary and packed examples; [`trainer`] runs the joint
//! [`objective`] over them with the recipe's [`optimizer`]; [`checkpoint`] makes a run resumable to
//! the same losses; [`export`] writes Hugging Face folders. Everything is generic over Burn's
//! backends: its own for the CPU, libtorch (feature `tch`), and Vulkan, Metal or DirectX (`wgpu`). The recipe, value by value, is that
//! of google-research/electra; the equations stand in [`model`].

pub mod checkpoint;
pub mod corpus;
pub mod export;
pub mod heldout;
pub mod model;
pub mod objective;
pub mod optimizer;
pub mod start;
pub mod trainer;
pub mod weights;
