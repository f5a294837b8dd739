//! f32 tensors → the int8 model, symmetric per output channel (per row, for an embedding table), or as much of it in
//! int4 as a [`Recipe`] says.

mod calibrate;
mod dequantize;
mod fit;
mod int4;
mod merge;
#[cfg(feature = "onnx")]
mod onnx;
mod pack;
pub(crate) mod page;
mod report;
mod smooth;
mod trie;

pub use dequantize::peft;
pub use fit::{Fitted, Sensitivity, fit};
pub use merge::merge;
#[cfg(feature = "onnx")]
pub use onnx::onnx;
pub use report::{Change, HeadReport, LayerReport, Report, SHOWN, cosine, verify};
pub use trie::{pieces, vocabulary_archive};

use std::collections::BTreeSet;

use calibrate::{Calibration, Moments};
use dequantize::{dense_layers, layer_name};
use ndarray::Array2;

use crate::import::{Checkpoint, HeadTensors, ImportError, WORDS};
use crate::kernels::KernelSet;
use crate::weights::owned::{
    AlignedBytes, Check, Config, Embeddings, Head, Layer, Linear, Norm, Provenance, Root,
};
use crate::weights::strategy::Part;
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
    /// A model that was made of something else.
    #[error("{0}; the model was converted from something else")]
    OtherSource(String),
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
    /// A budget that nothing fits.
    #[error("{budget} bytes are too few: with all in int4 the file has {smallest}")]
    DoesNotFit {
        /// What was asked for.
        budget: usize,
        /// The smallest file, in bytes.
        smallest: usize,
    },
    /// A recipe names what cannot be int4.
    #[error("{0}: no matrix that may become int4")]
    NotForInt4(String),
    /// A weight that is no number.
    #[error("tensor {0}: holds a value that is not finite")]
    NotFinite(String),
}

/// What becomes int4, and how carefully.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// Names of the matrices that become int4, of those that [`matrices`] gives; the rest is int8.
    pub int4: BTreeSet<String>,
    /// Sentences like those that the model will read. With them, what rounding to int4 takes away is made good
    /// where these sentences do not show it.
    pub calibration: Vec<String>,
}

impl Recipe {
    /// All in int4 that may be.
    pub fn all_int4(checkpoint: &Checkpoint) -> Self {
        Self { int4: matrices(checkpoint).into_iter().collect(), calibration: Vec::new() }
    }

    /// What is int4 in a model that is there.
    pub fn of_model(model: &Model<'_>) -> Self {
        let layers = model.root().layers.iter().enumerate().flat_map(|(index, layer)| {
            dense_layers(layer).map(|(part, linear)| (layer_name(index, part), linear))
        });
        let words = (WORDS.to_owned(), &model.root().embeddings.words);
        let int4 = [words].into_iter().chain(layers).filter(|(_, linear)| linear.is_int4());
        Self { int4: int4.map(|(name, _)| name).collect(), calibration: Vec::new() }
    }
}

/// The matrices of a checkpoint that may become int4: the word embeddings and the layers' dense weights, as far as
/// that makes them smaller. Projection and heads are small, and stay int8.
pub fn matrices(checkpoint: &Checkpoint) -> Vec<String> {
    let config = &checkpoint.config;
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let layers = (0..config.num_hidden_layers).flat_map(|layer| {
        let shape = |part| match part {
            Part::Intermediate => [inner, hidden],
            Part::Output => [hidden, inner],
            _ => [hidden; 2],
        };
        Part::ALL.map(|part| (layer_name(layer, part), shape(part)))
    });
    let words = (WORDS.to_owned(), [config.vocab_size, config.embedding_size]);
    let all = [words].into_iter().chain(layers);
    all.filter(|&(_, [outputs, inputs])| pack::int4_is_smaller(outputs, inputs))
        .map(|(name, _)| name)
        .collect()
}

/// The bytes of the int8 `.electret` file.
///
/// `source` and `licence` go into the file's provenance. How far the intermediate layers are smoothed is
/// tried out: what stays nearest to the reference on the check sentences is kept.
pub fn quantize(checkpoint: &Checkpoint, source: &str, licence: &str) -> Result<Vec<u8>, QuantizeError> {
    quantize_by(checkpoint, source, licence, &Recipe::default())
}

