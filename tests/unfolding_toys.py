"""A smearing problem with closed forms: Gaussian truth, Gaussian detector, one column."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepbridge.data.tables import Table

SIGMA = 0.5  # of the detector


def tables(
    n: int,
    seed: int,
    *,
    mean: float = 0.0,
    width: float = 1.0,
    efficiency: bool = False,
    fakes: float = 0.0,
    weights: NDArray[np.float64] | None = None,
) -> dict[str, Table]:
    """Pairs x ~ N(mean, width), y = x + N(0, 0.5); fakes ~ N(1, 0.5) at detector level."""
    rng = np.random.default_rng(seed)
    x = rng.normal(mean, width, n)
    y = x + rng.normal(0, SIGMA, n)
    true = np.ones(n, bool)
    seen = rng.random(n) < efficient(x) if efficiency else np.ones(n, bool)
    if fakes:
        made_up = rng.random(n) < fakes
        y = np.where(made_up, rng.normal(1.0, 0.5, n), y)
        true, seen = ~made_up, seen | made_up
    ids = np.stack([np.full(n, seed, np.uint64), np.arange(n, dtype=np.uint64)], axis=1)
    return {
        level: Table.from_columns(
            {"x": column}, {"x": "GeV"}, flags={"pass": flag}, event_ids=ids, weights=weights
        )
        for level, column, flag in (("particle", x, true), ("detector", y, seen))
    }


def efficient(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The chance of a particle to be seen."""
    found: NDArray[np.float64] = 0.9 / (1.0 + np.exp(-1.5 * (x + 0.5)))
    return found


def posterior(y: NDArray[np.float64], mean: float, width: float) -> tuple[NDArray, float]:
    """Mean (N,) and width of p(x | y) for the prior N(mean, width)."""
    share = width**2 / (width**2 + SIGMA**2)
    return mean + share * (y - mean), (share * SIGMA**2) ** 0.5


def richardson_lucy(
    prior: tuple[float, float], truth: tuple[float, float], iterations: int
) -> tuple[float, float]:
    """Mean and width of the unfolded density after so many iterations beyond the first unfolding.

    On a fine grid, p_{n+1}(x) = p_n(x) ∫ p(y|x) d(y) / ∫ p(y|x') p_n(x') dx' dy.
    """
    x = np.linspace(-8, 8, 801)
    step = x[1] - x[0]
    kernel = np.exp(-0.5 * ((x[:, None] - x) / SIGMA) ** 2) / (SIGMA * (2 * np.pi) ** 0.5)

    def gauss(mean: float, width: float) -> NDArray[np.float64]:
        return np.exp(-0.5 * ((x - mean) / width) ** 2) / (width * (2 * np.pi) ** 0.5)

    data = gauss(truth[0], (truth[1] ** 2 + SIGMA**2) ** 0.5)
    p = gauss(*prior)
    for _ in range(iterations + 1):
        p = p * (kernel.T @ (data / (kernel @ p * step).clip(1e-300))) * step
    p /= p.sum() * step
    mean = float((x * p).sum() * step)
    return mean, float(((x - mean) ** 2 * p).sum() * step) ** 0.5
