"""The kernel physics distance (KPD): do two clouds of features differ in moments up to the fourth?

Kansal et al., "Evaluating generative models in high energy physics", arXiv:2211.10295.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.rng import stream
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.frechet import scaled

__all__ = ["kpd", "kpd_unbiased", "polynomial_mmd"]

_ROWS = 512  # of a kernel matrix at once: memory stays small for batches of 10,000
_QUANTILES = (16.275, 83.725)  # per cent; half their distance is the error of a median, as jetnet's


def polynomial_mmd(
    x: Floats,
    y: Floats,
    x_counts: NDArray[np.int64] | None = None,
    y_counts: NDArray[np.int64] | None = None,
) -> float:
    r"""Unbiased squared maximum mean discrepancy with the kernel of degree 4.

    .. math:: k(a, b) = \Big(\frac{a \cdot b}{d} + 1\Big)^4, \qquad
        \mathrm{MMD}^2 = \frac{\sum_{i \ne j} k(x_i, x_j)}{n(n-1)}
                       + \frac{\sum_{i \ne j} k(y_i, y_j)}{m(m-1)} - \frac{2}{nm}\sum_{ij} k(x_i, y_j)

    of rows (n, d), (m, d), row i taken ``counts[i]`` times (Gretton et al. 2012, eq. 3).
    Raises DataError for fewer than two rows.
    """
    c = np.ones(len(x)) if x_counts is None else x_counts.astype(np.float64)
    e = np.ones(len(y)) if y_counts is None else y_counts.astype(np.float64)
    n, m = c.sum(), e.sum()
    if min(n, m) < 2:
        raise DataError(f"a discrepancy needs at least two rows of each, got {n:g} and {m:g}")
    within = (
        (_total(s, s, w, w) - w @ ((s * s).sum(axis=1) / s.shape[1] + 1.0) ** 4)
        / (size * (size - 1.0))
        for s, w, size in ((x, c, n), (y, e, m))
    )
    return float(sum(within) - 2.0 * _total(x, y, c, e) / (n * m))


def kpd(
    ref: Floats, cand: Floats, *, batches: int = 10, batch_size: int = 5_000, seed: int = 42
) -> tuple[float, float]:
    """KPD as `jetnet` computes it: (median, half of the 16–84 % range) of `polynomial_mmd`.

    Of ``batches`` pairs of batches of ``batch_size`` rows (the CaloChallenge: 10,000), drawn with
    replacement; features are divided by their largest absolute value in ``ref``. The same draws as
    jetnet 0.2.5 with the same seed, so the same number.

    Wrong: a row that is drawn twice makes a pair with itself, which the estimator takes for two
    rows; the value is too large by the order of 1/n, and for small samples that is all it shows.
    Its error is the scatter of one batch, not that of the median. See `kpd_unbiased`. Blind to
    differences that appear only in moments beyond the fourth.

    Raises DataError as `hepbridge.metrics.frechet.scaled`, and for fewer than two rows.
    """
    x, y = scaled(ref, cand)
    found = []
    for k in range(batches):
        rng = np.random.default_rng(seed + k * 1000)
        (u, c), (v, e) = (_drawn(s, rng.choice(len(s), size=batch_size)) for s in (x, y))
        found.append(polynomial_mmd(u, v, c, e))
    low, high = np.percentile(found, _QUANTILES)
    return float(np.median(found)), float((high - low) / 2.0)


def kpd_unbiased(
    ref: Floats, cand: Floats, *, batches: int = 10, batch_size: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """KPD of batches that share no shower: (mean, its standard error).

    At most ``batch_size`` showers in each of ``batches`` disjoint batches, drawn without replacement:
    every one is unbiased and independent of the others. Smaller batches (small samples) are as
    right, but less sensitive. Blind to the same as `kpd`.

    Raises DataError as `kpd`, and for fewer than two rows per batch.
    """
    x, y = scaled(ref, cand)
    u, v = (
        _dealt(s, batches, batch_size, stream(seed, "kpd batches", name))
        for s, name in ((x, "ref"), (y, "cand"))
    )
    found = np.array([polynomial_mmd(x[a], y[b]) for a, b in zip(u, v, strict=True)])
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(batches))


def _dealt(x: Floats, batches: int, size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    order = rng.permutation(len(x))
    size = min(size, len(x) // batches)
    return [order[k * size : (k + 1) * size] for k in range(batches)]


def _drawn(x: Floats, rows: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64] | None]:
    """Rows that were drawn; with their counts where that is less work."""
    if len(rows) > len(x):
        return x, np.bincount(rows, minlength=len(x))
    return x[rows], None


def _total(x: Floats, y: Floats, c: Floats, e: Floats) -> float:
    """Sum of the kernel over all pairs, weighted with the counts of their rows."""
    total = 0.0
    for start in range(0, len(x), _ROWS):
        block = slice(start, start + _ROWS)
        kernel = x[block] @ y.T / x.shape[1] + 1.0
        kernel *= kernel
        kernel *= kernel  # the fourth power, faster than ** 4
        total += float(c[block] @ (kernel @ e))
    return total
