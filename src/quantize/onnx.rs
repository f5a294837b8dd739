//! The quantised model → ONNX, so that nobody is locked in.
//!
//! The graph is Hugging Face's (`input_ids`, `attention_mask` and `token_type_ids` `[batch, sequence]` in; `logits`,
//! `start_logits` and `end_logits`, or `last_hidden_state` out) in operators of opset 17. Weights are the model's own
//! int8, each with a DequantizeLinear of one scale an output channel; int4 weights are int8 once multiplied. Activations
//! stay f32: here they have a range for every row, which ONNX's quantised tensors cannot say.

use prost::Message;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::type_proto::{Tensor, Value};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};

use super::dequantize::biases;
use crate::weights::format::{Head, Layer, Linear, Norm};
use crate::weights::{HeadKind, Model, native};
use crate::{ElectraConfig, Error};

/// The bytes of an ONNX file of the model with its head of that kind, or without a head.
///
/// # Errors
/// [`Error::NoSuchHead`].
pub fn onnx(model: &Model<'_>, head: Option<HeadKind>) -> Result<Vec<u8>, Error> {
    let head = head.map(|kind| model.head(kind)).transpose()?;
    let (nodes, tensors) = (Vec::new(), Vec::new());
    let mut graph = Graph { config: *model.config(), words: String::new(), nodes, tensors };
    let mut x = graph.embeddings(model);
    let mask = graph.mask();
    for layer in model.root().layers.iter() {
        x = graph.layer(layer, x, &mask);
    }
    let outputs = graph.outputs(model, head, x);
    Ok(graph.file(model, outputs).encode_to_vec())
}

/// A graph being written. Every method adds nodes and gives the name of what they make.
struct Graph {
    config: ElectraConfig,
    /// The word embeddings, which a fill-mask head uses again.
    words: String,
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
}

/// What a node's attribute is set to.
enum Setting<'a> {
    Int(i64),
    Ints(&'a [i64]),
    Float(f32),
}

/// A result: its name, and its shape behind the batch.
type Output = (String, Vec<dimension::Value>);

impl Graph {
    /// word + position + segment, LayerNorm, projection: `[batch, sequence, hidden]`.
    fn embeddings(&mut self, model: &Model<'_>) -> String {
        let tables = &model.root().embeddings;
        let width = self.config.embedding_size;
        self.words = self.words(&tables.words);
        let words = self.node("Gather", &[&self.words.clone(), "input_ids"], &[]);
        let positions = self.table(native(&tables.positions), width);
        let types = self.table(native(&tables.token_types), width);
        let types = self.node("Gather", &[&types, "token_type_ids"], &[]);
        // 0, 1, … as far as the sequence goes.
        let (first, second) = (self.integers(&[0]), self.integers(&[1]));
        let all: Vec<i64> = (0..self.config.max_position_embeddings as i64).collect();
        let all = self.integers(&all);
        let shape = self.node("Shape", &["input_ids"], &[]);
        let length = self.node("Gather", &[&shape, &second], &[]);
        let places = self.node("Slice", &[&all, &first, &length, &first], &[]);
        let positions = self.node("Gather", &[&positions, &places], &[]);
        let sum = self.node("Add", &[&words, &types], &[]);
        let sum = self.node("Add", &[&sum, &positions], &[]);
        let x = self.norm(&sum, &tables.norm);
        match tables.projection.as_ref() {
            Some(projection) => self.linear(&x, projection),
            None => x,
        }
    }

    /// 0 where a token may be attended to, −10,000 where it is padding: `[batch, 1, 1, sequence]`.
    fn mask(&mut self) -> String {
        let axes = self.integers(&[1, 2]);
        let (one, far) = (self.number(1.0), self.number(-10_000.0));
        let to_float = Setting::Int(DataType::Float as i64);
        let mask = self.node("Cast", &["attention_mask"], &[("to", to_float)]);
        let mask = self.node("Unsqueeze", &[&mask, &axes], &[]);
        let padding = self.node("Sub", &[&one, &mask], &[]);
        self.node("Mul", &[&padding, &far], &[])
    }

    fn layer(&mut self, layer: &Layer, x: String, mask: &str) -> String {
        let attended = self.attention(layer, &x, mask);
        let attended = self.linear(&attended, &layer.attention_output);
        let sum = self.node("Add", &[&attended, &x], &[]);
        let x = self.norm(&sum, &layer.attention_norm);
        let inner = self.linear(&x, &layer.intermediate);
        let inner = self.gelu(&inner);
        let inner = self.linear(&inner, &layer.output);
        let sum = self.node("Add", &[&inner, &x], &[]);
        self.norm(&sum, &layer.output_norm)
    }

