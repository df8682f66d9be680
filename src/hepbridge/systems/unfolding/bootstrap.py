"""The Poisson bootstrap: statistical covariance of anything that is computed from weighted events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import pdtr

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.rng import event_uniform

__all__ = ["Covariance", "bootstrap", "covariance", "poisson_weights"]

Floats = NDArray[np.float64]

_CUMULATIVE = pdtr(np.arange(18), 1.0)  # of Poisson(1): beyond 17 lies less than one bit


@dataclass(frozen=True)
class Covariance:
    """``matrix`` (bins, bins) and its own standard error ``error``, from ``replicas`` replicas."""

    matrix: Floats
    error: Floats
    replicas: int


def poisson_weights(seed: int, replica: int, event_ids: NDArray[np.uint64]) -> Floats:
    """Poisson numbers (N,) of mean 1 for events with ids (N, 2): how often each one is in a replica.

    A function of (seed, replica, event id) alone: parts of a sample, wherever they are processed,
    have the numbers that they have in the whole.
    """
    u = event_uniform(seed, f"poisson bootstrap {replica}", event_ids, 1)[:, 0]
    return np.searchsorted(_CUMULATIVE, u, side="right").astype(np.float64)


def bootstrap(
    function: Callable[..., ArrayLike],
    *event_ids: NDArray[np.uint64],
    replicas: int,
    seed: int,
) -> Floats:
    """``function(weights, …)`` for each replica: (replicas, bins).

    The function gets one array of weights (N,) for each sample of event ids (N, 2): to be multiplied
    with the weights that the events have. Data and simulation are two samples, and vary together if
    both are given.

    Raises ConfigError for less than two replicas, DataError if the results are no finite numbers of
    one shape.
    """
    if replicas < 2:
        raise ConfigError(f"a bootstrap needs at least two replicas, not {replicas}")
    results: list[Floats] = []
    for replica in range(replicas):
        weights = [poisson_weights(seed, replica, ids) for ids in event_ids]
        result = np.atleast_1d(np.asarray(function(*weights), dtype=np.float64))
        if not np.isfinite(result).all() or (results and result.shape != results[0].shape):
            raise DataError(
                f"replica {replica} of the bootstrap gave {result.shape} numbers, "
                f"{int((~np.isfinite(result)).sum())} of them NaN or infinite; all must be finite "
                "and of one shape"
            )
        results.append(result)
    return np.stack(results)


def covariance(results: ArrayLike) -> Covariance:
    r"""The covariance of the bins over replicas (replicas, bins), with its standard error.

    .. math:: \mathrm{Var}\,C_{ij} = \frac{C_{ii} C_{jj} + C_{ij}^2}{n - 1}

    for normally distributed results; C of n replicas has rank n - 1 at most, and its inverse is
    biased unless there are many more replicas than bins. Raises DataError for other shapes.
    """
    r = np.asarray(results, dtype=np.float64)
    if r.ndim != 2 or len(r) < 2:
        raise DataError(f"a covariance needs (replicas ≥ 2, bins), got shape {r.shape}")
    deviation = r - r.mean(axis=0)
    matrix = deviation.T @ deviation / (len(r) - 1)
    variance = np.diag(matrix)
    error = np.sqrt((np.outer(variance, variance) + matrix**2) / (len(r) - 1))
    return Covariance(matrix, error, len(r))
