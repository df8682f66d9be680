"""FPD and KPD against closed forms, slow loops and numbers of jetnet."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.linalg import sqrtm

from hepbridge.core.errors import DataError
from hepbridge.metrics.frechet import Moments, fpd, fpd_unbiased, frechet_distance, scaled
from hepbridge.metrics.kernel import kpd, kpd_unbiased, polynomial_mmd


def normal(n: int, d: int, seed: int, shift: float = 0.0, width: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, width, size=(n, d))


def test_frechet_distance_of_gaussians() -> None:
    """In one dimension (μ₁ − μ₂)² + (σ₁ − σ₂)²; in several against a matrix root of SciPy."""
    one = frechet_distance(np.array([1.0]), np.eye(1) * 4, np.array([3.0]), np.eye(1) * 9)
    assert one == pytest.approx(4 + 1)
    a, b = normal(50, 4, 1), normal(60, 4, 2, 0.3, 2.0)
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    apart = a.mean(0) - b.mean(0)
    expected = apart @ apart + np.trace(s + t - 2 * sqrtm(s @ t).real)
    found = frechet_distance(a.mean(0), s, b.mean(0), t)
    assert found == pytest.approx(expected, rel=1e-9)
    flat = np.diag([1.0, 0.0])  # a feature that never varies
    assert frechet_distance(np.zeros(2), flat, np.zeros(2), flat) == pytest.approx(0.0, abs=1e-12)


def test_moments_add_up_and_count() -> None:
    x = normal(30, 3, 4)
    both = Moments.of(x[:11]) + Moments.of(x[11:])
    assert both.mean == pytest.approx(x.mean(0)) and both.n == 30
    assert both.covariance == pytest.approx(np.cov(x, rowvar=False))
    counts = np.arange(30) % 3
    drawn = Moments.of(x, counts)
    assert drawn.covariance == pytest.approx(np.cov(np.repeat(x, counts, axis=0), rowvar=False))


def test_mmd_against_loops_over_pairs() -> None:
    """Fails for a biased estimate (i = j counted), another degree, or a kernel not divided by d."""
    x, y = normal(9, 3, 1), normal(7, 3, 2, 0.5)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(float(p * q) for p, q in zip(a, b, strict=True)) / 3 + 1) ** 4

    expected = sum(kernel(a, b) for a, b in itertools.permutations(x, 2)) / (9 * 8)
    expected += sum(kernel(a, b) for a, b in itertools.permutations(y, 2)) / (7 * 6)
    expected -= 2 * sum(kernel(a, b) for a in x for b in y) / (9 * 7)
    assert polynomial_mmd(x, y) == pytest.approx(expected, rel=1e-12)
    counts = np.array([2, 0, 1, 1, 3, 1, 1, 1, 2])
    repeated = polynomial_mmd(np.repeat(x, counts, axis=0), y)
    assert polynomial_mmd(x, y, counts) == pytest.approx(repeated, rel=1e-12)


def test_small_batches_agree_with_counted_rows() -> None:
    """More draws than rows go by counts; the result is that of the rows themselves."""
    x, y = normal(40, 3, 1), normal(50, 3, 2, 0.2)
    found, error = fpd(x, y, min_samples=60, max_samples=90, batches=3, points=3, seed=5)
    rng, (u, v) = np.random.default_rng(5), scaled(x, y)
    means = []
    sizes = (1 / np.linspace(1 / 60, 1 / 90, 3)).astype("int32")
    for size in sizes:
        values = []
        for _ in range(3):
            a, b = u[rng.choice(40, size=size)], v[rng.choice(50, size=size)]
            s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
            apart = a.mean(0) - b.mean(0)
            values.append(apart @ apart + np.trace(s + t - 2 * sqrtm(s @ t).real))
        means.append(np.mean(values))
    slope, intercept = np.polyfit(1 / sizes, means, 1)
    if slope > 0 and intercept > 0:
        assert found == pytest.approx(intercept, rel=1e-4)
    else:  # the fit is at a bound
        assert found >= 0
    assert error >= 0


def test_fpd_unbiased_has_no_floor_and_finds_a_shift() -> None:
    """Fails for the plain distance (12 features of 1,500 rows, too large by several errors)."""
    pulls, biased = [], []
    for seed in range(12):
        x, y = normal(1500, 12, 2 * seed), normal(1500, 12, 2 * seed + 1)
        value, error = fpd_unbiased(x, y, seed=seed)
        pulls.append(value / error)
        u, v = (Moments.of(s) for s in scaled(x, y))
        plain = frechet_distance(u.mean, u.covariance, v.mean, v.covariance)
        biased.append(plain / error)
    assert abs(np.mean(pulls)) < 4 * np.std(pulls) / np.sqrt(12)
    assert np.std(pulls) < 2.5  # the errors are not far too small
    assert np.mean(biased) > 3
    x, y = normal(4000, 5, 1), normal(4000, 5, 2, shift=0.2)
    value, error = fpd_unbiased(x, y)
    truth = (0.04 / np.abs(x).max(axis=0) ** 2).sum()
    assert abs(value - truth) < 4 * error and value > 10 * error


def test_kpd_unbiased_has_no_floor_and_finds_a_widening() -> None:
    values = [kpd_unbiased(normal(600, 4, k), normal(600, 4, 100 + k), seed=k) for k in range(12)]
    pulls = [value / error for value, error in values]
    assert abs(np.mean(pulls)) < 4 * np.std(pulls) / np.sqrt(12)
    value, error = kpd_unbiased(normal(3000, 4, 1), normal(3000, 4, 2, width=1.3))
    assert value > 5 * error
    # drawn with replacement, rows meet themselves: the published definition has a floor
    small = [kpd(normal(200, 4, k), normal(200, 4, 50 + k), batch_size=400)[0] for k in range(6)]
    assert np.mean(small) > 3 * np.std(small) / np.sqrt(6) > 0


def test_what_they_are_blind_to() -> None:
    """Equal means and covariances hide a shape from FPD; KPD, with its fourth moments, sees it."""
    rng = np.random.default_rng(2)
    x = rng.uniform(-np.sqrt(3), np.sqrt(3), size=(12_000, 1))
    y = rng.choice([-1.0, 1.0], size=(12_000, 1))  # the same mean and covariance
    value, error = fpd_unbiased(x, y)
    assert abs(value) < 4 * error
    value, error = kpd_unbiased(x, y, batches=5)
    assert value > 5 * error


def test_a_feature_that_only_the_candidate_has_does_not_drown_the_others() -> None:
    """Rounding noise in the reference is no scale; fails with jetnet's (distance 1e16)."""
    x, y = normal(200, 3, 1), normal(200, 3, 2)
    x[:, 2] = 1e-9 * x[:, 2]
    u, v = scaled(x, y)
    assert np.abs(u[:, :2]).max(axis=0) == pytest.approx(1.0)
    assert np.abs(v[:, 2]).max() == pytest.approx(1.0) and np.abs(u[:, 2]).max() < 1e-8
    zero = np.zeros((5, 1))
    assert (scaled(zero, zero)[0] == 0).all()


