"""Columns of event tables as standard normal variables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from hepbridge.core.errors import DataError

__all__ = ["EventFrame"]

Z_MAX = 4.5  # knots span so many standard deviations on either side; further out there is nothing
_LEAST_ROWS = 50


class EventFrame(nn.Module):
    r"""Maps each column to N(0, 1) by its quantiles, and back; undefined values included.

    With :math:`p_0` the fraction of undefined values (NaN: a jet that fails soft drop has no
    :math:`z_g`) and F the distribution function of the others,

    .. math:: z = \Phi^{-1}(p_0 U) \text{ if undefined}, \qquad
              z = \Phi^{-1}\bigl(p_0 + (1 - p_0)\, F(v)\bigr) \text{ otherwise},

    with U uniform, the same for all columns of an event, because what makes one of them undefined
    often does so with another. Where a value occurs often it has an interval of levels, in which a
    uniform number chooses (randomised probability integral transform); whole numbers are
    interpolated between k - 1/2 and k + 1/2 and rounded on the way back.

    Values beyond those seen in `fit` become the outermost ones: what has never been seen is not
    made up. `outside` says how many there are.

    Args:
        columns: how many.
        knots: of the tables, equidistant in z.

    Shapes: values (N, columns) float64 with NaN; z (N, columns) float32; uniform (N, columns + 1).
    """

    def __init__(self, columns: int, *, knots: int = 1001) -> None:
        super().__init__()
        self.columns, self.knots = columns, knots
        self.table: Tensor
        self.absent: Tensor
        self.whole: Tensor
        self.register_buffer("table", torch.zeros(columns, knots, dtype=torch.float64))
        self.register_buffer("absent", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("whole", torch.zeros(columns, dtype=torch.bool))

    def fit(self, values: NDArray[np.float64], names: Sequence[str]) -> None:
        """Learn the tables. ``names`` are for messages.

        Raises DataError for fewer than 50 defined values of a column, or all of them equal.
        """
        levels = ndtr(np.linspace(-Z_MAX, Z_MAX, self.knots))
        levels[[0, -1]] = 0.0, 1.0
        for k, name in enumerate(names):
            there = values[np.isfinite(values[:, k]), k]
            if len(there) < _LEAST_ROWS:
                raise DataError(
                    f"column {name!r} has only {len(there)} defined values; at least {_LEAST_ROWS} "
                    "are needed"
                )
            if there.min() == there.max():
                raise DataError(
                    f"column {name!r} is {there[0]:g} in every event: there is nothing to unfold"
                )
            whole = bool((there == np.round(there)).all())
            if whole:
                there = _spread(there)
            self.table[k] = torch.from_numpy(np.quantile(there, levels))
            self.absent[k] = 1.0 - len(there) / len(values)
            self.whole[k] = whole

    def forward(self, values: NDArray[np.float64], uniform: NDArray[np.float64]) -> Tensor:
        """z (N, columns) of values (N, columns); ``uniform`` (N, columns + 1) in (0, 1)."""
        out = np.empty(values.shape, np.float32)
        grid = ndtr(np.linspace(-Z_MAX, Z_MAX, self.knots))
        for k in range(self.columns):
            knots, p0 = self.table[k].numpy(), float(self.absent[k])
            value = values[:, k] + (uniform[:, k] - 0.5 if self.whole[k] else 0.0)
            level = _levels(value, knots, grid, uniform[:, k])
            level = np.where(np.isnan(value), p0 * uniform[:, -1], p0 + (1.0 - p0) * level)
            out[:, k] = np.clip(ndtri(level), -Z_MAX, Z_MAX)
        return torch.from_numpy(out)

    def inverse(self, z: Tensor) -> NDArray[np.float64]:
        """Values (N, columns) of z (N, columns), NaN where undefined."""
        out = np.empty(tuple(z.shape))
        grid = np.linspace(-Z_MAX, Z_MAX, self.knots)
        for k in range(self.columns):
            p0 = float(self.absent[k])
            level = ndtr(z[:, k].double().numpy())
            with np.errstate(invalid="ignore", divide="ignore"):
                own = ndtri(np.clip((level - p0) / (1.0 - p0), 0.0, 1.0)) if p0 else z[:, k].numpy()
            value = np.interp(own, grid, self.table[k].numpy())
            if self.whole[k]:
                value = np.round(value)
            out[:, k] = np.where(level < p0, np.nan, value) if p0 else value
        return out

    def features(self, values: NDArray[np.float64]) -> Tensor:
        """What a classifier sees (N, columns + masks): z without any randomness, and masks.

        Every value stands in the middle of its levels; a column of which some values were undefined
        in `fit` has a second one that says so, 0 or 1.
        """
        z = self.forward(values, np.full((len(values), self.columns + 1), 0.5))
        masked = np.flatnonzero(self.absent.numpy() > 0)
        return torch.cat([z, torch.from_numpy(np.isnan(values[:, masked]).astype(np.float32))], 1)

    @property
    def n_features(self) -> int:
        """Columns of `features`."""
        return self.columns + int((self.absent > 0).sum())

    def outside(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which values (N, columns) lie beyond all that were seen; undefined ones never do."""
        low, high = self.spans()
        found: NDArray[np.bool_] = (values < low) | (values > high)
        return found

    def sizes(self) -> NDArray[np.float64]:
        """The median absolute value of each column that was seen."""
        levels = (np.arange(200) + 0.5) / 200
        places, grid = ndtri(levels), np.linspace(-Z_MAX, Z_MAX, self.knots)
        return np.array([np.median(np.abs(np.interp(places, grid, t))) for t in self.table.numpy()])

    def spans(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least and the largest value of each column that were seen."""
        return self.table[:, 0].numpy(), self.table[:, -1].numpy()


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whole numbers k as equidistant points between k - 1/2 and k + 1/2."""
    found, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(inverse, kind="stable")
    first = np.repeat(np.cumsum(counts) - counts, counts)
    place = (np.arange(len(values)) - first + 0.5) / np.repeat(counts, counts)
    out = np.empty(len(values))
    out[order] = np.repeat(found, counts) + place - 0.5
    return out


def _levels(
    values: NDArray[np.float64],
    knots: NDArray[np.float64],
    grid: NDArray[np.float64],
    uniform: NDArray[np.float64],
) -> NDArray[np.float64]:
    """F at the values (N,): interpolated between knots, drawn from within a run of equal ones."""
    level: NDArray[np.float64] = np.interp(values, knots, grid)
    first = np.searchsorted(knots, values, side="left")
    last = np.searchsorted(knots, values, side="right") - 1
    run = last > first
    low, high = grid[first[run]], grid[last[run]]
    level[run] = low + (high - low) * uniform[run]
    return level
