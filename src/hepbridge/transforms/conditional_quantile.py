"""Conditional quantile transform of real values with an atom at minus infinity."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from hepbridge.core.errors import DataError

__all__ = ["ConditionalQuantile"]

_Z_MAX = 4.5  # knots span +-_Z_MAX standard deviations
_U_MIN = 1e-6  # probabilities are kept this far from 0 and 1
_LEAST = 400  # rows in a window
_SMOOTH = 0.6  # half width over which quantiles are smoothed, in the unit of the condition
_REACH = 0.05  # half its width, in the unit of the condition, unless the rows ask for more


class ConditionalQuantile(nn.Module):
    r"""Maps each variable to a standard normal given a real condition, and back.

    Values are real or :math:`-\infty`: the logarithm of an energy that may be exactly zero. With
    :math:`p_0(c) = P(y = -\infty \mid c)` and the distribution function :math:`F(\cdot \mid c)` of the
    finite values,

    .. math:: z = \Phi^{-1}\bigl(p_0 U\bigr) \text{ if } y = -\infty, \qquad
              z = \Phi^{-1}\bigl(p_0 + (1 - p_0)\, F(y \mid c)\bigr) \text{ otherwise},

    with :math:`U` uniform: the atom is spread over its share of the probability (randomised
    probability integral transform), so that :math:`z` is N(0, 1) at every :math:`c`. The inverse
    sends :math:`\Phi(z) < p_0` to :math:`-\infty`.

    Variables with the same number in ``groups`` are pooled: they share one table (cells that a
    verified symmetry makes equal). :math:`y` is tabulated at equidistant knots of
    :math:`\Phi^{-1}(F)` and equidistant nodes of the condition, linear in between and, in :math:`y`
    against :math:`z`, beyond the last knots. Outside the fitted range of the condition the table of
    the nearest end is used.

    Args:
        groups: for each of the d variables the number of its table, 0 … g - 1.
        knots: number of knots in z (odd).
        nodes: number of nodes in the condition.
        degree: degree of the polynomials in the condition for atom fraction, median and width.
    """

    def __init__(
        self, groups: list[int], *, knots: int = 91, nodes: int = 49, degree: int = 4
    ) -> None:
        super().__init__()
        self.knots, self.nodes, self.degree = knots, nodes, degree
        self.n_groups = max(groups) + 1
        self.groups: Tensor
        self.table: Tensor
        self.atom: Tensor
        self.range: Tensor
        self.register_buffer("groups", torch.tensor(groups, dtype=torch.int64))
        members, places = _pad_groups(groups)
        self.members: Tensor
        self.places: Tensor
        self.register_buffer("members", members, persistent=False)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("table", torch.zeros(nodes, self.n_groups, knots))
        self.register_buffer("atom", torch.zeros(nodes, self.n_groups))
        self.register_buffer("range", torch.tensor([0.0, 1.0]))

    @property
    def _step(self) -> float:
        return 2 * _Z_MAX / (self.knots - 1)

    # -- learning -----------------------------------------------------------------------------

    def fit(self, values: NDArray[np.floating], condition: NDArray[np.floating]) -> None:
        """Learn the tables from ``values`` (N, d), finite or -inf, and ``condition`` (N,).

        The finite values are centred and scaled by their median and interquartile range, smooth
        polynomials of the condition; the quantiles of what is left are taken around each node, in
        a window that holds at least 1/48 of the rows and 400, and then smoothed over the nodes by
        local quadratic regression. So the trend with the condition cannot widen a distribution, and
        the noise of one window is not that of the table. A sample at one fixed condition gives
        constant tables.

        Raises:
            DataError: if a group has no finite value at all, or fewer than 50 rows are given.
        """
        n = len(values)
        if n < 50:
            raise DataError(f"a quantile transform needs at least 50 rows, got {n}")
        c = np.asarray(condition, dtype=np.float64).reshape(-1)
        low, high = float(c.min()), float(c.max())
        if high - low < 1e-6:
            low, high = low - 0.5, high + 0.5
        grid = np.linspace(low, high, self.nodes)
        windows, smooth = _windows(c, grid), _smoother(grid)
        trend = _Trend(c, grid, self.degree)
        groups = self.groups.cpu().numpy()
        table = np.empty((self.nodes, self.n_groups, self.knots))
        atom = np.empty((self.nodes, self.n_groups))
        z = np.linspace(-_Z_MAX, _Z_MAX, self.knots)
        rising = 1e-6 * np.arange(self.knots)  # the inverse exists where values repeat, too
        for group in range(self.n_groups):
            block = np.asarray(values[:, groups == group], dtype=np.float64)
            hit = block > -np.inf
            if not hit.any():
                raise DataError(
                    f"variables {np.flatnonzero(groups == group).tolist()} are zero in all {n} rows; "
                    "a quantile transform cannot learn them"
                )
            atom[:, group] = trend.fraction(~hit)
            centre, scale, residual = trend.standardise(np.where(hit, block, 0.0), hit)
            curves = np.empty((self.nodes, self.knots))
            for k, rows in enumerate(windows):
                inside = residual[rows][hit[rows]]
                curves[k] = _quantiles(inside if len(inside) >= 50 else residual[hit], z)
            # sorting is the monotone rearrangement (Chernozhukov et al. 2010): it only helps
            curves = np.sort(smooth @ curves, axis=1) + rising
            table[:, group] = centre[:, None] + scale[:, None] * curves
        self.table.copy_(torch.from_numpy(table))
        self.atom.copy_(torch.from_numpy(np.clip(atom, 0.0, 1.0 - _U_MIN)))
        self.range.copy_(torch.tensor([low, high]))

    # -- the maps -----------------------------------------------------------------------------

    def forward(self, values: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
        """z (N, d) of ``values`` (N, d) given ``condition`` (N,); ``noise`` (N, d) normal, for the atom."""
        node, weight = self._locate(condition)
        # one table per row and group; the members of a group are searched in it together
        table = torch.lerp(self.table[node], self.table[node + 1], weight[:, :, None])
        grouped = values[:, self.members].contiguous()
        upper = torch.searchsorted(table, grouped, right=True).clamp(1, self.knots - 1)
        left, right = table.gather(2, upper - 1), table.gather(2, upper)
        position = (upper - 1) + (grouped - left) / (right - left).clamp_min(1e-30)
        z_hit = (position * self._step - _Z_MAX).flatten(1)[:, self.places]
        p0 = self._atom(node, weight)
        u_hit = p0 + (1 - p0) * torch.special.ndtr(z_hit)
        u = torch.where(values > -torch.inf, u_hit, p0 * torch.special.ndtr(noise))
        return torch.special.ndtri(u.clamp(_U_MIN, 1 - _U_MIN))

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """Values (N, d), finite or -inf, of ``z`` (N, d) given ``condition`` (N,)."""
        node, weight = self._locate(condition)
        p0 = self._atom(node, weight)
        share = (torch.special.ndtr(z) - p0) / (1 - p0)
        z_hit = torch.special.ndtri(share.clamp(_U_MIN, 1 - _U_MIN))
        position = (z_hit + _Z_MAX) / self._step
        low = position.long().clamp(0, self.knots - 2)
        left, right = self._knot(node, weight, low), self._knot(node, weight, low + 1)
        y = torch.lerp(left, right, position - low)
        return torch.where(share > 0, y, -torch.inf)

    def _locate(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.range
        position = ((condition - low) / (high - low)).clamp(0, 1) * (self.nodes - 1)
        node = position.long().clamp(max=self.nodes - 2)
        return node, (position - node)[:, None]

    def _atom(self, node: Tensor, weight: Tensor) -> Tensor:
        return torch.lerp(self.atom[node], self.atom[node + 1], weight)[:, self.groups]

    def _knot(self, node: Tensor, weight: Tensor, knot: Tensor) -> Tensor:
        """The table at (condition, variable, knot), linear between the two nodes of the condition."""
        flat = self.table.view(-1)
        size = self.n_groups * self.knots
        index = node[:, None] * size + self.groups * self.knots + knot
        return torch.lerp(flat[index], flat[index + size], weight)


def _pad_groups(groups: list[int]) -> tuple[Tensor, Tensor]:
    """Members (g, m) of every group, padded by repetition, and where variable d stands in it, flat."""
    lists = [[d for d, g in enumerate(groups) if g == group] for group in range(max(groups) + 1)]
    width = max(map(len, lists))
    members = torch.tensor([(m * width)[:width] for m in lists])
    places = torch.tensor([g * width + lists[g].index(d) for d, g in enumerate(groups)])
    return members, places


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
