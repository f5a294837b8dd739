"""ELECTRA-small with random weights, twice: a Hugging Face folder for electret and candle, and an ONNX
graph of the same tensors for the others, in f32 and quantised by each runtime's own tool."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

VOCAB, EMBEDDING, HIDDEN, LAYERS, HEADS, INNER, POSITIONS = 30522, 128, 256, 12, 4, 1024, 512


def tensors():
    random = np.random.default_rng(1)
    made = {}

    def weight(name, *shape):
        made[name] = random.normal(0, 0.05, shape).astype(np.float32)

    def linear(name, outputs, inputs):
        weight(f"{name}.weight", outputs, inputs)
        weight(f"{name}.bias", outputs)

    def norm(name, width):
        made[f"{name}.weight"] = np.ones(width, np.float32)
        made[f"{name}.bias"] = np.zeros(width, np.float32)

    for table, rows in ("word", VOCAB), ("position", POSITIONS), ("token_type", 2):
        weight(f"electra.embeddings.{table}_embeddings.weight", rows, EMBEDDING)
    norm("electra.embeddings.LayerNorm", EMBEDDING)
    linear("electra.embeddings_project", HIDDEN, EMBEDDING)
    for layer in range(LAYERS):
        at = f"electra.encoder.layer.{layer}"
        for part in "self.query", "self.key", "self.value", "output.dense":
            linear(f"{at}.attention.{part}", HIDDEN, HIDDEN)
        norm(f"{at}.attention.output.LayerNorm", HIDDEN)
        linear(f"{at}.intermediate.dense", INNER, HIDDEN)
        linear(f"{at}.output.dense", HIDDEN, INNER)
        norm(f"{at}.output.LayerNorm", HIDDEN)
    linear("discriminator_predictions.dense", HIDDEN, HIDDEN)
    linear("discriminator_predictions.dense_prediction", 1, HIDDEN)
    return made


class Graph:
    """An ONNX graph, node by node."""

    def __init__(self, weights):
        self.weights, self.nodes, self.constants, self.count = weights, [], {}, 0

    def constant(self, name, array):
        self.constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind, *inputs, **attributes):
        self.count += 1
        out = f"{kind}_{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def linear(self, x, name):
        w = self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)
        b = self.constant(f"{name}.bias", self.weights[f"{name}.bias"])
        return self.node("Add", self.node("MatMul", x, w), b)

    def norm(self, x, name):
        w, b = (self.constant(f"{name}.{part}", self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.node("LayerNormalization", x, w, b, axis=-1, epsilon=1e-12)

    def gelu(self, x):
        scalar = lambda name, value: self.constant(name, np.float32(value))
        erf = self.node("Erf", self.node("Div", x, scalar("sqrt2", 2**0.5)))
        return self.node("Mul", self.node("Mul", x, self.node("Add", erf, scalar("unit", 1))), scalar("half", 0.5))


def graph(weights):
    g = Graph(weights)
    table = lambda name: g.constant(f"{name}.weight", weights[f"electra.embeddings.{name}.weight"])
    index = lambda name, value: g.constant(name, np.array(value, np.int64))
    words = g.node("Gather", table("word_embeddings"), "input_ids")
    length = g.node("Slice", g.node("Shape", "input_ids"), index("one", [1]), index("two", [2]))
    positions = g.node("Slice", table("position_embeddings"), index("zero", [0]), length, index("zero", [0]))
    x = g.node("Add", words, positions)
    types = g.node("Gather", table("token_type_embeddings"), g.node("Mul", "input_ids", index("none", 0)))
    x = g.norm(g.node("Add", x, types), "electra.embeddings.LayerNorm")
    x = g.linear(x, "electra.embeddings_project")
    heads = index("heads", [0, -1, HEADS, HIDDEN // HEADS])
    flat = index("flat", [0, -1, HIDDEN])
    for layer in range(LAYERS):
        at = f"electra.encoder.layer.{layer}"
        split = lambda part, perm: g.node(
            "Transpose", g.node("Reshape", g.linear(x, f"{at}.attention.self.{part}"), heads), perm=perm
        )
        scores = g.node("MatMul", split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]))
        scores = g.node("Div", scores, g.constant("root", np.float32((HIDDEN // HEADS) ** 0.5)))
        mixed = g.node("MatMul", g.node("Softmax", scores, axis=-1), split("value", [0, 2, 1, 3]))
        mixed = g.node("Reshape", g.node("Transpose", mixed, perm=[0, 2, 1, 3]), flat)
        mixed = g.linear(mixed, f"{at}.attention.output.dense")
        x = g.norm(g.node("Add", mixed, x), f"{at}.attention.output.LayerNorm")
        inner = g.linear(g.gelu(g.linear(x, f"{at}.intermediate.dense")), f"{at}.output.dense")
        x = g.norm(g.node("Add", inner, x), f"{at}.output.LayerNorm")
    x = g.linear(g.gelu(g.linear(x, "discriminator_predictions.dense")), "discriminator_predictions.dense_prediction")
    g.nodes.append(helper.make_node("Identity", [x], ["logits"]))
    tokens = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "tokens", 1])
    made = helper.make_graph(g.nodes, "electra-small", [tokens], [logits], list(g.constants.values()))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def openvino_int8(source, target):
    import nncf
    import openvino

    random = np.random.default_rng(2)
    texts = [{"input_ids": random.integers(5, VOCAB, (1, n))} for n in (8, 32, 64, 128) * 8]
    model = nncf.quantize(
        openvino.Core().read_model(source), nncf.Dataset(texts), model_type=nncf.ModelType.TRANSFORMER
    )
    openvino.save_model(model, target, compress_to_fp16=False)


def main(folder, *options):
    folder = Path(folder)
    hugging_face = folder / "electra-small"
    hugging_face.mkdir(parents=True, exist_ok=True)
    weights = tensors()
    save_file(weights, hugging_face / "model.safetensors")
    config = {
        "model_type": "electra", "vocab_size": VOCAB, "embedding_size": EMBEDDING, "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": INNER,
        "hidden_act": "gelu", "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.0, "initializer_range": 0.02, "pad_token_id": 0,
    }
    (hugging_face / "config.json").write_text(json.dumps(config, indent=1))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"piece{i}" for i in range(5, VOCAB)]
    (hugging_face / "vocab.txt").write_text("\n".join(pieces) + "\n")

    f32, int8 = str(folder / "f32.onnx"), str(folder / "int8.onnx")
    onnx.save(graph(weights), f32)
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(f32, int8, weight_type=QuantType.QInt8, per_channel=True)
    if "--no-openvino" not in options:
        openvino_int8(f32, str(folder / "int8.xml"))


if __name__ == "__main__":
    main(*sys.argv[1:])
