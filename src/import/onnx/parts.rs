//! Linear layers, LayerNorms, GELUs and attentions, however they are spelled.

use ndarray::{Array1, Array2, Ix2};
use tract_onnx::pb::NodeProto;

use super::graph::{Graph, attribute, dequantized};

/// x·Wᵀ + b.
pub struct Linear {
    /// What goes in, see [`base`].
    pub input: String,
    /// What comes out, with the bias.
    pub output: String,
    kernel: Kernel,
    bias: Option<String>,
    /// What each input is multiplied by first (SmoothQuant): here it is part of the weight.
    factors: Option<String>,
}

/// Where a linear layer's weight stands.
enum Kernel {
    /// `[inputs, outputs]`.
    Inputs(String),
    /// `[outputs, inputs]`.
    Outputs(String),
    /// int8 `[inputs, outputs]`, its zero points and scales.
    Integers { weight: String, zero: Option<String>, scale: String },
}

impl Linear {
    /// The weight `[outputs, inputs]`.
    pub fn weight(&self, graph: &Graph) -> Result<Array2<f32>, String> {
        let (array, transposed) = match &self.kernel {
            Kernel::Inputs(name) => (graph.constant(name)?, true),
            Kernel::Outputs(name) => (graph.constant(name)?, false),
            Kernel::Integers { weight, zero, scale } => {
                let zero = zero.as_ref().map(|zero| graph.constant(zero)).transpose()?;
                let array = dequantized(graph.constant(weight)?, &graph.constant(scale)?, zero.as_ref(), 1);
                (array.ok_or_else(|| format!("{weight}: scales of another shape"))?, true)
            }
        };
        let shape = format!("{:?}", array.shape());
        let matrix = array.into_dimensionality::<Ix2>().map_err(|_| format!("a weight of shape {shape}"))?;
        let matrix = if transposed { matrix.reversed_axes() } else { matrix };
        let mut matrix = matrix.as_standard_layout().into_owned();
        if let Some(factors) = &self.factors {
            let factors: Array1<f32> = graph.constant(factors)?.into_iter().collect();
            if factors.len() != matrix.ncols() {
                return Err(format!("{} factors for {} inputs", factors.len(), matrix.ncols()));
            }
            matrix *= &factors;
        }
        Ok(matrix)
    }

    /// The bias `[outputs]`; zeros where there is none.
    pub fn bias(&self, graph: &Graph, outputs: usize) -> Result<Array1<f32>, String> {
        match &self.bias {
            Some(bias) => Ok(graph.constant(bias)?.into_iter().collect()),
            None => Ok(Array1::zeros(outputs)),
        }
    }
}

/// A LayerNorm.
pub struct Norm {
    pub input: String,
    pub output: String,
    pub weight: String,
    pub bias: String,
    pub epsilon: f32,
}

/// softmax(q·kᵀ)·v: places of the three linear layers, what comes out, and the width of a head.
pub struct Attention {
    pub query: usize,
    pub key: usize,
    pub value: usize,
    pub output: String,
    pub head_size: usize,
}

/// Operations that only move a value about, or round it.
const MOVES: [&str; 9] = [
    "Identity",
    "Cast",
    "Dropout",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "DynamicQuantizeLinear",
];

/// A value as it was before it was only moved about.
pub fn base<'g>(graph: &'g Graph, mut value: &'g str) -> &'g str {
    while let Some(node) = graph.maker(value)
        && MOVES.contains(&node.op_type.as_str())
        && let Some(input) = node.input.first()
    {
        value = input;
    }
    value
}

/// All linear layers, in the graph's order.
pub fn linears(graph: &Graph) -> Result<Vec<Linear>, String> {
    graph.nodes.iter().filter_map(|node| linear(graph, node).transpose()).collect()
}

fn linear(graph: &Graph, node: &NodeProto) -> Result<Option<Linear>, String> {
    let [data, weight, ..] = &node.input[..] else { return Ok(None) };
    let Some(output) = node.output.first() else { return Ok(None) };
    if graph.is_constant(data) || !graph.is_constant(weight) {
        return Ok(None);
    }
    let (input, factors) = before_factors(graph, base(graph, data));
    let input = base(graph, input).to_owned();
    let named = |index: usize| node.input.get(index).filter(|name| !name.is_empty()).cloned();
    match node.op_type.as_str() {
        "MatMul" => {
            let (output, bias) = with_bias(graph, output);
            Ok(Some(Linear { input, output, kernel: Kernel::Inputs(weight.clone()), bias, factors }))
        }
        "Gemm" => {
            let flag = |name| attribute(node, name).map_or(0, |value| value.i);
            let factor = |name| attribute(node, name).map_or(1.0, |value| value.f);
            if flag("transA") != 0 || factor("alpha") != 1.0 || factor("beta") != 1.0 {
                return Err("Gemm with transA, alpha or beta, which no linear layer has".to_owned());
            }
            let kernel = if flag("transB") != 0 {
                Kernel::Outputs(weight.clone())
            } else {
                Kernel::Inputs(weight.clone())
            };
            Ok(Some(Linear { input, output: output.clone(), kernel, bias: named(2), factors }))
        }
        "MatMulInteger" => {
            // MatMulInteger → Cast → Mul by (scale of the data · scale of the weight)
            let cast = graph.users(output).find(|user| user.op_type == "Cast");
            let cast = cast.and_then(|cast| cast.output.first()).unwrap_or(output);
            let scaled = graph.users(cast).find(|user| user.op_type == "Mul");
            let scales = scaled.and_then(|mul| mul.input.iter().find(|input| *input != cast));
            let scales = scales.and_then(|scales| graph.maker(scales)).filter(|node| node.op_type == "Mul");
            let scale = scales.and_then(|mul| mul.input.iter().find(|input| graph.is_constant(input)));
            let (Some(scale), Some(scaled)) = (scale, scaled.and_then(|mul| mul.output.first())) else {
                return Err(format!("{output}: integers whose scale is not a product of two"));
            };
            let kernel = Kernel::Integers { weight: weight.clone(), zero: named(3), scale: scale.clone() };
            let (output, bias) = with_bias(graph, scaled);
            Ok(Some(Linear { input, output, kernel, bias, factors }))
        }
        _ => Ok(None),
    }
}

