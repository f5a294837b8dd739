//! Nodes, who makes and who uses a value, and constants in f32.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use ndarray::{ArrayD, Axis, IxDyn};
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{AttributeProto, NodeProto, TensorProto};
use tract_onnx::prelude::Framework;

/// How many operations on constants are looked through.
const DEPTH: usize = 24;

/// A graph whose nodes stand after what they use.
pub struct Graph {
    pub nodes: Vec<NodeProto>,
    /// Values that are fed in: neither made by a node nor stored.
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    folder: PathBuf,
    stored: HashMap<String, TensorProto>,
    made_by: HashMap<String, usize>,
    used_by: HashMap<String, Vec<usize>>,
}

impl Graph {
    pub fn open(path: &Path) -> Result<Self, String> {
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        let model = tract_onnx::onnx().proto_model_for_read(&mut file);
        let model = model.map_err(|error| format!("no readable ONNX file ({})", error.root_cause()))?;
        if !model.functions.is_empty() {
            return Err("holds functions of its own; export it with them inlined".to_owned());
        }
        let opset =
            model.opset_import.iter().find(|opset| opset.domain.is_empty() || opset.domain == "ai.onnx");
        match opset.map(|opset| opset.version) {
            Some(7..) => {}
            Some(version) => return Err(format!("opset {version}: 7 or later is needed; export it anew")),
            None => return Err("names no opset; it is no ONNX model, or a damaged one".to_owned()),
        }
        let proto = model.graph.ok_or("holds no graph")?;
        let stored: HashMap<String, TensorProto> =
            proto.initializer.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let inputs = proto.input.into_iter().map(|value| value.name);
        let inputs: Vec<String> = inputs.filter(|name| !stored.contains_key(name)).collect();
        let mut graph = Self {
            nodes: proto.node,
            inputs,
            outputs: proto.output.into_iter().map(|value| value.name).collect(),
            folder: path.parent().unwrap_or(Path::new(".")).to_owned(),
            stored,
            made_by: HashMap::new(),
            used_by: HashMap::new(),
        };
        graph.index()?;
        Ok(graph)
    }

    /// Notes who makes and who uses what. A value that is only rounded on its way, by QuantizeLinear and
    /// DequantizeLinear, is the value before that.
    fn index(&mut self) -> Result<(), String> {
        let (mut quantised, mut unrounded) =
            (HashMap::<String, String>::new(), HashMap::<String, String>::new());
        let Self { nodes, inputs, stored, made_by, used_by, .. } = self;
        let is_known = |made_by: &HashMap<String, usize>, value: &String| {
            stored.contains_key(value) || made_by.contains_key(value) || inputs.contains(value)
        };
        for (index, node) in nodes.iter_mut().enumerate() {
            for input in &mut node.input {
                if let Some(before) = unrounded.get(input) {
                    input.clone_from(before);
                }
            }
            if let ([input, ..], [output]) = (&node.input[..], &node.output[..]) {
                if node.op_type == "QuantizeLinear" && made_by.contains_key(input) {
                    quantised.insert(output.clone(), input.clone());
                    continue;
                }
                if let Some(before) = quantised.get(input).filter(|_| node.op_type == "DequantizeLinear") {
                    unrounded.insert(output.clone(), before.clone());
                    continue;
                }
            }
            for input in node.input.iter().filter(|input| !input.is_empty()) {
                if !is_known(made_by, input) {
                    let kind = &node.op_type;
                    return Err(format!(
                        "{kind} uses {input:?}, which nothing before it makes: a cycle, or a damaged file"
                    ));
                }
                used_by.entry(input.clone()).or_default().push(index);
            }
            for output in node.output.iter().filter(|output| !output.is_empty()) {
                if is_known(made_by, output) {
                    return Err(format!("{output:?} is made twice: a damaged file"));
                }
                made_by.insert(output.clone(), index);
            }
        }
        Ok(())
    }

    /// Whether any weight is stored in f16 or bf16.
    pub fn is_half(&self) -> bool {
        let half = [DataType::Float16 as i32, DataType::Bfloat16 as i32];
        self.stored.values().any(|tensor| tensor.dims.len() > 1 && half.contains(&tensor.data_type))
    }

    /// The node that makes a value.
    pub fn maker(&self, value: &str) -> Option<&NodeProto> {
        self.made_by.get(value).and_then(|&index| self.nodes.get(index))
    }

    /// The nodes that use a value.
    pub fn users(&self, value: &str) -> impl Iterator<Item = &NodeProto> {
        let indices = self.used_by.get(value).into_iter().flatten();
        indices.filter_map(|&index| self.nodes.get(index))
    }

    /// Whether [`Graph::constant`] can tell a value without anything being fed in.
    pub fn is_constant(&self, value: &str) -> bool {
        self.is_constant_within(value, DEPTH)
    }

