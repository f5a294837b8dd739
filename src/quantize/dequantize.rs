//! The quantised model → f32 tensors under Hugging Face's names, with what an adapter learned merged into them: what
//! goes back to a Hugging Face folder, or is quantised again into a model of its own.

use std::path::Path;

use ndarray::{Array2, ArrayView2};

use super::QuantizeError;
use super::trie::pieces;
use crate::import::{Checkpoint, HeadTensors, Tensors, write_peft};
use crate::text::SpecialTokens;
use crate::weights::format::{Layer, Linear, Norm};
use crate::weights::strategy::{LORA_ALPHA, NormPart, Part};
use crate::weights::{Adapter, HeadKind, Model, native};

impl Checkpoint {
    /// The f32 checkpoint of a quantised model, with an adapter merged into it where there is one; then its head
    /// is the only one.
    pub fn of_model(model: &Model<'_>, adapter: Option<&Adapter<'_>>) -> Self {
        let root = model.root();
        let vocabulary = &root.vocabulary;
        let [pad, unk, cls, sep, mask] = vocabulary.special.map(|id| id.to_native());
        let mut checkpoint = Self {
            name: root.provenance.name.as_str().to_owned(),
            config: *model.config(),
            tensors: Tensors::default(),
            heads: Vec::new(),
            pieces: pieces(vocabulary),
            special: SpecialTokens { pad, unk, cls, sep, mask },
            uncased: vocabulary.uncased,
        };
        checkpoint.add_embeddings(model, adapter);
        for index in 0..model.config().num_hidden_layers {
            checkpoint.add_layer(model, index, adapter);
        }
        for kind in HeadKind::ALL {
            let trained = adapter.filter(|adapter| adapter.kind == kind && adapter.head().is_some());
            let wanted = adapter.is_none_or(|adapter| adapter.kind == kind);
            if wanted && (trained.is_some() || model.head(kind).is_ok()) {
                checkpoint.add_head(model, kind, trained);
            }
        }
        checkpoint
    }

    fn add_embeddings(&mut self, model: &Model<'_>, adapter: Option<&Adapter<'_>>) {
        let embeddings = &model.root().embeddings;
        let width = self.config.embedding_size;
        let [words, positions, types] = self.embedding_tables();
        let mut table = matrix(&embeddings.words);
        if let Some((pieces, directions)) = adapter.and_then(|adapter| adapter.words()) {
            let rank = directions.len() / width;
            table += &factor(pieces, [words.1, rank]).dot(&factor(directions, [rank, width]));
        }
        self.tensors.insert(&words.0, &[words.1, width], table.iter().copied().collect());
        self.tensors.insert(&positions.0, &[positions.1, width], native(&embeddings.positions).to_vec());
        self.tensors.insert(&types.0, &[types.1, width], native(&embeddings.token_types).to_vec());
        self.add_norm("electra.embeddings.LayerNorm", &embeddings.norm);
        if let Some(projection) = embeddings.projection.as_ref() {
            self.add_linear("electra.embeddings_project", matrix(projection), biases(projection));
        }
    }

    fn add_layer(&mut self, model: &Model<'_>, index: usize, adapter: Option<&Adapter<'_>>) {
        let layer = &model.root().layers[index];
        for (part, linear) in dense_layers(layer) {
            let (mut weight, mut bias) = (matrix(linear), biases(linear));
            if let Some(low_rank) = adapter.and_then(|adapter| adapter.low_rank(index, part)) {
                let (a, b) = factors(low_rank.a, low_rank.b, low_rank.rank);
                weight.scaled_add(low_rank.scale, &b.t().dot(&a));
            }
            let learned = adapter.map(|adapter| adapter.bias(index, part)).unwrap_or_default();
            for (bias, learned) in bias.iter_mut().zip(learned) {
                *bias += learned;
            }
            self.add_linear(&layer_name(index, part), weight, bias);
        }
        for (part, norm, name) in [
            (NormPart::Attention, &layer.attention_norm, "attention.output.LayerNorm"),
            (NormPart::Output, &layer.output_norm, "output.LayerNorm"),
        ] {
            let name = format!("electra.encoder.layer.{index}.{name}");
            match adapter.and_then(|adapter| adapter.norm(index, part)) {
                Some((weight, bias)) => self.add_vectors(&name, weight, bias),
                None => self.add_norm(&name, norm),
            }
        }
    }

