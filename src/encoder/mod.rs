//! The forward pass: embeddings → N × (attention, feed-forward), written once.
//!
//! Tokens come in, the last layer's hidden states `[tokens, hidden]` stand in the residual stream
//! afterwards. Products are int8 × int8 with one scale and zero point a row of activations; the
//! residual stream, LayerNorm, softmax and GELU are f32. Keys and values of a layer are computed
//! for the whole sequence, everything else block by block of rows, so that the arena stays small.

mod attention;
mod backward;
mod dense;
mod dropout;
mod embeddings;
mod feed_forward;

pub(crate) use attention::MAX_HEAD;
pub(crate) use backward::{Backward, BackwardSpace, Gradients};
pub use dropout::Dropout;

pub(crate) use dense::{
    Columns, Dense, DenseGradient, STRIPS, Scratch, Transposing, Turning, product, quantize_finely,
    strip_tiles,
};

use crate::arena::Carver;
use crate::kernels::{KernelSet, LayerNorm, RowScale};
use crate::rows::Rows;
use crate::text::Token;
use crate::weights::format::{Head, Layer};
use crate::weights::strategy::{NormPart, Part};
use crate::weights::{Adapter, Channels, HeadKind, Model, Tile, check_finite};
use crate::{ElectraConfig, Error, Plan};

/// The arena of one sequence, carved.
pub struct Workspace<'a> {
    /// `[tokens]`.
    pub tokens: &'a mut [Token],
    /// `[tokens, hidden]`.
    pub residual: &'a mut [f32],
    pub(crate) cache: KeyValues<'a>,
    pub(crate) block: Block<'a>,
}

/// Keys and values of the layer at work, packed as weights are.
pub(crate) struct KeyValues<'a> {
    key_tiles: &'a mut [Tile],
    key_channels: &'a mut [Channels],
    value_tiles: &'a mut [Tile],
    value_channels: &'a mut [Channels],
    value_scales: &'a mut [f32],
}

/// Scratch of one block of rows.
pub(crate) struct Block<'a> {
    /// int8 inputs of a product.
    pub rows: &'a mut [i8],
    /// Their scales; as many as a block has rows.
    pub scales: &'a mut [RowScale],
    /// The widest intermediate results.
    pub wide: &'a mut [f32],
    /// `[block_rows, hidden]`.
    pub narrow: &'a mut [f32],
    /// Where int4 weights are unpacked; empty for a model without them.
    pub strip: &'a mut [Tile],
}

impl Block<'_> {
    /// What a dense layer works in, and the two scratch buffers.
    pub fn split(&mut self) -> (Scratch<'_>, &mut [f32], &mut [f32]) {
        let Block { rows, scales, wide, narrow, strip } = self;
        (Scratch { rows, scales, strip }, wide, narrow)
    }
}

impl<'a> Workspace<'a> {
    /// Carves `memory` by the plan.
    pub fn carve(memory: &'a mut [u8], plan: &Plan) -> Result<Self, Error> {
        let mut carver = Carver(memory);
        Ok(Self {
            tokens: carver.take(plan.tokens)?,
            residual: carver.take(plan.residual)?,
            cache: KeyValues {
                key_tiles: carver.take(plan.key_tiles)?,
                key_channels: carver.take(plan.key_channels)?,
                value_tiles: carver.take(plan.value_tiles)?,
                value_channels: carver.take(plan.value_channels)?,
                value_scales: carver.take(plan.value_scales)?,
            },
            block: Block {
                rows: carver.take(plan.row_bytes)?,
                scales: carver.take(plan.block_rows)?,
                wide: carver.take(plan.wide)?,
                narrow: carver.take(plan.narrow)?,
                strip: carver.take(plan.strip)?,
            },
        })
    }
}