/// The same, some of it in int4.
pub fn quantize_by(
    checkpoint: &Checkpoint,
    source: &str,
    licence: &str,
    recipe: &Recipe,
) -> Result<Vec<u8>, QuantizeError> {
    let possible = matrices(checkpoint);
    if let Some(name) = recipe.int4.iter().find(|&name| !possible.contains(name)) {
        return Err(QuantizeError::NotForInt4(name.clone()));
    }
    let mut root = Quantizer::new(checkpoint, recipe).root(source, licence)?;
    root.checks = checks(&AlignedBytes::copy_of(&root.to_file()))?;
    Ok(root.to_file())
}

impl std::fmt::Display for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("int8, symmetric per output channel, round to nearest")?;
        if self.int4.is_empty() {
            return Ok(());
        }
        write!(f, "; {} matrices int4, in groups of 32 inputs", self.int4.len())?;
        match self.calibration.len() {
            0 => Ok(()),
            lines => write!(f, ", compensated on {lines} lines of text"),
        }
    }
}

/// What turns a checkpoint's tensors into a model's.
struct Quantizer<'a> {
    checkpoint: &'a Checkpoint,
    recipe: &'a Recipe,
    /// Of the layer at work, and of the intermediate dense layers of all that were.
    moments: Moments,
}

impl<'a> Quantizer<'a> {
    fn new(checkpoint: &'a Checkpoint, recipe: &'a Recipe) -> Self {
        Self { checkpoint, recipe, moments: Moments::new() }
    }

