"""The first Wasserstein distance (earth mover's distance, EMD) on the line, exact and resampled.

``EMD(u, v) = ∫ |F_u(x) − F_v(x)| dx`` with the cumulative distributions F: unbinned, in the unit
of x. Samples are `Entries`: points on the line, each of which belongs to a shower, so that a
resampling is a weight per *shower*. A `Pool` sorts two samples once; every bootstrap or split is
then one matrix product and one cumulative sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from hepbridge.core.errors import DataError

__all__ = ["Entries", "Pool", "bootstrap_counts", "wasserstein"]

Floats = NDArray[np.float64]

_POINTS = 1024  # points of the line handled together, so that a block stays in the cache
_REPLICAS = 64  # resamplings handled together


@dataclass(frozen=True)
class Entries:
    """A one-dimensional distribution whose points belong to showers.

    Attributes:
        values: (m,) positions (cell spectra stay float32, which sorts in half the time).
        owner: (m,) row of the shower to which each point belongs, or None: point i is shower i.
        mass: (m,) what each point counts, not negative, or None: 1.
        n: number of showers (some may own no point).
        weights: (n,) weight of each shower, or None: 1.
    """

    values: NDArray[np.floating]
    owner: NDArray[np.int64] | None
    mass: Floats | None
    n: int
    weights: Floats | None = None

    @cached_property
    def total_mass(self) -> Floats | None:
        """(m,) mass of each point times the weight of its shower, or None: 1."""
        if self.weights is None:
            return self.mass
        weight = self.weights if self.owner is None else self.weights[self.owner]
        return weight if self.mass is None else weight * self.mass

    def std(self) -> float:
        """Standard deviation of the distribution."""
        values = self.values.astype(np.float64)
        mean = np.average(values, weights=self.total_mass)
        return float(np.sqrt(np.average((values - mean) ** 2, weights=self.total_mass)))


def wasserstein(
    u: NDArray[np.floating],
    v: NDArray[np.floating],
    u_weights: Floats | None = None,
    v_weights: Floats | None = None,
) -> float:
    """EMD between two weighted samples (m,) and (k,); weights are normalised to 1.

    Raises DataError for an empty sample, negative weights or weights that add up to nothing.
    """
    if not len(u) or not len(v):
        raise DataError("the distance to an empty sample does not exist")
    (x, du), (y, dv) = _sorted_steps(u, u_weights), _sorted_steps(v, v_weights)
    if u_weights is None and v_weights is None and len(x) == len(y):
        return float(np.abs(x - y).mean())
    both = np.concatenate([x, y])
    order = np.argsort(both, kind="stable")  # two sorted runs: merged in linear time
    difference = np.cumsum(np.concatenate([du, -dv])[order])
    return float(np.abs(difference[:-1]) @ np.diff(both[order]))


def _sorted_steps(values: NDArray[np.floating], weights: Floats | None) -> tuple[Floats, Floats]:
    """Sorted positions and the step of the cumulative distribution at each."""
    if weights is None:
        return np.sort(values).astype(np.float64), np.full(len(values), 1.0 / len(values))
    if weights.min() < 0 or not weights.sum() > 0:
        raise DataError("a distance needs weights that are not negative and not all zero")
    order = np.argsort(values)
    return values[order].astype(np.float64), weights[order] / weights.sum()


def bootstrap_counts(n: int, replicas: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each of n showers is drawn (replicas, n) when n are drawn with replacement."""
    return rng.multinomial(n, np.full(n, 1.0 / n), size=replicas)


class Pool:
    """Two samples on one sorted line: EMDs between any two weightings of their showers.

    The showers of ``first`` come before those of ``second``.
    """

    def __init__(self, first: Entries, second: Entries) -> None:
        self._sizes = (first.n, second.n)
        values = np.concatenate([first.values, second.values])
        owner = np.concatenate([_owner(first), _owner(second) + first.n])
        mass = np.concatenate([_mass(first), _mass(second)])
        if len(mass) and mass.min() < 0:
            raise DataError("a distance needs weights that are not negative")
        points, index = np.unique(values, return_inverse=True)
        shape = (len(points), first.n + second.n)
        self._matrix = csr_array((mass, (index, owner)), shape=shape)  # mass of a shower at a point
        self._gaps = np.diff(points.astype(np.float64))
        self._shower_mass = np.bincount(owner, mass, minlength=shape[1])

    def distance(self) -> float:
        """EMD of the two samples as they are."""
        ones = np.ones((1, self._sizes[1]), dtype=np.int64)
        return float(self.bootstrap(ones)[0])

    def bootstrap(
        self, second: NDArray[np.int64], first: NDArray[np.int64] | None = None
    ) -> Floats:
        """EMDs (B,) with shower j of a sample counted ``second[b, j]`` or ``first[b, j]`` times.

        ``second`` is (B, n_second), ``first`` (B, n_first); None keeps the first sample as it is.
        """
        n, m = self._sizes
        kept = np.ones((1, n)) if first is None else first
        replicas = len(second)
        u = np.broadcast_to(np.pad(kept, ((0, 0), (0, m))), (replicas, n + m))
        return self._distances(u, np.pad(second, ((0, 0), (n, 0))))

    def splits(self, chosen: NDArray[np.bool_]) -> Floats:
        """EMDs (S,) between the showers ``chosen`` (S, n_first + n_second) and the rest."""
        return self._distances(chosen, ~chosen)

    def _distances(self, u: NDArray[Any], v: NDArray[Any]) -> Floats:
        out = np.empty(len(v))
        for start in range(0, len(v), _REPLICAS):
            block = slice(start, start + _REPLICAS)
            # (showers, replicas): weight per unit mass in u minus that in v
            signed = (self._normalised(u[block]) - self._normalised(v[block])).T
            out[block] = self._integrate(np.ascontiguousarray(signed))
        return out

    def _normalised(self, weights: NDArray[Any]) -> Floats:
        weights = weights.astype(np.float64)
        total: Floats = weights @ self._shower_mass
        if not (total > 0).all():
            raise DataError("the distance to an empty sample does not exist (all weights are zero)")
        normalised: Floats = weights / total[:, None]
        return normalised

    def _integrate(self, signed: Floats) -> Floats:
        """∫ |F_u − F_v| dx for every column of ``signed`` (showers, replicas)."""
        out = np.zeros(signed.shape[1])
        running = np.zeros(signed.shape[1])
        for start in range(0, len(self._gaps), _POINTS):
            stop = min(start + _POINTS, len(self._gaps))
            cdf = self._matrix[start:stop] @ signed
            cdf[0] += running
            np.cumsum(cdf, axis=0, out=cdf)
            running = cdf[-1].copy()
            out += self._gaps[start:stop] @ np.abs(cdf, out=cdf)
        return out


def _owner(entries: Entries) -> NDArray[np.int64]:
    return np.arange(entries.n) if entries.owner is None else entries.owner


def _mass(entries: Entries) -> Floats:
    mass = entries.total_mass
    return np.ones(len(entries.values)) if mass is None else mass
