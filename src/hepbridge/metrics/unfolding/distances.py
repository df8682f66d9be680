r"""Distance of an unfolded distribution to the truth: EMD and triangular discriminator, as published.

.. math:: \mathrm{EMD} = \int |F_p(x) - F_q(x)|\,dx, \qquad
          \Delta = \tfrac12 \sum_b h \frac{(p_b - q_b)^2}{p_b + q_b}

EMD: unbinned, over the whole line. Δ: of densities p, q in 29 equal bins of width h, normalised to one
*within* the range. The tables of SBUnfold (arXiv:2308.12351) give 10 EMD and 1000 Δ; here both are plain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.metrics.distance import Floats, wasserstein
from hepbridge.metrics.unfolding.observables import Values

__all__ = ["Distances", "distances", "published_sigmas", "triangular"]

EMD_SCALE, TRIANGULAR_SCALE = 10.0, 1000.0  # of the published tables
_TRIALS = 100  # of the published uncertainty of the triangular discriminator


@dataclass(frozen=True)
class Distances:
    """Distances of a candidate to the truth, and over B bootstraps of the candidate's events.

    ``emd`` and ``triangular`` are those of the samples as they are. The published EMD is the mean of
    ``emds`` (B,) with their standard deviation; a resampled candidate is further away than the candidate.
    """

    emd: float
    triangular: float
    emds: Floats
    triangulars: Floats


def distances(
    truth: Values, candidate: Values, edges: Floats, bootstraps: int, rng: np.random.Generator
) -> Distances:
    """Both distances; the candidate's events are drawn with replacement ``bootstraps`` times.

    Raises DataError if a sample has no events between the edges.
    """
    emds, triangulars = np.empty(bootstraps), np.empty(bootstraps)
    x = np.concatenate([truth.x, candidate.x])
    order = np.argsort(x, kind="stable")
    gaps = np.diff(x[order])
    p = _share(truth)
    bins = np.searchsorted(edges, candidate.x, side="right") - 1
    bins[candidate.x == edges[-1]] = (
        len(edges) - 2
    )  # as in NumPy, the last bin holds its upper edge
    inside = (bins >= 0) & (bins < len(edges) - 1)
    density = _density(truth.x, truth.weights, edges)
    n = len(candidate.x)
    weight = np.ones(n) if candidate.weights is None else candidate.weights
    for b in range(bootstraps):
        w = np.bincount(rng.integers(n, size=n), minlength=n) * weight
        steps = np.concatenate([p, -w / w.sum()])[order]
        emds[b] = np.abs(np.cumsum(steps)[:-1]) @ gaps
        counts = np.bincount(bins[inside], w[inside], minlength=len(edges) - 1)
        triangulars[b] = _triangular(density, _per_width(counts, edges), edges)
    return Distances(
        wasserstein(truth.x, candidate.x, truth.weights, candidate.weights),
        triangular(truth, candidate, edges),
        emds,
        triangulars,
    )


def triangular(truth: Values, candidate: Values, edges: Floats) -> float:
    """Triangular discriminator Δ: 0 for equal histograms, 1 for disjoint ones.

    Raises DataError if a sample has no events between the edges.
    """
    p = _density(truth.x, truth.weights, edges)
    q = _density(candidate.x, candidate.weights, edges)
    return _triangular(p, q, edges)


def published_sigmas(
    truth: Values, candidate: Values, edges: Floats, rng: np.random.Generator
) -> dict[str, float]:
    """Uncertainty of Δ by the published code, and by the same formula without its fault.

    The bin contents n of both samples are moved uniformly within ±√n, 100 times, at fixed
    normalisation. The published code collects, for each trial, the sum after *every* bin, so that partial
    sums enter: ``as_published`` is the standard deviation of those; ``whole_sums`` that of the Δ of the
    trials. For weighted events √n is no error of a bin: trust the bootstraps of `distances`.
    """
    width = edges[1] - edges[0]
    counts = [np.histogram(s.x, edges, weights=s.weights)[0] for s in (candidate, truth)]
    moved = []
    for n in counts:
        trials = rng.uniform(n - np.sqrt(n), n + np.sqrt(n), size=(_TRIALS, len(n)))
        moved.append(trials / (width * n.sum()))
    q, p = moved
    both = p + q
    terms = np.divide(0.5 * width * (q - p) ** 2, both, out=np.zeros_like(p), where=both > 0)
    partial = np.cumsum(terms, axis=1)
    return {"as_published": float(partial.std()), "whole_sums": float(partial[:, -1].std())}


def _triangular(p: Floats, q: Floats, edges: Floats) -> float:
    both = p + q
    terms = np.divide((p - q) ** 2, both, out=np.zeros_like(p), where=both > 0)
    return float(0.5 * (np.diff(edges) @ terms))


def _density(x: Floats, weights: Floats | None, edges: Floats) -> Floats:
    return _per_width(np.histogram(x, edges, weights=weights)[0].astype(np.float64), edges)


def _per_width(counts: NDArray[Any], edges: Floats) -> Floats:
    if not counts.sum() > 0:
        raise DataError(
            f"a sample has no events between {edges[0]:g} and {edges[-1]:g}, where the histograms are; "
            "check its unit"
        )
    density: Floats = counts / (counts.sum() * np.diff(edges))
    return density


def _share(sample: Values) -> Floats:
    """What each event weighs, 1 in all."""
    if sample.weights is None:
        return np.full(len(sample.x), 1.0 / len(sample.x))
    share: Floats = sample.weights / sample.weights.sum()
    return share
