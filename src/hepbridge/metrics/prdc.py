"""Precision, recall, density and coverage: is every kind of shower made, and nothing else?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.rng import stream
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.floor import half_splits
from hepbridge.metrics.kinds import Sample, kind_of
from hepbridge.metrics.neighbours import nearest

__all__ = ["NAMES", "Neighbourhoods", "expected_coverage", "prdc", "prdc_floor", "showers_used"]

NAMES = ("precision", "recall", "density", "coverage")

_K = 5
_MAX = 4_000  # showers per sample
_HALVES = 40  # random halves for the standard errors
_LISTED = 48  # neighbours remembered at first

Mask = NDArray[np.bool_]


def prdc(
    ref: Sample, cand: Sample, *, k: int = _K, max_showers: int = _MAX, seed: int = 0
) -> dict[str, dict[str, float]]:
    r"""The four numbers of Naeem et al. (arXiv:2002.09797, eqs. 1 to 4), with standard errors.

    Around every shower of a sample lies a ball that reaches to its k-th nearest neighbour *in that
    sample*. With real showers X_i (``ref``, n) and generated ones Y_j (``cand``, m):

    .. math::

        \text{precision} &= \tfrac1m \sum_j 1[Y_j \in \textstyle\bigcup_i B(X_i)] \qquad
        \text{recall} = \tfrac1n \sum_i 1[X_i \in \textstyle\bigcup_j B(Y_j)] \\
        \text{density} &= \tfrac1{km} \sum_j \sum_i 1[Y_j \in B(X_i)] \qquad
        \text{coverage} = \tfrac1n \sum_i 1[\exists j: Y_j \in B(X_i)]

    For two samples of the same truth density is 1 and coverage `expected_coverage`; precision and
    recall depend on the data and only mean something beside their floor (`prdc_floor`). Low
    recall and coverage: kinds of showers are missing. Low precision and density: showers are made
    that do not exist.

    Coordinates: shower shapes (`hepbridge.metrics.classifier_inputs.high_level`; of `Shapes`
    `hepbridge.metrics.shapes.features.coordinates`) and log incident energy, in units of their standard
    deviation in ``ref``. At most the first ``max_showers`` of each sample are used, and as many of
    one as of the other. ``se``: the scatter over random halves of the rows of both samples
    (delete-half jackknife), which is up to 1.5 times too large for numbers near their ends.

    Blind to: what the shower shapes do not contain (single cells, correlations between them);
    showers copied from the training sample (see `hepbridge.metrics.memorisation`); small shifts, for
    which a distance or a classifier is far more sensitive. Shower weights are ignored.

    Returns ``{"precision": {"value", "se"}, …}``. Raises ConfigError for k < 1, DataError for
    fewer than 4 (k + 1) showers.
    """
    near, real = _pooled(ref, cand, k, max_showers)
    values = near.prdc(real)
    n = len(real) // 2
    rng = stream(seed, "prdc halves")
    halves = rng.permuted(np.broadcast_to(np.arange(n) < n // 2, (_HALVES, n)), axis=1)
    errors = np.std([near.prdc(real, np.tile(half, 2)) for half in halves], axis=0, ddof=1)
    return {
        name: {"value": value, "se": float(error)}
        for name, value, error in zip(NAMES, values, errors, strict=True)
    }


def prdc_floor(
    ref: Sample,
    ref2: Sample,
    *,
    k: int = _K,
    splits: int = 100,
    seed: int = 0,
    mixed: bool = False,
    max_showers: int = _MAX,
) -> dict[str, dict[str, float]]:
    """What `prdc` gives for two samples of the same truth, over random halves of both.

    Returns per number ``mean``, ``std`` and the quantiles ``q05`` and ``q95``. ``mixed``: halves
    keep the incident energies, as in `hepbridge.metrics.floor.half_splits`.
    """
    near, real = _pooled(ref, ref2, k, max_showers)
    halves = half_splits(len(real) // 2, splits, stream(seed, "prdc splits"), mixed=mixed)
    values = np.array([near.prdc(half) for half in halves])
    low, high = np.quantile(values, [0.05, 0.95], axis=0)
    return {
        name: {
            "mean": float(values[:, i].mean()),
            "std": float(values[:, i].std(ddof=1)),
            "q05": float(low[i]),
            "q95": float(high[i]),
        }
        for i, name in enumerate(NAMES)
    }


def expected_coverage(n: int, m: int, k: int = _K) -> float:
    """Coverage of n real by m generated showers of the same truth: 1 − Π_{i=1}^{k} (n−i)/(n+m−i).

    The product is the chance that the k nearest of the other n + m − 1 showers are all real
    (Naeem et al., section 3.3). 0.969 for many showers and k = 5.
    """
    i = np.arange(1, k + 1)
    return float(1.0 - np.prod((n - i) / (n + m - i)))


def showers_used(n: int, max_showers: int = _MAX) -> int:
    """Showers per sample that enter, of n given."""
    return min(n, max_showers)


class Neighbourhoods:
    """The neighbours of every point of two pooled samples, nearest first.

    Which neighbour belongs to which sample is said later: every split of the pool, and every
    subset, is read off the same lists, which are made longer where they do not reach.

    Args:
        points: (N, coordinates).
        k: which neighbour of its own sample bounds the ball of a point.
    """

    def __init__(self, points: Floats, k: int) -> None:
        self.points, self.k = points, k
        self._all = len(points) - 1
        self._list(min(max(_LISTED, 8 * k), self._all))

    def _list(self, length: int) -> None:
        self._distance, self._index = nearest(self.points, self.points, length, skip_self=True)

    def prdc(self, real: Mask, keep: Mask | None = None) -> tuple[float, float, float, float]:
        """The numbers of `NAMES` of points ``real`` (N,) against the rest, of those to ``keep``."""
        keep = np.ones(len(real), dtype=bool) if keep is None else keep
        while True:
            index, distance = self._index[keep], self._distance[keep]
            alike = real[index] == real[keep, None]
            counted = keep[index]
            rank = np.cumsum(alike & counted, axis=1, dtype=np.int32)
            enough = rank[:, -1:] >= self.k
            if enough.all() or index.shape[1] == self._all:
                break
            self._list(min(2 * index.shape[1], self._all))
        last = np.argmax(rank >= self.k, axis=1)[:, None]
        # strictly inside, as in the authors' code; no ball where there are fewer than k alike
        inside = distance < np.take_along_axis(distance, last, axis=1)
        inside &= ~alike & counted & enough
        x = real[keep]
        count = inside.sum(axis=1)
        in_ball = np.zeros((2, len(real)), dtype=bool)  # of a real point, of another
        in_ball[0, index[x][inside[x]]] = True
        in_ball[1, index[~x][inside[~x]]] = True
        return (
            float(in_ball[0, keep & ~real].mean()),
            float(in_ball[1, keep & real].mean()),
            float(count[x].sum() / (self.k * (~x).sum())),
            float((count[x] > 0).mean()),
        )


def _pooled(ref: Sample, other: Sample, k: int, most: int) -> tuple[Neighbourhoods, Mask]:
    if k < 1:
        raise ConfigError(f"the ball of a shower reaches to its k-th neighbour, k ≥ 1; got {k}")
    n = showers_used(min(len(ref), len(other)), most)
    if n < 4 * (k + 1):
        raise DataError(
            f"balls that reach to neighbour {k} need at least {4 * (k + 1)} showers per "
            f"sample, got {n}"
        )
    x, y = (kind_of(sample).neighbourhood(sample[:n]) for sample in (ref, other))
    std = x.std(axis=0)
    varies = std > 1e-6 * np.abs(x).max(axis=0, initial=1e-30)
    points = np.concatenate([x, y])[:, varies] / std[varies]
    return Neighbourhoods(points, k), np.arange(2 * n) < n
