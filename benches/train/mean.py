"""The mean of models' weights, tensor by tensor: folders of one shape whose encoders went on from one another.

    python benches/train/mean.py tiny/ more/ -o mean/electret-tiny
"""

import argparse
import shutil
from pathlib import Path

from safetensors.numpy import load_file, save_file

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("folders", nargs="+", type=Path)
options.add_argument("-o", "--out", type=Path, required=True, help="a folder that is not there yet; the rest is the last one's")
options = options.parse_args()

models = [load_file(folder / "model.safetensors") for folder in options.folders]
if any(model.keys() != models[0].keys() for model in models):
    raise SystemExit("the folders do not have the same tensors")
shutil.copytree(options.folders[-1], options.out)
mean = {name: sum(model[name] for model in models) / len(models) for name in models[0]}
save_file(mean, options.out / "model.safetensors", metadata={"format": "pt"})
