"""Displacement and rank correlation of one-to-one maps with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from hepbridge.core.errors import DataError
from hepbridge.metrics import displacement, fidelity, rank_correlation
from metrics_toys import joined, spectrum, toy_showers


def test_doing_nothing_moves_nothing() -> None:
    toys = toy_showers(200, 1)
    assert displacement(toys, toys) == 0.0
    assert rank_correlation(toys, toys) == pytest.approx(1.0)


def test_moving_every_cell_by_its_standard_deviation_is_one() -> None:
    toys = toy_showers(200, 1)
    moved = toys.with_cells((toys.cells + toys.cells.std(axis=0)).astype(np.float32))
    assert displacement(toys, moved) == pytest.approx(1.0, rel=1e-4)


def test_forgetting_the_input_is_a_shuffle() -> None:
    before, after = toy_showers(2000, 1), toy_showers(2000, 2)
    found = fidelity(before, after)
    assert found["displacement"] == pytest.approx(found["displacement_shuffled"], rel=0.05)
    assert abs(found["rank_correlation"]) < 4 / np.sqrt(2000)
    kept = fidelity(before, before)
    assert kept["displacement"] == 0 and kept["displacement_shuffled"] > 0.5


def test_rank_correlation_is_spearmans_at_fixed_energy() -> None:
    before = toy_showers(300, 1)
    factor = np.random.default_rng(3).normal(1, 0.01, (300, 1))
    after = before.with_cells((before.cells * factor).astype(np.float32))
    assert rank_correlation(before, after) == pytest.approx(
        spearmanr(before.e_sum, after.e_sum).statistic
    )
    two = [
        joined(toy_showers(60, s, 20e3, scale=0.8), toy_showers(60, s + 1, 80e3)) for s in (1, 3)
    ]
    assert abs(rank_correlation(*two)) < 4 / np.sqrt(120)  # fails if energies are ranked together


def test_a_spectrum_does_not_correlate_by_itself() -> None:
    # A response that grows with energy correlates independent showers; fails if windows are not of
    # neighbouring energies.
    energy = spectrum(3000, 1)
    response = (energy[:, None] / 50e3) ** 0.02
    before, after = (
        t.with_cells((t.cells * response).astype(np.float32))
        for t in (toy_showers(3000, 1, energy), toy_showers(3000, 2, energy))
    )
    ratios = [s.e_sum / energy for s in (before, after)]
    assert spearmanr(*ratios).statistic > 0.1
    assert abs(rank_correlation(before, after)) < 4 / np.sqrt(3000)
    assert spearmanr(before.e_sum, after.e_sum).statistic > 0.99
    assert rank_correlation(before, before) == pytest.approx(1.0)


def test_other_rows_are_refused() -> None:
    toys = toy_showers(100, 1)
    with pytest.raises(DataError, match="keeps the rows"):
        displacement(toys, toys[:50])
    with pytest.raises(DataError, match="100 rows have another incident energy"):
        rank_correlation(toys, toy_showers(100, 1, 20e3))
    flat = toys.with_cells(np.ones_like(toys.cells))
    with pytest.raises(DataError, match="does not vary"):
        rank_correlation(flat, flat)
    with pytest.raises(DataError, match="no cell varies"):
        displacement(flat, toys)
