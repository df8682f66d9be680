"""Nearest neighbours, and precision, recall, density and coverage, against obvious loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.metrics import neighbours
from hepbridge.metrics.neighbours import nearest
from hepbridge.metrics.prdc import NAMES, Neighbourhoods, expected_coverage, prdc, prdc_floor
from metrics_toys import joined, toy_showers


def slow(x: np.ndarray, y: np.ndarray, k: int) -> tuple[float, ...]:
    """Naeem et al., equations 1 to 4, one pair at a time."""
    across = cdist(x, y)
    ball_x = [sorted(np.delete(row, i))[k - 1] for i, row in enumerate(cdist(x, x))]
    ball_y = [sorted(np.delete(row, j))[k - 1] for j, row in enumerate(cdist(y, y))]
    n, m = across.shape
    precision = sum(any(across[i, j] < ball_x[i] for i in range(n)) for j in range(m)) / m
    recall = sum(any(across[i, j] < ball_y[j] for j in range(m)) for i in range(n)) / n
    density = sum(across[i, j] < ball_x[i] for i in range(n) for j in range(m)) / (k * m)
    coverage = sum(any(across[i, j] < ball_x[i] for j in range(m)) for i in range(n)) / n
    return precision, recall, density, coverage


@pytest.mark.parametrize("block", [1 << 23, 400])
def test_neighbours_are_those_of_scipy(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one block and in many; far from the origin, where the product alone loses the digits."""
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(60, 3)) + 300, rng.normal(size=(40, 3)) + 300
    queries[7] = points[11]
    distance, index = nearest(queries, points, 4)
    exact = cdist(queries, points)
    assert np.array_equal(index, np.argsort(exact, axis=1)[:, :4])
    assert np.allclose(distance, np.sort(exact, axis=1)[:, :4], atol=1e-5)
    assert index[7, 0] == 11 and distance[7, 0] == 0.0
    own, itself = nearest(points, points, 3, skip_self=True)
    assert (itself != np.arange(60)[:, None]).all()
    assert np.allclose(own, np.sort(cdist(points, points), axis=1)[:, 1:4], atol=1e-5)


def test_too_few_points_have_no_neighbours() -> None:
    points = np.zeros((3, 2))
    assert nearest(points, points, 3)[0].shape == (3, 3)
    with pytest.raises(DataError, match="3 nearest neighbours need more than the 3 showers"):
        nearest(points, points, 3, skip_self=True)


@pytest.mark.parametrize(("shift", "width", "k"), [(0.0, 1.0, 5), (1.5, 1.0, 3), (0.0, 0.2, 1)])
def test_numbers_are_those_of_a_loop(shift: float, width: float, k: int) -> None:
    """Also where the listed neighbours do not reach and are listed anew (a narrow candidate).

    Fails if the ball is closed, counts itself, or reaches to neighbour k − 1.
    """
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(90, 4)), shift + width * rng.normal(size=(110, 4))
    found = Neighbourhoods(np.concatenate([x, y]), k).prdc(np.arange(200) < 90)
    assert found == pytest.approx(slow(x, y, k))


def test_a_subset_is_as_if_the_rest_were_not_there() -> None:
    rng = np.random.default_rng(2)
    points, real, keep = rng.normal(size=(300, 5)), rng.random(300) < 0.5, rng.random(300) < 0.3
    whole = Neighbourhoods(points, 4).prdc(real, keep)
    assert whole == Neighbourhoods(points[keep], 4).prdc(real[keep])
    assert whole == pytest.approx(slow(points[keep & real], points[keep & ~real], 4))


def test_samples_of_one_truth_have_density_one_and_the_expected_coverage() -> None:
    """The closed forms of the authors, in any number of dimensions; mean over 60 experiments."""
    rng = np.random.default_rng(3)
    real = np.arange(240) < 120
    found = np.array([Neighbourhoods(rng.normal(size=(240, 6)), 5).prdc(real) for _ in range(60)])
    error = found.std(axis=0, ddof=1) / np.sqrt(60)
    assert abs(found[:, 2].mean() - 1.0) < 4 * error[2]
    assert abs(found[:, 3].mean() - expected_coverage(120, 120)) < 4 * error[3]
    assert expected_coverage(10**6, 10**6) == pytest.approx(1 - 2.0**-5, abs=1e-5)
    assert expected_coverage(10**6, 10**6, 3) == pytest.approx(1 - 2.0**-3, abs=1e-5)


def test_standard_errors_are_those_of_repeated_experiments() -> None:
    """Within the factor 1.5 that the docstring admits; a binomial error of density would be off."""
    values, errors = [], []
    for seed in range(25):
        found = prdc(toy_showers(120, 2 * seed), toy_showers(120, 2 * seed + 1, scale=0.97))
        values.append([found[name]["value"] for name in NAMES])
        errors.append([found[name]["se"] for name in NAMES])
    ratio = np.mean(errors, axis=0) / np.std(values, axis=0, ddof=1)
    noise = 4 / np.sqrt(2 * 24)  # four standard errors of a scatter over 25 experiments
    assert (ratio > 1 - noise).all() and (ratio < 1.5 * (1 + noise)).all()


def test_the_floor_covers_a_perfect_candidate() -> None:
    ref, ref2, cand = (toy_showers(400, seed) for seed in (1, 2, 3))
    floor = prdc_floor(ref, ref2, splits=40)
    found = prdc(ref, cand)
    for name in NAMES:
        assert abs(found[name]["value"] - floor[name]["mean"]) < 4 * floor[name]["std"]
        assert floor[name]["q05"] < floor[name]["mean"] < floor[name]["q95"]
    assert floor["density"]["mean"] == pytest.approx(1.0, abs=4 * floor["density"]["std"])


def test_a_dropped_kind_of_shower_is_missed_and_only_by_recall_and_coverage() -> None:
    """A fifth of the showers have a tilted axis; the candidate never makes them."""

    def truth(seed: int) -> object:
        return joined(toy_showers(320, seed), toy_showers(80, seed + 50, tilt=1.5))

    ref, ref2, narrow = truth(1), truth(2), toy_showers(400, 3)
    rows = np.random.default_rng(0).permutation(400)
    floor = prdc_floor(ref[rows], ref2[rows], splits=40)
    found = prdc(ref[rows], narrow)
    for name in ("recall", "coverage"):
        assert found[name]["value"] < floor[name]["mean"] - 8 * floor[name]["std"]
        assert found[name]["value"] < 0.85
    assert found["precision"]["value"] > floor["precision"]["mean"] - 4 * floor["precision"]["std"]


def test_invented_showers_are_seen_by_precision_and_density() -> None:
    ref, ref2 = toy_showers(400, 1), toy_showers(400, 2)
    wide = joined(toy_showers(320, 3), toy_showers(80, 4, tilt=1.5))
    floor, found = prdc_floor(ref, ref2, splits=40), prdc(ref, wide)
    for name in ("precision", "density"):
        assert found[name]["value"] < floor[name]["mean"] - 4 * floor[name]["std"]


def test_what_has_no_balls_is_refused() -> None:
    with pytest.raises(ConfigError, match="k ≥ 1; got 0"):
        prdc(toy_showers(60, 1), toy_showers(60, 2), k=0)
    with pytest.raises(DataError, match="at least 24 showers per sample, got 20"):
        prdc(toy_showers(20, 1), toy_showers(60, 2))
