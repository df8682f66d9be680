"""What a classifier sees of a shower: its cells (low level) or its shape (high level)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.metrics.observables import HIT_THRESHOLD

__all__ = ["Features", "high_level", "input_names", "low_level", "low_level_logit"]

Features = NDArray[np.float32]

_LOGIT_FLOOR = 1e-6  # of the incident energy: 0.05 MeV at 50 GeV; an empty cell is at the floor


class WithCells(Protocol):
    """Showers whose cells are known one by one."""

    @property
    def cells(self) -> NDArray[np.float32] | None: ...
    @property
    def incident_energy(self) -> NDArray[np.float64]: ...


def low_level(showers: WithCells) -> Features:
    """Cells / incident energy and log incident energy, (N, n_cells + 1).

    Raises DataError for showers whose cells were not kept.
    """
    if showers.cells is None:
        raise DataError("there are no low-level inputs: the cells of these showers are not kept")
    energy = showers.incident_energy[:, None]
    return np.concatenate([showers.cells / energy, np.log(energy)], axis=1).astype(np.float32)


def low_level_logit(showers: WithCells) -> Features:
    """`low_level` and, before it, the logit of the cells, (N, 2 n_cells + 1).

    ``log(u / (1 − u))`` of ``u = 1e-6 + (1 − 2e-6) min(cell / incident energy, 1)``, the scale on
    which the CaloChallenge's generators work: for a network, cells far from the core exist only
    there, and the energy sum is easy to see only in the cells themselves. Trees need neither, as
    they only ask for the order of values.
    """
    x = low_level(showers)
    u = _LOGIT_FLOOR + (1 - 2 * _LOGIT_FLOOR) * np.clip(x[:, :-1].astype(np.float64), 0.0, 1.0)
    return np.concatenate([np.log(u / (1 - u)), x], axis=1).astype(np.float32)


def high_level(showers: Showers) -> Features:
    """Shower shapes, (N, 8 + rings).

    ``e_ratio``, ``n_hit``, ``e_max`` / incident energy, energy-weighted centre and width along x
    and y (in cells), the energy fraction in the inner two rings, and in each ring. Rings are
    squares around the centre of the x-y plane: with 10×10 cells ring 0 is the central 4 cells and
    the inner two rings are the central 16.
    """
    cells = showers.cells.astype(np.float64)
    total = np.maximum(cells.sum(axis=1), np.finfo(np.float64).tiny)
    energy, geometry = showers.incident_energy, showers.geometry
    columns = [total / energy, (cells > HIT_THRESHOLD).sum(axis=1), cells.max(axis=1) / energy]
    offsets = []
    for axis in ("x", "y"):
        position = geometry.centres(axis)
        centre = cells @ position / total
        square = cells @ position**2 / total
        columns += [centre, np.sqrt(np.maximum(square - centre**2, 0.0))]
        offsets.append(np.abs(position - geometry.shape[geometry.axes.index(axis)] / 2))
    ring = np.floor(np.maximum(*offsets)).astype(np.int64)
    in_ring = cells @ (ring[:, None] == np.arange(ring.max() + 1)) / total[:, None]
    columns += [in_ring[:, :2].sum(axis=1), *in_ring.T]
    return np.stack(columns, axis=1).astype(np.float32)


def input_names(level: str, geometry: Geometry) -> list[str]:
    """What the columns of `high_level` (level "high") or `low_level` ("low") are, in words."""
    if level == "low":
        index = np.indices(geometry.shape).reshape(len(geometry.shape), -1).T
        return [f"cell {','.join(map(str, row))}" for row in index] + ["log incident energy"]
    shape = [geometry.shape[geometry.axes.index(axis)] for axis in ("x", "y")]
    rings = -(-max(shape) // 2)
    return [
        "energy sum / incident energy",
        "cells above 1 MeV",
        "largest cell / incident energy",
        "centre in x",
        "width in x",
        "centre in y",
        "width in y",
        "inner two rings",
        *(f"ring {k}" for k in range(rings)),
    ]