/// The value before it was multiplied by a constant vector, and that vector.
fn before_factors<'g>(graph: &'g Graph, value: &'g str) -> (&'g str, Option<String>) {
    let product = graph.maker(value).filter(|node| node.op_type == "Mul");
    let found = product.and_then(|node| {
        let is_vector =
            |name: &String| graph.is_constant(name) && graph.constant(name).is_ok_and(|c| c.len() > 1);
        let factors = node.input.iter().find(|input| is_vector(input))?;
        Some((node.input.iter().find(|input| *input != factors)?.as_str(), Some(factors.clone())))
    });
    found.unwrap_or((value, None))
}

/// The sum with a constant vector, if that is what becomes of a product.
fn with_bias(graph: &Graph, product: &str) -> (String, Option<String>) {
    let adds = graph.users(product).filter(|user| user.op_type == "Add");
    let sum = adds.filter_map(|add| {
        let bias = add.input.iter().find(|input| *input != product && graph.is_constant(input))?;
        Some((add.output.first()?.clone(), Some(bias.clone())))
    });
    sum.into_iter().next().unwrap_or((product.to_owned(), None))
}

/// All LayerNorms.
pub fn norms(graph: &Graph) -> Vec<Norm> {
    graph.nodes.iter().filter_map(|node| fused_norm(node).or_else(|| spelled_norm(graph, node))).collect()
}

fn fused_norm(node: &NodeProto) -> Option<Norm> {
    let [input, weight, bias] = &node.input[..] else { return None };
    let epsilon = attribute(node, "epsilon").map_or(1e-5, |epsilon| epsilon.f);
    let norm = || Norm {
        input: input.clone(),
        output: node.output.first().cloned().unwrap_or_default(),
        weight: weight.clone(),
        bias: bias.clone(),
        epsilon,
    };
    (node.op_type == "LayerNormalization").then(norm)
}

/// (x − mean) / √(variance + ε) · weight + bias
fn spelled_norm(graph: &Graph, node: &NodeProto) -> Option<Norm> {
    let is = |value: &str, kind: &str| graph.maker(value).filter(|node| node.op_type == kind);
    let [above, below] = &node.input[..] else { return None };
    let centred = is(above, "Sub").filter(|_| node.op_type == "Div")?;
    let mean = centred.input.get(1).and_then(|mean| is(mean, "ReduceMean"))?;
    let input = centred.input.first().filter(|input| mean.input.first() == Some(*input))?;
    let inside = is(below, "Sqrt")?.input.first().and_then(|sum| is(sum, "Add"))?;
    let epsilon = inside.input.iter().find(|input| graph.is_constant(input))?;
    let (scaled, weight) = next_constant(graph, node.output.first()?, "Mul")?;
    let (output, bias) = next_constant(graph, scaled, "Add")?;
    let epsilon = graph.constant(epsilon).ok()?.first().copied()?;
    Some(Norm {
        input: input.clone(),
        output: output.to_owned(),
        weight: weight.to_owned(),
        bias: bias.to_owned(),
        epsilon,
    })
}

/// The result of the operation of a value with a constant, and the constant.
fn next_constant<'g>(graph: &'g Graph, value: &str, kind: &str) -> Option<(&'g str, &'g str)> {
    let mut users = graph.users(value).filter(|user| user.op_type == kind);
    users.find_map(|user| {
        let constant = user.input.iter().find(|input| *input != value && graph.is_constant(input))?;
        Some((user.output.first()?.as_str(), constant.as_str()))
    })
}

