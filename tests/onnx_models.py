"""Small models of every kind, untrained networks with random weights: for tests of ONNX export."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hepbridge.core.rng import stream
from hepbridge.data.geometry import SQUIRELS, Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.model_file import Domain, Model
from hepbridge.systems.recipe import Recipe
from hepbridge.systems.squirels import Squirels
from hepbridge.systems.squirels_paper import SquirelsPaper, SquirelsPaperConfig

GRID = Geometry("toy", (5, 5), ("x", "y"), (10.0, 10.0), symmetry="D4")
SMALL: dict[str, Any] = {"width": 16, "depth": 2}
FLOW = {**SMALL, "steps": 1}
TRANSPORTS: dict[str, dict[str, Any]] = {
    "flow_matching": FLOW,
    "staged_flow": {"first": FLOW, "then": FLOW},
    "distilled": SMALL,
    "mmd": SMALL,
    "i2sb": {**SMALL, "steps": 2},
    "dsbm": {**SMALL, "time_steps": 2},
    "diffusion": {**SMALL, "steps": 3},
    "edm": {**SMALL, "steps": 2, "sigma_max": 2.0},
    "mean_flow": {**SMALL, "evaluations": 2},
    "consistency": {"teacher_options": {**SMALL, "sigma_max": 2.0}, "evaluations": 2},
    "spline_flow": {**SMALL, "kind": "coupling", "transforms": 1},
    "bayesian_flow": {**SMALL, "kind": "affine", "transforms": 1},
    "inverse_flow": {"teacher_options": {**SMALL, "transforms": 2}},
    "dsb": {
        "time_steps": 2,
        "network_options": {"encoder": (16, 16), "decoder": (16,), "embedding": 8},
    },
    "light_sb": {"components": 3, "width": 8, "depth": 1},
    "quantile": {"nodes": 5, "knots": 31, "degree": 1},
}


def showers(n: int, seed: int, *, full: bool = True, further: bool = False) -> Showers:
    """Exponential blobs, empty cells at their edge; with ``further``, tilted and displaced ones."""
    beam, rng = stream(seed, "beam"), stream(seed, "cells", int(full))
    energy = np.exp(beam.uniform(np.log(5e3), np.log(5e4), n))
    theta, phi = beam.uniform(0, 0.17, n), beam.uniform(0, 2 * np.pi, n)
    x, y = beam.uniform(-5, 5, (2, n))
    u = (x + 40 * np.sin(theta) * np.cos(phi)) * further
    v = (y + 40 * np.sin(theta) * np.sin(phi)) * further
    away = np.hypot(GRID.x_mm - u[:, None], GRID.y_mm - v[:, None])
    cells = np.exp(-away / (9.0 if full else 8.0)) * rng.gamma(8.0, 1 / 8, away.shape)
    cells *= (energy * 0.9 / cells.sum(axis=1))[:, None]
    cells[cells < 30.0] = 0.0
    named = {"theta_rad": theta, "phi_rad": phi, "x_mm": x, "y_mm": y} if further else {}
    return Showers.from_arrays(
        cells, energy, geometry=GRID, conditions=named, meta={"particle": "e-"}
    )


def model(
    transport: str | None, *, further: bool = False, members: int = 1, **config: Any
) -> Model:
    """A model of ``transport`` on `GRID` with tables that were fitted and random networks."""
    names = ["theta_rad", "phi_rad", "x_mm", "y_mm"] if further else []
    options = TRANSPORTS.get(transport or "", {})
    block = {
        "transport": transport, "options": options, "symmetry": "declared", "conditions": names,
        "degree_in_conditions": 2, "nodes": 5, "knots": 31, "degree": 1, "dense": 1, **config,
    }  # fmt: skip
    recipe = Recipe.model_validate({"system": "squirels", "model": block})
    fast, full = (showers(400, 1, full=side, further=further) for side in (False, True))
    made = []
    for k in range(members):
        refiner = Squirels(recipe.system_config(), GRID)
        refiner.fit(fast, full, seed=0)
        if transport == "quantile":
            assert not list(refiner.phases(fast, full, seed=0))  # it learns without phases
        made.append(_random(refiner, k))
        made[-1].finish(fast, seed=0)
    return Model(made, recipe, GRID, _domain(full, names))


def paper() -> Model:
    """A model of the system of the paper with small bridges."""
    bridge = {"time_steps": 2, "iterations": 1, "steps_first": 1, "steps": 1, "batch_size": 8}
    block = {
        "energy": {
            **bridge,
            "network_options": {"encoder": [8, 8], "decoder": [8], "embedding": 8},
        },
        "shower": {
            **bridge,
            "network_options": {"channels": 4, "layers": 2, "time_encoder": [8], "embedding": 8},
        },
    }
    recipe = Recipe.model_validate({"system": "squirels_paper", "model": block})
    fast, full = (showers(400, 1, full=side) for side in (False, True))
    refiner = SquirelsPaper(SquirelsPaperConfig.model_validate(block), GRID)
    refiner.fit(fast, full, seed=0)
    return Model([_random(refiner, 0)], recipe, GRID, _domain(full, []))


def _random(refiner: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in refiner.parameters():
            spread = 0.2 / max(parameter.shape[-1], 1) ** 0.5 if parameter.ndim else 0.1
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return refiner.eval().requires_grad_(False)


def _domain(full: Showers, names: list[str]) -> Domain:
    energy = full.incident_energy
    spans = {k: (float(full.conditions[k].min()), float(full.conditions[k].max())) for k in names}
    return Domain(float(energy.min()), float(energy.max()), "e-", conditions=spans)


__all__ = ["GRID", "SQUIRELS", "TRANSPORTS", "model", "paper", "showers"]
