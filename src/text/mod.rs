//! text
mod special;
pub use special::SpecialTokens;
