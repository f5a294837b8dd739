//! Pieces of a network in libtorch's own operations (feature `tch`), each one node of Burn's graph.
//!
//! libtorch has LayerNorm, attention, GELU and a linear layer as one kernel each, forward and back. A layer is recorded
//! by libtorch's own differentiation in between, so that a step of a dozen layers costs a processor a dozen nodes and
//! not a thousand. Held against PyTorch's gradients by `tests/burn_golden.rs`.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::libtorch::{LibTorchDevice, TchTensor};
use burn::backend::{Autodiff, LibTorch};
use burn::tensor::{Int, Tensor, TensorPrimitive, ops::FloatTensor};
use tch::Kind;

use super::kernels::{Kernels, Mask};
use super::model::Network;

impl Kernels for LibTorch {
    /// From memory that CUDA can read while the processor goes on.
    fn send(
        ids: Vec<i32>,
        numbers: Vec<f32>,
        device: &LibTorchDevice,
    ) -> (Tensor<Self, 1, Int>, Tensor<Self, 1>) {
        let at = tch::Device::from(*device);
        let sent = |values: tch::Tensor, kind| {
            let values = if at.is_cuda() { values.internal_pin_memory(at) } else { values };
            TchTensor::new(values.to_device_(at, kind, at.is_cuda(), false))
        };
        let ids = sent(tch::Tensor::from_slice(&ids), Kind::Int64);
        let numbers = sent(tch::Tensor::from_slice(&numbers), Kind::Float);
        (Tensor::from_primitive(ids), Tensor::from_primitive(TensorPrimitive::Float(numbers)))
    }

    fn layer(
        network: &Network<'_, Self>,
        name: &str,
        x: Tensor<Self, 2>,
        mask: &Mask<Self>,
    ) -> Tensor<Self, 2> {
        let inputs = inputs(network, name, x);
        let mask = mask.clone().into_primitive().tensor();
        let output = Equations::new(network, &mask).forward(inputs.each_ref().map(|input| &input.tensor));
        Tensor::from_primitive(TensorPrimitive::Float(TchTensor::new(output)))
    }
}

impl Kernels for Autodiff<LibTorch> {
    fn send(
        ids: Vec<i32>,
        numbers: Vec<f32>,
        device: &LibTorchDevice,
    ) -> (Tensor<Self, 1, Int>, Tensor<Self, 1>) {
        let (ids, numbers) = LibTorch::send(ids, numbers, device);
        (Tensor::from_inner(ids), Tensor::from_inner(numbers))
    }

    fn layer(
        network: &Network<'_, Self>,
        name: &str,
        x: Tensor<Self, 2>,
        mask: &Mask<Self>,
    ) -> Tensor<Self, 2> {
        let inputs = inputs(network, name, x);
        let mask = mask.clone().into_primitive().tensor().primitive;
        let leaves = inputs.each_ref().map(|input| leaf(&input.primitive));
        let output = Equations::new(network, &mask).forward(leaves.each_ref().map(|leaf| &leaf.tensor));
        let values = TchTensor::new(output.detach());
        let output = TchTensor::from_existing(output, values.storage.clone());
        let nodes = inputs.map(|input| input.node);
        let result = match Layer.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(node) => node.finish((leaves.into(), output), values),
            OpsKind::UnTracked(node) => node.finish(values),
        };
        Tensor::from_primitive(TensorPrimitive::Float(result))
    }

    fn log_probabilities(logits: Tensor<Self, 2>) -> Tensor<Self, 2> {
        let logits = logits.into_primitive().tensor();
        let output = TchTensor::new(logits.primitive.tensor.log_softmax(1, Kind::Float));
        let result =
            match LogSoftmax.prepare::<NoCheckpointing>([logits.node.clone()]).compute_bound().stateful() {
                OpsKind::Tracked(node) => {
                    node.finish((output.clone(), logits.primitive.tensor.kind()), output)
                }
                OpsKind::UnTracked(node) => node.finish(output),
            };
        Tensor::from_primitive(TensorPrimitive::Float(result))
    }
}

/// The weights of a layer in the order in which [`Equations`] takes them.
const WEIGHTS: [&str; 16] = [
    "attention.self.query.weight",
    "attention.self.query.bias",
    "attention.self.key.weight",
    "attention.self.key.bias",
    "attention.self.value.weight",
    "attention.self.value.bias",
    "attention.output.dense.weight",
    "attention.output.dense.bias",
    "attention.output.LayerNorm.weight",
    "attention.output.LayerNorm.bias",
    "intermediate.dense.weight",
    "intermediate.dense.bias",
    "output.dense.weight",
    "output.dense.bias",
    "output.LayerNorm.weight",
    "output.LayerNorm.bias",
];

/// The hidden states, and those.
const INPUTS: usize = 1 + WEIGHTS.len();

