"""The models that the results compare, trained once and kept in the work folder."""

from __future__ import annotations

from pathlib import Path

import hepbridge as hb
from hepbridge.data.showers import Showers
from hepbridge.systems.model_file import Model, load, read_header
from hepbridge.systems.train import train

# name in the tables -> recipe, overrides, teacher
MODELS: dict[str, tuple[str, list[str], str | None]] = {
    "quantile": ("quantile", [], None),
    "squirels-paper": ("squirels-paper-reduced", [], None),
    "squirels-flow": ("squirels-flow", [], None),
    "squirels": ("squirels", [], "squirels-flow"),
    "squirels-2": ("squirels", ["model.options.evaluations=2"], "squirels-flow"),
    "squirels-small": (
        "squirels",
        ["model.options.width=128", "model.options.depth=3"],
        "squirels-flow",
    ),
    "squirels-mmd": ("squirels-mmd", [], None),
    "squirels-i2sb": ("squirels-i2sb", ["training.steps=2000"], None),
    "squirels-dsbm": ("squirels-dsbm", ["training.steps=2000"], None),
}


def showers(folder: Path, kind: str, part: str) -> Showers:
    """``kind``: full, full2 or gflash; ``part``: train, e20, e50, e80 or test."""
    return hb.load(folder / f"squirels_{kind}_{part}.h5")


def trained(name: str, folder: Path, fast: Showers, full: Showers) -> Model:
    """The model of that name: from its file, or trained and written there."""
    recipe, overrides, teacher = MODELS[name]
    path = folder / f"{name}.safetensors"
    if path.exists():
        request = read_header(path)["provenance"]["request"]
        print(f"{name}: from {path}, recipe {recipe}, hepbridge {request['hepbridge']}", flush=True)
        return load(str(path))
    model = train(
        fast,
        full,
        recipe=recipe,
        overrides=overrides,
        teacher=None if teacher is None else trained(teacher, folder, fast, full),
        output=path,
        resume=True,
    )
    print(f"{name}: trained, {model.provenance['training_seconds']} s", flush=True)
    return model


if __name__ == "__main__":  # python tools/results/models.py SHOWERS WORK NAME...
    import sys

    source, work, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    pairs = showers(source, "gflash", "train"), showers(source, "full", "train")
    for chosen in names or list(MODELS):
        trained(chosen, work, *pairs)
