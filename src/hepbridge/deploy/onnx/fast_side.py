"""Fast showers as a model knows them: drawn from its tables, and how much energy they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepbridge.core.rng import stream
from hepbridge.data.showers import Showers
from hepbridge.systems.conditioning import ENERGY
from hepbridge.systems.model_file import Model
from hepbridge.systems.refiner import Refiner
from hepbridge.systems.squirels import Squirels
from hepbridge.systems.squirels_paper import SquirelsPaper

__all__ = ["drawn", "response_range"]

_ROWS = 512
_FAR = 4.0  # standard deviations of the energy sum: the training had hardly a shower beyond


def drawn(
    refiner: Refiner,
    energy: NDArray[np.float64],
    named: Mapping[str, NDArray[Any]],
    rng: np.random.Generator,
    *,
    sums: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Cells (N, n_cells) of fast showers at incident energies (N,) in MeV, coordinate by coordinate.

    ``named`` are the further conditions (N,); ``sums`` (N,) the energy sums, in standard deviations,
    in the place of random ones (systems without an energy sum among their coordinates: not used).
    """
    n = refiner.geometry.n_cells
    if isinstance(refiner, SquirelsPaper):
        mean, std = (t[0].double().numpy() for t in (refiner.fraction_mean, refiner.fraction_std))
        share = mean + std * rng.standard_normal((len(energy), n))
        return np.asarray(energy[:, None] * np.maximum(share, 0.0), dtype=np.float32)
    assert isinstance(refiner, Squirels)
    tables = refiner.quantile.source
    z = rng.standard_normal((len(energy), refiner.coordinates.dim), dtype=np.float32)
    if sums is not None:
        z[:, -1] = sums
    further: dict[str, Any] = {k: values for k, values in named.items() if k != "noise"}
    blank = np.ones((len(energy), n), dtype=np.float32)
    c = refiner.conditions(
        Showers.from_arrays(blank, energy, geometry=refiner.geometry, conditions=further)
    )
    with torch.inference_mode():
        if refiner.further is None:
            y = tables.inverse(torch.from_numpy(z), c[ENERGY].reshape(-1))
        else:
            y = refiner.further.from_normal("fast", tables, torch.from_numpy(z), c)
        cells = refiner.coordinates.inverse(y, torch.from_numpy(energy.astype(np.float32)))
    return np.asarray(cells.numpy(), dtype=np.float32)


def response_range(model: Model, member: int) -> tuple[float, float]:
    """Least and largest energy sum over incident energy of the fast showers of the training.

    That is at four standard deviations on either side, at incident energies and further conditions
    that were in the training.
    """
    rng = stream(0, "onnx-response")
    low, high = model.domain.energy_min, model.domain.energy_max
    energy: NDArray[np.float64] = low * (high / low) ** np.linspace(0, 1, _ROWS)
    named = {name: rng.uniform(a, b, _ROWS) for name, (a, b) in model.domain.conditions.items()}
    sums = np.where(np.arange(_ROWS) % 2, _FAR, -_FAR).astype(np.float32)
    cells = drawn(model.members[member], energy, named, rng, sums=sums)
    held = cells.sum(axis=1, dtype=np.float64) / energy
    return float(held.min()), float(held.max())
