"""The models that the results compare, trained once and kept in the work folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hepbridge as hb
from hepbridge.data.showers import Showers
from hepbridge.systems.model_file import Model, load, read_header
from hepbridge.systems.recipe import load_recipe
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
    "squirels-i2sb": ("squirels-i2sb", [], None),
    "squirels-dsbm": ("squirels-dsbm", [], None),
}


def showers(folder: Path, kind: str, part: str) -> Showers:
    """``kind``: full, full2 or gflash; ``part``: train, e20, e50, e80 or test."""
    return hb.load(folder / f"squirels_{kind}_{part}.h5")


def trained(name: str, folder: Path, fast: Showers, full: Showers) -> Model:
    """The model of that name: from its file, or trained and written there."""
    recipe, overrides, teacher = MODELS[name]
    path = folder / f"{name}.safetensors"
    if path.exists():
        header = read_header(path)
        wanted = load_recipe(recipe, overrides=overrides).model_dump(mode="json")
        if not agrees(wanted, header["recipe"]):
            raise SystemExit(f"{path} was trained by another recipe than {recipe}: delete it")
        version = header["provenance"]["versions"]["hepbridge"]
        print(f"{name}: from {path}, recipe {recipe}, hepbridge {version}", flush=True)
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


def agrees(wanted: Any, found: Any) -> bool:
    """Whether a stored recipe is the wanted one; ``auto`` stands for what the data decided."""
    if isinstance(wanted, dict):
        return all(agrees(value, found.get(key)) for key, value in wanted.items())
    return wanted in ("auto", found)


if __name__ == "__main__":  # python tools/results/models.py SHOWERS WORK NAME...
    import sys

    source, work, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    pairs = showers(source, "gflash", "train"), showers(source, "full", "train")
    for chosen in names or list(MODELS):
        trained(chosen, work, *pairs)
