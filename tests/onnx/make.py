"""Twelve ONNX files of ELECTRA and BERT with random weights, by both of PyTorch's exporters, in f32, f16 and dynamic int8, each
with its vocabulary and what ONNX Runtime makes of a few sequences: `make.py FOLDER`. The Hugging Face folder beside each
holds the same weights."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16
from safetensors.torch import load_file
from transformers import (
    BertConfig, BertForMaskedLM, BertForTokenClassification, BertModel, ElectraConfig, ElectraForPreTraining,
    ElectraForQuestionAnswering, ElectraForSequenceClassification, ElectraForTokenClassification, GPT2Config,
    GPT2LMHeadModel,
)

SMALL = dict(vocab_size=1000, embedding_size=128, hidden_size=256, num_hidden_layers=12, num_attention_heads=4,
             intermediate_size=1024, max_position_embeddings=128)
TINY = dict(vocab_size=1000, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512,
            max_position_embeddings=128)
BASE = dict(vocab_size=1000, embedding_size=768, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
            intermediate_size=3072, max_position_embeddings=128)

# name, class, config, exporter, what is done to the graph
FILES = [
    ("small-detect-old", ElectraForPreTraining, ElectraConfig(**SMALL), "old", None),
    ("small-detect-new", ElectraForPreTraining, ElectraConfig(**SMALL), "new", None),
    ("small-classify-older", ElectraForSequenceClassification, ElectraConfig(**SMALL, num_labels=3), "older", None),
    ("small-classify-new", ElectraForSequenceClassification, ElectraConfig(**SMALL, num_labels=3), "new", None),
    ("small-tag-new", ElectraForTokenClassification, ElectraConfig(**SMALL, num_labels=5), "new", None),
    ("small-answer-old", ElectraForQuestionAnswering, ElectraConfig(**SMALL), "old", None),
    ("base-detect-new", ElectraForPreTraining, ElectraConfig(**BASE), "new", None),
    ("tiny-fill-mask-old", BertForMaskedLM, BertConfig(**TINY), "old", None),
    ("tiny-tag-older", BertForTokenClassification, BertConfig(**TINY, num_labels=4), "older", None),
    ("tiny-plain-new", BertModel, BertConfig(**TINY), "new", None),
    ("small-detect-f16", ElectraForPreTraining, ElectraConfig(**SMALL), "old", "f16"),
    ("small-answer-int8", ElectraForQuestionAnswering, ElectraConfig(**SMALL), "old", "int8"),
]
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


def sequences(vocabulary):
    random = np.random.default_rng(7)
    for length in (5, 12, 31):
        ids = random.integers(5, vocabulary, (1, length))
        types = (np.arange(length)[None] >= length // 2).astype(np.int64)
        yield ids, np.ones_like(ids), types


def export(model, path, exporter, config):
    inputs = tuple(torch.tensor(array) for array in next(iter(sequences(config.vocab_size))))
    axes = {name: {0: "batch", 1: "tokens"} for name in INPUTS}
    # Before opset 17 a LayerNorm is many nodes.
    kwargs = dict(input_names=INPUTS, opset_version={"older": 14, "old": 17, "new": 18}[exporter])
    if exporter != "new":
        torch.onnx.export(model, inputs, path, dynamo=False, dynamic_axes=axes, **kwargs)
    else:
        tokens = torch.export.Dim("tokens", min=2, max=config.max_position_embeddings)
        shapes = {name: {1: tokens} for name in INPUTS}
        torch.onnx.export(model, (), path, dynamo=True, kwargs=dict(zip(INPUTS, inputs)), dynamic_shapes=shapes, **kwargs)


def plain(path):
    """The weights in the file itself, and no word of the sources it was exported from."""
    graph = onnx.load(path)
    for node in graph.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    del graph.graph.value_info[:]
    onnx.save(graph, path)
    Path(f"{path}.data").unlink(missing_ok=True)


def golden(folder):
    """Four small ones with the weights of tests/golden/tiny_random, which are in the repository: `make.py --golden FOLDER`."""
    weights = Path(__file__).parent / "../golden/tiny_random"
    config = ElectraConfig.from_pretrained(weights / "config.json")
    model = ElectraForPreTraining(config).eval()
    found = load_file(weights / "weights.safetensors")
    model.load_state_dict({name: found.get(name, found.get(f"pretraining.{name}")) for name in model.state_dict()})
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"piece{i}" for i in range(5, config.vocab_size)]
    (root / "vocab.txt").write_text("\n".join(pieces) + "\n")
    for exporter in ("older", "old", "new"):
        path = str(root / f"{exporter}.onnx")
        export(model, path, exporter, config)
        plain(path)
    quantize_dynamic(str(root / "old.onnx"), str(root / "int8.onnx"), weight_type=QuantType.QInt8)
    stranger = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=32, n_embd=32, n_layer=2, n_head=2)).eval()
    ids = torch.tensor(next(iter(sequences(100)))[0])
    stranger.config.use_cache = False
    torch.onnx.export(stranger, (ids,), str(root / "gpt2.onnx"), dynamo=True, input_names=["input_ids"], opset_version=18)
    plain(str(root / "gpt2.onnx"))


def main(folder, *only):
    if folder == "--golden":
        return golden(*only)
    root = Path(folder)
    for name, kind, config, exporter, change in FILES:
        if only and name not in only:
            continue
        here = root / name
        here.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(len(name))
        model = kind(config).eval()
        for parameter in model.parameters():  # LayerNorms and biases that are not all 1 and 0
            parameter.data += 0.03 * torch.randn_like(parameter)
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [f"piece{i}" for i in range(5, config.vocab_size)]
        (here / "vocab.txt").write_text("\n".join(pieces) + "\n")
        model.save_pretrained(here)
        path = here / "model.onnx"
        export(model, str(path), exporter, config)
        if change == "f16":
            onnx.save(convert_float_to_float16(onnx.load(str(path))), str(path))
        if change == "int8":
            quantize_dynamic(str(path), str(path), weight_type=QuantType.QInt8, per_channel=True)
        session = onnxruntime.InferenceSession(str(path))
        rows = []
        for values in sequences(config.vocab_size):
            feed = {node.name: value for node, value in zip(session.get_inputs(), values)}
            outputs = [output.astype(np.float32).ravel().tolist() for output in session.run(None, feed)]
            rows.append({"ids": values[0][0].tolist(), "types": values[2][0].tolist(), "outputs": outputs})
        (here / "expected.json").write_text(json.dumps(rows))
        print(name, sorted({node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