/// The tensors that the layer of that name computes with.
fn inputs<B: Kernels>(network: &Network<'_, B>, name: &str, x: Tensor<B, 2>) -> [FloatTensor<B>; INPUTS] {
    std::array::from_fn(|index| {
        if index == 0 {
            return x.clone().into_primitive().tensor();
        }
        let weight = format!("{name}.{}", WEIGHTS[index - 1]);
        if weight.ends_with("bias") || weight.contains("LayerNorm") {
            network.vector(&weight).into_primitive().tensor()
        } else {
            network.matrix(&weight).into_primitive().tensor()
        }
    })
}

/// A tensor's values as a leaf of libtorch's graph.
fn leaf(tensor: &TchTensor) -> TchTensor {
    TchTensor::from_existing(tensor.tensor.detach().set_requires_grad(true), tensor.storage.clone())
}

/// [`Network::layer`], and what it needs beside its inputs.
struct Equations<'a> {
    heads: i64,
    epsilon: f64,
    dropout: f64,
    mask: &'a tch::Tensor,
}

impl<'a> Equations<'a> {
    fn new<B: Kernels>(network: &Network<'_, B>, mask: &'a TchTensor) -> Self {
        Self {
            heads: network.config.num_attention_heads as i64,
            epsilon: network.config.layer_norm_eps.into(),
            dropout: network.dropout,
            mask: &mask.tensor,
        }
    }

    fn forward(&self, inputs: [&tch::Tensor; INPUTS]) -> tch::Tensor {
        let [x, query, query_bias, key, key_bias, value, value_bias, rest @ ..] = inputs;
        let [dense, dense_bias, norm, norm_bias, inner, inner_bias, outer, outer_bias, last, last_bias] =
            rest;
        let (hidden, sequence) = (x.size()[1], self.mask.size()[3]);
        let precision = query.kind();
        // Queries, keys and values are one product.
        let weight = tch::Tensor::cat(&[query, key, value], 0);
        let bias = tch::Tensor::cat(&[query_bias, key_bias, value_bias], 0);
        let packed = x.to_kind(precision).linear(&weight, Some(&bias));
        let heads =
            |part: &tch::Tensor| part.view([-1, sequence, self.heads, hidden / self.heads]).transpose(1, 2);
        let parts: Vec<tch::Tensor> = packed.split(hidden, 1).iter().map(heads).collect();
        let mask = Some(self.mask.to_kind(precision));
        let context = tch::Tensor::scaled_dot_product_attention(
            &parts[0],
            &parts[1],
            &parts[2],
            mask,
            self.dropout,
            false,
            None,
            false,
        );
        let context = context.transpose(1, 2).reshape([-1, hidden]);
        let attended = self.drop(context.linear(dense, Some(dense_bias)));
        let normalised = |sum: tch::Tensor, weight, bias| {
            sum.layer_norm([hidden], Some(weight), Some(bias), self.epsilon, false)
        };
        let x = normalised(x + attended, norm, norm_bias);
        let expanded = x.to_kind(precision).linear(inner, Some(inner_bias)).gelu("none");
        let outer = self.drop(expanded.linear(outer, Some(outer_bias)));
        normalised(x + outer, last, last_bias)
    }

    fn drop(&self, x: tch::Tensor) -> tch::Tensor {
        if self.dropout == 0.0 { x } else { x.dropout(self.dropout, true) }
    }
}

#[derive(Debug)]
struct Layer;

impl Backward<LibTorch, INPUTS> for Layer {
    /// The leaves and the output of libtorch's graph.
    type State = (Vec<TchTensor>, TchTensor);

    fn backward(self, ops: Ops<Self::State, INPUTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<LibTorch>(&ops.node).tensor;
        let (inputs, output) = ops.state;
        // libtorch differentiates one number: the output along the gradient.
        let along = output.tensor.flatten(0, -1).dot(&gradient.flatten(0, -1));
        let inputs: Vec<&tch::Tensor> = inputs.iter().map(|input| &input.tensor).collect();
        let found = tch::Tensor::run_backward(&[along], &inputs, false, false);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(parent) = parent {
                grads.register::<LibTorch>(parent.id, TchTensor::new(gradient));
            }
        }
    }
}

#[derive(Debug)]
struct LogSoftmax;

impl Backward<LibTorch, 1> for LogSoftmax {
    /// The output, and the precision of the input.
    type State = (TchTensor, Kind);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<LibTorch>(&ops.node).tensor;
        let (output, kind) = ops.state;
        if let [Some(parent)] = ops.parents {
            let found = tch::Tensor::internal_log_softmax_backward_data(&gradient, &output.tensor, 1, kind);
            grads.register::<LibTorch>(parent.id, TchTensor::new(found));
        }
    }
}
