//! f32 tensors → the int8 model: symmetric per output channel (per row, for an embedding table).

mod dequantize;
mod pack;
mod report;
mod smooth;
mod trie;

pub use dequantize::peft;
pub use report::{HeadReport, LayerReport, Report, cosine, verify};
pub use trie::vocabulary_archive;

use crate::import::{Checkpoint, HeadTensors, ImportError};
use crate::kernels::KernelSet;
use crate::weights::owned::{
    AlignedBytes, Check, Config, Embeddings, Head, Layer, Linear, Norm, Provenance, Root,
};
use crate::{Error, Model, Plan, Session};

/// Sentences that every converted model carries with the result it must give.
const CHECK_SENTENCES: [&str; 3] = [
    "The cat sat on the mat.",
    "In 1869, the first railway across the continent was completed.",
    "Où est l'école? She asked again — twice!",
];

/// Why a checkpoint did not become a model.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The tensors are not what the config says.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The model that came out cannot run.
    #[error("the converted model does not run: {0}")]
    Model(#[from] Error),
    /// A head that `transformers` has no layout for.
    #[error(
        "the head has {labels} labels; beside a hidden size of {hidden}, at most half as many can be exported"
    )]
    HeadTooWide {
        /// Its labels.
        labels: usize,
        /// The hidden size.
        hidden: usize,
    },
    /// An adapter that `peft` has no layout for.
    #[error("the adapter has {0}, for which peft has no layout; merge it into a folder instead")]
    NoPeftLayout(&'static str),
    /// A weight that is no number.
    #[error("tensor {0}: holds a value that is not finite")]
    NotFinite(String),
}

/// The bytes of the int8 `.electret` file.
///
/// `source` and `licence` go into the file's provenance. How far the intermediate layers are smoothed is
/// tried out: what stays nearest to the reference on the check sentences is kept.
pub fn quantize(checkpoint: &Checkpoint, source: &str, licence: &str) -> Result<Vec<u8>, QuantizeError> {
    for (name, tensor) in checkpoint.tensors.iter() {
        if !tensor.iter().all(|value| value.is_finite()) {
            return Err(QuantizeError::NotFinite(name.clone()));
        }
        checkpoint.tensors.release();
    }
    let mut root = Root {
        config: stored_config(checkpoint),
        provenance: Provenance {
            name: checkpoint.name.clone(),
            source: source.to_owned(),
            licence: licence.to_owned(),
            tool: concat!("electret ", env!("CARGO_PKG_VERSION")).to_owned(),
            quantisation: "int8, symmetric per output channel, round to nearest".to_owned(),
        },
        vocabulary: trie::vocabulary(
            &checkpoint.pieces,
            &checkpoint.special,
            checkpoint.uncased,
            checkpoint.config.vocab_size,
        ),
        embeddings: embeddings(checkpoint)?,
        layers: (0..checkpoint.config.num_hidden_layers)
            .map(|layer| self::layer(checkpoint, layer))
            .collect::<Result<_, _>>()?,
        heads: checkpoint.heads.iter().map(|head| self::head(checkpoint, head)).collect::<Result<_, _>>()?,
        checks: Vec::new(),
    };
    smooth_intermediate_layers(&mut root, checkpoint)?;
    root.checks = checks(&AlignedBytes::copy_of(&root.to_file()))?;
    Ok(root.to_file())
}

/// Tries each exponent of [`smooth::INTERMEDIATE`], of which `root` has the first, and keeps the best.
fn smooth_intermediate_layers(root: &mut Root, checkpoint: &Checkpoint) -> Result<(), QuantizeError> {
    let texts = CHECK_SENTENCES.map(str::to_owned);
    let mut best: Option<(f64, Vec<Linear>)> = None;
    for alpha in smooth::INTERMEDIATE {
        for (index, layer) in root.layers.iter_mut().enumerate() {
            layer.intermediate = intermediate(checkpoint, index, alpha)?;
        }
        let file = AlignedBytes::copy_of(&root.to_file());
        let cosine = verify(Model::open(file.as_slice())?, checkpoint, &texts)?.mean_cosine;
        log::debug!("intermediate layers smoothed by {alpha}: mean cosine {cosine:.6}");
        if best.as_ref().is_none_or(|(nearest, _)| cosine > *nearest) {
            best = Some((cosine, root.layers.iter().map(|layer| layer.intermediate.clone()).collect()));
        }
    }
    let kept = best.map(|(_, kept)| kept).unwrap_or_default();
    for (layer, intermediate) in root.layers.iter_mut().zip(kept) {
        layer.intermediate = intermediate;
    }
    Ok(())
}