    fn add_head(&mut self, model: &Model<'_>, kind: HeadKind, trained: Option<&Adapter<'_>>) {
        let own = model.head(kind).ok();
        let [dense, norm, output] = head_names(kind);
        let mut head = HeadTensors { kind, dense: None, norm: None, output, labels: Vec::new() };
        if let Some((name, linear)) = dense.zip(own.and_then(|head| head.dense.as_ref())) {
            self.add_linear(name, matrix(linear), biases(linear));
            head.dense = Some((name, linear.outputs()));
        }
        if let Some((name, own)) = norm.zip(own.and_then(|head| head.norm.as_ref())) {
            self.add_norm(name, own);
            head.norm = Some(name);
        }
        match (output, trained.and_then(|adapter| Some((adapter, adapter.head()?)))) {
            (Some(name), Some((adapter, (weight, bias)))) => {
                head.labels = adapter.labels.iter().map(str::to_owned).collect();
                let weight = ArrayView2::from_shape((bias.len(), weight.len() / bias.len()), weight);
                self.add_linear(name, weight.expect("a head's shape").to_owned(), bias.to_vec());
            }
            (Some(name), None) => {
                if let Some(linear) = own.and_then(|head| head.output.as_ref()) {
                    self.add_linear(name, matrix(linear), biases(linear));
                }
                let labels = own.into_iter().flat_map(|head| head.labels.iter());
                head.labels = labels.map(|label| label.as_str().to_owned()).collect();
            }
            (None, _) => {
                let bias = biases(&model.root().embeddings.words);
                self.tensors.insert("generator_lm_head.bias", &[bias.len()], bias);
            }
        }
        self.heads.push(head);
    }

    /// The same with the dense layer that `transformers` expects of a head that was learned without one: as
    /// GELU(z) − GELU(−z) = z, rows W and −W stand in it, and the output layer subtracts.
    ///
    /// # Errors
    /// [`QuantizeError::HeadTooWide`] if it has more than half as many labels as the hidden size.
    pub fn with_dense_heads(mut self) -> Result<Self, QuantizeError> {
        let hidden = self.config.hidden_size;
        for index in 0..self.heads.len() {
            let HeadTensors { kind, dense, output, labels, .. } = self.heads[index].clone();
            let ([Some(name), ..], None, Some(output)) = (head_names(kind), dense, output) else { continue };
            let count = labels.len();
            if 2 * count > hidden {
                return Err(QuantizeError::HeadTooWide { labels: count, hidden });
            }
            let weight = self.tensors.matrix(&format!("{output}.weight"), [count, hidden])?.to_owned();
            let (mut wide, mut difference) =
                (Array2::zeros((hidden, hidden)), Array2::zeros((count, hidden)));
            for label in 0..count {
                wide.row_mut(label).assign(&weight.row(label));
                wide.row_mut(count + label).assign(&(-&weight.row(label)));
                difference[[label, label]] = 1.0;
                difference[[label, count + label]] = -1.0;
            }
            let bias = self.tensors.vector(&format!("{output}.bias"), count)?.to_vec();
            self.add_linear(name, wide, vec![0.0; hidden]);
            self.add_linear(output, difference, bias);
            self.heads[index].dense = Some((name, hidden));
        }
        Ok(self)
    }

    fn add_linear(&mut self, name: &str, weight: Array2<f32>, bias: Vec<f32>) {
        let (outputs, inputs) = weight.dim();
        self.tensors.insert(&format!("{name}.weight"), &[outputs, inputs], weight.iter().copied().collect());
        self.tensors.insert(&format!("{name}.bias"), &[bias.len()], bias);
    }

    fn add_norm(&mut self, name: &str, norm: &Norm) {
        self.add_vectors(name, native(&norm.weight), native(&norm.bias));
    }

    fn add_vectors(&mut self, name: &str, weight: &[f32], bias: &[f32]) {
        self.tensors.insert(&format!("{name}.weight"), &[weight.len()], weight.to_vec());
        self.tensors.insert(&format!("{name}.bias"), &[bias.len()], bias.to_vec());
    }
}

