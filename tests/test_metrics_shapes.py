"""Shapes of showers against slow loops; cells and points alike; blocks of any size; few bytes."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data import io
from hepbridge.data.formats.points import save_points
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.metrics.shapes.layout import Layout
from hepbridge.metrics.shapes.shapes import SHAPES, SPECTRUM_SHOWERS, Shapes
from hepbridge.metrics.shapes.sources import read_samples
from shape_toys import GEOMETRIES, RINGS, STACK, as_points, random_showers, stack_showers


def slow_shape(showers: Showers, row: int, threshold: float) -> dict[str, float]:
    """The definitions, cell by cell."""
    g, cells = showers.geometry, [float(c) for c in showers.cells[row]]
    depth = [
        float(k) if p.z_mm is None else (p.z_mm[0] + p.z_mm[1]) / 2
        for k, p in enumerate(g.planes())
    ]
    place = {"x": g.x_mm, "y": g.y_mm, "z": [depth[k] for k in g.layer_index]}
    out = {"e_sum": 0.0, "e_max": 0.0, "n_hit": 0.0}
    for energy in cells:
        out["e_sum"] += energy
        out["e_max"] = max(out["e_max"], energy)
        out["n_hit"] += energy > threshold
    for axis, where in place.items():
        if not out["e_sum"]:
            out[f"centre_{axis}"] = out[f"width_{axis}"] = math.nan
            continue
        centre = sum(e * p for e, p in zip(cells, where, strict=True)) / out["e_sum"]
        square = sum(e * (p - centre) ** 2 for e, p in zip(cells, where, strict=True))
        out[f"centre_{axis}"] = centre
        out[f"width_{axis}"] = math.sqrt(square / out["e_sum"])
    return out


def same_bits(a: Shapes, b: Shapes) -> None:
    assert all(np.array_equal(a.values[k], b.values[k], equal_nan=True) for k in SHAPES)
    for name in ("layers", "hits", "rings", "incident_energy", "event_ids", "kept_rows"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    for name in ("x_mm", "y_mm", "z_mm", "energy", "offsets"):
        assert np.array_equal(getattr(a.kept, name), getattr(b.kept, name)), name


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: g.name)
def test_shapes_are_those_of_a_loop_over_cells(geometry: Geometry) -> None:
    """Fails if x and y, or layers, are exchanged; if widths are not central; if > becomes >=."""
    showers = random_showers(geometry, 12, 3)
    showers.cells[0, np.flatnonzero(showers.cells[0])[0]] = 2.5  # at the threshold: no hit
    found = Shapes.of(showers, threshold_mev=2.5)
    for row in range(len(showers)):
        for name, value in slow_shape(showers, row, 2.5).items():
            mine = found.values[name][row]
            assert mine == pytest.approx(value, rel=1e-6, abs=1e-5, nan_ok=True), (name, row)
    layer = geometry.layer_index
    edges = Layout.of(geometry).r_edges
    radius = np.hypot(geometry.x_mm, geometry.y_mm)
    for k in range(len(geometry.planes())):
        cells = showers.cells[:, layer == k]
        assert found.layers[:, k] == pytest.approx(cells.sum(axis=1), rel=1e-6)
        assert found.hits[:, k].tolist() == (cells > 2.5).sum(axis=1).tolist()
    for k in range(len(edges) - 1):
        inside = (radius >= edges[k] * (1 - 1e-6)) & (radius < edges[k + 1] * (1 - 1e-6))
        expected = showers.cells[:, inside].sum(axis=1)
        assert found.rings[:, k] == pytest.approx(expected, rel=1e-6, abs=1e-4)
    assert found.rings.sum(axis=1) == pytest.approx(showers.e_sum, rel=1e-9)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: g.name)
def test_points_and_cells_of_the_same_showers_give_equal_numbers(geometry: Geometry) -> None:
    showers = random_showers(geometry, 40, 5)
    cells = Shapes.of(showers)
    points = Shapes.of(as_points(showers), Layout.of(geometry))
    same_bits(cells, points)
    assert points.cells is None and np.array_equal(cells.cells, showers.cells)
    assert cells.layout.digest() == points.layout.digest()


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_the_size_of_a_block_changes_no_bit(size: int) -> None:
    showers = stack_showers(150, 1, np.random.default_rng(0).uniform(1e3, 1e5, 150))
    whole = Shapes.of(showers)
    blocks = (showers[k : k + size] for k in range(0, len(showers), size))
    same_bits(whole, Shapes.of_blocks(blocks, showers.incident_energy, whole.layout))


def test_files_give_the_bits_of_memory(tmp_path: Path) -> None:
    """Cells and points, one file and several; fails if a file's rows are counted twice."""
    showers = stack_showers(120, 1)
    io.save(showers, tmp_path / "all.h5")
    io.save(showers[:50], tmp_path / "a.h5")
    io.save(showers[50:], tmp_path / "b.h5")
    save_points(as_points(showers), tmp_path / "points.h5")
    files = {
        "ref": [tmp_path / "all.h5"],
        "parts": [tmp_path / "a.h5", tmp_path / "b.h5"],
        "points": [tmp_path / "points.h5"],
    }
    found = read_samples(files, block_bytes=4 * 216 * 11)  # blocks of 11 showers
    for name in files:
        same_bits(Shapes.of(showers), found[name])
    assert found["parts"].cells is not None and found["points"].cells is None