    /// The model, without checks.
    fn root(mut self, source: &str, licence: &str) -> Result<Root, QuantizeError> {
        let checkpoint = self.checkpoint;
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
                quantisation: self.recipe.to_string(),
            },
            vocabulary: trie::vocabulary(&checkpoint.pieces, &checkpoint.special, checkpoint.uncased),
            embeddings: self.embeddings()?,
            layers: self.layers()?,
            heads: checkpoint.heads.iter().map(|head| self.head(head)).collect::<Result<_, _>>()?,
            checks: Vec::new(),
        };
        self.smooth_intermediate_layers(&mut root)?;
        Ok(root)
    }

    /// Tries each exponent of [`smooth::INTERMEDIATE`], of which `root` has the first, and keeps the best.
    fn smooth_intermediate_layers(&self, root: &mut Root) -> Result<(), QuantizeError> {
        let texts = CHECK_SENTENCES.map(str::to_owned);
        let mut best: Option<(f64, Vec<Linear>)> = None;
        for alpha in smooth::INTERMEDIATE {
            // They came with the first.
            for (index, layer) in root.layers.iter_mut().enumerate().filter(|_| best.is_some()) {
                layer.intermediate = self.intermediate(index, alpha)?;
            }
            let file = AlignedBytes::copy_of(&root.to_file());
            let cosine = verify(Model::open(file.as_slice())?, self.checkpoint, &texts)?.mean_cosine;
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

    fn embeddings(&self) -> Result<Embeddings, ImportError> {
        let Self { checkpoint, recipe, .. } = self;
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
        let table = tensors.matrix(&words.0, [words.1, width])?;
        let projection = checkpoint
            .config
            .has_projection()
            .then(|| self.linear("electra.embeddings_project", checkpoint.config.hidden_size, width));
        Ok(Embeddings {
            words: match recipe.int4.contains(&words.0) {
                true => pack::int4(table.to_owned(), &bias, None),
                false => pack::int8(table.view(), &bias),
            },
            positions: values(positions)?,
            token_types: values(types)?,
            norm: norm(checkpoint, "electra.embeddings.LayerNorm", width)?,
            projection: projection.transpose()?,
        })
    }

    fn layers(&mut self) -> Result<Vec<Layer>, QuantizeError> {
        let Self { checkpoint, recipe, .. } = *self;
        let calibrates = !(recipe.int4.is_empty() || recipe.calibration.is_empty());
        let mut calibration =
            calibrates.then(|| Calibration::new(checkpoint, &recipe.calibration)).transpose()?;
        let mut layers = Vec::new();
        for index in 0..checkpoint.config.num_hidden_layers {
            if let Some(calibration) = &mut calibration {
                self.moments.append(&mut calibration.layer(index)?);
            }
            layers.push(self.layer(index)?);
            // One layer's f32 weights in memory at a time; the intermediate layers are smoothed once more.
            self.moments.retain(|name, _| name.ends_with("intermediate.dense"));
            checkpoint.tensors.release();
        }
        Ok(layers)
    }

    fn layer(&self, layer: usize) -> Result<Layer, ImportError> {
        let Self { checkpoint, .. } = self;
        let (hidden, inner) = (checkpoint.config.hidden_size, checkpoint.config.intermediate_size);
        let name = |part: &str| format!("electra.encoder.layer.{layer}.{part}");
        let before = smooth::norm_before(checkpoint, layer);
        let smoothed = |part| {
            self.smoothed(&layer_name(layer, part), [hidden, hidden], before.as_deref(), smooth::ATTENTION)
        };
        Ok(Layer {
            query: smoothed(Part::Query)?,
            key: smoothed(Part::Key)?,
            value: smoothed(Part::Value)?,
            attention_output: self.linear(&layer_name(layer, Part::AttentionOutput), hidden, hidden)?,
            attention_norm: norm(checkpoint, &name("attention.output.LayerNorm"), hidden)?,
            intermediate: self.intermediate(layer, smooth::INTERMEDIATE[0])?,
            output: self.linear(&layer_name(layer, Part::Output), hidden, inner)?,
            output_norm: norm(checkpoint, &name("output.LayerNorm"), hidden)?,
        })
    }

    fn intermediate(&self, layer: usize, alpha: f32) -> Result<Linear, ImportError> {
        let norm = format!("electra.encoder.layer.{layer}.attention.output.LayerNorm");
        let config = &self.checkpoint.config;
        let shape = [config.intermediate_size, config.hidden_size];
        self.smoothed(&layer_name(layer, Part::Intermediate), shape, Some(&norm), alpha)
    }

    fn head(&self, head: &HeadTensors) -> Result<Head, ImportError> {
        let checkpoint = self.checkpoint;
        let hidden = checkpoint.config.hidden_size;
        let width = head.dense.map_or(hidden, |(_, outputs)| outputs);
        let dense = head.dense.map(|(name, outputs)| self.linear(name, outputs, hidden));
        let norm = head.norm.map(|name| self::norm(checkpoint, name, width));
        let output = head.output.map(|name| self.linear(name, head.labels.len(), width));
        Ok(Head {
            kind: head.kind,
            dense: dense.transpose()?,
            norm: norm.transpose()?,
            output: output.transpose()?,
            labels: head.labels.clone(),
        })
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear, ImportError> {
        let weight = self.checkpoint.tensors.matrix(&format!("{name}.weight"), [outputs, inputs])?;
        self.packed(name, weight.to_owned(), Vec::new())
    }

    /// A dense layer `[outputs, inputs]` that reads the output of `norm`, smoothed by the exponent `alpha`.
    fn smoothed(
        &self,
        name: &str,
        shape: [usize; 2],
        norm: Option<&str>,
        alpha: f32,
    ) -> Result<Linear, ImportError> {
        let mut weight = self.checkpoint.tensors.matrix(&format!("{name}.weight"), shape)?.to_owned();
        let smoothing = smooth::smooth(self.checkpoint, &mut weight, norm, alpha)?;
        self.packed(name, weight, smoothing)
    }

    /// A dense layer whose weights were multiplied by 1 / `smoothing`, in the recipe's precision.
    fn packed(&self, name: &str, weight: Array2<f32>, smoothing: Vec<f32>) -> Result<Linear, ImportError> {
        let bias = self.checkpoint.tensors.vector(&format!("{name}.bias"), weight.nrows())?.to_vec();
        if !self.recipe.int4.contains(name) {
            return Ok(Linear { smoothing, ..pack::int8(weight.view(), &bias) });
        }
        let moments = self.moments.get(name).map(|moments| {
            let mut moments = moments.clone();
            for ((i, j), value) in moments.indexed_iter_mut() {
                *value *= smoothing.get(i).unwrap_or(&1.0) * smoothing.get(j).unwrap_or(&1.0);
            }
            moments
        });
        Ok(Linear { smoothing, ..pack::int4(weight, &bias, moments.as_ref()) })
    }
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
    Plan::inference(model.config(), model.config().max_position_embeddings.min(64)).for_model(model)
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

fn norm(checkpoint: &Checkpoint, name: &str, width: usize) -> Result<Norm, ImportError> {
    Ok(Norm {
        weight: checkpoint.tensors.vector(&format!("{name}.weight"), width)?.to_vec(),
        bias: checkpoint.tensors.vector(&format!("{name}.bias"), width)?.to_vec(),
    })
}