    fn is_constant_within(&self, value: &str, depth: usize) -> bool {
        if self.stored.contains_key(value) {
            return true;
        }
        let (Some(node), Some(depth)) = (self.maker(value), depth.checked_sub(1)) else { return false };
        let operands = match node.op_type.as_str() {
            "Constant" => 0,
            "Identity" | "Cast" | "DequantizeLinear" | "Sqrt" | "Reciprocal" | "Transpose" => 1,
            "Mul" | "Div" | "Add" | "Sub" => 2,
            _ => return false,
        };
        let inputs = node.input.get(..operands);
        inputs.is_some_and(|inputs| inputs.iter().all(|input| self.is_constant_within(input, depth)))
    }

    /// A constant's values: stored ones, and what simple operations make of them.
    pub fn constant(&self, value: &str) -> Result<ArrayD<f32>, String> {
        self.value_of(value, DEPTH)
    }

    fn value_of(&self, value: &str, depth: usize) -> Result<ArrayD<f32>, String> {
        if let Some(tensor) = self.stored.get(value) {
            return self.decode(value, tensor);
        }
        let no = || format!("{value}: no constant");
        let node = self.maker(value).ok_or_else(no)?;
        let depth = depth.checked_sub(1).ok_or_else(no)?;
        let of = |index: usize| self.value_of(node.input.get(index).map_or("", String::as_str), depth);
        match node.op_type.as_str() {
            "Constant" => match attribute(node, "value").and_then(|value| value.t.as_ref()) {
                Some(tensor) => self.decode(value, tensor),
                None => {
                    let number = attribute(node, "value_float").map(|value| value.f);
                    let number = number.or(attribute(node, "value_int").map(|value| value.i as f32));
                    Ok(ArrayD::from_elem(IxDyn(&[]), number.ok_or_else(no)?))
                }
            },
            "Identity" | "Cast" => of(0),
            "Sqrt" => Ok(of(0)?.mapv_into(f32::sqrt)),
            "Reciprocal" => Ok(of(0)?.mapv_into(f32::recip)),
            "Transpose" => {
                let array = of(0)?;
                match attribute(node, "perm").map(|perm| perm.ints.iter().map(|&axis| axis as usize)) {
                    Some(axes) if axes.clone().eq(0..array.ndim()) => Ok(array),
                    Some(axes) if array.ndim() == 2 && axes.clone().eq([1, 0]) => Ok(array.reversed_axes()),
                    None => Ok(array.reversed_axes()),
                    Some(_) => Err(format!("{value}: a transposed constant of {} dimensions", array.ndim())),
                }
            }
            "DequantizeLinear" => {
                let zero = if node.input.len() > 2 { Some(of(2)?) } else { None };
                let axis = attribute(node, "axis").map_or(1, |axis| axis.i);
                dequantized(of(0)?, &of(1)?, zero.as_ref(), axis)
                    .ok_or_else(|| format!("{value}: scales of another shape"))
            }
            "Mul" | "Div" | "Add" | "Sub" => {
                let (a, b) = (of(0)?, of(1)?);
                let fits = a.len() == 1 || b.len() == 1 || a.shape() == b.shape();
                if !fits {
                    return Err(format!(
                        "{value}: constants of the shapes {:?} and {:?}",
                        a.shape(),
                        b.shape()
                    ));
                }
                let (a, b) = if a.len() == 1 && b.len() > 1 {
                    let shape = b.raw_dim();
                    (ArrayD::from_elem(shape, a.iter().next().copied().unwrap_or_default()), b)
                } else {
                    (a, b)
                };
                Ok(match node.op_type.as_str() {
                    "Mul" => a * b,
                    "Div" => a / b,
                    "Add" => a + b,
                    _ => a - b,
                })
            }
            _ => Err(no()),
        }
    }

