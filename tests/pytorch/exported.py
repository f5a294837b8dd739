"""Exported folders in transformers: no key too few or too many, and the logits of the f32 reference to 1e-4.

    cargo test --release --features train --test finetune --test pretraining
    python tests/pytorch/exported.py target/tmp/exported
"""

import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

for folder in sorted(Path(sys.argv[1]).iterdir()):
    architecture = transformers.AutoConfig.from_pretrained(folder).architectures[0]
    model, keys = getattr(transformers, architecture).from_pretrained(folder, output_loading_info=True)
    model.eval()
    wrong = {kind: names for kind, names in keys.items() if names}
    assert not wrong, (folder, wrong)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    worst = 0.0
    expected = load_file(folder / "expected.safetensors")
    texts = (folder / "expected.txt").read_text().splitlines()
    for index, text in enumerate(texts):
        ids = tokenizer(text, return_tensors="pt")
        assert ids["input_ids"][0].tolist() == expected[f"{index}.ids"].long().tolist(), (folder, text)
        with torch.no_grad():
            found = model(**ids)
        if architecture.endswith("QuestionAnswering"):
            logits = torch.stack([found.start_logits, found.end_logits], dim=-1)
        else:
            logits = found.logits
        theirs = logits.flatten()
        worst = max(worst, (theirs - expected[f"{index}.logits"].flatten()).abs().max().item())
    print(f"{folder.name:16} {architecture:34} {len(texts)} texts, logits differ by at most {worst:.1e}")
    assert worst <= 1e-4, folder
