"""Distances of profiles: energy in bins along one direction, for many resamplings of the showers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.metrics.distance import Entries, Floats

__all__ = ["BinnedEnergy", "ProfilePool"]

_REPLICAS = 64  # resamplings handled together


@dataclass(frozen=True)
class BinnedEnergy:
    """Energy of n showers in bins: ``places`` (b,) ascending, ``mass`` (n, b), ``weights`` (n,) or None."""

    places: Floats
    mass: Floats
    weights: Floats | None = None

    @property
    def weighted(self) -> Floats:
        """(n, b) energies times the weights of the showers."""
        return self.mass if self.weights is None else self.mass * self.weights[:, None]

    def std(self) -> float:
        """Standard deviation of the place over the energy of all showers."""
        total = self.weighted.sum(axis=0)
        mean = np.average(self.places, weights=total)
        return float(np.sqrt(np.average((self.places - mean) ** 2, weights=total)))

    def means(self) -> Entries:
        """One entry per shower: its mean place, with its energy as mass."""
        energy = self.mass.sum(axis=1)
        mean = self.mass @ self.places / np.where(energy > 0, energy, 1.0)
        return Entries(mean, None, energy, len(energy), self.weights)


class ProfilePool:
    """Two samples of `BinnedEnergy`: exact EMDs between any two weightings of their showers.

    ∫ |F_u − F_v| dx of the energy-weighted distributions over ``places``; as
    `hepbridge.metrics.distance.Pool`, for distributions whose points are the same in all showers.
    """

    def __init__(self, first: BinnedEnergy, second: BinnedEnergy) -> None:
        self._gaps = np.diff(first.places)
        self._first, self._second = first.weighted, second.weighted

    def distance(self) -> float:
        """EMD of the two samples as they are."""
        u, v = (m.sum(axis=0)[None] for m in (self._first, self._second))
        return float(self._between(u, v)[0])

    def bootstrap(
        self, second: NDArray[np.int64], first: NDArray[np.int64] | None = None
    ) -> Floats:
        """EMDs (B,) with shower j counted ``second[b, j]`` (and ``first[b, j]``) times."""
        kept = self._first.sum(axis=0)[None]
        u = kept if first is None else _sums(first, self._first)
        return self._between(u, _sums(second, self._second))

    def splits(self, chosen: NDArray[np.bool_]) -> Floats:
        """EMDs (S,) between the showers ``chosen`` (S, n + m) and the rest."""
        both = np.concatenate([self._first, self._second])
        half = _sums(chosen, both)
        return self._between(half, both.sum(axis=0) - half)

    def _between(self, u: Floats, v: Floats) -> Floats:
        totals = u.sum(axis=1, keepdims=True), v.sum(axis=1, keepdims=True)
        if not all((t > 0).all() for t in totals):
            raise DataError("the distance to an empty sample does not exist (no energy at all)")
        cdf = np.cumsum(u / totals[0] - v / totals[1], axis=1)[:, :-1]
        distances: Floats = np.abs(cdf) @ self._gaps
        return distances


def _sums(counts: NDArray[Any], mass: Floats) -> Floats:
    """(replicas, b): energies of the showers, each counted so often."""
    blocks = (counts[k : k + _REPLICAS] for k in range(0, len(counts), _REPLICAS))
    return np.concatenate([block.astype(np.float64) @ mass for block in blocks])
