"""ONNX files of `electret merge --onnx` beside the folders of `electret merge --folder` of the same models.

ONNX Runtime runs the file, transformers the folder, on the same padded batch of random tokens in two segments. Without
ONNX Runtime's extended optimisations both compute in f32 and must agree to 1e-4; with them ONNX Runtime multiplies
int8 by int8, and the difference is that of its activations' rounding.

    python tests/onnx/exported.py model.onnx folder/ [model.onnx folder/ …]

Needs torch, transformers, onnx and onnxruntime.
"""

import sys

import onnx
import onnxruntime
import torch
import transformers


def answers(path, level, feeds):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: values.numpy() for name, values in feeds.items()})[0]


def compare(path, folder):
    onnx.checker.check_model(path, full_check=True)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    torch.manual_seed(1)
    ids = torch.randint(5, config.vocab_size, (3, 12))
    mask, types = torch.ones_like(ids), torch.zeros_like(ids)
    mask[1, 8:], mask[2, 5:], types[:, 6:] = 0, 0, 1
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    with torch.no_grad():
        expected = model(**feeds)[0].numpy()
    kept = mask.numpy() == 1 if expected.shape[:2] == mask.shape else slice(None)
    levels = onnxruntime.GraphOptimizationLevel
    difference = [
        abs(answers(path, level, feeds) - expected)[kept].max()
        for level in (levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_ALL)
    ]
    print(f"{path}: {config.architectures[0]}, logits to {difference[0]:.1e}, optimised to {difference[1]:.1e}")
    assert difference[0] < 1e-4


for path, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    compare(path, folder)
