"""Did a generator learn its training showers by heart?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom, mannwhitneyu

from hepbridge.core.errors import DataError
from hepbridge.core.rng import stream
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.kinds import Sample, kind_of
from hepbridge.metrics.neighbours import nearest

__all__ = ["memorisation", "near_duplicates"]

_MIN = 50  # showers


def memorisation(
    train: Sample,
    hold_out: Sample,
    cand: Sample,
    *,
    seed: int = 0,
    max_showers: int = 5_000,
) -> dict[str, Any]:
    r"""Are candidate showers closer to single training showers than fresh full simulation is?

    For every candidate shower, and for every full-simulation shower that was *not* trained on,
    the nearest and the second nearest training shower are found, and

    .. math:: \rho = d_1 / d_2 \in [0, 1]

    is compared between the two. A copy has ρ = 0, a copy with a little noise a small ρ. The plain
    distance d₁ would also be small for a generator that only fluctuates too little; in ρ the local
    density of training showers cancels (locally ρ^m is uniform in m dimensions, wherever the shower
    lies), so that a *bad* generator is not taken for one that copies.

    Coordinates: ``√(cell / incident energy)``, on which the fluctuations of a cell hardly depend on
    its energy, and log incident energy, each in units of its standard deviation in ``train``. Of
    `Shapes` without cells, layers and rings take the place of cells.

    The test (`near_duplicates`) counts candidate showers whose ρ is smaller than that of practically
    all of the hold-out; its p-value is exact given the training showers, and it finds one copy in a
    hundred showers if there are about 1,000 per sample. Beside it stands ``closer`` =
    P(ρ_candidate < ρ_hold-out), 0.5 without memorisation, which moves where a model leans on all
    its training showers a little; it is no test, because it moves a little, too, for a candidate
    that fluctuates far too little (all its showers lie in the crowded middle).

    At most ``max_showers`` of candidate and hold-out are used, drawn at random; all training showers
    are searched. Shower weights are ignored: a copy is a copy at any weight.

    Blind to: a shower learnt by heart but turned, mirrored or scaled in energy by more than a
    fluctuation; parts of showers put together anew; generated showers that copy *each other* (see
    `hepbridge.metrics.prdc`).

    Returns ``n``, ``hold_out_n``, ``train_n``; ``distance`` and ``hold_out_distance`` (median d₁ /
    √coordinates); ``near``, ``near_expected``, ``near_share`` with ``near_se``, ``p``; ``closer``
    with ``closer_se``.

    Raises DataError for another geometry, fewer than 50 showers in a sample, or a hold-out that was
    trained on (shared event ids, or copies for more than half of its showers).
    """
    _check(train, hold_out, cand)
    rng = stream(seed, "memorisation")
    scale = _Scale(train)
    points = scale(train)
    (d_cand, rho_cand), (d_hold, rho_hold) = (
        _ratios(scale(_drawn(sample, max_showers, rng)), points) for sample in (cand, hold_out)
    )
    if (d_hold == 0).mean() > 0.5:
        raise DataError(
            f"{(d_hold == 0).mean():.0%} of the reference showers are training showers; memorisation "
            "is only seen beside full simulation that was not trained on"
        )
    n, m = len(rho_cand), len(rho_hold)
    u = mannwhitneyu(rho_cand, rho_hold, method="asymptotic").statistic  # pairs with ρ_c > ρ_h
    per_coordinate = np.sqrt(points.shape[1])
    return {
        "n": n,
        "hold_out_n": m,
        "train_n": len(train),
        "distance": float(np.median(d_cand) / per_coordinate),
        "hold_out_distance": float(np.median(d_hold) / per_coordinate),
        **near_duplicates(rho_cand, rho_hold),
        "closer": float(1.0 - u / (n * m)),
        "closer_se": float(np.sqrt((n + m + 1) / (12.0 * n * m))),
    }


def near_duplicates(cand: Floats, hold_out: Floats) -> dict[str, float]:
    """Candidates ``near`` below the k-th smallest hold-out value, k = 1 + m // 1000, of n and m.

    Were all n + m values drawn alike, ``near_expected`` = k n / (m + 1), and ``p`` is the exact
    probability of at least ``near``: among the first near + k − 1 of the joint order there are then
    fewer than k of the hold-out (hypergeometric). Equal values do not count as below.
    ``near_share`` = (near − expected) / n with ``near_se``, both numbers taken as Poisson.
    """
    n, m = len(cand), len(hold_out)
    k = 1 + m // 1000
    near = int((cand < np.partition(hold_out, k - 1)[k - 1]).sum())
    expected = k * n / (m + 1)
    p = float(hypergeom.cdf(k - 1, n + m, m, near + k - 1)) if near else 1.0
    return {
        "near": near,
        "near_expected": expected,
        "near_share": (near - expected) / n,
        "near_se": float(np.sqrt(near + expected**2 / k)) / n,
        "p": p,
    }


class _Scale:
    """Showers -> standardised coordinates (N, varying cells + 1)."""

    def __init__(self, train: Sample) -> None:
        x = kind_of(train).learnt(train)
        self._varies = np.ptp(x, axis=0) > 0
        self._std = x[:, self._varies].std(axis=0, dtype=np.float64).astype(np.float32)

    def __call__(self, showers: Sample) -> NDArray[np.float32]:
        scaled: NDArray[np.float32] = kind_of(showers).learnt(showers)[:, self._varies] / self._std
        return scaled


def _ratios(queries: NDArray[np.float32], points: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Distance to the nearest point, and its ratio to that to the second nearest (0 / 0 = 0)."""
    d, _ = nearest(queries, points, 2)
    ratio = np.divide(d[:, 0], d[:, 1], out=np.zeros(len(d)), where=d[:, 1] > 0)
    return d[:, 0], ratio


def _drawn(sample: Sample, most: int, rng: np.random.Generator) -> Sample:
    if len(sample) <= most:
        return sample
    return sample[np.sort(rng.choice(len(sample), most, replace=False))]


def _check(train: Sample, hold_out: Sample, cand: Sample) -> None:
    for name, sample in {"the training sample": train, "the candidate": cand}.items():
        if sample.geometry.digest() != hold_out.geometry.digest():
            raise DataError(
                f"{name} has geometry {sample.geometry.name!r}, the reference "
                f"{hold_out.geometry.name!r}; compare like with like"
            )
    for name, sample in {"training": train, "reference": hold_out, "candidate": cand}.items():
        if len(sample) < _MIN:
            raise DataError(f"memorisation needs at least {_MIN} {name} showers, got {len(sample)}")
    trained = {row.tobytes() for row in np.ascontiguousarray(train.event_ids)}
    shared = sum(row.tobytes() in trained for row in np.ascontiguousarray(hold_out.event_ids))
    if shared:
        raise DataError(
            f"{shared} of {len(hold_out)} reference showers are in the training file (same event "
            "ids); memorisation is only seen beside full simulation that was not trained on"
        )
