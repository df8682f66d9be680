"""How far apart are the correlations of layers, or of cells, in two samples?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepbridge.metrics.distance import Floats

__all__ = ["CorrelationPool", "correlations"]

_ROUNDING = 1e-9  # of a column's largest value: what varies less is constant
_VARIES = 1e-12  # of the square of a column's half width: a part of the showers varies less


def correlations(x: Floats, weights: Floats | None = None) -> Floats:
    """Pearson correlation coefficients (d, d) of the columns of x (n, d), 0 for one that is constant.

    Two constant columns, and a column with itself if it is constant, have correlation 0: nothing is
    known of it.
    """
    z = _augmented(x, weights, *_scale(x))
    return _of_moments(z.T @ z)


class CorrelationPool:
    r"""Two samples of vectors: distances between the correlation matrices of any two weightings.

    .. math:: D = \sqrt{\frac{2}{d(d-1)} \sum_{i<j} \big(\rho^{(1)}_{ij} - \rho^{(2)}_{ij}\big)^2}

    the root mean square difference of the Pearson coefficients of d columns. Blind to everything
    that a single column does (its mean, its width), and to relations that are not linear: where two
    layers are filled in different showers, to which filled the more. Layers that are seldom hit have
    coefficients that scatter widely; the floor has the same scatter.

    Args:
        first, second: (n, d) and (m, d), row for row the showers.
        weights: of the showers of each, or None.
    """

    def __init__(
        self,
        first: Floats,
        second: Floats,
        weights: tuple[Floats | None, Floats | None] = (None, None),
    ) -> None:
        centre, scale = _scale(np.concatenate([first, second]))  # of no effect but on rounding
        self._first, self._second = (
            _augmented(x, w, centre, scale) for x, w in zip((first, second), weights, strict=True)
        )

    def distance(self) -> float:
        """Of the two samples as they are."""
        return self._between(self._first.T @ self._first, self._second.T @ self._second)

    def bootstrap(
        self, second: NDArray[np.int64], first: NDArray[np.int64] | None = None
    ) -> Floats:
        """Distances (B,) with shower j counted ``second[b, j]`` (and ``first[b, j]``) times."""
        kept = self._first.T @ self._first
        found = []
        for b, count in enumerate(second):
            u = kept if first is None else _weighted(self._first, first[b])
            found.append(self._between(u, _weighted(self._second, count)))
        return np.array(found)

    def splits(self, chosen: NDArray[np.bool_]) -> Floats:
        """Distances (S,) between the showers ``chosen`` (S, n + m) and the rest."""
        both = np.concatenate([self._first, self._second])
        total = both.T @ both
        found = []
        for mask in chosen:
            half = both[mask]
            moments = half.T @ half
            found.append(self._between(moments, total - moments))
        return np.array(found)

    @staticmethod
    def _between(u: Floats, v: Floats) -> float:
        difference = _of_moments(u) - _of_moments(v)
        above = np.triu_indices(len(difference), 1)
        return float(np.sqrt((difference[above] ** 2).mean()))


def _scale(x: Floats) -> tuple[Floats, Floats]:
    """Mean and half width of every column; infinite for one that is constant but for rounding."""
    centre = x.mean(axis=0)
    away = np.abs(x - centre).max(axis=0)
    return centre, np.where(away > _ROUNDING * np.abs(x).max(axis=0), away, np.inf)


def _augmented(x: Floats, weights: Floats | None, centre: Floats, scale: Floats) -> Floats:
    """Columns 1, (x − centre) / scale, times the root of the weights: Zᵀ Z holds all moments."""
    z = np.concatenate([np.ones((len(x), 1)), (x - centre) / scale], axis=1)
    return z if weights is None else z * np.sqrt(weights)[:, None]


def _weighted(z: Floats, count: NDArray[np.int64]) -> Floats:
    moments: Floats = (z * count[:, None]).T @ z
    return moments


def _of_moments(moments: Floats) -> Floats:
    total, sums = moments[0, 0], moments[0, 1:]
    covariance = moments[1:, 1:] / total - np.outer(sums, sums) / total**2
    variance = np.diag(covariance)
    varies = variance > _VARIES
    root = np.sqrt(np.where(varies, variance, 1.0))
    rho: Floats = covariance / np.outer(root, root)
    rho *= np.outer(varies, varies)
    return np.clip(rho, -1.0, 1.0)
