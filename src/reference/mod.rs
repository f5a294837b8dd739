//! ELECTRA in plain f32 `ndarray`: the oracle, to be read like the paper.
//!
//! Slow and exact. What the quantised core answers is compared with this by [`verify`](crate::quantize::verify), and
//! this with PyTorch by `tests/reference_golden.rs`.

mod loss;

pub use loss::{binary_cross_entropy, cross_entropy};

use ndarray::{Array1, Array2, ArrayView2, Axis, s};

use crate::import::{Checkpoint, HeadTensors, ImportError};
use crate::text::Token;

/// One sequence of tokens.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// Ids in the vocabulary.
    pub input_ids: Vec<u32>,
    /// Segments.
    pub token_type_ids: Vec<u32>,
    /// `true` where a token is padding, which no other may attend to.
    pub padding: Vec<bool>,
}

impl Sequence {
    /// Tokens as the tokeniser gave them, without padding.
    pub fn of(tokens: &[Token]) -> Self {
        Self {
            input_ids: tokens.iter().map(|token| token.id).collect(),
            token_type_ids: tokens.iter().map(|token| token.type_id.into()).collect(),
            padding: vec![false; tokens.len()],
        }
    }
}

/// The f32 network of a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a>(pub &'a Checkpoint);

impl Reference<'_> {
    /// The hidden states `[tokens, hidden]` after the embeddings and after each layer.
    pub fn hidden_states(&self, sequence: &Sequence) -> Result<Vec<Array2<f32>>, ImportError> {
        let mut states = vec![self.embed(sequence)?];
        for layer in 0..self.0.config.num_hidden_layers {
            let x = self.layer(layer, &states[layer], sequence, &mut |_, _| ())?;
            states.push(x);
            // A layer that lies in a file need not stay in memory while the others have their turn.
            self.0.tensors.release();
        }
        Ok(states)
    }

    /// word + position + segment, LayerNorm, projection.
    pub(crate) fn embed(&self, sequence: &Sequence) -> Result<Array2<f32>, ImportError> {
        let width = self.0.config.embedding_size;
        let [words, positions, types] = self.0.embedding_tables();
        let words = self.0.tensors.matrix(&words.0, [words.1, width])?;
        let positions = self.0.tensors.matrix(&positions.0, [positions.1, width])?;
        let types = self.0.tensors.matrix(&types.0, [types.1, width])?;
        let mut x = Array2::zeros((sequence.input_ids.len(), width));
        for (position, mut row) in x.rows_mut().into_iter().enumerate() {
            row += &words.row(sequence.input_ids[position] as usize);
            row += &positions.row(position);
            row += &types.row(sequence.token_type_ids[position] as usize);
        }
        self.layer_norm("electra.embeddings.LayerNorm", &mut x)?;
        if self.0.config.has_projection() {
            self.linear("electra.embeddings_project", x.view(), self.0.config.hidden_size)
        } else {
            Ok(x)
        }
    }

    /// One transformer layer; `observe` is shown what goes into its dense layers, by their names in the layer: into
    /// query, key and value the same, under the query's.
    pub(crate) fn layer(
        &self,
        layer: usize,
        x: &Array2<f32>,
        sequence: &Sequence,
        observe: &mut dyn FnMut(&str, ArrayView2<'_, f32>),
    ) -> Result<Array2<f32>, ImportError> {
        let name = format!("electra.encoder.layer.{layer}");
        let (hidden, inner) = (self.0.config.hidden_size, self.0.config.intermediate_size);
        let linear = |part: &str, x: ArrayView2<'_, f32>, outputs: usize| {
            self.linear(&format!("{name}.{part}"), x, outputs)
        };
        observe("attention.self.query", x.view());
        let query = linear("attention.self.query", x.view(), hidden)?;
        let key = linear("attention.self.key", x.view(), hidden)?;
        let value = linear("attention.self.value", x.view(), hidden)?;
        let attended = self.attention([query, key, value], sequence);
        observe("attention.output.dense", attended.view());
        let mut x = x + &linear("attention.output.dense", attended.view(), hidden)?;
        self.layer_norm(&format!("{name}.attention.output.LayerNorm"), &mut x)?;
        observe("intermediate.dense", x.view());
        let y = linear("intermediate.dense", x.view(), inner)?.mapv_into(gelu);
        observe("output.dense", y.view());
        let mut x = x + linear("output.dense", y.view(), hidden)?;
        self.layer_norm(&format!("{name}.output.LayerNorm"), &mut x)?;
        Ok(x)
    }

    /// softmax(QKᵀ / √d + mask)·V, head by head.
    fn attention(&self, [query, key, value]: [Array2<f32>; 3], sequence: &Sequence) -> Array2<f32> {
        let size = self.0.config.head_size();
        let mask: Array1<f32> =
            sequence.padding.iter().map(|&padding| if padding { -10000.0 } else { 0.0 }).collect();
        let mut context = Array2::zeros(query.raw_dim());
        for head in 0..self.0.config.num_attention_heads {
            let here = s![.., head * size..(head + 1) * size];
            let scores = query.slice(here).dot(&key.slice(here).t()) / (size as f32).sqrt() + &mask;
            context.slice_mut(here).assign(&softmax(scores).dot(&value.slice(here)));
        }
        context
    }

    /// The logits of a head from hidden states `[tokens, hidden]`: `[tokens, labels]`, or
    /// `[tokens, vocab_size]` of a fill-mask head.
    pub fn logits(
        &self,
        head: &HeadTensors,
        hidden: ArrayView2<'_, f32>,
    ) -> Result<Array2<f32>, ImportError> {
        let mut x = hidden.to_owned();
        if let Some((name, width)) = head.dense {
            x = self.linear(name, x.view(), width)?.mapv_into(gelu);
        }
        if let Some(name) = head.norm {
            self.layer_norm(name, &mut x)?;
        }
        if let Some(name) = head.output {
            return self.linear(name, x.view(), head.labels.len());
        }
        let config = &self.0.config;
        let [words, ..] = self.0.embedding_tables();
        let words = self.0.tensors.matrix(&words.0, [config.vocab_size, config.embedding_size])?;
        let bias = self.0.tensors.vector("generator_lm_head.bias", config.vocab_size)?;
        Ok(x.dot(&words.t()) + bias)
    }

    /// x·Wᵀ + b.
    fn linear(&self, name: &str, x: ArrayView2<'_, f32>, outputs: usize) -> Result<Array2<f32>, ImportError> {
        let weight = self.0.tensors.matrix(&format!("{name}.weight"), [outputs, x.ncols()])?;
        let bias = self.0.tensors.vector(&format!("{name}.bias"), outputs)?;
        Ok(x.dot(&weight.t()) + bias)
    }

    fn layer_norm(&self, name: &str, x: &mut Array2<f32>) -> Result<(), ImportError> {
        let weight = self.0.tensors.vector(&format!("{name}.weight"), x.ncols())?;
        let bias = self.0.tensors.vector(&format!("{name}.bias"), x.ncols())?;
        for mut row in x.rows_mut() {
            let mean = row.sum() / row.len() as f32;
            row -= mean;
            let variance = row.fold(0.0, |sum, x| sum + x * x) / row.len() as f32;
            row /= (variance + self.0.config.layer_norm_eps).sqrt();
            row *= &weight;
            row += &bias;
        }
        Ok(())
    }
}

/// x·Φ(x).
fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    (0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))) as f32
}

/// Row-wise softmax.
pub fn softmax(mut scores: Array2<f32>) -> Array2<f32> {
    for mut row in scores.axis_iter_mut(Axis(0)) {
        let max = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        row.mapv_inplace(|x| (x - max).exp());
        let sum = row.sum();
        row /= sum;
    }
    scores
}
