//! The five tokens that stand for no text.

/// Ids of the special tokens; each vocabulary has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[PAD]`: fills batches in training; never seen on a device.
    pub pad: u32,
    /// `[UNK]`: a word that the vocabulary cannot spell.
    pub unk: u32,
    /// `[CLS]`: the first token of every sequence.
    pub cls: u32,
    /// `[SEP]`: ends every segment.
    pub sep: u32,
    /// `[MASK]`: what a generator fills.
    pub mask: u32,
}

impl SpecialTokens {
    /// How they are written in a vocabulary, in the order of the fields.
    pub const NAMES: [&'static str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
}
