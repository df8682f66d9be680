"""Are the correlations of the observables those of the truth?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hepbridge.data.tables import Table
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.unfolding.observables import checked_weights

__all__ = ["correlation_distance", "weighted_correlations"]


def weighted_correlations(table: Table, names: Sequence[str], who: str = "the sample") -> Floats:
    """Pearson correlations (d, d), each of the events in which both columns have a value.

    0 where one of them does not vary. Raises DataError for columns that are not there and bad weights.
    """
    weights = checked_weights(table, who)
    w = np.ones(len(table)) if weights is None else weights
    there = np.stack([table.is_defined(name) & (w > 0) for name in names], axis=1)
    x = np.stack([table.filled(name, 0.0) for name in names], axis=1)
    weight = np.where(there, w[:, None], 0.0)
    # centre first, so that large means cost no digits; pairs have means of their own below
    centre = (weight * x).sum(axis=0) / np.maximum(weight.sum(axis=0), np.finfo(float).tiny)
    x = np.where(there, x - centre, 0.0)
    mask = there.astype(np.float64)
    both = mask.T @ weight  # total weight of each pair
    total = np.where(both > 0, both, 1.0)
    mean = (mask.T @ (weight * x)) / total  # [i, j]: mean of j where i has a value as well
    square = (mask.T @ (weight * x**2)) / total
    product = (x.T @ (weight * x)) / total
    covariance = product - mean * mean.T
    variance = square - mean**2
    scale = np.sqrt(np.maximum(variance * variance.T, 0.0))
    floor = 1e-12 * np.sqrt(np.maximum(square * square.T, 0.0))
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > floor)


def correlation_distance(first: Floats, second: Floats) -> dict[str, float]:
    """Frobenius norm of the difference of two matrices (d, d), and its largest entry."""
    difference = first - second
    return {
        "frobenius": float(np.linalg.norm(difference)),
        "largest": float(np.abs(difference).max()),
    }