/// Writes an adapter's low-rank updates and head in the layout of `peft`, to be laid on the folder that
/// [`Checkpoint::of_model`] of the bare model gives.
///
/// # Errors
/// [`QuantizeError::NoPeftLayout`] for trained biases, or no low-rank update.
pub fn peft(model: &Model<'_>, adapter: &Adapter<'_>, folder: &Path) -> Result<(), QuantizeError> {
    let strategy = adapter.layout.strategy;
    let Some(lora) = strategy.lora else { return Err(QuantizeError::NoPeftLayout("no low-rank update")) };
    if strategy.words > 0 {
        return Err(QuantizeError::NoPeftLayout("trained words"));
    }
    if strategy.bias_layers > 0 {
        return Err(QuantizeError::NoPeftLayout("trained biases and LayerNorms"));
    }
    let mut tensors = Tensors::default();
    let mut modules = Vec::new();
    for index in 0..model.config().num_hidden_layers {
        for part in Part::ALL {
            let Some(low_rank) = adapter.low_rank(index, part) else { continue };
            let name = layer_name(index, part);
            let (a, b) = factors(low_rank.a, low_rank.b, lora.rank);
            for (matrix, letter) in [(a.to_owned(), "A"), (b.t().to_owned(), "B")] {
                let (rows, columns) = matrix.dim();
                let name = format!("base_model.model.{name}.lora_{letter}.weight");
                tensors.insert(&name, &[rows, columns], matrix.iter().copied().collect());
            }
            modules.push(name.replace('.', r"\."));
        }
    }
    let merged = Checkpoint::of_model(model, Some(adapter)).with_dense_heads()?;
    let head = merged.heads.first().and_then(|head| head.output).filter(|_| strategy.head);
    let head = head.map(|name| name.split('.').next().unwrap_or(name));
    for (name, tensor) in merged.tensors.iter() {
        if head.is_some_and(|head| name.starts_with(&format!("{head}."))) {
            let values = tensor.iter().copied().collect();
            tensors.insert(&format!("base_model.model.{name}"), tensor.shape(), values);
        }
    }
    let pattern = modules.join("|");
    Ok(write_peft(folder, &tensors, adapter.kind, lora.rank, LORA_ALPHA, &pattern, head)?)
}

/// A layer's dense layers.
pub(super) fn dense_layers(layer: &Layer) -> [(Part, &Linear); 6] {
    [
        (Part::Query, &layer.query),
        (Part::Key, &layer.key),
        (Part::Value, &layer.value),
        (Part::AttentionOutput, &layer.attention_output),
        (Part::Intermediate, &layer.intermediate),
        (Part::Output, &layer.output),
    ]
}

/// A dense layer's name in Hugging Face's folders.
pub(super) fn layer_name(index: usize, part: Part) -> String {
    let name = match part {
        Part::Query => "attention.self.query",
        Part::Key => "attention.self.key",
        Part::Value => "attention.self.value",
        Part::AttentionOutput => "attention.output.dense",
        Part::Intermediate => "intermediate.dense",
        Part::Output => "output.dense",
    };
    format!("electra.encoder.layer.{index}.{name}")
}

/// Names of a head's dense layer, LayerNorm and output layer.
fn head_names(kind: HeadKind) -> [Option<&'static str>; 3] {
    match kind {
        HeadKind::Detect => {
            let [dense, output] =
                ["discriminator_predictions.dense", "discriminator_predictions.dense_prediction"];
            [Some(dense), None, Some(output)]
        }
        HeadKind::FillMask => {
            [Some("generator_predictions.dense"), Some("generator_predictions.LayerNorm"), None]
        }
        HeadKind::Classify | HeadKind::Regress => {
            [Some("classifier.dense"), None, Some("classifier.out_proj")]
        }
        HeadKind::Tag => [None, None, Some("classifier")],
        HeadKind::Answer => [None, None, Some("qa_outputs")],
    }
}

/// The matrix `[outputs, inputs]`, without the smoothing that its columns were divided by.
fn matrix(linear: &Linear) -> Array2<f32> {
    let (outputs, inputs) = (linear.outputs(), linear.inputs());
    let mut weight = Array2::zeros((outputs, inputs));
    for (output, mut row) in weight.rows_mut().into_iter().enumerate() {
        linear.add_row(output, row.as_slice_mut().expect("rows are contiguous"));
        for (weight, factor) in row.iter_mut().zip(native(&linear.smoothing)) {
            *weight *= factor;
        }
    }
    weight
}

pub(super) fn biases(linear: &Linear) -> Vec<f32> {
    linear.channels.iter().flat_map(|channels| channels.bias).take(linear.outputs()).collect()
}

/// A `[rank, inputs]` and Bᵀ `[rank, outputs]` as matrices.
fn factors<'a>(a: &'a [f32], b: &'a [f32], rank: usize) -> (ArrayView2<'a, f32>, ArrayView2<'a, f32>) {
    (factor(a, [rank, a.len() / rank]), factor(b, [rank, b.len() / rank]))
}

fn factor(values: &[f32], shape: [usize; 2]) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape(shape, values).expect("a factor has the layout's shape")
}
