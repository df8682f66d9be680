"""Pairs by incident energy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hepbridge.core.errors import DataError
from hepbridge.data import SQUIRELS, Geometry, Showers, load, match_by_energy

GRID = Geometry("grid", (2,), ("x",), (1.0,))
ENERGY = np.array([30.0, 10.0, 50.0, 20.0, 40.0]) * 1000


def make(energy: np.ndarray, geometry: Geometry = GRID) -> Showers:
    """Cell 0 holds the row number + 1, so that rows stay recognisable."""
    cells = np.zeros((len(energy), geometry.n_cells))
    cells[:, 0] = np.arange(len(energy)) + 1
    return Showers.from_arrays(cells, energy, geometry=geometry)


def rows(showers: Showers) -> list[int]:
    return [int(e) - 1 for e in showers.cells[:, 0]]


def test_matched_rows_stay_untouched(caplog: pytest.LogCaptureFixture) -> None:
    """Fails if matched samples are sorted nevertheless."""
    fast, full = match_by_energy(make(ENERGY), make(ENERGY * (1 + 5e-5)))
    assert rows(fast) == rows(full) == [0, 1, 2, 3, 4]
    assert caplog.text == ""


def test_others_are_sorted() -> None:
    fast, full = match_by_energy(make(ENERGY), make(ENERGY[[4, 3, 2, 1, 0]]))
    assert np.array_equal(fast.incident_energy, full.incident_energy)
    assert rows(fast) == [1, 3, 0, 4, 2]
    assert rows(full) == [3, 1, 4, 0, 2]
    assert full.event_ids[:, 1].tolist() == rows(full)


@pytest.mark.parametrize("swap", [False, True])
def test_surplus_rows_are_left_out(caplog: pytest.LogCaptureFixture, swap: bool) -> None:
    longer, shorter = make(np.append(ENERGY, [1.0, 2.0])), make(ENERGY)
    fast, full = match_by_energy(*((shorter, longer) if swap else (longer, shorter)))
    assert rows(fast) == rows(full) == [0, 1, 2, 3, 4]
    assert "the first 5 rows of both are pairs, the others have no partner" in caplog.text


def test_mismatch_names_the_rows() -> None:
    other = ENERGY[[4, 3, 2, 1, 0]]
    other[2] = 55_000.0
    with pytest.raises(DataError) as caught:
        match_by_energy(make(ENERGY), make(other))
    assert str(caught.value) == (
        "the incident energies of 1 of 5 pairs differ by more than 0.0001 (relative), also after "
        "sorting both by energy. First: fast row 2: 50000 MeV, full row 2: 55000 MeV. Fast and "
        "full showers must be simulated with the same incident energies"
    )
    match_by_energy(make(ENERGY), make(other), tolerance=0.1)


def test_different_lengths_and_energies() -> None:
    with pytest.raises(
        DataError,
        match=r"and 5 fast and 4 full showers cannot be sorted into pairs. First: fast row 0: 3",
    ):
        match_by_energy(make(ENERGY), make(np.sort(ENERGY)[:4]))


def test_different_detectors() -> None:
    with pytest.raises(DataError, match="must be the same detector"):
        match_by_energy(make(ENERGY), make(ENERGY, SQUIRELS))


def test_real_pairs(sample_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    fast, full = (load(sample_dir / f"squirels_{k}_test.h5") for k in ("gflash", "full"))
    fast, full = match_by_energy(fast, full)
    assert len(fast) == len(full) == 4000
    assert np.array_equal(fast.incident_energy, full.incident_energy)
    assert "20000 fast and 4000 full showers" in caplog.text
