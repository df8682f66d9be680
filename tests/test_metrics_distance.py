"""The Wasserstein distance against closed forms and SciPy; its resampling against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import ndtri
from scipy.stats import wasserstein_distance

from hepbridge.core.errors import DataError
from hepbridge.metrics.distance import Entries, Pool, bootstrap_counts, wasserstein

finite = st.floats(-1e3, 1e3, allow_nan=False)
samples = hnp.arrays(np.float64, st.integers(1, 30), elements=finite)


def random_entries(rng: np.random.Generator, n: int, points: int) -> Entries:
    """Rounded positions (ties), several per shower, unequal masses and shower weights."""
    return Entries(
        np.round(rng.normal(size=points), 1),
        rng.integers(n, size=points),
        rng.random(points),
        n,
        rng.random(n) + 0.1,
    )


def test_shifted_gaussian_is_its_shift() -> None:
    # Quantiles of N(0, 1) and N(0.3, 1): the same numbers moved, so exact. Fails if positions are
    # binned or the integral is cut.
    grid = ndtri((np.arange(2000) + 0.5) / 2000)
    assert wasserstein(grid, grid + 0.3) == pytest.approx(0.3, abs=1e-12)
    assert wasserstein(grid, grid[::-1].copy()) == 0.0


def test_scaled_gaussian_has_the_closed_form() -> None:
    # EMD between N(0, 1) and N(0, s²) is |s − 1| E|z| = |s − 1| √(2/π).
    grid = ndtri((np.arange(200_000) + 0.5) / 200_000)
    assert wasserstein(grid, 1.5 * grid) == pytest.approx(0.5 * np.sqrt(2 / np.pi), rel=1e-4)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(samples, samples, st.integers(0, 2**31))
def test_agrees_with_scipy(u: np.ndarray, v: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wu, wv = rng.random(len(u)) + 1e-3, rng.random(len(v)) + 1e-3
    assert wasserstein(u, v) == pytest.approx(wasserstein_distance(u, v), rel=1e-9, abs=1e-9)
    expected = wasserstein_distance(u, v, wu, wv)
    assert wasserstein(u, v, wu, wv) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    pool = Pool(Entries(u, None, wu, len(u)), Entries(v, None, wv, len(v)))
    assert pool.distance() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_bootstrap_is_the_plain_loop() -> None:
    # Fails if cells instead of showers are resampled, or if the resample is not normalised.
    rng = np.random.default_rng(1)
    a, b = random_entries(rng, 40, 3000), random_entries(rng, 50, 2500)
    counts = bootstrap_counts(50, 7, rng)
    other = bootstrap_counts(40, 7, rng)
    assert (counts.sum(axis=1) == 50).all()
    fast, both = Pool(a, b).bootstrap(counts), Pool(a, b).bootstrap(counts, other)
    for k, (cb, ca) in enumerate(zip(counts, other, strict=True)):
        weights = b.total_mass * cb[b.owner]
        slow = wasserstein_distance(a.values, b.values, a.total_mass, weights)
        assert fast[k] == pytest.approx(slow, rel=1e-10)
        slow = wasserstein_distance(a.values, b.values, a.total_mass * ca[a.owner], weights)
        assert both[k] == pytest.approx(slow, rel=1e-10)


def test_splits_are_the_plain_loop() -> None:
    rng = np.random.default_rng(2)
    a, b = random_entries(rng, 30, 500), random_entries(rng, 30, 500)
    chosen = rng.random((5, 60)) < 0.5
    values = np.concatenate([a.values, b.values])
    owner = np.concatenate([a.owner, b.owner + 30])
    mass = np.concatenate([a.total_mass, b.total_mass])
    for row, fast in zip(chosen, Pool(a, b).splits(chosen), strict=True):
        inside = row[owner]
        slow = wasserstein_distance(values, values, mass * inside, mass * ~inside)
        assert fast == pytest.approx(slow, rel=1e-10)


def test_more_points_and_replicas_than_a_block() -> None:
    # Fails if the running sum is not carried from block to block (1024 points, 64 replicas).
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=2500), rng.normal(0.1, 1.0, size=3100)
    pool = Pool(Entries(a, None, None, 2500), Entries(b, None, None, 3100))
    counts = bootstrap_counts(3100, 130, rng)
    fast = pool.bootstrap(counts)
    for k in (0, 63, 64, 129):
        slow = wasserstein_distance(a, b, None, counts[k] + 0.0)
        assert fast[k] == pytest.approx(slow, rel=1e-10)


def test_float32_positions_are_integrated_in_double_precision() -> None:
    values = (1e4 + np.random.default_rng(4).random(5000)).astype(np.float32)
    other = values[::2] + np.float32(0.125)
    expected = wasserstein_distance(values.astype(float), other.astype(float))
    assert wasserstein(values, other) == pytest.approx(expected, rel=1e-9)
    pool = Pool(Entries(values, None, None, 5000), Entries(other, None, None, 2500))
    assert pool.distance() == pytest.approx(expected, rel=1e-9)


def test_samples_without_mass_are_refused() -> None:
    one = np.ones(3)
    with pytest.raises(DataError, match="empty sample"):
        wasserstein(one, np.empty(0))
    with pytest.raises(DataError, match="not negative"):
        wasserstein(one, one, np.array([1.0, -1.0, 1.0]))
    with pytest.raises(DataError, match="not negative"):
        Pool(Entries(one, None, -one, 3), Entries(one, None, None, 3))
    with pytest.raises(DataError, match="all weights are zero"):
        Pool(Entries(one, None, None, 3), Entries(one, None, None, 3)).bootstrap(
            np.zeros((1, 3), dtype=np.int64)
        )
