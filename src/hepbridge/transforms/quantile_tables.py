"""Estimates of conditional quantiles: what a `ConditionalQuantile` stores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from hepbridge.core.errors import DataError

__all__ = ["fit_tables", "rising"]

_LEAST = 400  # rows in a window
# with fewer rows windows are so wide that what is extrapolated to the ends is worse than their bias
_MANY = 2000
# half widths over which quantiles may be smoothed, in the unit of the condition
_SMOOTH = (0.6, 1.0, 1.6, 2.5, 4.0)
_FOLDS = 4  # of the cross-validation that chooses among them
_NOTHING = -50.0  # the value of a variable that is -inf in all rows: never looked up
_FEW = 50  # finite values in a window; with fewer, those of all rows are used
_VALUES = 1000  # at which distribution functions are smoothed
_SCORED = 20_000  # values compared in each fold, about
_RISE = 1e-6  # of a table from knot to knot, at least
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
    `ConditionalQuantile.fit` for how they are smoothed. A group without finite values has fraction 1.
    Raises DataError.
    """
    n = len(values)
    if n < 50:
        raise DataError(f"a quantile transform needs at least 50 rows, got {n}")
    low, high = float(c.min()), float(c.max())
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    grid = np.linspace(low, high, nodes)
    whole = _Curves(c, grid, degree)
    # every fourth row in turn: a file sorted by the condition is no exception
    folds = [np.arange(n) % _FOLDS == k for k in range(_FOLDS)]
    parts = [_Curves(c[~fold], grid, degree) for fold in folds]
    n_groups = int(groups.max()) + 1
    table = np.empty((nodes, n_groups, len(z)))
    atom = np.empty((nodes, n_groups))
    for group in range(n_groups):
        y = np.asarray(values[:, groups == group], dtype=np.float64)
        hit = y > -np.inf
        if not hit.any():  # a dead cell, or a corner that no shower reaches
            table[:, group], atom[:, group] = rising(np.full(len(z), _NOTHING)), 1.0
            continue
        loss, error = np.zeros(2 * len(_SMOOTH)), np.zeros(len(_SMOOTH))
        for fold, part in zip(folds, parts, strict=True):
            error += [_brier(f, grid, c[fold], ~hit[fold]) for f in part.fractions(~hit[~fold])]
            row, column = np.nonzero(hit & fold[:, None])
            some = slice(None, None, max(1, len(row) // _SCORED))
            row, column = row[some], column[some]
            tried = part.tables(y[~fold], hit[~fold], z) if hit[~fold].any() else []
            loss[: len(tried)] += [_pinball(t, grid, c[row], y[row, column], z) for t in tried]
        table[:, group] = rising(whole.tables(y, hit, z)[int(np.argmin(loss))])
        atom[:, group] = whole.fractions(~hit)[int(np.argmin(error))]
    return table, atom, (low, high)


def rising(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The table (…, knots), not falling, made to rise: its inverse exists where values repeat, too.

    Where it rises already it is left alone: the energy sum of a shower has a width of 1e-3.
    """
    least = _RISE * np.arange(table.shape[-1])
    return np.asarray(np.maximum.accumulate(table - least, axis=-1) + least)


class _Curves:
    """Estimates of quantile curves at the nodes: two ways to smooth them, in several widths each."""

    def __init__(self, c: NDArray[np.float64], grid: NDArray[np.float64], degree: int) -> None:
        self.grid, self.trend = grid, _Trend(c, grid, degree)
        self.windows = _windows(c, grid)
        centres = grid
        if len(c) >= _MANY:  # at the ends a window lies on one side of its node
            centres = np.array([c[rows].mean() for rows in self.windows])
        self.smoothers = [_smoother(grid, centres, width) for width in _SMOOTH]

    def fractions(self, flags: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
        """The fraction of true flags (N, m) at every node, one estimate per width."""
        seen = np.array([flags[rows].mean() for rows in self.windows])
        return [np.clip(m @ seen, 0.0, 1.0) for m in self.smoothers]

    def tables(
        self, y: NDArray[np.float64], hit: NDArray[np.bool_], z: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Tables (nodes, knots) of the finite values of a group ``y`` (N, m), one per estimate."""
        # sorting is the monotone rearrangement (Chernozhukov et al. 2010): it only helps
        return [np.sort(t, axis=1) for t in (*self._levels(y, hit, z), *self._values(y, hit, z))]

    def _levels(
        self, y: NDArray[np.float64], hit: NDArray[np.bool_], z: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Quantiles at fixed levels are smoothed: for distributions that move and scale."""
        centre, scale, residual = self.trend.standardise(np.where(hit, y, 0.0), hit)
        curves = np.empty((len(self.grid), len(z)))
        for k, rows in enumerate(self.windows):
            inside = residual[rows][hit[rows]]
            curves[k] = _quantiles(inside if len(inside) >= _FEW else residual[hit], z)
        return [centre[:, None] + scale[:, None] * (m @ curves) for m in self.smoothers]

    def _values(
        self, y: NDArray[np.float64], hit: NDArray[np.bool_], z: NDArray[np.float64]
    ) -> list[NDArray[np.float64]]:
        """Levels at fixed values are smoothed: for features that stay where they are."""
        everything = np.sort(y[hit])
        at = np.unique(np.quantile(everything, np.linspace(0, 1, _VALUES)))
        inside = [y[rows][hit[rows]] for rows in self.windows]
        inside = [np.sort(x) if len(x) >= _FEW else everything for x in inside]
        level = np.stack([np.searchsorted(x, at, side="right") / len(x) for x in inside])
        out = []
        for matrix in self.smoothers:
            smooth = np.maximum.accumulate(np.clip(matrix @ level, 0, 1), axis=1)
            curves = (
                _inverted(at, f, 0.5 / len(x), z) for f, x in zip(smooth, inside, strict=True)
            )
            out.append(np.stack(list(curves)))
        return out


def _pinball(
    table: NDArray[np.float64],
    grid: NDArray[np.float64],
    c: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
) -> float:
    """Sum over rows and levels of the pinball loss of a table, which the true quantiles minimise.

    ``c``, ``y`` (rows,), finite. Source: Koenker and Bassett, Econometrica 46 (1978) 33.
    """
    position = np.interp(c, grid, np.arange(len(grid)))
    node = np.minimum(position.astype(np.int64), len(grid) - 2)
    weight = (position - node)[:, None]
    inner = np.abs(z) <= 3.0
    known = table[:, inner]
    error = y[:, None] - (known[node] * (1 - weight) + known[node + 1] * weight)
    level = ndtr(z[inner])
    loss = np.maximum(level * error, (level - 1) * error)
    return float(loss.sum(axis=0) @ np.gradient(level))  # levels weighted by their spacing


def _brier(
    fraction: NDArray[np.float64],
    grid: NDArray[np.float64],
    c: NDArray[np.float64],
    flags: NDArray[np.bool_],
) -> float:
    """Squared error of a fraction as a forecast of the flags (N, m), but for a constant.

    Source: Brier, Mon. Weather Rev. 78 (1950) 1.
    """
    forecast, seen = np.interp(c, grid, fraction), flags.mean(axis=1)
    return float(((forecast - seen) ** 2).sum())


def _windows(c: NDArray[np.float64], grid: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """For every node the rows within `_REACH`, or the nearest 1/48 (at least `_LEAST`) if more."""
    least = min(len(c), max(_LEAST, len(c) // 48))
    out = []
    for at in grid:
        distance = np.abs(c - at)
        reach = max(_REACH, float(np.partition(distance, least - 1)[least - 1]))
        out.append(np.flatnonzero(distance <= reach))
    return out


def _smoother(
    grid: NDArray[np.float64], centres: NDArray[np.float64], width: float
) -> NDArray[np.float64]:
    """The matrix of local quadratic regression from what was seen at ``centres`` to the nodes ``grid``,
    tricube weights of half width ``width``, or twice the distance of the nearest centre if that is more.

    Nodes beyond the centres by more than a quarter of their span get what is found there.
    Source: Cleveland, J. Am. Stat. Assoc. 74 (1979) 829.
    """
    reach = 0.25 * np.ptp(centres)
    places = np.clip(grid, centres.min() - reach, centres.max() + reach)
    out = np.zeros((len(grid), len(centres)))
    for k, place in enumerate(places):
        distance = np.abs(centres - place)
        wide = max(width, 2 * distance.min())
        root = np.clip(1 - (distance / wide) ** 3, 0, None) ** 1.5
        used = root > 0
        middle, degree = centres[used].mean(), min(2, used.sum() - 1)
        basis = np.polynomial.polynomial.polyvander((centres[used] - middle) / wide, degree)
        here = np.polynomial.polynomial.polyvander((place - middle) / wide, degree)
        out[k, used] = here @ np.linalg.pinv(basis * root[used, None]) * root[used]
    return out


class _Trend:
    """Smooth dependence of median and interquartile range on the condition."""

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
        known = weight > 0
        at_grid, at_rows = (
            [_clipped(basis @ self._fit(seen, weight), seen[known]) for seen in (median, spread)]
            for basis in (self.at_grid, self.at_rows)
        )
        residual = (y - at_rows[0][:, None]) / np.exp(at_rows[1])[:, None]
        return at_grid[0], np.exp(at_grid[1]), residual


def _clipped(trend: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """A polynomial, kept near what was seen: it may run away where hardly any showers are."""
    low, high = float(seen.min()), float(seen.max())
    return np.clip(trend, low - (high - low) - 1.0, high + (high - low) + 1.0)


def _quantiles(x: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles at Phi(z); beyond what the sample resolves, linear in z with the outer slope."""
    reach = float(ndtri(1 - 0.5 / len(x)))
    q = np.quantile(x, ndtr(np.clip(z, -reach, reach)), method="hazen")
    return _extended(q, z, -reach, reach)


def _inverted(
    at: NDArray[np.float64], level: NDArray[np.float64], least: float, z: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values at Phi(z) of the distribution function ``level`` at ``at``, resolved down to ``least``."""
    inner = (level >= least) & (level <= 1 - least)
    if inner.sum() < 2:  # nearly all values are equal
        return np.full(len(z), at[np.searchsorted(level, 0.5).clip(max=len(at) - 1)])
    known, value = ndtri(level[inner]), at[inner]
    return _extended(np.interp(z, known, value), z, known[0], known[-1])


def _extended(
    q: NDArray[np.float64], z: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64]:
    """The curve ``q`` between ``low`` and ``high``, continued with the slopes of its last units of z."""
    out = q.copy()
    known = (z >= low) & (z <= high)
    for side in (-1, 1):
        outside = (z > high) if side > 0 else (z < low)
        if outside.any() and known.any():
            edge, at = z[known][-1 if side > 0 else 0], q[known][-1 if side > 0 else 0]
            near = known & (np.abs(z - edge) < 1.0)
            slope = (q[near].max() - q[near].min()) / max(np.ptp(z[near]), 1e-9)
            out[outside] = at + slope * (z[outside] - edge)
    return out