/// A model with what was learned on top of it, and the kernels that run it.
#[derive(Clone, Copy, Debug)]
pub struct Network<'m> {
    /// The frozen model.
    pub model: Model<'m>,
    /// What was learned; or nothing.
    pub adapter: Option<Adapter<'m>>,
    /// The kernels.
    pub kernels: &'static KernelSet,
    /// What falls while it learns.
    pub dropout: Option<Dropout>,
    /// Called before each block of rows: a board feeds its watchdog there.
    pub pulse: fn(),
}

impl<'m> Network<'m> {
    /// The model as it is.
    pub fn new(model: Model<'m>, kernels: &'static KernelSet) -> Self {
        Self { model, adapter: None, kernels, dropout: None, pulse: || () }
    }

    /// Runs the encoder over the first `length` tokens of the workspace.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if a weight led to a value that is no number.
    pub fn encode(&self, workspace: &mut Workspace<'_>, length: usize) -> Result<(), Error> {
        self.encode_observed(workspace, length, |_, _| {})
    }

    /// [`Network::encode`], handing `observe` the hidden states `[length, hidden]` before each layer, which
    /// goes on from what it leaves, and after the last; with the number of layers that they went through.
    ///
    /// # Errors
    /// As [`Network::encode`].
    pub fn encode_observed(
        &self,
        workspace: &mut Workspace<'_>,
        length: usize,
        mut observe: impl FnMut(usize, &mut [f32]),
    ) -> Result<(), Error> {
        let Self { model, kernels, pulse, .. } = self;
        let hidden = model.config().hidden_size;
        let Workspace { tokens, residual, cache, block } = workspace;
        let tokens = tokens.get(..length).unwrap_or_default();
        let residual = residual.get_mut(..length * hidden).unwrap_or_default();
        let rows = block.scales.len();
        for (tokens, (first, x)) in
            tokens.parts(rows).zip((0..).step_by(rows.max(1)).zip(residual.parts_mut(rows * hidden)))
        {
            self.embeddings().embed(block, tokens, first, x);
        }
        for (index, layer) in self.layers().enumerate() {
            observe(index, residual);
            let attention = attention::Attention::new(layer, kernels, length);
            for (first, x) in (0..).step_by(rows.max(1)).zip(residual.parts(rows * hidden)) {
                pulse();
                attention.keys_and_values(cache, block, first, x);
            }
            for (first, x) in (0..).step_by(rows.max(1)).zip(residual.parts_mut(rows * hidden)) {
                pulse();
                attention.attend(cache, block, first, x);
                feed_forward::feed_forward(&layer, kernels, block, first, x);
            }
        }
        observe(model.config().num_hidden_layers, residual);
        // Weights are finite: it takes sums that overflow, and what they leave behind is looked for once.
        check_finite(residual)
    }

    /// The embeddings, with what was learned of the words.
    pub(crate) fn embeddings(&self) -> AdaptedEmbeddings<'_> {
        let words = self.adapter.as_ref().and_then(|adapter| {
            adapter.words().map(|(pieces, directions)| (pieces, directions, adapter.layout.strategy.words))
        });
        AdaptedEmbeddings { model: &self.model, kernels: self.kernels, words }
    }

    /// The layers from the first on, each with what was learned on it.
    pub(crate) fn layers(&self) -> impl DoubleEndedIterator<Item = AdaptedLayer<'_>> + ExactSizeIterator {
        let layers = self.model.root().layers.iter().enumerate();
        layers.map(|(index, layer)| AdaptedLayer {
            layer,
            index,
            adapter: self.adapter.as_ref(),
            config: self.model.config(),
            dropout: self.dropout,
        })
    }

    /// The head of that kind, with what was learned of it.
    ///
    /// # Errors
    /// [`Error::NoSuchHead`].
    pub(crate) fn head(&self, kind: HeadKind) -> Result<AdaptedHead<'m>, Error> {
        let adapter = self.adapter.filter(|adapter| adapter.kind == kind);
        let trained = adapter.and_then(|adapter| Some((adapter.head()?, adapter.layout.labels)));
        let own = self.model.head(kind);
        match trained {
            Some((output, labels)) => Ok(AdaptedHead { own: own.ok(), trained: Some(output), labels }),
            None => own.map(|head| AdaptedHead { own: Some(head), trained: None, labels: head.labels.len() }),
        }
    }
}

