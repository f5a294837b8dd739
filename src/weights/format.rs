//! The archived types: what lies in a file, byte for byte, and is read in place.
//!
//! All numbers are little-endian. These types are the format; a change of any is a new version.

use bytemuck::{Pod, Zeroable};
use rkyv::Portable;
use rkyv::bytecheck::CheckBytes;
use rkyv::option::ArchivedOption;
use rkyv::rancor::Fallible;
use rkyv::rend::{f32_le, u32_le};
use rkyv::string::ArchivedString;
use rkyv::vec::ArchivedVec;

#[cfg(target_endian = "big")]
compile_error!("electret reads its weights in place, and they are little-endian");

/// Weights of 16 output channels × 8 inputs: `[channel][input]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Tile(pub [[i8; 8]; 16]);

/// The same in half bytes: low halves are q + 8 of channels 0 to 7, high halves of 8 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct HalfTile(pub [[u8; 8]; 8]);

/// What the epilogue of a product needs of 16 output channels.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Channels {
    /// Weight = scale · int8.
    pub scale: [f32; 16],
    /// Added last.
    pub bias: [f32; 16],
    /// Sum of the channel's int8 weights, which makes zero points of activations free.
    pub column_sum: [i32; 16],
}

// SAFETY: fixed layout without padding, and this crate builds for little-endian machines only.
unsafe impl Portable for Tile {}
// SAFETY: as above.
unsafe impl Portable for Channels {}

// SAFETY: every bit pattern is a value.
unsafe impl<C: Fallible + ?Sized> CheckBytes<C> for Tile {
    unsafe fn check_bytes(_: *const Self, _: &mut C) -> Result<(), C::Error> {
        Ok(())
    }
}
// SAFETY: every bit pattern is a value.
unsafe impl<C: Fallible + ?Sized> CheckBytes<C> for Channels {
    unsafe fn check_bytes(_: *const Self, _: &mut C) -> Result<(), C::Error> {
        Ok(())
    }
}

/// A matrix `[outputs, inputs]` in int8 or int4.
///
/// **int8**: `tiles[outputs/16][inputs/8]`, zero padded.
///
/// **int4**: a weight is scale · multiplier · q, with a multiplier 1..=15 for every 32 inputs of a channel and
/// q = −8..=7: multiplier · q is the int8 weight that the kernels see, so that they, the column sums and the
/// epilogue are those of int8. The tiles are then pairs of [`HalfTile`]s; each block of 16 channels is a run of
/// [`int4_halves`] of them:
///
/// | half tiles | bytes |
/// |---|---|
/// | [`multiplier_halves`] | `[inputs/32][channel]` multipliers |
/// | `inputs/8` | the weights |
///
/// Which of the two it is, the number of tiles says: int4 takes fewer, or is not used.
#[derive(Portable, CheckBytes, Debug)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Linear {
    /// Inputs.
    pub inputs: u32_le,
    /// Output channels; rows, where it is an embedding table.
    pub outputs: u32_le,
    /// `[inputs]` or empty: multiplies the input before it is quantised; the columns were divided
    /// by it, so that no outlier channel of the input spends the whole int8 range.
    pub smoothing: ArchivedVec<f32_le>,
    /// The weights.
    pub tiles: ArchivedVec<Tile>,
    /// One for every 16 outputs.
    pub channels: ArchivedVec<Channels>,
}

/// Inputs that share a multiplier.
pub const INT4_GROUP: usize = 32;

/// Largest multiplier: with q = −8 it still gives an int8, and with q + 8 = 15 a byte.
pub const INT4_MULTIPLIERS: u8 = 15;

/// Half tiles of a block's multipliers, for `depth` blocks of 8 inputs.
pub const fn multiplier_halves(depth: usize) -> usize {
    depth.div_ceil(4).div_ceil(4)
}

/// Half tiles of a block of 16 channels in int4.
pub const fn int4_halves(depth: usize) -> usize {
    multiplier_halves(depth) + depth
}

/// Tiles of a matrix in int4 of so many blocks of 16 channels, `depth` blocks of 8 inputs deep.
pub const fn int4_tiles(blocks: usize, depth: usize) -> usize {
    (blocks * int4_halves(depth)).div_ceil(2)
}

/// Whether such a matrix with so many tiles is int4: then it has fewer.
pub const fn is_int4(tiles: usize, blocks: usize, depth: usize) -> bool {
    tiles < blocks * depth
}

/// LayerNorm's two vectors.
#[derive(Portable, CheckBytes, Debug)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Norm {
    /// Multiplied.
    pub weight: ArchivedVec<f32_le>,
    /// Added.
    pub bias: ArchivedVec<f32_le>,
}

/// Embedding tables, their LayerNorm, and the projection where the widths differ.
#[derive(Portable, CheckBytes, Debug)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Embeddings {
    /// `[vocab_size, embedding_size]`; its bias is that of the tied masked-language-model output.
    pub words: Linear,
    /// f32 `[max_position_embeddings, embedding_size]`: small tables, whose rounding error would be
    /// added to every token.
    pub positions: ArchivedVec<f32_le>,
    /// f32 `[type_vocab_size, embedding_size]`.
    pub token_types: ArchivedVec<f32_le>,
    /// Over the sum of the three.
    pub norm: Norm,
    /// `[hidden_size, embedding_size]`.
    pub projection: ArchivedOption<Linear>,
}

