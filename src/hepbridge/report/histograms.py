"""Binned distributions with their uncertainties: the numbers behind every histogram panel.

Every distribution is normalised to *all* showers, those outside the drawn range included, so a
candidate cannot look better by losing its tails; what falls outside is counted and stated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hist
import numpy as np
from numpy.typing import NDArray

from hepbridge.data.showers import Showers

__all__ = [
    "Binned",
    "band",
    "bin_edges",
    "cell_spectrum",
    "profile",
    "ratio",
    "ratio_of_sums",
    "shower_distribution",
    "spectrum_edges",
]

Array = NDArray[np.float64]

SPECTRUM_LOW = 1e-4  # GeV: where the energy spectrum of the cells begins
_BINS_PER_DECADE = 8


@dataclass(frozen=True)
class Binned:
    """Bin contents (B,), their standard errors (B,) and the fractions outside the range."""

    edges: Array
    values: Array
    sigma: Array
    below: float = 0.0
    above: float = 0.0

    @property
    def centres(self) -> Array:
        return 0.5 * (self.edges[1:] + self.edges[:-1])


def bin_edges(ref: Array, others: Sequence[Array], *, integer: bool = False) -> Array:
    """Equal bins with a round width over the central 99 % of ``ref`` and of the ``others``.

    The range follows the others at most one reference span beyond the reference on each side, so
    that a candidate far away cannot squeeze the reference into one bin. The width is that of
    Freedman and Diaconis for ``ref``, held between 24 and 40 bins; integers get whole widths and
    edges at half-integers.
    """
    low, high = np.quantile(ref, [0.005, 0.995])
    quarter, three = np.quantile(ref, [0.25, 0.75])
    span = max(high - low, 1e-9 * max(abs(high), 1.0))
    left, right = low, high
    for values in others:
        a, b = np.quantile(values, [0.005, 0.995])
        left, right = min(left, max(a, low - span)), max(right, min(b, high + span))
    span_all = right - left if right > left else 1.0
    left, right = left - 0.03 * span_all, right + 0.03 * span_all
    wanted = 2.0 * (three - quarter) * len(ref) ** (-1 / 3)
    width = _round_width(float(np.clip(wanted, span_all / 40, span_all / 24)))
    if integer:
        width = max(1.0, round(width))
        start = np.floor(left) - 0.5
        return np.asarray(start + width * np.arange(np.ceil((right - start) / width) + 1))
    start, stop = np.floor(left / width), np.ceil(right / width)
    return np.asarray(width * np.arange(start, stop + 1))


def _round_width(width: float) -> float:
    """The largest of 1, 2, 2.5, 5 times a power of ten that is not above ``width``."""
    power = 10.0 ** np.floor(np.log10(width))
    return float(max(m for m in (1.0, 2.0, 2.5, 5.0) if m * power <= width * (1 + 1e-12)) * power)


def spectrum_edges(samples: Sequence[Showers]) -> Array:
    """Logarithmic edges in GeV from 1e-4 GeV to the largest cell of any sample."""
    top = max(float(s.cells.max()) for s in samples) / 1000.0
    decades = np.log10(max(top, 10 * SPECTRUM_LOW) / SPECTRUM_LOW)
    return np.asarray(
        SPECTRUM_LOW
        * 10.0 ** (np.arange(np.ceil(decades * _BINS_PER_DECADE) + 1) / _BINS_PER_DECADE)
    )


def shower_distribution(values: Array, weights: Array | None, edges: Array) -> Binned:
    """Fraction of showers per bin; error sqrt(sum of w²) / sum of w (Poisson without weights)."""
    h = hist.Hist(hist.axis.Variable(edges), storage=hist.storage.Weight())
    h.fill(values, weight=weights)
    view: Any = h.view(flow=True)
    total = float(view.value.sum())
    inside = view[1:-1]
    return Binned(
        edges,
        inside.value / total,
        np.sqrt(inside.variance) / total,
        float(view.value[0]) / total,
        float(view.value[-1]) / total,
    )


def cell_spectrum(showers: Showers, edges: Array) -> Binned:
    """Mean number of cells per shower and bin of cell energy; ``edges`` in GeV.

    ``below`` and ``above`` are fractions of cells. The cells of a shower are not independent, so
    the error comes from the scatter of the counts from shower to shower.
    """
    n, bins = len(showers), len(edges) + 1
    index = np.searchsorted(edges, showers.cells / 1000.0, side="right")
    index[showers.cells / 1000.0 == edges[-1]] = len(edges) - 1  # the last bin holds its upper edge
    flat = index + bins * np.arange(n)[:, None]
    counts = np.bincount(flat.reshape(-1), minlength=n * bins).reshape(n, bins).astype(np.float64)
    values, sigma = ratio_of_sums(counts, np.ones(n), showers.weights)
    cells = showers.cells.shape[1]
    return Binned(
        edges, values[1:-1], sigma[1:-1], float(values[0]) / cells, float(values[-1]) / cells
    )


def profile(showers: Showers, axis: str) -> Binned:
    """Fraction of the sample's energy in each column of cells along ``axis``.

    The error is the linearised (delta-method) error of a ratio of two sums over showers.
    """
    centres = showers.geometry.centres(axis)
    columns = np.unique(centres)
    member = (centres[:, None] == columns[None, :]).astype(np.float64)
    values, sigma = ratio_of_sums(showers.cells @ member, showers.e_sum, showers.weights)
    edges = np.append(columns - 0.5, columns[-1] + 0.5)
    return Binned(edges, values, sigma)


def ratio_of_sums(contents: Array, norms: Array, weights: Array | None) -> tuple[Array, Array]:
    """f = sum(w c) / sum(w d) over showers, and sqrt(sum(w² (c - f d)²)) / sum(w d)."""
    w = np.ones(len(norms)) if weights is None else weights
    total = float(w @ norms)
    f = (w @ contents) / total
    sigma = np.sqrt((w**2) @ (contents - np.outer(norms, f)) ** 2) / abs(total)
    return f, sigma


def ratio(candidate: Binned, ref: Binned) -> tuple[Array, Array, Array]:
    """Candidate / reference, its error from the candidate, and the reference's relative error.

    The two errors are drawn apart (bars on the points, grey band around one), so neither is counted
    twice. Bins where the reference is not known to 50 % (fewer than 4 unweighted showers) are NaN.
    """
    filled = (ref.values > 0) & (ref.sigma <= 0.5 * ref.values)
    safe = np.where(filled, ref.values, np.nan)
    return candidate.values / safe, candidate.sigma / safe, ref.sigma / safe


def band(members: Sequence[Binned]) -> tuple[Array, Array]:
    """Mean and standard deviation of each bin over an ensemble of trainings."""
    values = np.stack([m.values for m in members])
    return values.mean(axis=0), values.std(axis=0, ddof=1 if len(members) > 1 else 0)
