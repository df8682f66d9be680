"""Showers of a toy calorimeter whose law is known in closed form: for tests of generators."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepbridge.core.rng import stream
from hepbridge.data.cells import CellLayer, XYCells
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.generation.generator import Generator, GeneratorConfig
from hepbridge.systems.generation.model_file import GeneratorModel
from hepbridge.systems.generation.recipe import GenerationRecipe
from hepbridge.systems.model_file import Domain

SIZES = [16, 4, 4]
TOY = Geometry.of_layers(
    "toy",
    [
        CellLayer(XYCells(n=(4, 4), pitch_mm=(10.0, 10.0)), (0.0, 10.0)),
        CellLayer(XYCells(n=(2, 2), pitch_mm=(20.0, 20.0)), (10.0, 20.0)),
        CellLayer(XYCells(n=(2, 2), pitch_mm=(20.0, 20.0)), (20.0, 30.0)),
    ],
    "D4",
)
REFERENCE = 1  # the layer that every shower hits, with most energy
CORE = np.isin(np.arange(16), [5, 6, 9, 10])  # of the first layer
TABLES = {"knots": 31, "nodes": 9}

# ln(T / E), ln(E_0 / E_1), ln(E_2 / E_1): mean, what a standard deviation of ln E adds, width
MEAN = np.array([-0.2, -1.0, -1.5])
SLOPE = np.array([0.05, -0.2, 0.4])
WIDTH = np.array([0.05, 0.3, 0.4])
RHO = 0.7  # of the last two
TILT = 0.3  # what the condition ``tilt``, from -1 to 1, adds to the second
EMPTY = 0.2  # showers without energy in the last layer
GAP = 0.3  # outer cells of the first layer without energy


def scaled(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln E, from -1 at 10 GeV to 1 at 100 GeV."""
    return 2 * np.log10(energy / 1e4) - 1


def truth(n: int, seed: int = 0, *, tilted: bool = False, holes: bool = True) -> Showers:
    """Draws of the law: log-normal layers, log-normal shares, cells of a ring alike.

    Without ``holes`` every layer and cell has energy."""
    rng = stream(seed, "toy")
    energy = 1e4 * 10 ** rng.uniform(0, 1, n)
    tilt = rng.uniform(-1, 1, n)
    z = rng.standard_normal((n, 3))
    z[:, 2] = RHO * z[:, 1] + np.sqrt(1 - RHO**2) * z[:, 2]
    y = MEAN + SLOPE * scaled(energy)[:, None] + WIDTH * z
    if tilted:
        y[:, 1] += TILT * tilt
    parts = np.stack([np.exp(y[:, 1]), np.ones(n), np.exp(y[:, 2])], axis=1)
    parts[holes & (rng.uniform(size=n) < EMPTY), 2] = 0.0
    sums = parts / parts.sum(axis=1, keepdims=True) * (energy * np.exp(y[:, 0]))[:, None]
    raw = np.exp(0.4 * rng.standard_normal((n, sum(SIZES))))
    raw[:, :16] *= np.where(CORE, 4.0, 1.0)
    raw[:, :16][holes & ~CORE & (rng.uniform(size=(n, 16)) < GAP)] = 0.0
    starts = np.cumsum([0, *SIZES])[:-1]
    share = raw / np.repeat(np.add.reduceat(raw, starts, axis=1), SIZES, axis=1)
    cells = (share * np.repeat(sums, SIZES, axis=1)).astype(np.float32)
    conditions: dict[str, Any] = {"tilt": tilt} if tilted else {}
    meta = {"particle": "e-"}
    return Showers.from_arrays(cells, energy, geometry=TOY, conditions=conditions, meta=meta)


def layers(showers: Showers) -> NDArray[np.float64]:
    """ln(T / E), ln(E_0 / E_1), ln(E_2 / E_1), the last -inf if the layer is empty."""
    sums = showers.geometry.layer_sums(showers.cells)
    with np.errstate(divide="ignore"):
        return np.log(
            np.stack(
                [
                    sums.sum(axis=1) / showers.incident_energy,
                    sums[:, 0] / sums[:, 1],
                    sums[:, 2] / sums[:, 1],
                ],
                axis=1,
            )
        )


def marginal_model(showers: Showers, **changes: Any) -> GeneratorModel:
    """A generator without networks that has learned from showers, without any judgement."""
    options = {"frame_options": TABLES, "reference": REFERENCE, "symmetry": "declared"}
    config = GeneratorConfig(**{**options, **changes})
    generator = Generator(config, showers.geometry)
    generator.fit(showers, seed=0)
    energy = showers.incident_energy
    spans = {
        name: (float(values.min()), float(values.max()))
        for name, values in showers.conditions.items()
        if name in config.named_conditions()
    }
    domain = Domain(float(energy.min()), float(energy.max()), "e-", {}, {}, spans)
    recipe = GenerationRecipe(model=config)
    return GeneratorModel(generator.eval().requires_grad_(False), recipe, showers.geometry, domain)


def untrained(**options: Any) -> GeneratorModel:
    """A generator of the toy that has learned nothing."""
    config = GeneratorConfig(**options)
    domain, recipe = Domain(1e4, 1e5, "e-"), GenerationRecipe(model=config)
    return GeneratorModel(Generator(config, TOY).eval(), recipe, TOY, domain)


def tensors(showers: Showers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cells, incident energies and their logarithm, as frames take them."""
    energy = torch.from_numpy(showers.incident_energy).float()
    return torch.from_numpy(showers.cells), energy, torch.log(energy)
