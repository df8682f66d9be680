"""Discrepancies of two samples: losses that compare distributions and need no pairs.

All take x (..., n, d) and y (..., m, d) and return a scalar. Dimensions before the last two are
windows: the discrepancy is computed inside each window and averaged over them. Rows that a window
keeps together should share their condition; a condition that is joined to the coordinates as
further columns is compared jointly.

The *unbiased* ones are U-statistics (no pair of a point with itself): their expectation is the
discrepancy of the two distributions, zero for equal ones, also for small n and m, so that the
average of their gradients over batches has no bias either. A single value may be negative.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["energy_distance", "gaussian_mmd", "sliced_energy_distance", "sliced_wasserstein"]


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Unbiased squared energy distance, in the units of x.

    .. math:: 2\,\frac{1}{nm} \sum_{ij} |x_i - y_j|
              - \frac{1}{n(n-1)} \sum_{i \ne j} |x_i - x_j|
              - \frac{1}{m(m-1)} \sum_{i \ne j} |y_i - y_j|

    It vanishes in expectation only for equal distributions. Raises ValueError for fewer than two
    points or shapes that do not fit. Source: Székely & Rizzo (2013), J. Stat. Plan. Inference 143.
    """
    _check(x, y)
    between = torch.cdist(x, y).mean(dim=(-2, -1))
    out = 2.0 * between - _off_diagonal(torch.cdist(x, x)) - _off_diagonal(torch.cdist(y, y))
    return out.mean()


def gaussian_mmd(x: Tensor, y: Tensor, scales: Sequence[float]) -> Tensor:
    r"""Unbiased squared maximum mean discrepancy with a mixture of Gaussian kernels.

    .. math:: \frac{1}{n(n-1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m(m-1)} \sum_{i \ne j}
              k(y_i, y_j) - \frac{2}{nm} \sum_{ij} k(x_i, y_j), \qquad
              k(a, b) = \frac1S \sum_{s=1}^{S} e^{-|a - b|^2 / 2 \sigma_s^2}

    with the ``scales`` :math:`\sigma_s` in units of x; typical distances of points, and some
    smaller and larger ones. Raises ValueError for fewer than two points, shapes that do not fit or
    scales that are not positive. Source: Gretton et al. (2012), JMLR 13, eq. 3.
    """
    _check(x, y)
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales must be positive numbers, at least one, got {list(scales)}")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        square = torch.cdist(a, b).square()
        return torch.stack([torch.exp(square * (-0.5 / s**2)) for s in scales]).mean(dim=0)

    between = kernel(x, y).mean(dim=(-2, -1))
    out = _off_diagonal(kernel(x, x)) + _off_diagonal(kernel(y, y)) - 2.0 * between
    return out.mean()


def sliced_energy_distance(x: Tensor, y: Tensor, directions: Tensor) -> Tensor:
    r"""Unbiased squared energy distance of the projections on ``directions`` (k, d), averaged.

    .. math:: \frac1k \sum_{j=1}^{k} \mathcal{E}(x \theta_j, y \theta_j), \qquad
              \sum_{i<j} |a_i - a_j| = \sum_{i=1}^{n} (2i - n - 1)\, a_{(i)}

    Each is :math:`2 \int (F - G)^2` of two distribution functions in expectation. Sorting makes it
    exact in O(n log n) instead of O(n^2). Averaged over all unit directions it is a multiple of
    `energy_distance`. Raises ValueError as `energy_distance`.
    """
    a, b = _projected(x, y, directions)
    n, m = a.shape[-1], b.shape[-1]
    of_a, of_b = _pair_sum(a), _pair_sum(b)
    between = _pair_sum(torch.cat([a, b], dim=-1)) - of_a - of_b
    out = 2.0 * between / (n * m) - 2.0 * of_a / (n * (n - 1)) - 2.0 * of_b / (m * (m - 1))
    return out.mean()


def sliced_wasserstein(x: Tensor, y: Tensor, directions: Tensor, power: int = 2) -> Tensor:
    r"""Wasserstein distance :math:`W_p^p` of the projections on ``directions`` (k, d), averaged.

    .. math:: \frac1k \sum_{j=1}^{k} \int_0^1 \bigl| F^{-1}_{x\theta_j}(u)
              - F^{-1}_{y\theta_j}(u) \bigr|^p du

    In the units of x to the ``power`` p, 1 or 2; for n = m the mean over the sorted points. Not
    unbiased: for equal distributions it falls only as 1/n (p = 2) or 1/sqrt(n) (p = 1), and its
    minimum over y is shrunk for small samples. Raises ValueError as `energy_distance`, and for
    another power. Source: Bonneel et al. (2015), J. Math. Imaging Vis. 51.
    """
    if power not in (1, 2):
        raise ValueError(f"power must be 1 or 2, got {power}")
    a, b = (projected.sort(dim=-1).values for projected in _projected(x, y, directions))
    n, m = a.shape[-1], b.shape[-1]
    if n == m:
        return (a - b).abs().pow(power).mean()
    # steps of the two quantile functions in units of 1 / (n m): between neighbouring edges both
    # are constant
    edges = torch.cat([torch.arange(0, n * m, m), torch.arange(0, n * m, n)]).unique()
    widths = torch.diff(edges, append=torch.tensor([n * m])).to(a)
    edges = edges.to(a.device)
    gap = (a[..., edges // m] - b[..., edges // n]).abs().pow(power)
    return (gap * widths).sum(dim=-1).mean() / (n * m)


def _check(x: Tensor, y: Tensor) -> None:
    fits = x.ndim >= 2 and y.ndim == x.ndim and x.shape[:-2] == y.shape[:-2]
    if not fits or x.shape[-1] != y.shape[-1] or min(x.shape[-2], y.shape[-2]) < 2:
        raise ValueError(
            "a discrepancy compares (..., n, d) with (..., m, d), n and m at least 2, "
            f"got {tuple(x.shape)} and {tuple(y.shape)}"
        )


def _off_diagonal(square: Tensor) -> Tensor:
    """Mean (...) of the entries off the diagonal of (..., n, n)."""
    n = square.shape[-1]
    diagonal = torch.eye(n, dtype=torch.bool, device=square.device)
    return square.masked_fill(diagonal, 0.0).sum(dim=(-2, -1)) / (n * (n - 1))


def _projected(x: Tensor, y: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Projections (..., k, n) and (..., k, m)."""
    _check(x, y)
    if directions.ndim != 2 or directions.shape[1] != x.shape[-1]:
        raise ValueError(
            f"directions must be (k, {x.shape[-1]}) as the points, got {tuple(directions.shape)}"
        )
    return directions @ x.mT, directions @ y.mT


def _pair_sum(a: Tensor) -> Tensor:
    """Sum (...) over pairs i < j of |a_i - a_j| along the last dimension."""
    n = a.shape[-1]
    ranks = 2.0 * torch.arange(n, dtype=a.dtype, device=a.device) - (n - 1)
    return (a.sort(dim=-1).values * ranks).sum(dim=-1)
