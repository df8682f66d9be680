"""What so many showers can see, and which of many rows may be called different."""

from __future__ import annotations

import numpy as np
import pytest

from hepbridge.metrics.advice import advise, mean_error
from hepbridge.metrics.distance import Entries, Pool, bootstrap_counts
from hepbridge.metrics.family import adjusted_p
from hepbridge.metrics.floor import Floor, half_splits
from hepbridge.metrics.verdict import excess

N = 200


def entries(values: np.ndarray) -> Entries:
    return Entries(values, None, None, len(values))


def floor_of(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, splits: int = 200) -> Floor:
    halves = half_splits(len(x), splits, rng, mixed=False)
    return Floor(Pool(entries(x), entries(y)).splits(halves))


def test_the_floor_of_gaussians_has_its_closed_form_and_the_advice_scales() -> None:
    """Mean floor = 2 / √(π n) ∫ √(Φ (1 − Φ)) dx, from the Brownian bridge; n for a goal ∝ 1 / goal²."""
    from scipy.integrate import quad
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    floors = [floor_of(*rng.normal(size=(2, 400)), rng, splits=20) for _ in range(30)]
    means = np.array([f.mean for f in floors])
    integral = quad(lambda x: np.sqrt(norm.cdf(x) * norm.sf(x)), -9, 9)[0]
    exact = 2 / np.sqrt(np.pi * 400) * integral
    assert abs(means.mean() - exact) < 4 * means.std(ddof=1) / np.sqrt(30) + 0.01 * exact
    told = advise(floors[0], 400, 1.0, np.sqrt(2 / 400), goal=0.05)
    assert told is not None
    assert told.n_resolve == pytest.approx(400 * (told.resolves / 0.05) ** 2, abs=1)
    half = advise(floors[0], 400, 1.0, np.sqrt(2 / 400), goal=0.025)
    assert half is not None and half.n_limit == pytest.approx(4 * told.n_limit, abs=4)
    in_gev = advise(Floor(1e3 * floors[0].distances), 400, 1e3, 1e3 * np.sqrt(2 / 400), goal=0.05)
    assert in_gev is not None and in_gev.n_limit == pytest.approx(told.n_limit, abs=1)
    assert advise(floors[0], 400, 0.0, 0.1) is None


@pytest.mark.parametrize("kind", ["shift", "width"])
def test_a_difference_of_that_size_is_found_in_19_of_20_experiments(kind: str) -> None:
    """A shifted and a widened Gaussian whose true EMD is ``resolves``; and half of it is not."""
    rng = np.random.default_rng(1)
    trials, found, half = 100, 0, 0
    for _ in range(trials):
        ref, ref2, cand = rng.normal(size=(3, N))
        floor = floor_of(ref, ref2, rng, splits=60)
        told = advise(floor, N, ref.std(), mean_error(entries(ref)))
        assert told is not None
        for part in (1.0, 0.5):
            d = part * told.resolves
            # the EMD between widths 1 and 1 + w is w √(2/π)
            other = cand + d if kind == "shift" else cand * (1 + d / np.sqrt(2 / np.pi))
            above = Pool(entries(ref), entries(other)).distance() > floor.q95
            found, half = found + (above and part == 1.0), half + (above and part == 0.5)
    assert found / trials > 0.95 - 3 * np.sqrt(0.05 * 0.95 / trials)
    assert half / trials < 0.9  # it is no exaggeration either


def test_the_limit_is_what_a_perfect_candidate_gets() -> None:
    rng = np.random.default_rng(2)
    got, promised = [], []
    for _ in range(60):
        ref, ref2, cand = rng.normal(size=(3, N))
        floor = floor_of(ref, ref2, rng, splits=60)
        pool = Pool(entries(ref), entries(cand))
        resampled = pool.bootstrap(bootstrap_counts(N, 60, rng))
        found, told = excess(pool.distance(), resampled, floor, 1.0), advise(floor, N, 1.0, 0.1)
        assert found is not None and told is not None
        got.append(found.upper95)
        promised.append(told.limit)
    assert np.mean(promised) == pytest.approx(np.mean(got), rel=0.15)


