"""Geometries whose layers differ: places, order, symmetry, records, files."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hepbridge as hb
from hepbridge.core.errors import DataError
from hepbridge.data import SQUIRELS, Geometry, Showers, symmetry
from hepbridge.data.cells import CellLayer, PolarCells, XYCells

# CaloGAN's layers (arXiv:1712.10321), and two layers of data set 1 of the CaloChallenge
BARS = Geometry.of_layers(
    "bars",
    [
        CellLayer(XYCells(n=(3, 96), pitch_mm=(160, 5)), (0, 90)),
        CellLayer(XYCells(n=(12, 12), pitch_mm=(40, 40)), (90, 437)),
        CellLayer(XYCells(n=(12, 6), pitch_mm=(40, 80)), (437, 480)),
    ],
    "D2",
)
RINGS = Geometry.of_layers(
    "rings",
    [
        CellLayer(PolarCells(r_mm=(0, 5, 10, 30), n_phi=1), (0, 4)),
        CellLayer(PolarCells(r_mm=(0, 2, 7), n_phi=10), (4, 10)),
        CellLayer(PolarCells(r_mm=(0, 3, 8, 9), n_phi=4), (12, 20)),
    ],
    "Dn",
)
STACK = Geometry.of_layers(
    "stack",
    [CellLayer(XYCells(n=(4, 4), pitch_mm=(5, 5)), (k, k + 1 + k % 2)) for k in (0, 1, 3)],
    "D4",
)
OBLONG = Geometry.of_layers("oblong", [CellLayer(XYCells(n=(2, 2), pitch_mm=(5, 6)))])
ALL = [BARS, RINGS, STACK]


def test_places_of_rectangles() -> None:
    """Against loops over the definition: iy + ny · ix, layer after layer, the axis in the middle."""
    x, y, z, number = BARS.x_mm, BARS.y_mm, BARS.z_mm, BARS.layer_index
    k = 0
    for layer, (nx, ny, depth) in enumerate([(3, 96, 45.0), (12, 12, 263.5), (12, 6, 458.5)]):
        for ix in range(nx):
            for iy in range(ny):
                assert x[k] == pytest.approx(-240 + 480 / nx * (ix + 0.5), abs=1e-9)
                assert y[k] == pytest.approx(-240 + 480 / ny * (iy + 0.5), abs=1e-9)
                assert (z[k], number[k]) == (depth, layer)
                k += 1
    assert k == BARS.n_cells == 504
    assert BARS.layer_starts.tolist() == [0, 288, 432, 504]
    assert (BARS.shape, BARS.axes) == ((504,), ("cell",))


def test_places_of_rings_and_sectors() -> None:
    """Against loops: φ from -π outside, r inside, midpoints (the order of the CaloChallenge)."""
    k = 0
    for edges, n_phi in [((0, 5, 10, 30), 1), ((0, 2, 7), 10), ((0, 3, 8, 9), 4)]:
        for sector in range(n_phi):
            for low, high in pairwise(edges):
                r, phi = (low + high) / 2, -math.pi + (sector + 0.5) * 2 * math.pi / n_phi
                assert RINGS.x_mm[k] == pytest.approx(r * math.cos(phi), abs=1e-9)
                assert RINGS.y_mm[k] == pytest.approx(r * math.sin(phi), abs=1e-9)
                k += 1
    assert k == RINGS.n_cells == 35


def test_equal_layers_have_axes() -> None:
    assert (STACK.shape, STACK.axes) == ((3, 4, 4), ("z", "x", "y"))
    assert np.array_equal(STACK.centres("z") - 0.5, STACK.layer_index)
    assert np.allclose((STACK.centres("y") - 2) * 5, STACK.y_mm)
    tower = Geometry.of_layers("t", [CellLayer(PolarCells(r_mm=(0, 1, 3), n_phi=8))] * 5)
    assert (tower.shape, tower.axes) == ((5, 8, 2), ("z", "phi", "r"))


@pytest.mark.parametrize("geometry", ALL, ids=lambda g: g.name)
def test_points_find_their_cell(geometry: Geometry) -> None:
    """Every centre is in its own cell, far points in none; random points against all outlines."""
    rng = np.random.default_rng(0)
    for layer in geometry.layers:
        cells = layer.cells
        assert np.array_equal(cells.index(*cells.centres_mm()), np.arange(cells.n_cells))
        assert cells.index([1e4, -1e4, 0.0], [0.0, 0.0, 1e4]).tolist() == [-1, -1, -1]
        x, y = rng.uniform(-1.2, 1.2, (2, 300)) * np.abs(cells.outlines_mm()).max()
        found = cells.index(x, y)
        for point in range(300):
            inside = [_in_cell(cells, k, x[point], y[point]) for k in range(cells.n_cells)]
            assert sum(inside) == (found[point] >= 0)
            assert found[point] < 0 or inside[found[point]]


def _in_cell(cells: XYCells | PolarCells, k: int, x: float, y: float) -> bool:
    if isinstance(cells, XYCells):
        ix, iy = divmod(k, cells.n[1])
        (px, py), (nx, ny) = cells.pitch_mm, cells.n
        return 0 <= x + nx * px / 2 - ix * px < px and 0 <= y + ny * py / 2 - iy * py < py
    sector, ring = divmod(k, cells.n_r)
    turn = (math.atan2(y, x) + math.pi) / (2 * math.pi) * cells.n_phi
    return cells.r_mm[ring] <= math.hypot(x, y) < cells.r_mm[ring + 1] and int(turn) == sector


@pytest.mark.parametrize("geometry", ALL, ids=lambda g: g.name)
def test_outlines_have_the_area_of_the_cells(geometry: Geometry) -> None:
    """Gauss's formula for polygons; an arc of 7 chords has sin(δ/7)·7/δ of its sector's area."""
    for layer in geometry.layers:
        outline = layer.cells.outlines_mm()
        x, y = outline[..., 0], outline[..., 1]
        area = 0.5 * np.sum(x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1), axis=1)
        if isinstance(layer.cells, XYCells):
            truth = np.full(len(area), np.prod(layer.cells.pitch_mm))
        else:
            r, n = np.array(layer.cells.r_mm), layer.cells.n_phi
            chord = 7 / 2 * math.sin(2 * math.pi / n / 7)
            truth = np.tile(chord * (r[1:] ** 2 - r[:-1] ** 2), n)
        assert np.allclose(np.abs(area), truth)


@pytest.mark.parametrize(("geometry", "order"), [(BARS, 4), (RINGS, 4), (STACK, 8)])
def test_symmetries_move_the_detector_onto_itself(geometry: Geometry, order: int) -> None:
    """Each permutation is one rotation or reflection of the plane, the same in all layers.

    Of RINGS, with 10 and 4 sectors, the two turns by π and their reflections remain. Fails if the
    permutations of one layer are listed in another order than those of the next.
    """
    perms = geometry.permutations()
    table = {tuple(p) for p in perms}
    assert len(table) == len(perms) == order
    assert perms[0].tolist() == list(range(geometry.n_cells))
    assert all(tuple(a[b]) in table for a in perms for b in perms)
    places = np.stack([geometry.x_mm, geometry.y_mm], axis=1)
    rounds = places[geometry.layer_index != 0] if geometry is RINGS else places
    for p in perms:
        assert np.array_equal(geometry.layer_index[p], geometry.layer_index)
        moved = places[p][geometry.layer_index != 0] if geometry is RINGS else places[p]
        turn = np.linalg.lstsq(rounds, moved, rcond=None)[0]
        assert np.allclose(turn @ turn.T, np.eye(2)) and np.allclose(rounds @ turn, moved)
    orbits = geometry.orbits()
    assert all(np.array_equal(orbits[p], orbits) for p in perms)


def test_rings() -> None:
    assert STACK.rings().tolist() == [1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1] * 3
    tower = Geometry.of_layers("t", [CellLayer(PolarCells(r_mm=(0, 1, 3), n_phi=3))] * 2)
    assert tower.rings().tolist() == [0, 1] * 6
    for geometry in (BARS, RINGS, OBLONG):
        with pytest.raises(DataError, match="rings need square cells or equal radii"):
            geometry.rings()


def test_a_symmetry_is_verified_on_data() -> None:
    """Rings at random angles are symmetric; one sector with 20 % more energy is found."""
    geometry = Geometry.of_layers("t", [CellLayer(PolarCells(r_mm=(0, 1, 3), n_phi=6))] * 2, "Dn")
    rng = np.random.default_rng(1)
    cells = rng.gamma(2.0, [10.0, 3.0] * 12, (2000, 24)).astype("f4")
    showers = Showers.from_arrays(cells, np.full(2000, 1e3), geometry=geometry)
    check = symmetry.verify(showers)
    assert check.holds and check.n_contrasts == 20  # all cells but one of each ring
    cells[:, 5] *= 1.2
    assert not symmetry.verify(showers.with_cells(cells)).holds


# --- regular grids are what they were -------------------------------------------------------------


def test_records_of_regular_grids_are_unchanged() -> None:
    """Model files and data files hold these; the digests are those of version 0.1."""
    assert SQUIRELS.to_dict() == {
        "name": "squirels",
        "shape": [10, 10],
        "axes": ["x", "y"],
        "pitch_mm": [30.0, 30.0],
        "symmetry": "D4",
    }
    assert SQUIRELS.digest() == "269169f89721ea2a"
    grid = Geometry("g", (2, 3, 4), ("z", "x", "y"), (5.0, 1.0, 2.0))
    assert grid.digest() == "8f22f72809262c36"


def test_places_in_regular_grids() -> None:
    grid = Geometry("g", (2, 3, 4), ("z", "x", "y"), (5.0, 1.0, 2.0))
    assert grid.z_mm.tolist() == [2.5] * 12 + [7.5] * 12
    assert grid.x_mm[:12].tolist() == [-1.0] * 4 + [0.0] * 4 + [1.0] * 4
    assert grid.y_mm[:4].tolist() == [-3.0, -1.0, 1.0, 3.0]
    assert np.allclose(SQUIRELS.x_mm, (SQUIRELS.centres("x") - 5) * 30)
    with pytest.raises(DataError, match="'squirels' does not say how deep its layers are"):
        _ = SQUIRELS.z_mm
    with pytest.raises(DataError, match="with axes x does not say where its cells are"):
        _ = Geometry("bar", (5,), ("x",), (1.0,)).x_mm


def test_layer_sums() -> None:
    cells = np.random.default_rng(0).gamma(0.1, size=(5, 504)).astype("f4")
    cuts = [(0, 288), (288, 432), (432, 504)]
    truth = [[math.fsum(map(float, row[a:b])) for a, b in cuts] for row in cells]
    assert np.allclose(BARS.layer_sums(cells), truth, rtol=1e-12)
    assert np.allclose(SQUIRELS.layer_sums(cells[:, :100])[:, 0], cells[:, :100].sum(1, "f8"))
    for wrong in (cells[:, :503], cells[0]):
        with pytest.raises(DataError, match="are no showers of geometry 'bars' with 504 cells"):
            BARS.layer_sums(wrong)


# --- records and files ----------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", ALL, ids=lambda g: g.name)
def test_as_a_record(geometry: Geometry) -> None:
    again = Geometry.from_dict(geometry.to_dict())
    assert again == geometry and hash(again) == hash(geometry)
    renamed = replace(geometry, name="other")
    assert renamed.digest() == geometry.digest() != SQUIRELS.digest()
    deeper = [CellLayer(x.cells, (x.z_mm[0] + 1, x.z_mm[1] + 1)) for x in geometry.layers if x.z_mm]
    assert Geometry.of_layers("d", deeper, geometry.symmetry).digest() != geometry.digest()
    assert replace(geometry, symmetry="none").digest() != geometry.digest()


@pytest.mark.parametrize("geometry", ALL, ids=lambda g: g.name)
@pytest.mark.parametrize("suffix", ["h5", "root"])
def test_files_keep_the_layers(geometry: Geometry, suffix: str, tmp_path: Path) -> None:
    if suffix == "root":
        pytest.importorskip("uproot")
    rng = np.random.default_rng(0)
    cells = rng.gamma(0.5, size=(20, geometry.n_cells)).astype("f4")
    showers = Showers.from_arrays(cells, rng.uniform(1e3, 1e4, 20), geometry=geometry)
    path = tmp_path / f"s.{suffix}"
    hb.save(showers, path)
    again = hb.load(path, geometry=None)
    assert again.geometry == geometry
    assert np.array_equal(again.cells, cells)
    assert hb.load(path, geometry=geometry).geometry == geometry
    other = replace(geometry, symmetry="none")
    with pytest.raises(DataError, match="is asked for"):
        hb.load(path, geometry=other)


@pytest.mark.parametrize(
    ("layers", "name", "message"),
    [
        ([], "none", "has no layers"),
        (
            [(BARS, 0, (0, 5)), (BARS, 1, (4, 9))],
            "none",
            "layer 1 begins at 4 mm, inside the layer",
        ),
        ([(BARS, 0, (0, 5)), (BARS, 1, None)], "none", "the depth of every layer, or of none"),
        ([(BARS, 0, (5, 5))], "none", "layer 0 reaches from 5 to 5 mm"),
        ([(BARS, 0, (0, math.nan))], "none", "layer 0 reaches from 0 to nan mm"),
        ([(BARS, 1, (0, 5)), (BARS, 0, (5, 6))], "D4", "layer 1 does not have the symmetry D4"),
        ([(OBLONG, 0, (0, 5))], "D4", "layer 0 does not have the symmetry D4"),
        ([(RINGS, 1, (0, 5))], "D2", "layer 0 does not have the symmetry D2"),
        ([(BARS, 1, (0, 5))], "Dn", "layer 0 does not have the symmetry Dn"),
        ([(BARS, 1, (0, 5))], "C3", "symmetry 'C3' is unknown; allowed: none, D4, D2, Dn"),
    ],
)
def test_impossible_layers(layers: list, name: str, message: str) -> None:
    found = [CellLayer(g.layers[k].cells, z) for g, k, z in layers]
    with pytest.raises(DataError, match=message):
        Geometry.of_layers("g", found, name)


@pytest.mark.parametrize("kind", ["D2", "Dn"])
def test_symmetries_of_layers_are_not_for_grids(kind: str) -> None:
    with pytest.raises(DataError, match="is for layers of cells"):
        Geometry("g", (2, 2), ("x", "y"), (1.0, 1.0), kind)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": (0, 3), "pitch_mm": (1, 1)}, "n.0"),
        ({"n": (2, 3), "pitch_mm": (1, -1)}, "pitch_mm.1"),
        ({"n": (2, 3), "pitch_mm": (1, math.inf)}, "pitch_mm.1"),
        ({"r_mm": (1, 2), "n_phi": 3}, "the first radius must be 0, got 1"),
        (
            {"r_mm": (0, 2, 2), "n_phi": 3},
            "the radii must grow; 2 follows 2, so that rings overlap",
        ),
        ({"r_mm": (0,), "n_phi": 3}, "r_mm"),
        ({"r_mm": (0, 1), "n_phi": 0}, "n_phi"),
        ({"r_mm": (0, 1), "n_phi": 1, "n": 3}, "n\n"),
    ],
)
def test_impossible_cells(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        (PolarCells if "r_mm" in arguments else XYCells)(**arguments)


def test_changed_fields_must_fit_the_layers() -> None:
    for change in ({"shape": (505,)}, {"axes": ("x",)}, {"pitch_mm": (1.0,)}):
        with pytest.raises(DataError, match="are not those of its layers"):
            replace(BARS, **change)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_records_end_in_one_message(data: st.DataObject) -> None:
    """One value of a record replaced by anything: a geometry, or DataError."""
    record = copy.deepcopy(data.draw(st.sampled_from(ALL)).to_dict())
    node: Any = record
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        inner = node[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            node[key] = data.draw(JUNK)
            break
        node = inner
    try:
        assert Geometry.from_dict(record).n_cells > 0
    except DataError as error:
        assert "geometry" in str(error)