    /// A stored tensor in f32. Its length is checked before anything is allocated.
    fn decode(&self, name: &str, tensor: &TensorProto) -> Result<ArrayD<f32>, String> {
        let shape: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let count =
            shape.as_ref().and_then(|shape| shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)));
        let (Some(shape), Some(count)) = (shape, count) else {
            return Err(format!("{name}: {:?} is no shape", tensor.dims));
        };
        let kind = DataType::try_from(tensor.data_type).unwrap_or(DataType::Undefined);
        let width = match kind {
            DataType::Double | DataType::Int64 => 8,
            DataType::Float | DataType::Int32 => 4,
            DataType::Float16 | DataType::Bfloat16 => 2,
            DataType::Int8 | DataType::Uint8 | DataType::Bool => 1,
            other => return Err(format!("{name}: values of type {}", other.as_str_name())),
        };
        let bytes = count.checked_mul(width).ok_or_else(|| format!("{name}: {shape:?} is no shape"))?;
        let external = tensor.data_location == Some(DataLocation::External as i32);
        let found;
        let raw: &[u8] = if external {
            found = self.beside(name, tensor, bytes)?;
            &found
        } else {
            &tensor.raw_data
        };
        let values: Vec<f32> = if raw.is_empty() && count > 0 {
            typed(tensor, kind)
        } else if raw.len() == bytes {
            raw.chunks_exact(width).map(|bytes| number(kind, bytes)).collect()
        } else {
            Vec::new()
        };
        if values.len() != count {
            return Err(format!(
                "{name}: {shape:?} needs {count} values, the file has {}",
                raw.len() / width
            ));
        }
        ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(|error| format!("{name}: {error}"))
    }

    /// Bytes of a tensor that lie in another file of the same folder.
    fn beside(&self, name: &str, tensor: &TensorProto, bytes: usize) -> Result<Vec<u8>, String> {
        let entry =
            |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let location =
            entry("location").ok_or_else(|| format!("{name}: in another file, which is not named"))?;
        if Path::new(location).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(format!("{name}: in {location:?}, which is outside the model's folder"));
        }
        let offset = entry("offset").map_or(Ok(0), |offset| offset.parse::<u64>());
        let offset = offset.map_err(|_| format!("{name}: no offset in {location}"))?;
        let path = self.folder.join(location);
        let fail = |error: std::io::Error| format!("{name}: {}: {error}", path.display());
        let mut file = File::open(&path).map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        if offset.checked_add(bytes as u64).is_none_or(|end| end > length) {
            return Err(format!("{name}: {} ends before its {bytes} bytes", path.display()));
        }
        file.seek(SeekFrom::Start(offset)).map_err(fail)?;
        let mut found = vec![0; bytes];
        file.read_exact(&mut found).map_err(fail)?;
        Ok(found)
    }
}

/// A node's attribute.
pub fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// (q − zero) · scale, with one scale or one for each place along `axis`.
pub fn dequantized(
    mut q: ArrayD<f32>,
    scale: &ArrayD<f32>,
    zero: Option<&ArrayD<f32>>,
    axis: i64,
) -> Option<ArrayD<f32>> {
    let at = |values: &ArrayD<f32>, index: usize| {
        values.iter().nth(if values.len() == 1 { 0 } else { index }).copied()
    };
    if scale.len() == 1 && zero.is_none_or(|zero| zero.len() == 1) {
        let (scale, zero) = (at(scale, 0)?, zero.map_or(Some(0.0), |zero| at(zero, 0))?);
        return Some(q.mapv_into(|q| (q - zero) * scale));
    }
    let axis = usize::try_from(if axis < 0 { axis + q.ndim() as i64 } else { axis }).ok()?;
    if axis >= q.ndim()
        || scale.len() != q.shape()[axis]
        || zero.is_some_and(|zero| ![1, scale.len()].contains(&zero.len()))
    {
        return None;
    }
    let zeros: Vec<f32> = zero.map(|zero| zero.iter().copied().collect()).unwrap_or_default();
    for (index, (mut lane, scale)) in q.axis_iter_mut(Axis(axis)).zip(scale).enumerate() {
        let zero = zeros.get(if zeros.len() == 1 { 0 } else { index }).copied().unwrap_or_default();
        lane.mapv_inplace(|q| (q - zero) * scale);
    }
    Some(q)
}

fn number(kind: DataType, bytes: &[u8]) -> f32 {
    match (kind, bytes) {
        (DataType::Float, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        (DataType::Int32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]) as f32,
        (DataType::Float16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
        (DataType::Bfloat16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
        (DataType::Int8, &[a]) => f32::from(a as i8),
        (_, &[a]) => f32::from(a),
        (DataType::Double, bytes) => {
            bytes.first_chunk().map_or(f32::NAN, |&bytes| f64::from_le_bytes(bytes) as f32)
        }
        (_, bytes) => bytes.first_chunk().map_or(f32::NAN, |&bytes| i64::from_le_bytes(bytes) as f32),
    }
}

/// Values that are not stored as bytes.
fn typed(tensor: &TensorProto, kind: DataType) -> Vec<f32> {
    match kind {
        DataType::Float => tensor.float_data.clone(),
        DataType::Double => tensor.double_data.iter().map(|&x| x as f32).collect(),
        DataType::Int64 => tensor.int64_data.iter().map(|&x| x as f32).collect(),
        DataType::Float16 => tensor.int32_data.iter().map(|&x| f16::from_bits(x as u16).to_f32()).collect(),
        DataType::Bfloat16 => tensor.int32_data.iter().map(|&x| bf16::from_bits(x as u16).to_f32()).collect(),
        _ => tensor.int32_data.iter().map(|&x| x as f32).collect(),
    }
}