/// What the scalar kernels answer to [`CHECK_SENTENCES`], those that fit the model.
fn checks(file: &AlignedBytes) -> Result<Vec<Check>, Error> {
    let model = Model::open(file.as_slice())?;
    let Some(scalar) = crate::kernels::available().next() else { return Ok(Vec::new()) };
    let mut checks = Vec::new();
    for text in CHECK_SENTENCES {
        match first_hidden(model, text, scalar) {
            Ok(hidden) => checks.push(Check { text: text.to_owned(), hidden }),
            Err(Error::SequenceTooLong { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(checks)
}

/// The last hidden state of `[CLS]`.
fn first_hidden(model: Model<'_>, text: &str, kernels: &'static KernelSet) -> Result<Vec<f32>, Error> {
    let mut arena = AlignedBytes::zeroed(check_plan(&model).bytes());
    let mut session = Session::with(model, arena.as_mut_slice(), check_plan(&model), kernels)?;
    let (_, hidden) = session.encode(text.into())?;
    Ok(hidden[..model.config().hidden_size].to_vec())
}

/// Runs the model's own checks on a kernel set: how many there are, and whether every bit agrees.
pub fn self_test(model: Model<'_>, kernels: &'static KernelSet) -> Result<(usize, bool), Error> {
    let mut arena = AlignedBytes::zeroed(check_plan(&model).bytes());
    Session::with(model, arena.as_mut_slice(), check_plan(&model), kernels)?.self_test()
}

/// What the check sentences need.
fn check_plan(model: &Model<'_>) -> Plan {
    Plan::inference(model.config(), model.config().max_position_embeddings.min(64))
}

fn stored_config(checkpoint: &Checkpoint) -> Config {
    let config = &checkpoint.config;
    Config {
        vocab_size: config.vocab_size as u32,
        embedding_size: config.embedding_size as u32,
        hidden_size: config.hidden_size as u32,
        num_hidden_layers: config.num_hidden_layers as u32,
        num_attention_heads: config.num_attention_heads as u32,
        intermediate_size: config.intermediate_size as u32,
        max_position_embeddings: config.max_position_embeddings as u32,
        type_vocab_size: config.type_vocab_size as u32,
        layer_norm_eps: config.layer_norm_eps,
    }
}

fn embeddings(checkpoint: &Checkpoint) -> Result<Embeddings, ImportError> {
    let width = checkpoint.config.embedding_size;
    let tensors = &checkpoint.tensors;
    let [words, positions, types] = checkpoint.embedding_tables();
    let bias = if tensors.contains("generator_lm_head.bias") {
        tensors.vector("generator_lm_head.bias", words.1)?.to_vec()
    } else {
        vec![0.0; words.1]
    };
    let values = |(name, rows): (String, usize)| -> Result<Vec<f32>, ImportError> {
        Ok(tensors.matrix(&name, [rows, width])?.iter().copied().collect())
    };
    let projection = checkpoint
        .config
        .has_projection()
        .then(|| linear(checkpoint, "electra.embeddings_project", checkpoint.config.hidden_size, width));
    Ok(Embeddings {
        words: pack::linear(tensors.matrix(&words.0, [words.1, width])?.view(), &bias),
        positions: values(positions)?,
        token_types: values(types)?,
        norm: norm(checkpoint, "electra.embeddings.LayerNorm", width)?,
        projection: projection.transpose()?,
    })
}

fn layer(checkpoint: &Checkpoint, layer: usize) -> Result<Layer, ImportError> {
    let (hidden, inner) = (checkpoint.config.hidden_size, checkpoint.config.intermediate_size);
    let name = |part: &str| format!("electra.encoder.layer.{layer}.{part}");
    let before = smooth::norm_before(checkpoint, layer);
    let smoothed =
        |part: &str| smooth::linear(checkpoint, &name(part), hidden, before.as_deref(), smooth::ATTENTION);
    let middle = name("attention.output.LayerNorm");
    // One layer's f32 weights in memory at a time.
    checkpoint.tensors.release();
    Ok(Layer {
        query: smoothed("attention.self.query")?,
        key: smoothed("attention.self.key")?,
        value: smoothed("attention.self.value")?,
        attention_output: linear(checkpoint, &name("attention.output.dense"), hidden, hidden)?,
        attention_norm: norm(checkpoint, &middle, hidden)?,
        intermediate: intermediate(checkpoint, layer, smooth::INTERMEDIATE[0])?,
        output: linear(checkpoint, &name("output.dense"), hidden, inner)?,
        output_norm: norm(checkpoint, &name("output.LayerNorm"), hidden)?,
    })
}

fn intermediate(checkpoint: &Checkpoint, layer: usize, alpha: f32) -> Result<Linear, ImportError> {
    let name = |part: &str| format!("electra.encoder.layer.{layer}.{part}");
    let norm = name("attention.output.LayerNorm");
    let inner = checkpoint.config.intermediate_size;
    smooth::linear(checkpoint, &name("intermediate.dense"), inner, Some(&norm), alpha)
}

fn head(checkpoint: &Checkpoint, head: &HeadTensors) -> Result<Head, ImportError> {
    let hidden = checkpoint.config.hidden_size;
    let width = head.dense.map_or(hidden, |(_, outputs)| outputs);
    let dense = head.dense.map(|(name, outputs)| linear(checkpoint, name, outputs, hidden));
    let norm = head.norm.map(|name| self::norm(checkpoint, name, width));
    let output = head.output.map(|name| linear(checkpoint, name, head.labels.len(), width));
    Ok(Head {
        kind: head.kind,
        dense: dense.transpose()?,
        norm: norm.transpose()?,
        output: output.transpose()?,
        labels: head.labels.clone(),
    })
}

fn linear(checkpoint: &Checkpoint, name: &str, outputs: usize, inputs: usize) -> Result<Linear, ImportError> {
    let weight = checkpoint.tensors.matrix(&format!("{name}.weight"), [outputs, inputs])?;
    let bias = checkpoint.tensors.vector(&format!("{name}.bias"), outputs)?;
    Ok(pack::linear(weight.view(), &bias.to_vec()))
}

fn norm(checkpoint: &Checkpoint, name: &str, width: usize) -> Result<Norm, ImportError> {
    Ok(Norm {
        weight: checkpoint.tensors.vector(&format!("{name}.weight"), width)?.to_vec(),
        bias: checkpoint.tensors.vector(&format!("{name}.bias"), width)?.to_vec(),
    })
}
