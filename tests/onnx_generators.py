"""Small generators of every kind, untrained networks with random weights: for tests of ONNX export."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hepbridge.core.rng import stream
from hepbridge.data.cells import CellLayer, PolarCells, XYCells
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.generation.generator import Generator
from hepbridge.systems.generation.model_file import GeneratorModel
from hepbridge.systems.generation.recipe import GenerationRecipe
from hepbridge.systems.model_file import Domain

LAYERS = Geometry.of_layers(
    "toy-layers",
    [
        CellLayer(XYCells(n=(2, 3), pitch_mm=(10.0, 10.0)), (0.0, 5.0)),
        CellLayer(XYCells(n=(3, 3), pitch_mm=(10.0, 10.0)), (5.0, 15.0)),
        CellLayer(XYCells(n=(1, 2), pitch_mm=(20.0, 20.0)), (15.0, 30.0)),
    ],
)
MESH = Geometry.of_layers(
    "toy-mesh",
    [
        CellLayer(PolarCells(r_mm=(0.0, 5.0, 10.0), n_phi=4), (3.0 * k, 3.0 * k + 3.0))
        for k in range(3)
    ],
)
GRID = Geometry("toy-grid", (2, 3, 4), ("z", "x", "y"), (10.0, 5.0, 5.0))

NETWORK: dict[str, Any] = {"width": 12, "depth": 1}
TABLES: dict[str, Any] = {"nodes": 4, "knots": 21, "degree": 1}


def stage(transport: str, **options: Any) -> dict[str, Any]:
    """A stage of a recipe."""
    return {"transport": transport, "options": {**NETWORK, **options}}


def student(transport: str, **teacher: Any) -> dict[str, Any]:
    """A stage with the networks of its teacher."""
    return {"transport": transport, "options": {"teacher_options": {**NETWORK, **teacher}}}


def showers(geometry: Geometry, n: int, seed: int, *, angles: bool = False) -> Showers:
    """Layers share the energy at random, cells too, and a third of them is empty."""
    rng = stream(seed, "toy-showers")
    energy = 1e3 * 50 ** rng.random(n)
    cells = rng.gamma(1.0, size=(n, geometry.n_cells)) * (rng.random((n, geometry.n_cells)) > 0.3)
    cells[:, 0] += 0.05
    cells *= rng.normal(0.8, 0.05, (n, 1)) * energy[:, None] / cells.sum(axis=1, keepdims=True)
    named = {"theta_rad": rng.uniform(0.1, 0.5, n), "phi_rad": rng.uniform(-np.pi, np.pi, n)}
    return Showers.from_arrays(
        cells, energy, geometry=geometry, conditions=named if angles else {},
        meta={"particle": "e-"},
    )  # fmt: skip


def model(
    geometry: Geometry,
    cells: dict[str, Any] | None,
    layers: dict[str, Any] | None = None,
    *,
    conditions: list[str] | None = None,
    **config: Any,
) -> GeneratorModel:
    """A generator with a frame that was fitted and random networks."""
    if config.setdefault("frame", "quantile") == "quantile":
        config.setdefault("frame_options", {})
        config["frame_options"] = {**TABLES, **config["frame_options"]}
    names = conditions or []
    block = {
        "cells": cells, "layers": layers, "conditions": names, "symmetry": "none", "reference": 0,
        **config,
    }  # fmt: skip
    recipe = GenerationRecipe.model_validate({"model": block})
    full = showers(geometry, 400, 1, angles=True)
    generator = Generator(recipe.model, geometry)
    generator.fit(full, seed=0)
    seeded = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in generator.parameters():
            inputs = parameter[0].numel() if parameter.ndim > 1 else 10
            spread = 0.3 / max(inputs, 1) ** 0.5  # draws stay where the tables are not tails
            parameter.copy_(spread * torch.randn(parameter.shape, generator=seeded))
    generator.eval().requires_grad_(False)
    energy = full.incident_energy
    spans = {k: (float(full.conditions[k].min()), float(full.conditions[k].max())) for k in names}
    domain = Domain(float(energy.min()), float(energy.max()), "e-", conditions=spans)
    return GeneratorModel(generator, recipe, geometry, domain)


__all__ = ["GRID", "LAYERS", "MESH", "model", "showers", "stage", "student"]
