//! The shape of an ELECTRA, under the names that Hugging Face and Google's code gave its numbers.

use crate::encoder::MAX_HEAD;
use crate::weights::format::int4_halves;

/// The numbers that fix the shape of a network. All sizes are counts of elements.
///
/// The presets are those of the paper (Clark et al. 2020, table 6 and `configure_pretraining.py`),
/// and two that are ours: [`NANO`], for a megabyte of a microcontroller's own flash, and [`TINY`], for twice that or a
/// small serial flash.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ElectraConfig {
    /// Pieces in the vocabulary.
    pub vocab_size: usize,
    /// Width of the embedding tables; projected to `hidden_size` where the two differ.
    pub embedding_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads a layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Longest sequence in tokens, `[CLS]` and `[SEP]` included.
    pub max_position_embeddings: usize,
    /// Segments that the token-type table tells apart.
    pub type_vocab_size: usize,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f32,
}

/// 4 layers × 128 with a vocabulary of its own: 1.9 M parameters, about 2 MB in int8.
pub const TINY: ElectraConfig = ElectraConfig {
    vocab_size: 8192,
    embedding_size: 128,
    hidden_size: 128,
    num_hidden_layers: 4,
    num_attention_heads: 2,
    intermediate_size: 512,
    max_position_embeddings: 128,
    type_vocab_size: 2,
    layer_norm_eps: 1e-12,
};

/// 2 layers × 64 with a vocabulary of its own: 0.4 M parameters, about 0.5 MB in int8.
pub const NANO: ElectraConfig = ElectraConfig {
    vocab_size: 4096,
    embedding_size: 64,
    hidden_size: 64,
    num_hidden_layers: 2,
    intermediate_size: 256,
    ..TINY
};

/// ELECTRA-small, 12 layers × 256: 14 M parameters.
pub const SMALL: ElectraConfig = ElectraConfig {
    vocab_size: 30522,
    embedding_size: 128,
    hidden_size: 256,
    num_hidden_layers: 12,
    num_attention_heads: 4,
    intermediate_size: 1024,
    max_position_embeddings: 512,
    ..TINY
};

/// ELECTRA-base, 12 layers × 768: 110 M parameters.
pub const BASE: ElectraConfig = ElectraConfig {
    embedding_size: 768,
    hidden_size: 768,
    num_attention_heads: 12,
    intermediate_size: 3072,
    ..SMALL
};

/// ELECTRA-large, 24 layers × 1024: 335 M parameters.
pub const LARGE: ElectraConfig = ElectraConfig {
    embedding_size: 1024,
    hidden_size: 1024,
    num_hidden_layers: 24,
    num_attention_heads: 16,
    intermediate_size: 4096,
    ..SMALL
};

impl ElectraConfig {
    /// The names of [`ElectraConfig::preset`], as a sentence has them.
    pub const PRESETS: &str = "nano, tiny, small, base or large";

    /// The preset of that name: `nano`, `tiny`, `small`, `base` or `large`.
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            "nano" => Some(NANO),
            "tiny" => Some(TINY),
            "small" => Some(SMALL),
            "base" => Some(BASE),
            "large" => Some(LARGE),
            _ => None,
        }
    }

    /// Width of one attention head.
    pub const fn head_size(&self) -> usize {
        match self.hidden_size.checked_div(self.num_attention_heads) {
            Some(size) => size,
            None => 0,
        }
    }

    /// All sizes, by the names that errors of a model file give them, each with the most that it may be; none may be 0.
    pub(crate) const fn sizes(&self) -> [(&'static str, usize, usize); 8] {
        [
            ("config.vocab_size", self.vocab_size, 1 << 20),
            ("config.embedding_size", self.embedding_size, 1 << 14),
            ("config.hidden_size", self.hidden_size, 1 << 14),
            ("config.num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("config.num_attention_heads", self.num_attention_heads, 1 << 10),
            ("config.intermediate_size", self.intermediate_size, 1 << 16),
            ("config.max_position_embeddings", self.max_position_embeddings, 1 << 16),
            ("config.type_vocab_size", self.type_vocab_size, 256),
        ]
    }

    /// Whether `hidden_size` falls into equal heads that attention has room for.
    pub(crate) const fn has_usable_heads(&self) -> bool {
        self.hidden_size.is_multiple_of(self.num_attention_heads) && self.head_size() <= MAX_HEAD
    }

    /// Whether `embeddings_project` stands between the embeddings and the first layer.
    pub const fn has_projection(&self) -> bool {
        self.embedding_size != self.hidden_size
    }

    /// Bytes of the int8 weights of a discriminator of this shape, vocabulary trie apart: one a
    /// weight, 12 an output channel for scale, bias and column sum, and the small tables in f32.
    pub const fn weight_bytes(&self) -> usize {
        self.bytes_with(false)
    }

    /// The same with word embeddings and layers in int4.
    pub const fn int4_weight_bytes(&self) -> usize {
        self.bytes_with(true)
    }

    const fn bytes_with(&self, int4: bool) -> usize {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let (words, narrow, wide) =
            (row_bytes(self.embedding_size, int4), row_bytes(hidden, int4), row_bytes(inner, int4));
        let f32_rows = self.max_position_embeddings + self.type_vocab_size + 2;
        let tables = self.vocab_size * words + f32_rows * self.embedding_size * 4;
        let projection =
            if self.has_projection() { hidden * row_bytes(self.embedding_size, false) } else { 0 };
        let layer = 4 * hidden * narrow + inner * narrow + hidden * wide + 16 * hidden;
        let head = hidden * row_bytes(hidden, false) + hidden + 12;
        tables + projection + self.num_hidden_layers * layer + head
    }

    /// Multiply-accumulates of the encoder over a sequence of `tokens` tokens: the projection, and
    /// of each layer the six dense products, q·k and p·v.
    pub const fn multiply_accumulates(&self, tokens: usize) -> usize {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let projection = if self.has_projection() { self.embedding_size * hidden } else { 0 };
        let layer = 4 * hidden * hidden + 2 * hidden * inner + 2 * tokens * hidden;
        tokens * (projection + self.num_hidden_layers * layer)
    }
}

/// An output channel's weights, scale, bias and column sum.
const fn row_bytes(inputs: usize, int4: bool) -> usize {
    // A half tile has 4 bytes of each channel.
    let packed = int4_halves(inputs.div_ceil(8)) * 4;
    let weights = if int4 && packed < inputs { packed } else { inputs };
    weights + 12
}