/// One transformer layer.
#[derive(Portable, CheckBytes, Debug)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Layer {
    /// `[hidden, hidden]`, as the next three.
    pub query: Linear,
    /// Keys.
    pub key: Linear,
    /// Values.
    pub value: Linear,
    /// After the heads are joined.
    pub attention_output: Linear,
    /// After the first residual.
    pub attention_norm: Norm,
    /// `[intermediate, hidden]`.
    pub intermediate: Linear,
    /// `[hidden, intermediate]`.
    pub output: Linear,
    /// After the second residual.
    pub output_norm: Norm,
}

/// What a head answers.
#[derive(Portable, CheckBytes, Debug, Clone, Copy, PartialEq, Eq)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(u8)]
pub enum HeadKind {
    /// Was this token replaced? One logit a token.
    Detect,
    /// Which piece stands here? `vocab_size` logits a token, through the word embeddings.
    FillMask,
    /// Which label does the text have? From the first token.
    Classify,
    /// What value has the text? One number, from the first token.
    Regress,
    /// Which label does each token have?
    Tag,
    /// Where does the answer start and end? Two logits a token.
    Answer,
}

/// A head: dense + GELU (+ LayerNorm) where there is one, and the output layer.
#[derive(Portable, CheckBytes, Debug)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Head {
    /// What it answers.
    pub kind: HeadKind,
    /// `[width, hidden]`, followed by GELU.
    pub dense: ArchivedOption<Linear>,
    /// After GELU, in a fill-mask head.
    pub norm: ArchivedOption<Norm>,
    /// `[labels, width]`; none in a fill-mask head.
    pub output: ArchivedOption<Linear>,
    /// Names of the outputs.
    pub labels: ArchivedVec<ArchivedString>,
}

/// A trie over the UTF-8 of all pieces: its nodes breadth first, and the ids of the pieces in the order of the nodes
/// at which they end. A piece's text is the way to its node.
///
/// Node 0 is the root of pieces that begin a word, node 1 that of continuations (`##` left out). The children of a
/// node follow each other in order of label, behind those of the node before it; node 2 is the first child of all.
#[derive(Portable, CheckBytes, Debug)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Vocabulary {
    /// The byte that leads to each node.
    pub labels: ArchivedVec<u8>,
    /// How many children each node has: no more than there are bytes that a character can begin or go on with.
    pub children: ArchivedVec<u8>,
    /// One for every [`TRIE_BLOCK`] nodes.
    pub blocks: ArchivedVec<TrieBlock>,
    /// Ids, little-endian, below the vocabulary's size.
    pub ids: ArchivedVec<[u8; 3]>,
    /// Ids of `[PAD] [UNK] [CLS] [SEP] [MASK]`.
    pub special: [u32_le; 5],
    /// Whether text is lower-cased and loses its accents.
    pub uncased: bool,
}

/// Nodes of a [`TrieBlock`].
pub const TRIE_BLOCK: usize = 32;

/// What was counted up to a block of nodes, so that nothing is counted from the start.
#[derive(Portable, CheckBytes, Debug)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct TrieBlock {
    /// The first child of its first node, whether it has any or not.
    pub first_child: u32_le,
    /// Pieces that end before the block.
    pub pieces: u32_le,
    /// Bit n: a piece ends at node n of the block.
    pub ends: u32_le,
}

/// The shape, as in `config.json`.
#[derive(Portable, CheckBytes, Debug)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields of ElectraConfig")]
pub struct Config {
    pub vocab_size: u32_le,
    pub embedding_size: u32_le,
    pub hidden_size: u32_le,
    pub num_hidden_layers: u32_le,
    pub num_attention_heads: u32_le,
    pub intermediate_size: u32_le,
    pub max_position_embeddings: u32_le,
    pub type_vocab_size: u32_le,
    pub layer_norm_eps: f32_le,
}

/// Where a model comes from.
#[derive(Portable, CheckBytes, Debug)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Provenance {
    /// What it is called.
    pub name: ArchivedString,
    /// What it was made from.
    pub source: ArchivedString,
    /// SPDX expression or a sentence.
    pub licence: ArchivedString,
    /// Version of electret that wrote it.
    pub tool: ArchivedString,
    /// How the weights were quantised.
    pub quantisation: ArchivedString,
}

/// A sentence whose logits any device must reproduce bit for bit.
#[derive(Portable, CheckBytes, Debug)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct Check {
    /// The sentence.
    pub text: ArchivedString,
    /// The last hidden state of `[CLS]`.
    pub hidden: ArchivedVec<f32_le>,
}

/// The whole payload.
#[derive(Portable, CheckBytes, Debug)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
#[expect(missing_docs, reason = "named after their types")]
pub struct Root {
    pub config: Config,
    pub provenance: Provenance,
    pub vocabulary: Vocabulary,
    pub embeddings: Embeddings,
    pub layers: ArchivedVec<Layer>,
    pub heads: ArchivedVec<Head>,
    pub checks: ArchivedVec<Check>,
}
