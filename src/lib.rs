//! ELECTRA that stays on the device.
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
#[forbid(unsafe_code)]
pub mod plan;
#[forbid(unsafe_code)]
pub mod tasks;
#[forbid(unsafe_code)]
pub mod text;
pub mod weights;

#[cfg(feature = "convert")]
#[forbid(unsafe_code)]
pub mod evaluate;
#[cfg(feature = "convert")]
pub mod import;
#[cfg(feature = "convert")]
pub mod quantize;
#[cfg(feature = "convert")]
pub mod reference;
#[cfg(feature = "train")]
#[forbid(unsafe_code)]
pub mod train;

pub use arena::{ALIGNMENT, Arena};
pub use config::{BASE, ElectraConfig, LARGE, SMALL, TINY};
pub use error::Error;
pub use plan::Plan;
pub use tasks::Session;
pub use weights::{Aligned, HeadKind, Model};
