"""Geometry and Showers: numbering, symmetry, checks, rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepbridge.core.errors import DataError
from hepbridge.data import SQUIRELS, Geometry, Showers
from hepbridge.data.showers import make_event_ids

GRID = Geometry("grid", (2, 3), ("x", "y"), (10.0, 10.0))
LAYERS = Geometry("layers", (2, 4, 4), ("z", "x", "y"), (5.0, 1.0, 1.0), symmetry="D4")


def make(n: int = 4, **kwargs: object) -> Showers:
    cells = np.arange(1, 6 * n + 1, dtype=np.float32).reshape(n, 6)
    return Showers.from_arrays(cells, np.full(n, 1e4), geometry=GRID, **kwargs)


# --- geometry ----------------------------------------------------------------------------------


def test_cell_index_is_row_major() -> None:
    x, y = SQUIRELS.centres("x"), SQUIRELS.centres("y")
    for ix in range(10):
        for iy in range(10):
            assert (x[10 * ix + iy], y[10 * ix + iy]) == (ix + 0.5, iy + 0.5)
    with pytest.raises(DataError, match="'squirels' has no axis 'z'; it has x, y"):
        SQUIRELS.centres("z")


@pytest.mark.parametrize("geometry", [SQUIRELS, LAYERS])
def test_d4_is_the_group_of_the_square(geometry: Geometry) -> None:
    """Eight different permutations, closed, each keeping distances from the axis and the layer."""
    perms = geometry.permutations()
    table = {tuple(p) for p in perms}
    assert len(table) == 8
    assert perms[0].tolist() == list(range(geometry.n_cells))
    assert all(tuple(a[b]) in table for a in perms for b in perms)
    middle = geometry.shape[-1] / 2
    radius = np.hypot(geometry.centres("x") - middle, geometry.centres("y") - middle)
    assert all(np.allclose(radius[p], radius) for p in perms)
    if "z" in geometry.axes:
        assert all(np.array_equal(geometry.centres("z")[p], geometry.centres("z")) for p in perms)


def test_orbits_are_those_of_the_group() -> None:
    """Against the sorted distances |x|, |y| of each cell from the axis."""
    a = np.sort(np.abs(np.stack([SQUIRELS.centres("x"), SQUIRELS.centres("y")]) - 5), axis=0)
    truth = np.unique(a, axis=1, return_inverse=True)[1].reshape(-1)
    orbits = SQUIRELS.orbits()
    assert orbits.max() == 14
    assert len({(int(o), int(t)) for o, t in zip(orbits, truth, strict=True)}) == 15
    assert GRID.orbits().tolist() == list(range(6))


def test_geometry_as_a_record() -> None:
    assert Geometry.from_dict(LAYERS.to_dict()) == LAYERS
    renamed = Geometry.from_dict({**LAYERS.to_dict(), "name": "other"})
    assert renamed.digest() == LAYERS.digest() != SQUIRELS.digest()
    for record in ({}, {"name": "a", "shape": 3}, {**GRID.to_dict(), "shape": [float("inf"), 1]}):
        with pytest.raises(DataError, match="not a description of a geometry"):
            Geometry.from_dict(record)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2,), ("x", "y"), (1.0,)), "must have the same length"),
        (((0,), ("x",), (1.0,)), "sizes must be positive"),
        (((2,), ("x",), (float("nan"),)), "sizes must be positive"),
        (((2,), ("x",), (1.0,), "C3"), "symmetry 'C3' is unknown; allowed: none, D4"),
        (((2, 3), ("x", "y"), (1.0, 1.0), "D4"), "D4 needs a square in the last two axes"),
    ],
)
def test_impossible_geometries(arguments: tuple, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Geometry("g", *arguments)


# --- showers -----------------------------------------------------------------------------------


def test_wrapping_arrays() -> None:
    cells = np.arange(1, 13, dtype=float).reshape(2, 2, 3)
    showers = Showers.from_arrays(cells, [[1.0], [2.0]], geometry=GRID, unit="GeV")
    assert showers.cells.dtype == np.float32
    assert np.array_equal(showers.cells, cells.reshape(2, 6) * 1000)
    assert showers.incident_energy.tolist() == [1000.0, 2000.0]
    assert showers.e_sum.tolist() == [21000.0, 57000.0]
    assert len(showers) == 2


def test_rows_keep_what_belongs_to_them() -> None:
    showers = make(
        weights=[1, 2, 3, 4],
        columns={"run": [5, 6, 7, 8]},
        conditions={"angle": [0.1, 0.2, 0.3, 0.4]},
    )
    for rows, kept in (
        (slice(1, 3), [1, 2]),
        (np.array([3, 0]), [3, 0]),
        (np.array([False, True, False, True]), [1, 3]),
        (2, [2]),
    ):
        part = showers[rows]
        assert part.cells.tolist() == showers.cells[kept].tolist()
        assert part.event_ids[:, 1].tolist() == kept
        assert part.weights is not None
        assert part.weights.tolist() == [k + 1 for k in kept]
        assert part.columns["run"].tolist() == [k + 5 for k in kept]
        assert np.allclose(part.conditions["angle"], [(k + 1) / 10 for k in kept])


def test_event_ids_name_the_data_set() -> None:
    """The uid changes with any energy and with the first and last 1024 showers; rows count up."""
    rng = np.random.default_rng(0)
    cells, energy = rng.random((3000, 6), dtype=np.float32), rng.random(3000) + 1
    ids = make_event_ids(cells, energy)
    assert ids[:, 1].tolist() == list(range(3000))
    assert len(set(ids[:, 0].tolist())) == 1
    for row, changes in ((0, True), (1023, True), (1500, False), (1976, True), (2999, True)):
        other = cells.copy()
        other[row, 0] += 1
        assert bool(make_event_ids(other, energy)[0, 0] != ids[0, 0]) is changes
    energy[1500] += 1e-9
    assert make_event_ids(cells, energy)[0, 0] != ids[0, 0]
    given_ids = make(event_ids=np.full((4, 2), 2**64 - 1, dtype=np.uint64))
    assert given_ids.event_ids.max() == 2**64 - 1


def test_with_cells() -> None:
    showers = make(meta={"a": 1})
    other = showers.with_cells(showers.cells * 2, b=2)
    assert other.meta == {"a": 1, "b": 2} and showers.meta == {"a": 1}
    assert np.array_equal(other.event_ids, showers.event_ids)
    with pytest.raises(DataError, match=r"cells of shape \(2, 6\) cannot replace"):
        showers.with_cells(showers.cells[:2])


OK = np.ones((2, 6))


@pytest.mark.parametrize(
    ("cells", "energy", "options", "message"),
    [
        (np.ones((0, 6)), [], {}, "x.h5: holds no showers"),
        (np.ones((2, 0)), [1, 1], {}, "0 cells per shower, but geometry 'grid' has 6"),
        (np.ones((2, 5)), [1, 1], {}, "5 cells per shower"),
        (np.ones((2, 6), complex), [1, 1], {}, "cells must be numbers, got dtype complex128"),
        ([["a"] * 6], [1], {}, "cells must be numbers, got dtype <U1"),
        (OK, [1], {}, "2 showers but 1 incident energies"),
        (OK, [1, -1], {}, "incident energies must be positive; row 11 is -1 MeV"),
        (OK, [1, np.inf], {}, "incident_energy must be finite; row 11 is inf"),
        (OK * np.inf * [[1], [-1]], [1, 1], {}, "cell energies must be finite; row 10"),
        (OK * [[1], [-1]], [1, 1], {}, "must not be negative; row 11 holds -1 MeV"),
        (OK * [[1], [0]], [1, 1], {}, r"1 showers have no energy at all \(first: row 11\)"),
        (OK, [1, 1], {"unit": "TeV"}, "unit 'TeV' is unknown; allowed: MeV, GeV"),
        (OK, [1, 1], {"weights": [1.0]}, "'weights' has 1 rows, but there are 2 showers"),
        (OK, [1, 1], {"weights": [1.0, np.nan]}, "weights must be finite; row 11 is not"),
        (OK, [1, 1], {"conditions": {"a": [1.0]}}, "'a' has 1 rows, but there are 2 showers"),
        (OK, [1, 1], {"conditions": {"a": [1, np.nan]}}, "a must be finite; row 11 is nan"),
        (OK, [1, 1], {"columns": {"c": [1]}}, "'c' has 1 rows, but there are 2 showers"),
        (OK, [1, 1], {"event_ids": [[1, 2]]}, r"event ids must be integers >= 0 of shape \(2, 2\)"),
        (OK, [1, 1], {"event_ids": [[1, 2], [1, -2]]}, "event ids must be integers >= 0"),
        (OK, [1, 1], {"event_ids": [[1, 2], [1, 0.5]]}, "event ids must be integers >= 0"),
    ],
)
def test_bad_arrays(cells: object, energy: object, options: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Showers.from_arrays(cells, energy, geometry=GRID, where="x.h5", first_row=10, **options)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.lists(st.floats(allow_subnormal=True), min_size=6, max_size=6), st.floats())
def test_any_numbers_are_taken_or_refused(cells: list[float], energy: float) -> None:
    """Never a NumPy warning, never a shower that breaks the container's promise."""
    try:
        showers = Showers.from_arrays([cells], [energy], geometry=GRID)
    except DataError:
        return
    assert np.isfinite(showers.cells).all() and (showers.cells >= 0).all()
    assert showers.e_sum[0] > 0 and showers.incident_energy[0] > 0