def test_bad_tables() -> None:
    x = normal(100, 2, 1)
    with pytest.raises(DataError, match="same columns"):
        fpd(x, x[:, :1])
    with pytest.raises(DataError, match="NaN or infinity"):
        kpd(x, np.where(x > 2, np.nan, x))
    with pytest.raises(DataError, match="at least 400 showers of each; got 200 and 200"):
        fpd_unbiased(normal(200, 100, 1), normal(200, 100, 2))
    with pytest.raises(DataError, match="at least two rows"):
        polynomial_mmd(x[:1], x)


@pytest.mark.slow
def test_golden_numbers_of_jetnet() -> None:
    """jetnet 0.2.5 (numpy 2.3.5, scipy 1.17.1) on these samples; fails for other draws or fits."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60_000, 10)), rng.normal(0.01, 1, size=(60_000, 10))
    value, error = fpd(x, y)
    assert value == pytest.approx(1.9339540752425118e-4, rel=1e-6)
    assert error == pytest.approx(3.4866e-5, rel=1e-4)


@pytest.mark.slow
def test_golden_number_of_jetnet_for_kpd() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60_000, 10)), rng.normal(0.01, 1, size=(60_000, 10))
    value, error = kpd(x, y)
    assert value == pytest.approx(-1.16984e-5, rel=1e-5)
    assert error == pytest.approx(4.2519e-5, rel=1e-4)
