"""Where empty cells lie below their thresholds: drawn with what the rest of the shower says of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri_exp

__all__ = ["joint_zeros"]

_SWEEPS = 60  # correlations then grow by 3 % more for ever so many
_LEAST = 1500  # rows of a window, at least
_WINDOWS = 8  # at most


def joint_zeros(
    z: NDArray[np.floating],
    empty: NDArray[np.bool_],
    condition: NDArray[np.floating],
    images: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    r"""Normal coordinates in which empty ones go together with all others.

    A quantile transform puts an empty cell anywhere below the threshold :math:`\zeta = \Phi^{-1}(p_0)`.
    If each cell draws its place by itself, neighbours that are mostly empty together come out as nearly
    independent normal numbers, whose joint density has steps: no smooth map learns it, and too few
    neighbours are empty together in what it makes. Here the places come from a Gaussian model,

    .. math:: z_j \mid z_{-j} \sim N(\mu_j, P_{jj}^{-1}) \;\text{ below } \zeta_j, \qquad
              \mu_j = m_j - \sum_{k \ne j} \frac{P_{jk}}{P_{jj}} (z_k - m_k),

    with mean m and inverse covariance P, by Gibbs sampling: in every sweep those of the last. What is
    empty stays so and what is not stays where it is, so that nothing else of the sample changes, and
    whatever the Gaussian model lacks is left to the network.

    Args:
        z: (N, d); of empty coordinates the threshold.
        empty: (N, d).
        condition: (N,); rows are taken together with their neighbours in it.
        images: symmetries of the sample as permutations (g, d); at least the identity.

    Returns:
        (N, d).

    Source: data augmentation of tobit and probit models, Chib, J. Econometrics 51 (1992) 79; Albert
    and Chib, JASA 88 (1993) 669.
    """
    placed = np.array(z, dtype=np.float64)
    order = np.argsort(condition, kind="stable")
    for rows in np.array_split(order, min(_WINDOWS, max(1, len(order) // _LEAST))):
        placed[rows] = _window(placed[rows], empty[rows], images, rng)
    return placed


def _window(
    z: NDArray[np.float64],
    empty: NDArray[np.bool_],
    images: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    bound = z.copy()
    misses = [(j, rows) for j in range(z.shape[1]) if len(rows := np.flatnonzero(empty[:, j]))]
    for j, rows in misses:  # alone, at first
        z[rows, j] = _below(bound[rows, j], 0.0, 1.0, rng)
    for _ in range(_SWEEPS):
        mean, precision = _moments(z, images)
        for j, rows in misses:
            weight = -precision[:, j] / precision[j, j]
            weight[j] = 0.0
            expected = mean[j] + (z[rows] - mean) @ weight
            z[rows, j] = _below(bound[rows, j], expected, precision[j, j] ** -0.5, rng)
    return z


def _moments(
    z: NDArray[np.float64], images: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and inverse covariance over all images.

    Correlations are shrunk by d / (d + N g), so that fewer rows than coordinates will do, too.
    """
    d = z.shape[1]
    mean = z.mean(axis=0)[images].mean(axis=0)
    centred = z - z.mean(axis=0)
    covariance = centred.T @ centred / len(z)
    covariance = np.mean([covariance[np.ix_(image, image)] for image in images], axis=0)
    shrunk = covariance * (len(z) * len(images) / (len(z) * len(images) + d))
    np.fill_diagonal(shrunk, np.maximum(covariance.diagonal(), 1e-6))
    return mean, np.linalg.inv(shrunk)


def _below(
    bound: NDArray[np.float64],
    mean: NDArray[np.float64] | float,
    sigma: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Normal numbers below a bound."""
    level = log_ndtr((bound - mean) / sigma) + np.log1p(-rng.random(len(bound)))
    drawn: NDArray[np.float64] = mean + sigma * ndtri_exp(level)
    return drawn
