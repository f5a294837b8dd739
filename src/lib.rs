pub mod config;
pub mod text;
pub mod evaluate;
pub mod import;
#[cfg(feature = "train")]
pub mod train;
pub use config::ElectraConfig;
