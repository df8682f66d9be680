"""Showers from a toy detector, for tests of metrics: fast, realistic in size, fully known."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hepbridge.data.geometry import SQUIRELS
from hepbridge.data.showers import Showers


def toy_showers(
    n: int, seed: int, energy: ArrayLike = 50_000.0, *, scale: float = 1.0, tilt: float = 0.0
) -> Showers:
    """n showers at ``energy`` (MeV, one or (n,)): gamma-distributed cells around an exponential.

    ``scale`` multiplies all cells, ``tilt`` moves the axis along x (cells).
    """
    rng = np.random.default_rng(seed)
    x, y = SQUIRELS.centres("x") - 5 - tilt, SQUIRELS.centres("y") - 5
    mean = np.exp(-np.hypot(x, y) / 0.6)
    incident = np.broadcast_to(np.asarray(energy, dtype=np.float64), (n,))
    expected = scale * mean / mean.sum() * incident[:, None]
    cells = rng.gamma(expected / 20.0) * 20.0  # MeV: the fluctuation of a cell grows as its root
    return Showers.from_arrays(cells.astype(np.float32), incident)


def spectrum(n: int, seed: int) -> np.ndarray:
    """n incident energies, uniform in 10-100 GeV, in MeV."""
    return np.random.default_rng(seed).uniform(10_000.0, 100_000.0, n)


def joined(*samples: Showers) -> Showers:
    """Several samples as one."""
    return Showers.from_arrays(
        np.concatenate([s.cells for s in samples]),
        np.concatenate([s.incident_energy for s in samples]),
    )
