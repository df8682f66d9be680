"""Matched marginals: what a distorted normal variable becomes is distributed as the target."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, norm

from hepbridge.core.rng import stream
from hepbridge.transforms import ConditionalQuantile, matched

N = 30_000


def target(p0: float) -> tuple[ConditionalQuantile, np.ndarray, np.ndarray]:
    """Two variables of one group: exponential with a mean that grows with c, zero with p0."""
    rng = stream(0, "matched", int(100 * p0))
    c = rng.uniform(-1, 1, N)
    values = np.log(rng.exponential(1.0, (N, 2))) + 0.5 * c[:, None]
    values[rng.random((N, 2)) < p0] = -np.inf
    quantile = ConditionalQuantile([0, 0, 1], nodes=17)
    third = rng.standard_normal((N, 1))
    quantile.fit(np.concatenate([values, third], axis=1), c)
    return quantile, values, c


def distorted(c: np.ndarray, seed: int) -> np.ndarray:
    """Normal numbers shifted, widened and skewed, more so at large c."""
    z = stream(seed, "distorted").standard_normal((len(c), 2))
    return 0.2 * c[:, None] + 1.1 * z + 0.05 * z**2


@pytest.mark.parametrize("p0", [0.0, 0.4])
def test_distorted_coordinates_get_the_marginals_of_the_target(p0: float) -> None:
    """Kolmogorov–Smirnov on fresh rows, in three slices; the target's own inverse fails it."""
    quantile, values, c = target(p0)
    made = matched(quantile, distorted(c, 1), c)
    fresh = np.concatenate([distorted(c, 2), np.zeros((N, 1))], axis=1).astype(np.float32)

    def back(side: ConditionalQuantile) -> np.ndarray:
        out = side.inverse(torch.from_numpy(fresh), torch.from_numpy(c).float())
        return out.numpy()[:, :2]

    found, plain = back(made), back(quantile)
    for low in (-1.0, -0.3, 0.4):
        rows = (c >= low) & (c < low + 0.6)
        # the tables, too, come from N rows: twice the usual variance
        bound = 1.95 * (2 * 2 / (2 * rows.sum())) ** 0.5
        assert ks_2samp(values[rows].ravel(), found[rows].ravel()).statistic < bound
        assert ks_2samp(values[rows].ravel(), plain[rows].ravel()).statistic > bound
    zeros = float((found == -np.inf).mean())
    assert abs(zeros - p0) < 4 * (2 * p0 * (1 - p0) / (2 * N)) ** 0.5 + 1e-4


def test_normal_coordinates_change_nothing_and_others_keep_their_tables() -> None:
    quantile, _, c = target(0.4)
    z = stream(3, "normal").standard_normal((N, 2))
    made = matched(quantile, z, c)
    assert torch.equal(made.table[:, 1], quantile.table[:, 1])
    grid = torch.from_numpy(norm.ppf(np.linspace(0.45, 0.95, 11))).float()
    probe = torch.stack([grid, grid, grid], dim=1)
    levels = []  # of the exponential distribution that the values have at c = 0
    for side in (quantile, made):
        values = side.inverse(probe, torch.zeros(11))[:, 0]
        levels.append(1 - torch.exp(-torch.exp(values)))
    # each level comes from 2 N / 48 values at least: one standard error is at most 0.014
    assert (levels[0] - levels[1]).abs().max() < 0.03


def test_the_tables_of_a_used_target_are_not_those_of_the_matched() -> None:
    """Look-up tables are made at the first use: a copy must not keep its original's."""
    quantile, values, c = target(0.4)
    rows = torch.from_numpy(np.concatenate([values, np.zeros((N, 1))], axis=1)).float()
    condition = torch.from_numpy(c).float()
    quantile(rows, condition, torch.zeros_like(rows))
    quantile.inverse(torch.zeros_like(rows), condition)
    made = matched(quantile, distorted(c, 1), c)
    z = torch.from_numpy(np.concatenate([distorted(c, 2), np.zeros((N, 1))], axis=1)).float()
    y = made.inverse(z, condition)
    again = made(y, condition, torch.zeros_like(y))
    hit = torch.isfinite(y[:, :2]) & (z[:, :2].abs() < 2.5)
    assert float((again - z)[:, :2][hit].abs().mean()) < 0.01