def test_memory_does_not_grow_with_the_cells(tmp_path: Path) -> None:
    """Fails if a file is loaded: 3,000 x 6,480 cells are 78 MB, what is kept of them is 4 MB."""
    geometry = Geometry("voxels", (45, 16, 9), ("z", "x", "y"), (3.4, 4.0, 4.0))
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "big.h5", "w") as file:
        file["incident_energies"] = np.full((3000, 1), 2000.0, "f4")
        file["event_id"] = np.stack([np.ones(3000), np.arange(3000)], axis=1).astype("u8")
        cells = file.create_dataset("showers", (3000, 6480), "f4", chunks=(50, 6480), compression=1)
        for start in range(0, 3000, 500):
            block = np.zeros((500, 6480), "f4")
            block[:, rng.integers(6480, size=60)] = rng.exponential(20.0, (500, 60))
            cells[start : start + 500] = block
    tracemalloc.start()
    (shapes,) = read_samples({"ref": [tmp_path / "big.h5"]}, geometry, block_bytes=1 << 21).values()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(shapes) == 3000
    assert kept < 10e6 and peak < 25e6  # 4 and 12 MB where it was written


def test_rows_take_their_kept_showers_along() -> None:
    showers = stack_showers(2 * SPECTRUM_SHOWERS, 1)
    shapes = Shapes.of(showers)
    assert 0.9 < len(shapes.kept_rows) / SPECTRUM_SHOWERS < 1.1
    rows = np.array([*shapes.kept_rows[:3], *np.setdiff1d(np.arange(2000), shapes.kept_rows)[:2]])
    part = shapes[rows[::-1]]
    assert part.kept_rows.tolist() == [2, 3, 4]
    assert part.kept.energy[part.kept.owner == 0].sum() == pytest.approx(showers.e_sum[rows[2]])
    assert np.array_equal(part.values["width_y"], shapes.values["width_y"][rows[::-1]])
    both = Shapes.joined([part, shapes[:10]])
    assert len(both) == 15 and np.array_equal(both.layers[5:], shapes.layers[:10])
    assert both.kept_rows[:3].tolist() == [2, 3, 4] and (both.kept_rows[3:] >= 5).all()
    other = Shapes.of(stack_showers(2 * SPECTRUM_SHOWERS, 2, 50_000.0))
    assert np.array_equal(other.kept_rows, shapes.kept_rows)


def test_positions_are_taken_from_the_stated_axis() -> None:
    """A shower that is moved by one cell, and says so, has the shape it had."""
    showers = stack_showers(30, 1)
    grid = showers.cells.reshape(-1, 6, 6, 6)[:, :, :5]  # nothing in the last column of x
    cells, moved = (np.zeros((30, 6, 6, 6), "f4") for _ in range(2))
    cells[:, :, :5], moved[:, :, 1:] = grid, grid
    plain, shifted = (
        Showers.from_arrays(c, showers.incident_energy, geometry=STACK, conditions=conditions)
        for c, conditions in ((cells, {}), (moved, {"x_mm": np.full(30, 10.0)}))
    )
    a, b = Shapes.of(plain), Shapes.of(shifted)
    assert b.from_axis and not a.from_axis
    for name in SHAPES:
        assert b.values[name] == pytest.approx(a.values[name], abs=1e-4), name
    assert b.rings == pytest.approx(a.rings, rel=1e-6)
    slanted = Showers.from_arrays(
        cells, showers.incident_energy, geometry=STACK, conditions={"theta_rad": np.full(30, 0.1)}
    )
    depth = a.values["centre_z"] * np.tan(0.1)
    assert Shapes.of(slanted).values["centre_x"] == pytest.approx(
        a.values["centre_x"] - depth, abs=1e-4
    )


def test_what_cannot_be_is_refused() -> None:
    showers = stack_showers(10, 1)
    layout = Layout.of(STACK)
    with pytest.raises(ConfigError, match="threshold"):
        Shapes.of(showers, threshold_mev=math.nan)
    with pytest.raises(DataError, match="5 showers came, but 10 were announced"):
        Shapes.of_blocks([showers[:5]], showers.incident_energy, layout)
    with pytest.raises(DataError, match="more showers than the 5"):
        Shapes.of_blocks([showers], showers.incident_energy[:5], layout)
    with pytest.raises(DataError, match="'rings' cannot be sorted into the layers of 'stack'"):
        Shapes.of(random_showers(RINGS, 5, 1), layout)
    slanted = Showers.from_arrays(
        random_showers(RINGS, 5, 1).cells[:4],
        [10.0] * 4,
        geometry=RINGS,
        conditions={"theta_rad": [0.1] * 4},
    )
    with pytest.raises(DataError, match="how deep its layers are"):
        Shapes.of(slanted)


def test_layers_of_points_are_their_depths_or_slices() -> None:
    points = as_points(stack_showers(20, 1))
    layout = Layout.of_points(points)
    assert layout.depths.tolist() == [10.0, 30.0, 50.0, 70.0, 90.0, 110.0]
    assert layout.z_edges.tolist() == [0.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0]
    # the six radii of a grid of 6 x 6 cells of 10 mm, each in a ring of its own
    radii = np.hypot(*np.array([(5, 5), (15, 5), (15, 15), (25, 5), (25, 15), (25, 25)]).T)
    assert layout.ring_of(radii).tolist() == [0, 1, 2, 3, 4, 5] and len(layout.r_edges) == 7
    rng = np.random.default_rng(1)
    smeared = points.z_mm + rng.uniform(-9, 9, len(points.z_mm)).astype("f4")
    layout = Layout.of_points(type(points)(**{**vars(points), "z_mm": smeared}))
    assert layout.n_layers == 30 and np.ptp(np.diff(layout.z_edges)) < 1e-9
    inside = (smeared > layout.z_edges[0]) & (smeared < layout.z_edges[-1])
    assert 0.99 < points.energy[inside].sum() / points.energy.sum() < 1
