"""Training showers among the candidate's are found, and nothing else is taken for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import comb

from hepbridge.core.errors import DataError
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.metrics.memorisation import memorisation, near_duplicates
from metrics_toys import spectrum, toy_showers

N = 500


def truth(n: int, seed: int) -> Showers:
    return toy_showers(n, seed, spectrum(n, seed + 1000))


@pytest.fixture(scope="module")
def train() -> Showers:
    return truth(2000, 1)


@pytest.fixture(scope="module")
def hold_out() -> Showers:
    return truth(N, 2)


def with_copies(sample: Showers, train: Showers, share: float, noise: float = 0.0) -> Showers:
    """``sample`` with its first rows replaced by training showers, cells smeared by ``noise``."""
    rng = np.random.default_rng(5)
    n = round(share * len(sample))
    rows = rng.choice(len(train), n, replace=False)
    cells, energy = sample.cells.copy(), sample.incident_energy.copy()
    cells[:n] = train.cells[rows] * np.exp(noise * rng.normal(size=(n, cells.shape[1])))
    energy[:n] = train.incident_energy[rows]
    return Showers.from_arrays(cells, energy)


def test_an_independent_sample_is_not_accused(train: Showers, hold_out: Showers) -> None:
    found = [memorisation(train, hold_out, truth(N, 10 + k)) for k in range(6)]
    p = np.array([f["p"] for f in found])
    assert p.min() > 0.01 and np.median(p) > 0.1
    closer = np.array([f["closer"] for f in found])
    assert (abs(closer - 0.5) < 4 * found[0]["closer_se"]).all()
    assert found[0]["distance"] == pytest.approx(found[0]["hold_out_distance"], rel=0.05)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_one_copy_in_a_hundred_is_found(train: Showers, hold_out: Showers, noise: float) -> None:
    """Also if every cell of the copy is smeared by 2 %. Fails if the share is not one per cent."""
    sample = with_copies(truth(2 * N, 20), train, 0.01, noise)
    found = memorisation(train, truth(2 * N, 3), sample)
    assert found["p"] < 0.01
    assert found["near"] >= 10
    assert abs(found["near_share"] - 0.01) < 4 * found["near_se"]


def test_a_bad_generator_is_not_one_that_copies(train: Showers, hold_out: Showers) -> None:
    """Half of every fluctuation is gone, so all showers lie nearer to training showers.

    Fails if distances themselves are compared: the median falls by more than a quarter.
    """
    good = truth(N, 30)
    mean = (good.cells / good.incident_energy[:, None]).mean(axis=0) * good.incident_energy[:, None]
    narrow = good.with_cells((0.5 * good.cells + 0.5 * mean).astype(np.float32))
    found = memorisation(train, hold_out, narrow)
    assert found["distance"] < 0.75 * found["hold_out_distance"]
    assert found["p"] > 0.01
    copied = memorisation(train, hold_out, with_copies(narrow, train, 0.02))
    assert copied["p"] < 1e-3


def test_the_number_of_near_duplicates_by_counting() -> None:
    """P(at least x of n below the k-th of m) from all orders, k = 1: C(n, x) / C(n + m, x)."""
    hold_out = np.array([0.5, 0.7, 0.9, 0.8])
    found = near_duplicates(np.array([0.1, 0.2, 0.5, 0.6, 0.95]), hold_out)
    assert (found["near"], found["near_expected"]) == (2, 1.0)  # 0.5 is not below 0.5
    assert found["p"] == pytest.approx(comb(5, 2) / comb(9, 2))
    assert near_duplicates(np.ones(5), hold_out)["p"] == 1.0


def test_the_p_value_is_calibrated() -> None:
    """Under the null hypothesis P(p ≤ α) ≤ α, and nearly α; k = 2 and unequal sizes."""
    rng = np.random.default_rng(0)
    p = np.array([near_duplicates(rng.random(900), rng.random(1200))["p"] for _ in range(2000)])
    for alpha in (0.02, 0.1, 0.3):
        share, error = (p <= alpha).mean(), np.sqrt(alpha / 2000)
        assert 0.5 * alpha - 4 * error < share < alpha + 4 * error


def test_showers_that_were_trained_on_are_no_hold_out(train: Showers, hold_out: Showers) -> None:
    with pytest.raises(DataError, match=r"100 of 100 reference showers are in the training file"):
        memorisation(train, train[:100], hold_out)
    ids = train.event_ids.copy()
    ids[:, 0] += np.uint64(1)
    again = replace(train, event_ids=ids)
    with pytest.raises(DataError, match="100% of the reference showers are training showers"):
        memorisation(train, again[:100], hold_out)
    with pytest.raises(DataError, match="at least 50 candidate showers, got 9"):
        memorisation(train, hold_out, hold_out[:9])
    flat = Geometry("flat", (100,), ("x",), (30.0,))
    other = Showers.from_arrays(train.cells, train.incident_energy, geometry=flat)
    with pytest.raises(DataError, match="compare like with like"):
        memorisation(other, hold_out, hold_out)


def test_same_seed_same_answer_and_large_samples_are_drawn(
    train: Showers, hold_out: Showers
) -> None:
    first, again = (memorisation(train, hold_out, hold_out, max_showers=100) for _ in range(2))
    assert first == again and (first["n"], first["train_n"]) == (100, 2000)
    assert memorisation(train, hold_out, hold_out, max_showers=100, seed=1) != first
