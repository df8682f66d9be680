"""Estimates of conditional quantiles: what a `ConditionalQuantile` stores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from hepbridge.core.errors import DataError

__all__ = ["fit_tables"]

_LEAST = 400  # rows in a window
_SMOOTH = 0.6  # half width over which quantiles are smoothed, in the unit of the condition
_REACH = 0.05  # half its width, in the unit of the condition, unless the rows ask for more


def fit_tables(
    values: NDArray[np.floating],
    c: NDArray[np.float64],
    groups: NDArray[np.int64],
    z: NDArray[np.float64],
    *,
    nodes: int,
    degree: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """Quantiles at Phi(z) and the fraction at -inf, at equidistant nodes of the condition ``c`` (N,).

    ``values`` (N, d), finite or -inf; variables with the same number in ``groups`` (d,) are pooled.
    Returns the table (nodes, g, knots), the fractions (nodes, g) and the range of the nodes; see
    `ConditionalQuantile.fit` for how they are smoothed. Raises DataError.
    """
    n = len(values)
    if n < 50:
        raise DataError(f"a quantile transform needs at least 50 rows, got {n}")
    low, high = float(c.min()), float(c.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    grid = np.linspace(low, high, nodes)
    windows, smooth = _windows(c, grid), _smoother(grid)
    trend = _Trend(c, grid, degree)
    n_groups = int(groups.max()) + 1
    table = np.empty((nodes, n_groups, len(z)))
    atom = np.empty((nodes, n_groups))
    rising = 1e-6 * np.arange(len(z))  # the inverse exists where values repeat, too
    for group in range(n_groups):
        block = np.asarray(values[:, groups == group], dtype=np.float64)
        hit = block > -np.inf
        if not hit.any():
            raise DataError(
                f"variables {np.flatnonzero(groups == group).tolist()} are zero in all {n} rows; "
                "a quantile transform cannot learn them"
            )
        atom[:, group] = trend.fraction(~hit)
        centre, scale, residual = trend.standardise(np.where(hit, block, 0.0), hit)
        curves = np.empty((nodes, len(z)))
        for k, rows in enumerate(windows):
            inside = residual[rows][hit[rows]]
            curves[k] = _quantiles(inside if len(inside) >= 50 else residual[hit], z)
        # sorting is the monotone rearrangement (Chernozhukov et al. 2010): it only helps
        curves = np.sort(smooth @ curves, axis=1) + rising
        table[:, group] = centre[:, None] + scale[:, None] * curves
    return table, atom, (low, high)


def _windows(c: NDArray[np.float64], grid: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """For every node the rows within `_REACH`, or the nearest 1/48 (at least `_LEAST`) if more."""
    least = min(len(c), max(_LEAST, len(c) // 48))
    out = []
    for at in grid:
        distance = np.abs(c - at)
        reach = max(_REACH, float(np.partition(distance, least - 1)[least - 1]))
        out.append(np.flatnonzero(distance <= reach))
    return out


def _smoother(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix of local quadratic regression over the nodes, tricube weights of half width `_SMOOTH`.

    Source: Cleveland, J. Am. Stat. Assoc. 74 (1979) 829.
    """
    distance = grid - grid[:, None]
    out = np.zeros_like(distance)
    for k, d in enumerate(distance):
        root = np.clip(1 - np.abs(d / _SMOOTH) ** 3, 0, None) ** 1.5
        used = root > 0
        basis = np.polynomial.polynomial.polyvander(d[used] / _SMOOTH, min(2, used.sum() - 1))
        out[k, used] = np.linalg.pinv(basis * root[used, None])[0] * root[used]
    return out


class _Trend:
    """Smooth dependence of zero fraction, median and interquartile range on the condition."""

    def __init__(self, c: NDArray[np.float64], grid: NDArray[np.float64], degree: int) -> None:
        low, high = grid[0], grid[-1]
        bins = int(np.clip(len(c) // 300, 1, 24))
        if np.ptp(c) < 1e-6:
            bins = 1
        self.bins = np.array_split(np.argsort(c, kind="stable"), bins)
        self.degree = min(degree, max(bins - 2, 0))

        def basis(x: NDArray[np.float64]) -> NDArray[np.float64]:
            scaled = 2 * (x - low) / (high - low) - 1
            return np.polynomial.chebyshev.chebvander(scaled, self.degree)

        self.at_rows, self.at_grid = basis(c), basis(grid)
        # a bin average is compared with the average of the polynomial over the bin
        self.at_bins = np.stack([self.at_rows[rows].mean(axis=0) for rows in self.bins])

    def _fit(
        self, per_bin: NDArray[np.float64], weight: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        root = np.sqrt(weight)
        out, *_ = np.linalg.lstsq(self.at_bins * root[:, None], per_bin * root, rcond=None)
        return np.asarray(out)

    def fraction(self, flags: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The fraction of true flags (N, m) at every node."""
        seen = np.array([flags[rows].mean() for rows in self.bins])
        weight = np.ones(len(seen))
        return np.clip(self.at_grid @ self._fit(seen, weight), 0.0, seen.max())

    def standardise(
        self, y: NDArray[np.float64], hit: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Median and range at every node, and the residuals (N, m) of ``y`` in units of the range."""
        counts = np.array([hit[rows].sum() for rows in self.bins], dtype=np.float64)
        median, spread = np.zeros(len(counts)), np.zeros(len(counts))
        for k, rows in enumerate(self.bins):
            if counts[k] >= 20:
                quarter, median[k], upper = np.quantile(y[rows][hit[rows]], [0.25, 0.5, 0.75])
                spread[k] = np.log(max(upper - quarter, 1e-9))
        weight = np.where(counts >= 20, counts, 0.0)
        if not weight.any():  # hardly any hits: no trend can be seen
            everything = y[hit]
            centre = np.full(len(self.at_grid), np.median(everything))
            return centre, np.ones_like(centre), y - centre[0]
        middle, width = self._fit(median, weight), self._fit(spread, weight)
        residual = (y - (self.at_rows @ middle)[:, None]) / np.exp(self.at_rows @ width)[:, None]
        return self.at_grid @ middle, np.exp(self.at_grid @ width), residual


def _quantiles(x: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles at Phi(z); beyond what the sample resolves, linear in z with the outer slope."""
    reach = float(ndtri(1 - 0.5 / len(x)))
    q = np.quantile(x, ndtr(np.clip(z, -reach, reach)), method="hazen")
    for side in (-1, 1):
        outside = side * z > reach
        if outside.any():
            inner = side * z <= reach
            edge = z[inner][-1 if side > 0 else 0]
            near = inner & (np.abs(z - edge) < 1.0)
            slope = (q[near].max() - q[near].min()) / max(np.ptp(z[near]), 1e-9)
            at = q[inner][-1 if side > 0 else 0]
            q[outside] = at + slope * (z[outside] - edge)
    return q
