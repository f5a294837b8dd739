//! ELECTRA's equations on Burn tensors, differentiable: the network that is trained.
//!
//! Held against `reference/` and against PyTorch's gradients by `tests/burn_golden.rs`.

use burn::tensor::{
    Bool, Int, Tensor,
    activation::{gelu, softmax},
    backend::Backend,
};

use super::weights::Weights;
use crate::ElectraConfig;

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

/// One encoder: where its weights lie, and its shape.
#[derive(Clone, Copy, Debug)]
pub struct Network<'a, B: Backend> {
    /// All weights, of which this network uses some.
    pub weights: &'a Weights<B>,
    /// `electra` for a discriminator, `generator` for the generator beside it.
    pub prefix: &'a str,
    /// The shape of this encoder.
    pub config: &'a ElectraConfig,
    /// Probability of dropping an activation; 0 outside training.
    pub dropout: f64,
}

impl<B: Backend> Network<'_, B> {
    /// `x · Wᵀ + b`; `[rows, in] → [rows, out]`.
    pub fn linear(&self, name: &str, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let weight = self.weights.matrix(&format!("{name}.weight"));
        let bias = self.weights.vector(&format!("{name}.bias"));
        x.matmul(weight.transpose()) + bias.unsqueeze()
    }

    /// LayerNorm over the last dimension of `[rows, width]`.
    pub fn layer_norm(&self, name: &str, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let weight = self.weights.vector(&format!("{name}.weight"));
        let bias = self.weights.vector(&format!("{name}.bias"));
        let centred = x.clone() - x.mean_dim(1);
        let variance = (centred.clone() * centred.clone()).mean_dim(1);
        let deviation = (variance + self.config.layer_norm_eps).sqrt();
        centred / deviation * weight.unsqueeze() + bias.unsqueeze()
    }

    /// Inverted dropout, drawn from the backend's generator.
    fn drop(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        if self.dropout == 0.0 {
            return x;
        }
        let keep = 1.0 - self.dropout;
        let mask = x.random_like(burn::tensor::Distribution::Bernoulli(keep));
        x * mask / keep
    }

    /// Word + position + segment embeddings, LayerNorm, and the projection where the widths differ.
    /// Returns `[batch · sequence, hidden]`.
    pub fn embed(&self, batch: &Batch<B>) -> Tensor<B, 2> {
        let [size, sequence] = batch.input_ids.dims();
        let width = self.config.embedding_size;
        let table = |name: &str| self.weights.matrix(&format!("electra.embeddings.{name}.weight"));
        let words = table("word_embeddings").select(0, batch.input_ids.clone().flatten(0, 1));
        // Positions repeat down the batch and segments are few: broadcasting them spares two
        // gathers, whose backward is slow on every backend.
        let positions = table("position_embeddings").narrow(0, 0, sequence);
        let types = table("token_type_embeddings");
        let first = types.clone().narrow(0, 0, 1);
        let step = types.narrow(0, 1, 1) - first.clone();
        let segment = batch.token_type_ids.clone().float().reshape([size * sequence, 1]);
        let words = words.reshape([size, sequence, width]) + (positions + first).unsqueeze();
        let sum = words.reshape([size * sequence, width]) + segment * step;
        let x = self.drop(self.layer_norm("electra.embeddings.LayerNorm", sum));
        if self.config.has_projection() {
            self.linear(&format!("{}.embeddings_project", self.prefix), x)
        } else {
            x
        }
    }

    /// The hidden states after the embeddings and after each layer, `[batch · sequence, hidden]`.
    pub fn hidden_states(&self, batch: &Batch<B>) -> Vec<Tensor<B, 2>> {
        let mut states = vec![self.embed(batch)];
        for layer in 0..self.config.num_hidden_layers {
            let name = format!("{}.encoder.layer.{layer}", self.prefix);
            let x = states[layer].clone();
            states.push(self.layer(&name, x, batch));
        }
        states
    }

    /// The last layer's hidden states, `[batch · sequence, hidden]`.
    pub fn encode(&self, batch: &Batch<B>) -> Tensor<B, 2> {
        let mut x = self.embed(batch);
        for layer in 0..self.config.num_hidden_layers {
            x = self.layer(&format!("{}.encoder.layer.{layer}", self.prefix), x, batch);
        }
        x
    }

    fn layer(&self, name: &str, x: Tensor<B, 2>, batch: &Batch<B>) -> Tensor<B, 2> {
        let attended = self.attention(name, x.clone(), batch);
        let attended = self.drop(self.linear(&format!("{name}.attention.output.dense"), attended));
        let x = self.layer_norm(&format!("{name}.attention.output.LayerNorm"), x + attended);
        let inner = gelu(self.linear(&format!("{name}.intermediate.dense"), x.clone()));
        let outer = self.drop(self.linear(&format!("{name}.output.dense"), inner));
        self.layer_norm(&format!("{name}.output.LayerNorm"), x + outer)
    }

    /// Scaled dot-product attention of all heads, `[batch · sequence, hidden]` in and out.
    fn attention(&self, name: &str, x: Tensor<B, 2>, batch: &Batch<B>) -> Tensor<B, 2> {
        let [size, sequence] = batch.input_ids.dims();
        let (heads, width) = (self.config.num_attention_heads, self.config.head_size());
        let split = |part: &str| {
            self.linear(&format!("{name}.attention.self.{part}"), x.clone())
                .reshape([size, sequence, heads, width])
                .swap_dims(1, 2)
        };
        let query = split("query") * (1.0 / (width as f64).sqrt());
        let scores = query.matmul(split("key").transpose());
        let padding = batch.padding.clone().float().reshape([size, 1, 1, sequence]);
        let weights = softmax(scores + padding * -10000.0, 3);
        let context = weights.matmul(split("value"));
        context.swap_dims(1, 2).reshape([size * sequence, heads * width])
    }

    /// Replaced-token logits of `[rows, hidden]`: dense, GELU, dense to one; `[rows]`.
    pub fn discriminator_head(&self, hidden: Tensor<B, 2>) -> Tensor<B, 1> {
        let inner = gelu(self.linear("discriminator_predictions.dense", hidden));
        self.linear("discriminator_predictions.dense_prediction", inner).squeeze_dim(1)
    }

    /// Vocabulary logits of `[rows, hidden]`: dense, GELU, LayerNorm, and the tied word embeddings.
    pub fn generator_head(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let inner = gelu(self.linear("generator_predictions.dense", hidden));
        let inner = self.layer_norm("generator_predictions.LayerNorm", inner);
        let words = self.weights.matrix("electra.embeddings.word_embeddings.weight");
        inner.matmul(words.transpose()) + self.weights.vector("generator_lm_head.bias").unsqueeze()
    }

    /// Hugging Face's sequence classification head on the first token's rows `[batch, hidden]`.
    pub fn classification_head(&self, first: Tensor<B, 2>) -> Tensor<B, 2> {
        self.linear("classifier.out_proj", gelu(self.linear("classifier.dense", first)))
    }
}
