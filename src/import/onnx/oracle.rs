//! The same graph run by `tract`: whether the f32 reference on the tensors that were read gives its outputs.

use std::path::Path;

use ndarray::{Array2, s};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::DimLike;
use tract_onnx::tract_hir::infer::Factoid;

use super::encoder::Inputs;
use super::graph::Graph;
use crate::HeadKind;
use crate::import::Checkpoint;
use crate::reference::{Reference, Sequence};

/// Tokens of the sequences that are compared.
const LENGTHS: [usize; 2] = [7, 16];

/// How far what was read agrees with what the graph computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Root of the mean squared difference of all outputs, over that of the outputs themselves.
    pub relative_error: f32,
    /// The largest difference of one output.
    pub largest: f32,
}

/// Runs both on sequences of ids that spread over the vocabulary.
///
/// # Errors
/// What `tract` says about the graph; that the outputs differ by more than the graph's number format explains.
pub fn compare(
    path: &Path,
    graph: &Graph,
    inputs: &Inputs,
    checkpoint: &Checkpoint,
) -> Result<Agreement, String> {
    let allowed = tolerance(graph);
    let (mut squares, mut errors, mut largest) = (0f64, 0f64, 0f32);
    let refused = |error: TractError| format!("tract: {error:#}");
    let model = load(path).map_err(refused)?;
    let length = fixed_length(&model).map_err(refused)?;
    let limit = checkpoint.config.max_position_embeddings;
    if let Some(tokens) = length.filter(|tokens| !(1..=limit).contains(tokens)) {
        return Err(format!("the graph takes sequences of {tokens} tokens, its positions end at {limit}"));
    }
    for tokens in length.map_or(LENGTHS.to_vec(), |tokens| vec![tokens]) {
        let vocabulary = checkpoint.config.vocab_size;
        let input_ids: Vec<u32> = (0..tokens).map(|i| (i * 7919 % vocabulary) as u32).collect();
        let segments = if inputs.types.is_some() { 2.min(checkpoint.config.type_vocab_size) } else { 1 };
        let token_type_ids: Vec<u32> =
            (0..tokens).map(|i| u32::from(i > tokens / 2 && segments == 2)).collect();
        let sequence = Sequence { input_ids, token_type_ids, padding: vec![false; tokens] };
        let theirs = run(model.clone(), graph, inputs, &sequence).map_err(refused)?;
        let ours = outputs(checkpoint, &sequence).map_err(|error| error.to_string())?;
        let (ours, theirs) = (ours.concat(), theirs.concat());
        if theirs.len() < ours.len() {
            return Err(format!("the graph gives {} values where {} were read", theirs.len(), ours.len()));
        }
        for (ours, theirs) in ours.iter().zip(&theirs) {
            squares += f64::from(*theirs).powi(2);
            errors += f64::from(ours - theirs).powi(2);
            largest = largest.max((ours - theirs).abs());
        }
    }
    let relative_error = (errors / squares.max(f64::MIN_POSITIVE)).sqrt() as f32;
    if relative_error <= allowed {
        return Ok(Agreement { relative_error, largest });
    }
    Err(format!(
        "computes something else than the encoder that was read: its outputs differ by {relative_error:.1e} of their size, \
         {allowed:.0e} can be rounding"
    ))
}

fn load(path: &Path) -> TractResult<InferenceModel> {
    tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true).model_for_path(path)
}

/// How many tokens the graph was made for, if it takes no other number.
fn fixed_length(model: &InferenceModel) -> TractResult<Option<usize>> {
    let outlet = model.input_outlets()?.first().copied().ok_or(TractError::msg("the graph has no input"))?;
    let tokens = model.outlet_fact(outlet)?.shape.dim(1).and_then(|dim| dim.concretize());
    Ok(tokens.and_then(|tokens| tokens.to_usize().ok()))
}

/// What rounding can do: more in graphs with f16 or int8 arithmetic.
fn tolerance(graph: &Graph) -> f32 {
    let has = |kinds: &[&str]| graph.nodes.iter().any(|node| kinds.contains(&node.op_type.as_str()));
    match () {
        () if has(&["MatMulInteger", "QuantizeLinear", "DynamicQuantizeLinear"]) => 0.2,
        () if graph.is_half() => 0.02,
        () => 1e-4,
    }
}

/// The graph's outputs, in their order.
fn run(
    mut model: InferenceModel,
    graph: &Graph,
    inputs: &Inputs,
    sequence: &Sequence,
) -> TractResult<Vec<Vec<f32>>> {
    let tokens = sequence.input_ids.len();
    let mut values = tvec![];
    for (index, outlet) in model.input_outlets()?.to_vec().into_iter().enumerate() {
        let name = model.node(outlet.node).name.clone();
        let kind = model.outlet_fact(outlet)?.datum_type.concretize().unwrap_or(i64::datum_type());
        model.set_input_fact(index, InferenceFact::dt_shape(kind, tvec![1, tokens]))?;
        let row: Vec<i64> = match () {
            () if name == inputs.ids => sequence.input_ids.iter().map(|&id| id.into()).collect(),
            () if Some(&name) == inputs.types.as_ref() => {
                sequence.token_type_ids.iter().map(|&id| id.into()).collect()
            }
            () => vec![1; tokens],
        };
        let tensor: Tensor = tract_ndarray::Array2::from_shape_vec((1, tokens), row)?.into();
        values.push(tensor.cast_to_dt(kind)?.into_owned().into_tvalue());
    }
    if values.len() != graph.inputs.len() {
        return Err(TractError::msg(format!(
            "{} inputs where the file has {}",
            values.len(),
            graph.inputs.len()
        )));
    }
    let found = model.into_optimized()?.into_runnable()?.run(values)?;
    found
        .iter()
        .map(|value| Ok(value.cast_to::<f32>()?.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()))
        .collect()
}

/// What the reference makes of the sequence: the first head's logits, or the last hidden states without a head.
fn outputs(
    checkpoint: &Checkpoint,
    sequence: &Sequence,
) -> Result<Vec<Vec<f32>>, crate::import::ImportError> {
    let reference = Reference(checkpoint);
    let mut states = reference.hidden_states(sequence)?;
    let hidden: Array2<f32> = states.pop().unwrap_or_default();
    let Some(head) = checkpoint.heads.first() else {
        return Ok(vec![hidden.iter().copied().collect()]);
    };
    let rows = hidden.slice(s![..head.kind.answering_rows(hidden.nrows()), ..]);
    let logits = reference.logits(head, rows)?;
    if head.kind == HeadKind::Answer {
        return Ok(logits.columns().into_iter().map(|column| column.to_vec()).collect());
    }
    Ok(vec![logits.iter().copied().collect()])
}
