//! **electret** is ELECTRA that stays on the device: a quantised ELECTRA discriminator, which tells the words of a text
//! that do not belong, its tokeniser and its heads, at work in one fixed buffer, without allocator or operating system;
//! and on a desktop the way there, from raw text or a Hugging Face folder to one `.electret` file.
//!
//! For whom: a firmware engineer takes the core (`default-features = false`) and a `static` arena;
//! a mobile engineer links the same core through `app`; an ML engineer trains, converts and verifies with the
//! `electret` command.
//!
//! # The road of a sentence
//!
//! bytes → [`text`] (token ids, segments, byte offsets) → [`encoder`] (rows of the arena) →
//! [`tasks`] (logits) → an answer with byte offsets into the caller's text. Nothing goes back up.
//! The road of a lesson: labelled sentence → the same forward pass → loss → backward through the frozen
//! weights into a few floats ([`tune`]) → an [`Adapter`], judged by a guard, kept in a store.
//! Weights are read in place from the file ([`weights`]); the numeric work is done by the
//! [`kernels`], which give the same bits on every machine; how many bytes all of it takes is known
//! at compile time ([`plan`]).
//!
//! ```
//! use electret::{Aligned, Arena, Model, Plan, Session, TINY};
//!
//! static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../models/electret-tiny.electret"));
//! static PLAN: Plan = Plan::inference(&TINY, 32);
//!
//! fn main() -> Result<(), electret::Error> {
//!     let model = Model::open(&MODEL.0)?;
//!     let mut arena: Arena<{ Plan::inference(&TINY, 32).bytes() }> = Arena::new();
//!     let mut session = Session::new(model, arena.as_mut_slice(), PLAN.tokens)?;
//!     let text = "The king lived in a large banana near the river.";
//!     for detection in session.detect(text)? {
//!         let word = &text[detection.token.start as usize..detection.token.end as usize];
//!         println!("{word:10} {:.2}", detection.replaced);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Features
//!
//! | feature | adds | std |
//! |---|---|---|
//! | none | the core: `weights`, `text`, `kernels`, `encoder`, `tasks`, `tune` | no |
//! | `dsp` | kernels with `smlad` for Cortex-M4, M7 and M33; the processor is not asked | no |
//! | `helium` | kernels with `vmlava` for Cortex-M55 and M85; the processor is not asked | no |
//! | `link` | `link`: the serial protocol between a host and the firmware of `boards/` | no |
//! | `std` | detection of the processor's instructions, AVX2 and AVX-512-VNNI kernels | yes |
//! | `app` | `app`: models and tuners that own their memory, for any thread | yes |
//! | `ffi` | `ffi`: the C ABI; with `app` also its owning half | no |
//! | `uniffi` | Kotlin, Swift and Python over `app`; `boards/bindings.sh` writes their sources | yes |
//! | `wasm` | JavaScript over `app` | yes |
//! | `parallel` | [`tasks::Batch`]: many texts on several threads | yes |
//! | `convert` | [`import`], [`reference`](mod@reference), [`quantize`], [`evaluate`] | yes |
//! | `onnx` | ONNX files in and out | yes |
//! | `cli` (default) | the `electret` command | yes |
//! | `board` | `electret board`: builds, runs, flashes, updates and talks to the boards of `boards/` | yes |
//! | `train` | `train`: corpus, pre-training and fine-tuning on Burn's CPU backend | yes |
//! | `tch` | `--device tch` or `tch-cuda`: libtorch | yes |
//! | `cuda` | `--device cuda`: Burn's own CUDA kernels; with it `fusion` | yes |
//! | `wgpu` | `--device wgpu`: Vulkan, Metal or DirectX | yes |
//! | `fusion` | kernels of `cuda` and `wgpu` fused and tuned at run time | yes |
//! | `mpi` | `pretrain` over MPI's ranks | yes |
//!
//! # What you may rely on
//!
//! The core allocates nothing, and answers any input with a result or an [`Error`]. For one model
//! file that electret wrote and one input every kernel set, block size and number of threads gives the same bits.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(missing_docs)]

#[forbid(unsafe_code)]
mod arena;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod encoder;
#[forbid(unsafe_code)]
mod error;
pub mod kernels;
#[cfg(feature = "link")]
#[forbid(unsafe_code)]
pub mod link;
#[forbid(unsafe_code)]
pub mod plan;
#[forbid(unsafe_code)]
mod random;
#[forbid(unsafe_code)]
mod rows;
#[forbid(unsafe_code)]
pub mod tasks;
#[forbid(unsafe_code)]
pub mod text;
#[forbid(unsafe_code)]
pub mod tune;
pub mod weights;

#[cfg(feature = "app")]
#[deny(unsafe_code)]
pub mod app;
#[cfg(feature = "board")]
#[forbid(unsafe_code)]
pub mod board;
#[cfg(feature = "convert")]
#[forbid(unsafe_code)]
pub mod evaluate;
#[cfg(feature = "ffi")]
pub mod ffi;
#[cfg(feature = "convert")]
#[deny(unsafe_code)]
pub mod import;
// ndarray's slicing macro expands to `allow(unsafe_code)`, which `forbid` would refuse.
#[cfg(feature = "convert")]
#[deny(unsafe_code)]
pub mod quantize;
#[cfg(feature = "convert")]
#[deny(unsafe_code)]
pub mod reference;
#[cfg(feature = "train")]
#[deny(unsafe_code)]
pub mod train;

#[cfg(feature = "uniffi")]
uniffi::setup_scaffolding!();

pub use arena::{ALIGNMENT, Arena};
pub use config::{BASE, ElectraConfig, LARGE, NANO, SMALL, TINY};
pub use error::{Error, ErrorKind};
pub use plan::{Plan, TuningPlan};
pub use tasks::Session;
pub use tune::Tuner;
pub use weights::strategy::Strategy;
pub use weights::{Adapter, Aligned, Document, HeadKind, Model};