/// The embeddings and what was learned of the words: `[vocab_size, rank]`, `[rank, embedding_size]`, rank.
pub(crate) struct AdaptedEmbeddings<'a> {
    model: &'a Model<'a>,
    kernels: &'a KernelSet,
    words: Option<(&'a [f32], &'a [f32], usize)>,
}

/// A transformer layer and what was learned on it.
#[derive(Clone, Copy)]
pub(crate) struct AdaptedLayer<'a> {
    layer: &'a Layer,
    index: usize,
    adapter: Option<&'a Adapter<'a>>,
    pub config: &'a ElectraConfig,
    dropout: Option<Dropout>,
}

impl<'a> AdaptedLayer<'a> {
    /// One of its dense layers.
    pub fn dense(&self, part: Part) -> Dense<'a> {
        let linear = match part {
            Part::Query => &self.layer.query,
            Part::Key => &self.layer.key,
            Part::Value => &self.layer.value,
            Part::AttentionOutput => &self.layer.attention_output,
            Part::Intermediate => &self.layer.intermediate,
            Part::Output => &self.layer.output,
        };
        let Some(adapter) = self.adapter else { return linear.into() };
        Dense { linear, bias: adapter.bias(self.index, part), low_rank: adapter.low_rank(self.index, part) }
    }

    /// One of its LayerNorms.
    pub fn norm(&self, part: NormPart) -> LayerNorm<'a> {
        let own = match part {
            NormPart::Attention => &self.layer.attention_norm,
            NormPart::Output => &self.layer.output_norm,
        };
        let epsilon = self.config.layer_norm_eps;
        match self.adapter.and_then(|adapter| adapter.norm(self.index, part)) {
            Some((weight, bias)) => LayerNorm { weight, bias, epsilon },
            None => own.layer_norm(epsilon),
        }
    }
}

impl AdaptedLayer<'_> {
    /// Drops values of a dense layer's rows `[n, hidden]` in front of a LayerNorm; the first row is token `first`'s.
    pub fn drop(&self, place: NormPart, first: usize, rows: &mut [f32]) {
        if let Some(dropout) = &self.dropout {
            dropout.apply(self.index, place, first, rows, self.config.hidden_size);
        }
    }

    /// The gradient `d` of the sum in front of a LayerNorm, as far as it reaches the dense layer: `d` itself, or a
    /// copy in `room` with the same values dropped.
    pub fn dropped<'d>(&self, place: NormPart, first: usize, d: &'d [f32], room: &'d mut [f32]) -> &'d [f32] {
        if self.dropout.is_none() {
            return d;
        }
        room.copy_values(d);
        self.drop(place, first, room);
        room
    }
}

/// A head and what was learned of it.
#[derive(Clone, Copy)]
pub(crate) struct AdaptedHead<'m> {
    /// The model's own head, whose dense layer is used where there is one.
    pub own: Option<&'m Head>,
    /// Weight `[labels, width]` and bias `[labels]` of an output layer that was learned.
    pub trained: Option<(&'m [f32], &'m [f32])>,
    /// Outputs.
    pub labels: usize,
}

/// x = LayerNorm(x + y), row by row of `[n, width]`; an empty `y` adds nothing.
pub(crate) fn add_and_norm(kernels: &KernelSet, norm: &LayerNorm<'_>, x: &mut [f32], y: &[f32]) {
    let width = norm.weight.len();
    for (index, x) in x.rows_mut(width).enumerate() {
        let y = y.get(index * width..(index + 1) * width).unwrap_or_default();
        (kernels.add_and_norm)(x, y, norm);
    }
}
