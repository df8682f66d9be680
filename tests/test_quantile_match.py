"""Marginals of one sample for another, by monotone maps."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import ks_2samp, spearmanr

from hepbridge.transforms.quantile_match import QuantileMatch

RNG = np.random.default_rng(5)
N = 20_000


def test_marginals_become_those_of_the_target() -> None:
    """Skewed and widened columns; fresh events of the same kind match as well."""
    target = RNG.standard_normal((N, 2))

    def made(n: int) -> np.ndarray:
        z = RNG.standard_normal((n, 2))
        return np.stack([1.1 * z[:, 0] + 0.1, np.sinh(1.2 * z[:, 1] + 0.3 * z[:, 0])], axis=1)

    match = QuantileMatch(2)
    match.fit(made(N), target)
    fresh = made(N)
    moved = match(torch.from_numpy(fresh)).numpy()
    for k in range(2):
        assert ks_2samp(fresh[:, k], target[:, k]).pvalue < 1e-6
        # the map has the noise of two samples of N, the comparison that of two more
        assert ks_2samp(moved[:, k], target[:, k]).statistic < 1.63 * (2 / N) ** 0.5 * 1.5
        assert spearmanr(fresh[:, k], moved[:, k]).statistic > 1 - 1e-9
    assert match(torch.tensor([[9.0, 40.0], [-9.0, -40.0]])).isfinite().all()


def test_it_is_the_identity_before_it_is_fitted() -> None:
    z = torch.linspace(-7, 7, 101)[:, None]
    torch.testing.assert_close(QuantileMatch(1)(z), z)
