"""The test of a declared symmetry, against closed form, symmetrised real data and shifted beams."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hepbridge.core.errors import DataError
from hepbridge.data import Showers, sample, symmetry


@pytest.fixture(scope="module")
def showers() -> Showers:
    return sample.load("train_full")


def symmetrised(showers: Showers, rng: np.random.Generator) -> Showers:
    """Every shower turned or reflected at random: exactly invariant."""
    perms = showers.geometry.permutations()[rng.integers(0, 8, len(showers))]
    return showers.with_cells(np.take_along_axis(showers.cells, perms, axis=1))


def moved(showers: Showers, share: float) -> Showers:
    """A share of every cell moved to its neighbour in x: a beam off the axis by share * pitch."""
    grid = showers.cells.reshape(-1, 10, 10)
    out = grid * np.float32(1 - share)
    out[:, 1:] += np.float32(share) * grid[:, :-1]
    return showers.with_cells(out.reshape(-1, 100))


@pytest.mark.parametrize("kind", ["train_full", "train_fast"])
def test_holds_on_real_showers(kind: str) -> None:
    check = symmetry.verify(sample.load(kind))
    assert check.holds and check.p_value > 1e-3
    assert check.n_contrasts == 85  # 100 cells - 15 orbits
    assert check.message.startswith("the symmetry D4 holds in 6000 showers")


@pytest.mark.parametrize("n", [100, 1000])
def test_p_values_are_uniform(showers: Showers, n: int) -> None:
    """Fails if cells are taken as independent, or if rarely hit cells spoil the distribution."""
    rng = np.random.default_rng(n)
    values = []
    for _ in range(150):
        rows = rng.choice(len(showers), n, replace=False)
        values.append(symmetry.verify(symmetrised(showers[rows], rng)).p_value)
    assert stats.kstest(values, "uniform").pvalue > 1e-3


def test_hotelling_against_the_closed_form() -> None:
    """Normal numbers of known mean: one contrast must give Student's t test."""
    rng = np.random.default_rng(0)
    d = rng.normal(0.3, 1, (40, 1))
    assert np.isclose(symmetry._hotelling(d)[0], stats.ttest_1samp(d[:, 0], 0).pvalue)
    d = rng.normal(size=(40, 3))
    with_copy = np.hstack([d, d[:, :1] + d[:, 1:2], np.zeros((40, 1))])
    assert np.isclose(symmetry._hotelling(with_copy)[0], symmetry._hotelling(d)[0])
    assert symmetry._hotelling(np.zeros((40, 2)))[0] == 1.0


def test_rejects_a_shifted_beam(showers: Showers) -> None:
    """0.06 mm off the axis of 30 mm cells, seen in 1,000 showers."""
    check = symmetry.verify(moved(showers, 0.002)[:1000])
    assert not check.holds and check.p_value < 1e-20
    assert "does not hold in these 1000 showers" in check.message
    assert "standard errors): use a geometry with symmetry 'none'" in check.message


def test_rejects_a_single_miscalibrated_cell(showers: Showers) -> None:
    cells = showers.cells.copy()
    cells[:, 44] *= np.float32(1.01)
    check = symmetry.verify(showers.with_cells(cells))
    assert not check.holds and "cell 44 differs" in check.message


def test_nothing_declared_and_too_few(showers: Showers) -> None:
    plain = replace(showers, geometry=replace(showers.geometry, symmetry="none"))
    assert symmetry.verify(plain) == symmetry.SymmetryCheck(
        "none", 1.0, True, "no symmetry is declared", 0
    )
    with pytest.raises(DataError, match=r"29 showers are too few .* at least 30 are needed"):
        symmetry.verify(showers[:29])
    assert symmetry.verify(showers[:30]).n_contrasts == 3
