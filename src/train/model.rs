//! ELECTRA's equations on Burn tensors, differentiable: the network that is trained.
//!
//! A product is done in the precision of its weights, which may be bf16; residuals, LayerNorm, GELU and losses are f32.
//!
//! Held against `reference/` and against PyTorch's gradients by `tests/burn_golden.rs`.

use burn::tensor::{
    Bool, DType, Int, Tensor,
    activation::{self, softmax},
    backend::Backend,
};

use super::kernels::{Kernels, Mask};
use super::tape::Tape;
use super::weights::Weights;
use crate::{ElectraConfig, HeadKind};

/// A batch of padded sequences. All tensors are `[batch, sequence]`.
#[derive(Clone, Debug)]
pub struct Batch<B: Backend> {
    /// Vocabulary ids, 0 on padding.
    pub input_ids: Tensor<B, 2, Int>,
    /// Segment of each token.
    pub token_type_ids: Tensor<B, 2, Int>,
    /// `true` on padding, which attention must not see.
    pub padding: Tensor<B, 2, Bool>,
}

/// Where the embedding tables of a network lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Embeddings {
    /// Under `electra.embeddings`, which generator and discriminator share.
    Shared,
    /// There too, but no gradient reaches the words: `word_embeddings_delta` is learnt on top of them
    /// (gradient-disentangled embedding sharing, DeBERTaV3 §3.2).
    Disentangled,
    /// Under `generator.embeddings`.
    Generator,
}

/// One encoder: where its weights lie, and its shape.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a, B: Backend> {
    /// All weights, of which this network uses some.
    pub weights: &'a Weights<B>,
    /// `electra` for a discriminator, `generator` for the generator beside it.
    pub prefix: &'a str,
    /// Where its embedding tables lie.
    pub embeddings: Embeddings,
    /// The shape of this encoder.
    pub config: &'a ElectraConfig,
    /// Probability of dropping an activation; 0 outside training.
    pub dropout: f64,
    /// Where its forward pass is written down, if it is differentiated in pieces.
    pub tape: Option<&'a Tape<B>>,
}

/// What the discriminator's word embeddings are above the generator's, where they are disentangled.
pub const WORD_DELTA: &str = "word_embeddings_delta.weight";

impl<B: Backend> Batch<B> {
    /// What attention adds to its scores.
    pub fn mask(&self) -> Mask<B> {
        let [size, sequence] = self.padding.dims();
        self.padding.clone().float().reshape([size, 1, 1, sequence]) * -10000.0
    }
}

/// The same values in another precision.
fn cast<B: Backend, const D: usize>(x: Tensor<B, D>, precision: DType) -> Tensor<B, D> {
    if x.dtype() == precision { x } else { x.cast(precision) }
}

/// GELU, computed in f32: some backends make it of many operations.
fn gelu<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let precision = x.dtype();
    cast(activation::gelu(cast(x, DType::F32)), precision)
}

impl Embeddings {
    fn place(self) -> &'static str {
        match self {
            Self::Shared | Self::Disentangled => "electra.embeddings",
            Self::Generator => "generator.embeddings",
        }
    }
}

