"""Make the golden model file of the current format version: ``python tests/golden/make.py``.

Run once per format version and never again: a golden file is a promise that old models load.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hepbridge.data import sample
from hepbridge.systems.model_file import FORMAT_VERSION
from hepbridge.systems.train import train

SMALL = [
    "training.steps=20",
    "model.knots=15",
    "model.nodes=5",
    "model.transport=flow_matching",
    "model.options.width=16",
    "model.options.depth=1",
    "model.options.steps=2",
]

if __name__ == "__main__":
    folder = Path(__file__).parent
    name = f"model-v{FORMAT_VERSION}"
    model = train(
        sample.load("train_fast")[:1000],
        sample.load("train_full")[:1000],
        recipe="quantile",
        overrides=SMALL,
        output=folder / f"{name}.safetensors",
        device="cpu",
    )
    (folder / f"{name}.safetensors.log.jsonl").unlink()
    np.save(folder / f"{name}.npy", model.refine(sample.load("gflash", 50)[:20]).cells)