def test_the_error_of_the_mean_of_clusters() -> None:
    """Showers of three entries that fluctuate together, against repeated experiments."""
    rng = np.random.default_rng(3)

    def sample() -> Entries:
        mass = rng.uniform(0.5, 1.5, (N, 3))
        values = rng.normal(size=(N, 1)) + 0.3 * rng.normal(size=(N, 3))
        return Entries(values.reshape(-1), np.repeat(np.arange(N), 3), mass.reshape(-1), N)

    def mean(e: Entries) -> float:
        return float(np.average(e.values, weights=e.mass))

    differences = [mean(sample()) - mean(sample()) for _ in range(400)]
    error = mean_error(sample())
    assert error == pytest.approx(np.std(differences), rel=4 * np.hypot(0.5 / 20, 0.05))
    assert error > 1.4 * np.sqrt(2 / (3 * N))  # not as if entries were independent


def test_the_spread_of_matched_incident_energies_is_no_error() -> None:
    """Fails (ten times too large) if the two samples are taken as independent of each other."""
    rng = np.random.default_rng(6)
    energy = rng.uniform(10, 100, N)

    def sample() -> Entries:
        return entries(energy * (1 + 0.02 * rng.normal(size=N)))

    differences = [sample().values.mean() - sample().values.mean() for _ in range(300)]
    error = mean_error(sample(), sample())
    assert error == pytest.approx(np.std(differences), rel=4 * np.hypot(1 / 24, 1 / 20))
    assert error < 0.1 * mean_error(sample())


def family(rng: np.random.Generator, correlation: float, faulty: dict[int, float]) -> np.ndarray:
    def sample() -> np.ndarray:
        common = np.sqrt(correlation) * rng.normal(size=(N, 1))
        return common + np.sqrt(1 - correlation) * rng.normal(size=(N, 7))

    ref, ref2, cand = sample(), sample(), sample()
    for row, shift in faulty.items():
        cand[:, row] += shift
    halves = half_splits(N, 100, rng, mixed=False)
    floors = [
        Floor(Pool(entries(a), entries(b)).splits(halves))
        for a, b in zip(ref.T, ref2.T, strict=True)
    ]
    distances = [
        Pool(entries(a), entries(c)).distance() for a, c in zip(ref.T, cand.T, strict=True)
    ]
    return adjusted_p(distances, floors)


@pytest.mark.parametrize("correlation", [0.0, 0.95])
def test_any_row_of_a_perfect_candidate_is_rarely_accused(correlation: float) -> None:
    """P(any adjusted p ≤ α) ≤ α. Fails (about 0.3 at α = 0.05) without the correction."""
    rng = np.random.default_rng(4)
    smallest = np.array([family(rng, correlation, {}).min() for _ in range(60)])
    for alpha in (0.05, 0.2):
        assert (smallest <= alpha).mean() < alpha + 4 * np.sqrt(alpha * (1 - alpha) / 60)
    assert (smallest <= 0.5).mean() > 0.25  # and the correction is no excuse


def test_the_faulty_row_is_named() -> None:
    found = family(np.random.default_rng(5), 0.3, {3: 0.8})
    assert found[3] == pytest.approx(1 / 101)
    assert (np.delete(found, 3) > 0.05).all()


def test_a_floor_that_does_not_vary() -> None:
    flat, spread = Floor(np.zeros(50)), Floor(np.arange(50.0))
    assert adjusted_p([0.0, 1.0], [flat, spread])[0] == 1.0
    assert adjusted_p([0.1, 1.0], [flat, spread])[0] == pytest.approx(1 / 51)
    assert list(adjusted_p([0.0], [flat])) == [1.0]