    /// softmax(Q·Kᵀ / √d + mask)·V of all heads at once.
    fn attention(&mut self, layer: &Layer, x: &str, mask: &str) -> String {
        let (heads, size) = (self.config.num_attention_heads, self.config.head_size());
        let split = self.integers(&[0, 0, heads as i64, size as i64]);
        let joined = self.integers(&[0, 0, (heads * size) as i64]);
        let root = self.number((size as f32).sqrt());
        let mut split_heads = |linear, order: &[i64]| {
            let rows = self.linear(x, linear);
            let rows = self.node("Reshape", &[&rows, &split], &[]);
            self.node("Transpose", &[&rows], &[("perm", Setting::Ints(order))])
        };
        let query = split_heads(&layer.query, &[0, 2, 1, 3]);
        let key = split_heads(&layer.key, &[0, 2, 3, 1]);
        let value = split_heads(&layer.value, &[0, 2, 1, 3]);
        let scores = self.node("MatMul", &[&query, &key], &[]);
        let scores = self.node("Div", &[&scores, &root], &[]);
        let scores = self.node("Add", &[&scores, mask], &[]);
        let shares = self.node("Softmax", &[&scores], &[("axis", Setting::Int(-1))]);
        let context = self.node("MatMul", &[&shares, &value], &[]);
        let context = self.node("Transpose", &[&context], &[("perm", Setting::Ints(&[0, 2, 1, 3]))]);
        self.node("Reshape", &[&context, &joined], &[])
    }

    /// The head's logits under their own names.
    fn outputs(&mut self, model: &Model<'_>, head: Option<&Head>, x: String) -> Vec<Output> {
        let sequence = || dimension::Value::DimParam("sequence".to_owned());
        let size = |size: usize| dimension::Value::DimValue(size as i64);
        let Some(head) = head else {
            let shape = vec![sequence(), size(self.config.hidden_size)];
            return vec![self.output("Identity", &[&x], "last_hidden_state", shape)];
        };
        let mut x = x;
        if head.kind.answers_from_first_token() {
            let first = self.integer(0);
            x = self.node("Gather", &[&x, &first], &[("axis", Setting::Int(1))]);
        }
        if let Some(dense) = head.dense.as_ref() {
            x = self.linear(&x, dense);
            x = self.gelu(&x);
        }
        if let Some(norm) = head.norm.as_ref() {
            x = self.norm(&x, norm);
        }
        x = match head.output.as_ref() {
            Some(output) => self.linear(&x, output),
            None => self.pieces(&x, &model.root().embeddings.words),
        };
        match head.kind {
            HeadKind::Detect => {
                let last = self.integers(&[-1]);
                vec![self.output("Squeeze", &[&x, &last], "logits", vec![sequence()])]
            }
            HeadKind::Answer => [("start_logits", 0), ("end_logits", 1)]
                .map(|(name, place)| {
                    let [last, from, to] = [-1, place, place + 1].map(|number| self.integers(&[number]));
                    let part = self.node("Slice", &[&x, &from, &to, &last], &[]);
                    self.output("Squeeze", &[&part, &last], name, vec![sequence()])
                })
                .into(),
            HeadKind::Classify | HeadKind::Regress => {
                vec![self.output("Identity", &[&x], "logits", vec![size(head.labels.len())])]
            }
            HeadKind::Tag | HeadKind::FillMask => {
                let labels = if head.labels.is_empty() { self.config.vocab_size } else { head.labels.len() };
                vec![self.output("Identity", &[&x], "logits", vec![sequence(), size(labels)])]
            }
        }
    }

    /// x·Wᵀ + b; an input that was smoothed is so here.
    fn linear(&mut self, x: &str, linear: &Linear) -> String {
        let mut x = x.to_owned();
        if !linear.smoothing.is_empty() {
            let smoothing = self.table(native(&linear.smoothing), 0);
            x = self.node("Mul", &[&x, &smoothing], &[]);
        }
        // MatMul wants [inputs, outputs].
        let (inputs, outputs) = (linear.inputs(), linear.outputs());
        let mut weights = vec![0_i8; inputs * outputs];
        for output in 0..outputs {
            for (input, weight) in linear.row(output).flatten().take(inputs).enumerate() {
                weights[input * outputs + output] = weight;
            }
        }
        let weights = self.dequantized(&weights, [inputs, outputs], linear, 1);
        let product = self.node("MatMul", &[&x, &weights], &[]);
        let bias = self.table(&biases(linear), 0);
        self.node("Add", &[&product, &bias], &[])
    }

    /// The word embeddings `[vocab_size, embedding_size]`.
    fn words(&mut self, words: &Linear) -> String {
        let (rows, width) = (words.outputs(), words.inputs());
        let row = |index| words.row(index).flatten().take(width);
        let table: Vec<i8> = (0..rows).flat_map(row).collect();
        self.dequantized(&table, [rows, width], words, 0)
    }

    /// Logits of all pieces: x times the word embeddings on their side, and their bias.
    fn pieces(&mut self, x: &str, words: &Linear) -> String {
        let table = self.node("Transpose", &[&self.words.clone()], &[("perm", Setting::Ints(&[1, 0]))]);
        let product = self.node("MatMul", &[x, &table], &[]);
        let bias = self.table(&biases(words), 0);
        self.node("Add", &[&product, &bias], &[])
    }