impl<B: Kernels> Network<'_, B> {
    /// The matrix of that name, for one operation.
    pub(super) fn matrix(&self, name: &str) -> Tensor<B, 2> {
        let matrix = self.weights.matrix(name);
        match self.tape {
            Some(tape) => tape.matrix(name, matrix),
            None => matrix,
        }
    }

    /// The vector of that name, for one operation.
    pub(super) fn vector(&self, name: &str) -> Tensor<B, 1> {
        let vector = self.weights.vector(name);
        match self.tape {
            Some(tape) => tape.vector(name, vector),
            None => vector,
        }
    }

    /// `x · Wᵀ + b` in the precision of `W`; `[rows, in] → [rows, out]`.
    pub fn linear(&self, name: &str, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let weight = self.matrix(&format!("{name}.weight"));
        let bias = self.vector(&format!("{name}.bias"));
        cast(x, weight.dtype()).matmul(weight.transpose()) + bias.unsqueeze()
    }

    /// LayerNorm over the last dimension of `[rows, width]`, in f32.
    pub fn layer_norm(&self, name: &str, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let weight = self.vector(&format!("{name}.weight"));
        let bias = self.vector(&format!("{name}.bias"));
        let x = cast(x, DType::F32);
        let centred = x.clone() - x.mean_dim(1);
        let variance = (centred.clone() * centred.clone()).mean_dim(1);
        let deviation = (variance + self.config.layer_norm_eps).sqrt();
        centred / deviation * weight.unsqueeze() + bias.unsqueeze()
    }

    /// Inverted dropout, drawn from the backend's generator.
    fn drop<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        if self.dropout == 0.0 {
            return x;
        }
        let keep = 1.0 - self.dropout;
        let mask = x.random_like(burn::tensor::Distribution::Bernoulli(keep));
        x * mask / keep
    }

    /// An embedding table, `[rows, embedding_size]`.
    fn table(&self, name: &str) -> Tensor<B, 2> {
        self.matrix(&format!("{}.{name}.weight", self.embeddings.place()))
    }

    /// The word embeddings as this network sees them, `[vocab_size, embedding_size]`.
    fn words(&self) -> Tensor<B, 2> {
        let words = self.table("word_embeddings");
        match self.embeddings {
            Embeddings::Disentangled => words.detach() + self.matrix(WORD_DELTA),
            Embeddings::Shared | Embeddings::Generator => words,
        }
    }

    /// Word + position + segment embeddings, LayerNorm, and the projection where the widths differ.
    /// Returns `[batch · sequence, hidden]`.
    pub fn embed(&self, batch: &Batch<B>) -> Tensor<B, 2> {
        let [size, sequence] = batch.input_ids.dims();
        let width = self.config.embedding_size;
        let words = self.words().select(0, batch.input_ids.clone().flatten(0, 1));
        // Positions repeat down the batch and segments are few: broadcasting them spares two
        // gathers, whose backward is slow on every backend.
        let positions = self.table("position_embeddings").narrow(0, 0, sequence);
        let types = self.table("token_type_embeddings");
        let first = types.clone().narrow(0, 0, 1);
        let step = types.narrow(0, 1, 1) - first.clone();
        let segment = batch.token_type_ids.clone().float().reshape([size * sequence, 1]);
        let words = words.reshape([size, sequence, width]) + (positions + first).unsqueeze();
        let sum = words.reshape([size * sequence, width]) + segment * step;
        let x = self.drop(self.layer_norm(&format!("{}.LayerNorm", self.embeddings.place()), sum));
        if self.config.has_projection() {
            cast(self.linear(&format!("{}.embeddings_project", self.prefix), x), DType::F32)
        } else {
            x
        }
    }

    /// The hidden states after the embeddings and after each layer, `[batch · sequence, hidden]`.
    pub fn hidden_states(&self, batch: &Batch<B>) -> Vec<Tensor<B, 2>> {
        let mask = batch.mask();
        let mut states = vec![self.embed(batch)];
        for layer in 0..self.config.num_hidden_layers {
            let name = format!("{}.encoder.layer.{layer}", self.prefix);
            states.push(B::layer(self, &name, states[layer].clone(), &mask));
        }
        states
    }

    /// The last layer's hidden states, `[batch · sequence, hidden]`.
    pub fn encode(&self, batch: &Batch<B>) -> Tensor<B, 2> {
        let mask = batch.mask();
        (0..self.config.num_hidden_layers).fold(self.embed(batch), |x, layer| {
            let x = match self.tape {
                Some(tape) => tape.cut(x),
                None => x,
            };
            B::layer(self, &format!("{}.encoder.layer.{layer}", self.prefix), x, &mask)
        })
    }

    /// Attention and a feed-forward network, each added to what it was given and normalised; `name` is the layer's.
    pub fn layer(&self, name: &str, x: Tensor<B, 2>, mask: &Mask<B>) -> Tensor<B, 2> {
        let attended = self.attention(name, x.clone(), mask);
        let attended = self.drop(self.linear(&format!("{name}.attention.output.dense"), attended));
        let x =
            self.layer_norm(&format!("{name}.attention.output.LayerNorm"), x + cast(attended, DType::F32));
        let inner = gelu(self.linear(&format!("{name}.intermediate.dense"), x.clone()));
        let outer = self.drop(self.linear(&format!("{name}.output.dense"), inner));
        self.layer_norm(&format!("{name}.output.LayerNorm"), x + cast(outer, DType::F32))
    }

    /// Scaled dot-product attention of all heads, some of its weights dropped, `[batch · sequence, hidden]` in and out.
    fn attention(&self, name: &str, x: Tensor<B, 2>, mask: &Mask<B>) -> Tensor<B, 2> {
        let [size, _, _, sequence] = mask.dims();
        let (heads, width) = (self.config.num_attention_heads, self.config.head_size());
        let split = |part: &str| {
            self.linear(&format!("{name}.attention.self.{part}"), x.clone())
                .reshape([size, sequence, heads, width])
                .swap_dims(1, 2)
        };
        let query = split("query") * (1.0 / (width as f64).sqrt());
        let scores = query.matmul(split("key").transpose());
        let weights = self.drop(softmax(cast(scores, DType::F32) + mask.clone(), 3));
        let value = split("value");
        let context = cast(weights, value.dtype()).matmul(value);
        context.swap_dims(1, 2).reshape([size * sequence, heads * width])
    }

    /// Replaced-token logits of `[rows, hidden]`: dense, GELU, dense to one; `[rows]`.
    pub fn discriminator_head(&self, hidden: Tensor<B, 2>) -> Tensor<B, 1> {
        let inner = gelu(self.linear("discriminator_predictions.dense", hidden));
        cast(self.linear("discriminator_predictions.dense_prediction", inner), DType::F32).squeeze_dim(1)
    }

    /// Vocabulary logits of `[rows, hidden]`: dense, GELU, LayerNorm, and the tied word embeddings. `name` is the
    /// head's: `generator`, or `electra` for the discriminator's encoder where it answers with words beside one.
    pub fn language_head(&self, name: &str, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let inner = gelu(self.linear(&format!("{name}_predictions.dense"), hidden));
        let precision = inner.dtype();
        let inner = cast(self.layer_norm(&format!("{name}_predictions.LayerNorm"), inner), precision);
        let bias = self.vector(&format!("{name}_lm_head.bias"));
        cast(inner.matmul(cast(self.words(), precision).transpose()), DType::F32) + bias.unsqueeze()
    }

    /// Logits of a task's head as `transformers` has it, from the last hidden states `[batch · sequence, hidden]`:
    /// `[batch, labels]` where it answers from the first token, else `[batch · sequence, labels]`.
    pub fn task_head(&self, kind: HeadKind, hidden: Tensor<B, 2>, batch: &Batch<B>) -> Tensor<B, 2> {
        let [size, sequence] = batch.input_ids.dims();
        match kind {
            HeadKind::Classify | HeadKind::Regress => {
                let width = hidden.dims()[1];
                let first = hidden.reshape([size, sequence, width]).narrow(1, 0, 1).reshape([size, width]);
                let inner = gelu(self.linear("classifier.dense", self.drop(first)));
                self.linear("classifier.out_proj", self.drop(inner))
            }
            HeadKind::Tag => self.linear("classifier", self.drop(hidden)),
            HeadKind::Answer => self.linear("qa_outputs", hidden),
            HeadKind::Detect => self.discriminator_head(hidden).unsqueeze_dim(1),
            HeadKind::FillMask => self.language_head("generator", hidden),
        }
    }
}
