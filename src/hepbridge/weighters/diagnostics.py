"""How far a set of weights can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepbridge.core.errors import DataError

__all__ = ["WeightSummary", "effective_size", "summarise", "weighted_auc"]


@dataclass(frozen=True)
class WeightSummary:
    """Numbers that say whether weights are trustworthy.

    ``effective_size`` :math:`(\\sum w)^2 / \\sum w^2`, the number of equal weights with the same
    relative error of a total; ``effective_fraction``: that over the number of events;
    ``largest_share``: part of the total that the largest weight holds; ``mean``: 1 for the ratio of
    two densities over the denominator; ``clipped``: part of the events with a logit at its bound.
    """

    events: int
    effective_size: float
    effective_fraction: float
    largest_share: float
    mean: float
    clipped: float


def effective_size(weights: ArrayLike) -> float:
    """Kish's effective sample size :math:`(\\sum w)^2 / \\sum w^2`; 0 if all weights are zero."""
    w = np.asarray(weights, dtype=np.float64)
    squares = float(np.square(w).sum())
    return float(w.sum() ** 2 / squares) if squares > 0 else 0.0


def summarise(
    ratio: ArrayLike, base: ArrayLike | None = None, clipped: ArrayLike | None = None
) -> WeightSummary:
    """The summary of weights ``ratio`` (N,) on top of the events' own weights ``base`` (N,).

    Raises DataError for no events, NaN or infinity, or a total that is not positive.
    """
    r = np.asarray(ratio, dtype=np.float64)
    b = np.ones_like(r) if base is None else np.asarray(base, dtype=np.float64)
    w = b * r
    if not (len(w) and np.isfinite(w).all() and w.sum() > 0):
        raise DataError(
            f"{len(w)} weights, {int((~np.isfinite(w)).sum())} of them NaN or infinite, with the "
            f"total {w.sum():.4g}: a summary needs finite weights with a positive total"
        )
    size = effective_size(w)
    return WeightSummary(
        events=len(w),
        effective_size=size,
        effective_fraction=size / len(w),
        largest_share=float(w.max() / w.sum()),
        mean=float(w.sum() / b.sum()),
        clipped=0.0 if clipped is None else float(np.mean(np.asarray(clipped))),
    )


def weighted_auc(
    numerator: NDArray[np.floating],
    denominator: NDArray[np.floating],
    numerator_weights: ArrayLike | None = None,
    denominator_weights: ArrayLike | None = None,
) -> float:
    """Probability that a score (N,) of the numerator exceeds one (M,) of the denominator.

    Ties count half. With the ratio's weights on the denominator it is 1/2 if the ratio has removed
    all that its classifier sees.
    """
    a = np.ones(len(numerator)) if numerator_weights is None else np.asarray(numerator_weights)
    b = (
        np.ones(len(denominator))
        if denominator_weights is None
        else np.asarray(denominator_weights)
    )
    order = np.argsort(denominator, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(b[order], dtype=np.float64)])
    ranked = denominator[order]
    less = below[np.searchsorted(ranked, numerator, side="left")]
    most = below[np.searchsorted(ranked, numerator, side="right")]
    return float((a * (less + most)).sum() / (2 * a.sum() * b.sum()))