    /// int8 with the channels' scales along `axis`.
    fn dequantized(&mut self, weights: &[i8], shape: [usize; 2], linear: &Linear, axis: i64) -> String {
        let bytes = weights.iter().map(|&weight| weight as u8).collect();
        let weights = self.tensor(DataType::Int8, &shape.map(|size| size as i64), bytes);
        let scales = linear.channels.iter().flat_map(|channels| channels.scale);
        let scales: Vec<f32> = scales.take(linear.outputs()).collect();
        let scales = self.table(&scales, 0);
        self.node("DequantizeLinear", &[&weights, &scales], &[("axis", Setting::Int(axis))])
    }

    fn norm(&mut self, x: &str, norm: &Norm) -> String {
        let (weight, bias) = (self.table(native(&norm.weight), 0), self.table(native(&norm.bias), 0));
        let epsilon = Setting::Float(self.config.layer_norm_eps);
        let settings = [("axis", Setting::Int(-1)), ("epsilon", epsilon)];
        self.node("LayerNormalization", &[x, &weight, &bias], &settings)
    }

    /// x · ½ · (1 + erf(x / √2)).
    fn gelu(&mut self, x: &str) -> String {
        let (root, one, half) = (self.number(std::f32::consts::SQRT_2), self.number(1.0), self.number(0.5));
        let erf = self.node("Div", &[x, &root], &[]);
        let erf = self.node("Erf", &[&erf], &[]);
        let erf = self.node("Add", &[&erf, &one], &[]);
        let y = self.node("Mul", &[x, &erf], &[]);
        self.node("Mul", &[&y, &half], &[])
    }

    /// f32 in rows of `width`; a vector where that is 0.
    fn table(&mut self, values: &[f32], width: usize) -> String {
        let shape = match width {
            0 => vec![values.len() as i64],
            width => vec![(values.len() / width) as i64, width as i64],
        };
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(DataType::Float, &shape, bytes)
    }

    fn number(&mut self, value: f32) -> String {
        self.tensor(DataType::Float, &[], value.to_le_bytes().to_vec())
    }

    fn integer(&mut self, value: i64) -> String {
        self.tensor(DataType::Int64, &[], value.to_le_bytes().to_vec())
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(DataType::Int64, &[values.len() as i64], bytes)
    }

    fn tensor(&mut self, kind: DataType, dims: &[i64], raw_data: Vec<u8>) -> String {
        let name = format!("tensor_{}", self.tensors.len());
        let data_type = kind as i32;
        self.tensors.push(TensorProto {
            dims: dims.to_vec(),
            data_type,
            name: name.clone(),
            raw_data,
            ..Default::default()
        });
        name
    }

    fn node(&mut self, operator: &str, inputs: &[&str], settings: &[(&str, Setting<'_>)]) -> String {
        let name = format!("value_{}", self.nodes.len());
        self.named_node(operator, inputs, settings, name)
    }

    fn output(
        &mut self,
        operator: &str,
        inputs: &[&str],
        name: &str,
        shape: Vec<dimension::Value>,
    ) -> Output {
        (self.named_node(operator, inputs, &[], name.to_owned()), shape)
    }

    fn named_node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        settings: &[(&str, Setting<'_>)],
        name: String,
    ) -> String {
        let attribute = settings.iter().map(|(name, setting)| {
            let (mut attribute, kind) = match setting {
                Setting::Int(i) => (AttributeProto { i: *i, ..Default::default() }, AttributeType::Int),
                Setting::Ints(ints) => {
                    (AttributeProto { ints: ints.to_vec(), ..Default::default() }, AttributeType::Ints)
                }
                Setting::Float(f) => (AttributeProto { f: *f, ..Default::default() }, AttributeType::Float),
            };
            (attribute.name, attribute.r#type) = ((*name).to_owned(), kind as i32);
            attribute
        });
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: operator.to_owned(),
            attribute: attribute.collect(),
            ..Default::default()
        });
        name
    }

    fn file(self, model: &Model<'_>, outputs: Vec<Output>) -> ModelProto {
        let batch = || dimension::Value::DimParam("batch".to_owned());
        let sequence = || dimension::Value::DimParam("sequence".to_owned());
        let input = ["input_ids", "attention_mask", "token_type_ids"]
            .map(|name| described(name, DataType::Int64, vec![batch(), sequence()]));
        let output = outputs.into_iter().map(|(name, mut shape)| {
            shape.insert(0, batch());
            described(&name, DataType::Float, shape)
        });
        let name = model.root().provenance.name.as_str().to_owned();
        let graph = GraphProto {
            node: self.nodes,
            name,
            initializer: self.tensors,
            input: input.into(),
            output: output.collect(),
            ..Default::default()
        };
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
            producer_name: "electret".to_owned(),
            producer_version: env!("CARGO_PKG_VERSION").to_owned(),
            graph: Some(graph),
            ..Default::default()
        }
    }
}

/// An input or output of the graph.
fn described(name: &str, kind: DataType, shape: Vec<dimension::Value>) -> ValueInfoProto {
    let dim = shape.into_iter().map(|value| Dimension { value: Some(value), ..Default::default() });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    let tensor = Tensor { elem_type: kind as i32, shape };
    let r#type = Some(TypeProto { value: Some(Value::TensorType(tensor)), ..Default::default() });
    ValueInfoProto { name: name.to_owned(), r#type, ..Default::default() }
}
