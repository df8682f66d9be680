"""The floor: distances between two samples of the same truth, below which nothing can be told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepbridge.metrics.distance import Floats

__all__ = ["Floor", "half_splits"]


@dataclass(frozen=True)
class Floor:
    """EMDs (S,) between two halves of the pooled references, over random splits."""

    distances: Floats

    @property
    def mean(self) -> float:
        return float(self.distances.mean())

    @property
    def std(self) -> float:
        return float(self.distances.std(ddof=1))

    @property
    def q95(self) -> float:
        """The 95 % quantile."""
        return float(np.quantile(self.distances, 0.95))

    def to_dict(self) -> dict[str, float]:
        return {"mean": self.mean, "std": self.std, "q95": self.q95}


def half_splits(n: int, splits: int, rng: np.random.Generator, *, mixed: bool) -> NDArray[np.bool_]:
    """Random halves (splits, 2n) of two pooled samples of n showers: True marks one half.

    At mixed incident energies rows i and n + i, which share their energy, never come into the
    same half: they are swapped or not, so that both halves keep the same spectrum.
    """
    if mixed:
        swapped = rng.random((splits, n)) < 0.5
        return np.concatenate([~swapped, swapped], axis=1)
    half = np.arange(2 * n) < n
    return rng.permuted(np.broadcast_to(half, (splits, 2 * n)), axis=1)
