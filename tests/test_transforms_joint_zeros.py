"""Empty coordinates are placed below their thresholds as a Gaussian model of all of them says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import kstest

from hepbridge.transforms.joint_zeros import joint_zeros

N, SIDE = 6000, 3
EMPTY = 0.6  # part of the outer columns
SWAP = np.array([[*range(2 * SIDE)], [*range(SIDE, 2 * SIDE), *range(SIDE)]])  # two equal halves
ONE = SWAP[:1]


def latent(seed: int, slope: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal rows in which neighbours go together, more so at a higher condition; the condition.

    Correlations of the columns |i - j| apart are rho^|i - j| with rho = 0.6 + slope c, c from -1 to 1.
    """
    rng = np.random.default_rng(seed)
    c = rng.uniform(-1, 1, N)
    rho = 0.6 + slope * c
    z = rng.standard_normal((N, 2 * SIDE))
    for j in range(1, 2 * SIDE):
        z[:, j] = rho * z[:, j - 1] + np.sqrt(1 - rho**2) * z[:, j]
    return z, c, rho


def cut(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds where empty, and what is: the first column never, the others in 60 % of the rows."""
    bound = np.full(z.shape[1], ndtri(EMPTY))
    bound[0] = -np.inf
    empty = z < bound
    return np.where(empty, bound, z), empty


def placed(z: np.ndarray, c: np.ndarray, images: np.ndarray = ONE, seed: int = 0) -> np.ndarray:
    seen, empty = cut(z)
    return joint_zeros(seen, empty, c, images, np.random.default_rng(seed))


def test_correlations_of_what_was_cut_come_back() -> None:
    """Truth: the covariance before the cut. An entry's error is about 2/sqrt(N): censoring costs half.

    Fails if each empty coordinate is placed by itself (correlation 0.37), or below another's threshold.
    """
    z, c, _ = latent(1)
    own = placed(z, c)
    truth = 0.6 ** np.abs(np.subtract.outer(range(2 * SIDE), range(2 * SIDE)))
    assert np.abs(np.cov(own, rowvar=False) - truth).max() < 5 * 2 / np.sqrt(N)
    alone = ndtri(EMPTY * np.random.default_rng(2).random(z.shape))
    apart = np.where(cut(z)[1], alone, z)
    assert np.corrcoef(apart[:, 2], apart[:, 3])[0, 1] < 0.45


def test_what_is_there_stays_and_marginals_remain_normal() -> None:
    """Fails if a coordinate that is not empty moves, or an empty one leaves its place below zeta."""
    z, c, _ = latent(3)
    seen, empty = cut(z)
    own = placed(z, c)
    assert np.array_equal(own[~empty], z[~empty])
    assert np.all(own[empty] <= seen[empty])
    assert min(kstest(column, "norm").pvalue for column in own.T) > 1e-4


def test_joint_moments_are_those_of_the_truth() -> None:
    """Beyond the covariance: how often three neighbours are far below together, within 5 errors."""
    z, c, _ = latent(4)
    own = placed(z, c)
    for level in (-1.5, -0.7):
        rates = [np.all(x[:, 2:5] < level, axis=1).mean() for x in (own, z)]
        error = np.sqrt(2 * rates[1] / N)
        assert abs(rates[0] - rates[1]) < 5 * error
    alone = np.where(cut(z)[1], ndtri(EMPTY * np.random.default_rng(2).random(z.shape)), z)
    assert np.all(alone[:, 2:5] < -0.7, axis=1).mean() < 0.7 * rates[1]


def test_windows_follow_the_condition() -> None:
    """Correlation 0.3 at one end, 0.9 at the other. Fails with one covariance for all rows."""
    z, c, rho = latent(5, slope=0.3)
    own = placed(z, c)
    for part in (c < -0.5, c > 0.5):
        seen = np.corrcoef(own[part, 3], own[part, 4])[0, 1]
        assert abs(seen - rho[part].mean()) < 0.08


def test_images_are_averaged() -> None:
    """Fails if the mean over images is left out: one half says nothing of how the other is cut."""
    rng = np.random.default_rng(6)
    z = np.concatenate([latent(7)[0][:, :SIDE], latent(8)[0][:, :SIDE]], axis=1)
    bound = np.full(2 * SIDE, -np.inf)
    bound[1:SIDE] = 50.0  # always empty: only the other half knows how its neighbours go together
    empty = z < bound
    seen = np.where(empty, 3.0, z)
    own = joint_zeros(seen, empty, np.zeros(N), SWAP, rng)
    alone = joint_zeros(seen, empty, np.zeros(N), ONE, np.random.default_rng(6))
    assert (
        np.corrcoef(own[:, 0], own[:, 1])[0, 1] > np.corrcoef(alone[:, 0], alone[:, 1])[0, 1] + 0.1
    )


@pytest.mark.parametrize("n", [1, 2, 4, 40])
def test_few_rows(n: int) -> None:
    """Fewer rows than coordinates, dead columns, constant ones: numbers, below the thresholds."""
    z, c, _ = latent(9)
    z = np.tile(z[:n], (1, 10))
    z[:, 7] = 0.5
    empty = z < 0.1
    empty[:, 9] = True
    seen = np.where(empty, 0.1, z)
    seen[:, 9] = 8.0
    own = joint_zeros(seen, empty, c[:n], np.arange(z.shape[1])[None], np.random.default_rng(0))
    assert np.all(np.isfinite(own)) and np.all(own[empty] <= seen[empty])


def test_the_same_numbers_for_the_same_seed() -> None:
    z, c, _ = latent(10)
    assert np.array_equal(placed(z, c), placed(z, c))
    assert not np.array_equal(placed(z, c), placed(z, c, seed=1))