/// GELU of a value, in the exact form.
pub fn gelu<'g>(graph: &'g Graph, value: &str) -> Option<&'g str> {
    if let Some(user) = graph.users(value).find(|user| user.op_type == "Gelu") {
        let exact = attribute(user, "approximate").is_none_or(|kind| kind.s != b"tanh");
        return user.output.first().map(String::as_str).filter(|_| exact);
    }
    let scaled = graph.users(value).filter(|user| matches!(user.op_type.as_str(), "Div" | "Mul"));
    let erf = scaled
        .filter_map(|scaled| scaled.output.first())
        .flat_map(|scaled| graph.users(scaled))
        .find(|user| user.op_type == "Erf")?;
    // x · ½ · (1 + erf), the factors in any order
    let mut result = erf.output.first()?.as_str();
    loop {
        let mut users = graph.users(result);
        match (users.next(), users.next()) {
            (Some(user), None) if matches!(user.op_type.as_str(), "Add" | "Mul") => {
                let goes_on =
                    user.op_type == "Mul" || user.input.iter().any(|input| graph.is_constant(input));
                if !goes_on {
                    return Some(result);
                }
                result = user.output.first()?.as_str();
            }
            _ => return Some(result),
        }
    }
}

/// All attentions over linear layers.
pub fn attentions(graph: &Graph, linears: &[Linear]) -> Vec<Attention> {
    let attention =
        |node| spelled_attention(graph, linears, node).or_else(|| fused_attention(graph, linears, node));
    graph.nodes.iter().filter_map(attention).collect()
}

/// ONNX's own operator.
fn fused_attention(graph: &Graph, linears: &[Linear], node: &NodeProto) -> Option<Attention> {
    let [query, key, value, ..] = &node.input[..] else { return None };
    let layer = |value| layer_above(graph, linears, value);
    let (query, key, value) = (layer(query)?, layer(key)?, layer(value)?);
    let head_size = reshape_of(graph, &linears[query].output)?;
    let output = node.output.first()?.clone();
    (node.op_type == "Attention").then_some(Attention { query, key, value, output, head_size })
}

/// The linear layer that a value comes from.
fn layer_above(graph: &Graph, linears: &[Linear], value: &str) -> Option<usize> {
    let mut found = None;
    upwards_value(graph, value, &mut |value| {
        found = linears.iter().position(|linear| linear.output == value);
        found.is_some()
    });
    found
}

/// Products of queries and keys, a softmax, and the product with the values.
fn spelled_attention(graph: &Graph, linears: &[Linear], softmax: &NodeProto) -> Option<Attention> {
    if softmax.op_type != "Softmax" {
        return None;
    }
    let scores = upwards(graph, softmax.input.first()?, |node| {
        node.op_type == "MatMul" && node.input.iter().all(|input| !graph.is_constant(input))
    })?;
    let layer = |value: &str| layer_above(graph, linears, value);
    let (query, key) = (layer(scores.input.first()?)?, layer(scores.input.get(1)?)?);
    // What becomes of the probabilities: perhaps cleaned of NaN, then multiplied with the values.
    let mut probabilities = softmax.output.first()?.as_str();
    let mix = loop {
        if let Some(mix) = graph.users(probabilities).find(|user| user.op_type == "MatMul") {
            break mix;
        }
        let moved = graph
            .users(probabilities)
            .find(|user| matches!(user.op_type.as_str(), "Where" | "Cast" | "Dropout"))?;
        probabilities = moved.output.first()?;
    };
    let value = layer(mix.input.get(1)?)?;
    let shape = reshape_of(graph, &linears[query].output)?;
    Some(Attention { query, key, value, output: mix.output.first()?.clone(), head_size: shape })
}

/// The last number of the shape into which a value is split by heads.
fn reshape_of(graph: &Graph, value: &str) -> Option<usize> {
    let reshape = graph.users(value).find(|user| user.op_type == "Reshape")?;
    let shape = reshape.input.get(1)?;
    let last = match graph.maker(shape).filter(|node| node.op_type == "Concat") {
        Some(concat) => graph.constant(concat.input.last()?).ok()?,
        None => graph.constant(shape).ok()?,
    };
    last.iter().last().map(|&size| size as usize)
}

/// The nearest node above a value for which `found` holds, through operations on each value by itself.
fn upwards<'g>(
    graph: &'g Graph,
    value: &'g str,
    found: impl Fn(&NodeProto) -> bool,
) -> Option<&'g NodeProto> {
    let mut node = None;
    upwards_value(graph, value, &mut |value| {
        node = graph.maker(value).filter(|node| found(node));
        node.is_some()
    });
    node
}

fn upwards_value<'g>(graph: &'g Graph, value: &'g str, found: &mut dyn FnMut(&'g str) -> bool) {
    const SCALES_AND_MASKS: [&str; 5] = ["Mul", "Div", "Add", "Where", "Expand"];
    let goes_through = |node: &NodeProto| {
        let kind = node.op_type.as_str();
        MOVES.contains(&kind) || SCALES_AND_MASKS.contains(&kind)
    };
    let (mut open, mut steps) = (vec![value], 0);
    while let Some(value) = open.pop() {
        steps += 1;
        if found(value) || steps > 200 {
            return;
        }
        if let Some(node) = graph.maker(value).filter(|node| goes_through(node)) {
            // A shape or a mask is looked at last.
            let data =
                if matches!(node.op_type.as_str(), "Reshape" | "Expand") { 1 } else { node.input.len() };
            open.extend(node.input.iter().take(data).rev().map(String::as_str));
        }
    }
}
