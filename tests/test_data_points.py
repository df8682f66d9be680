"""Clouds of points: the container, the files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from hepbridge.core.errors import DataError, OutputError
from hepbridge.data.cell_map import CellMap
from hepbridge.data.formats.points import is_points, load_points, open_points, save_points
from hepbridge.data.points import PointShowers

HITS = np.array(
    [[1.0, 2.0, 3.0, 10.0], [4.0, 5.0, 6.0, 20.0], [0.0, 0.0, 0.0, 0.0], [7.0, 8.0, 9.0, 30.0]]
)
OFFSETS = np.array([0, 3, 3, 4])  # three showers; the second is empty
ENERGY = [100.0, 200.0, 300.0]


def cloud(**options: object) -> PointShowers:
    return PointShowers.from_hits(HITS, OFFSETS, ENERGY, **options)  # type: ignore[arg-type]


def equal(a: PointShowers, b: PointShowers) -> None:
    for name in ("x_mm", "y_mm", "z_mm", "energy", "offsets", "incident_energy"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


def test_hits_without_energy_are_dropped_and_rows_keep_theirs() -> None:
    points = cloud(weights=[1.0, 2.0, 3.0])
    assert len(points) == 3 and points.offsets.tolist() == [0, 2, 2, 3]
    assert points.owner.tolist() == [0, 0, 2]
    assert points.energy.tolist() == [10.0, 20.0, 30.0] and points.x_mm.tolist() == [1, 4, 7]
    part = points[np.array([2, 1, 0, 0])]
    assert part.offsets.tolist() == [0, 1, 1, 3, 5]
    assert part.z_mm.tolist() == [9, 3, 6, 3, 6] and part.weights.tolist() == [3, 2, 1, 1]
    assert part.event_ids[:, 1].tolist() == [2, 1, 0, 0]
    assert points[points.incident_energy > 150].energy.tolist() == [30.0]
    both = PointShowers.joined([part, cloud()])
    assert both.offsets.tolist() == [0, 1, 1, 3, 5, 7, 7, 8]
    assert both.weights.tolist() == [3, 2, 1, 1, 1, 1, 1]
    assert cloud(unit="GeV").energy.tolist() == [1e4, 2e4, 3e4]
    assert cloud(unit="GeV").incident_energy.tolist() == [1e5, 2e5, 3e5]


def test_padded_and_ragged_are_the_same() -> None:
    padded = np.zeros((3, 5, 4))
    padded[0, [0, 3]], padded[2, 4] = HITS[:2], HITS[3]
    equal(PointShowers.from_padded(padded, ENERGY), cloud())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hits": HITS[:, :3]}, r"shape \(M, 4\)"),
        ({"hits": np.where(HITS == 9, np.nan, HITS)}, "row 12 holds NaN"),
        ({"hits": np.where(HITS == 8, np.inf, HITS)}, "row 12 holds NaN or infinity"),
        ({"hits": -HITS}, "must not be negative; row 10 holds -10"),
        ({"hits": HITS * 1e38}, "too large"),
        ({"hits": [["a", "b", "c", "d"]]}, "must be numbers"),
        ({"hits": [[1, 2], [3]]}, "no array of numbers"),
        ({"offsets": OFFSETS[:3]}, "offsets must be 4 integers"),
        ({"offsets": OFFSETS + 0.5}, "offsets must be 4 integers"),
        ({"offsets": [0, 3, 2, 4]}, "backwards in between"),
        ({"offsets": [0, 3, 3, 9]}, "they run from 0 to 9"),
        ({"offsets": [1, 3, 3, 4]}, "they run from 1 to 4"),
        ({"incident_energy": [100.0, 0.0, 1.0]}, "positive and finite; row 11 is 0"),
        ({"incident_energy": [np.nan, 1.0, 1.0]}, "positive and finite; row 10 is nan"),
        ({"incident_energy": []}, "holds no showers"),
        ({"unit": "TeV"}, "unit 'TeV' is unknown"),
        ({"weights": [1.0, np.nan, 1.0]}, "weights must be 3 finite numbers"),
    ],
)
def test_impossible_arrays_are_refused(change: dict[str, object], message: str) -> None:
    given = {"hits": HITS, "offsets": OFFSETS, "incident_energy": ENERGY, **change}
    with pytest.raises(DataError, match=message):
        PointShowers.from_hits(**given, where="here", first_row=10)  # type: ignore[arg-type]


def test_files_come_back_in_any_blocks(tmp_path: Path) -> None:
    points = cloud(weights=[1.0, 2.0, 3.0], meta={"particle": "photon"})
    path = tmp_path / "ragged.h5"
    save_points(points, path)
    assert is_points(path)
    back = load_points(path)
    equal(back, points)
    assert np.array_equal(back.event_ids, points.event_ids)
    assert back.weights.tolist() == [1, 2, 3] and back.meta == {"particle": "photon"}
    for size in (1, 2):
        with open_points(path) as reader:
            equal(PointShowers.joined(list(reader.blocks(size))), points)
    with pytest.raises(OutputError, match="exists"):
        save_points(points, path)
    save_points(points, path, overwrite=True)


def test_ragged_files_with_their_own_order_and_units(tmp_path: Path) -> None:
    path = tmp_path / "ragged.h5"
    with h5py.File(path, "w") as file:
        file["points"] = HITS[:, [3, 0, 1, 2]] / [1e3, 1, 1, 1]
        file["offsets"], file["incident_energies"] = OFFSETS, ENERGY
        file.attrs["columns"], file.attrs["units"] = "energy, x, y, z", "GeV"
        file.attrs["incident_units"] = "MeV"
    equal(load_points(path), cloud())


@pytest.mark.parametrize("turned", [False, True])
def test_padded_files_with_their_own_order_and_units(tmp_path: Path, turned: bool) -> None:
    """As public point clouds have them: (N, 4, P), z before y, hits in MeV, energies in GeV."""
    padded = np.zeros((3, 6, 4))
    padded[0, [0, 3]], padded[2, 4] = HITS[:2], HITS[3]
    stored = padded[:, :, [0, 2, 1, 3]]
    path = tmp_path / "padded.h5"
    with h5py.File(path, "w") as file:
        file["events"] = stored.transpose(0, 2, 1) if turned else stored
        file["energy"] = np.array(ENERGY)[:, None] / 1e3
        file.attrs["columns"], file.attrs["incident_units"] = "x z y energy", "GeV"
    equal(load_points(path), cloud())


def hgcal(path: Path, cells: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["showers"] = cells
        file["gen_info"] = np.array([[50.0, 2.0, 0.1]] * len(cells))


def test_showers_of_the_hgcal_challenge_lie_where_the_map_says(tmp_path: Path) -> None:
    """GeV become MeV; a layer with fewer cells is padded."""
    with h5py.File(tmp_path / "map.h5", "w") as file:
        file["x_mm"] = np.arange(6.0).reshape(2, 3)
        file["y_mm"] = -10.0 * np.arange(6.0).reshape(2, 3)
        file["n_cells"] = [3, 2]
        file["z_mm"] = [5.0, 25.0]
    cells = CellMap.load(tmp_path / "map.h5")
    assert cells.exists.tolist() == [[True] * 3, [True, True, False]]
    showers = np.zeros((2, 2, 3), "f4")
    showers[0, 0, 2], showers[1, 1, 0] = 0.25, 0.5
    hgcal(tmp_path / "showers.h5", showers)
    assert is_points(tmp_path / "showers.h5") and not is_points(tmp_path / "map.h5")
    points = load_points(tmp_path / "showers.h5", cells=cells)
    assert points.energy.tolist() == [250.0, 500.0] and points.owner.tolist() == [0, 1]
    assert (points.x_mm.tolist(), points.y_mm.tolist()) == ([2, 3], [-20, -30])
    assert points.z_mm.tolist() == [5, 25] and points.incident_energy.tolist() == [5e4, 5e4]
    with pytest.raises(DataError, match="do not say where their cells are"):
        load_points(tmp_path / "showers.h5")
    showers[1, 1, 2] = 1.0
    hgcal(tmp_path / "other.h5", showers)
    with pytest.raises(DataError, match="row 1 has energy in a cell that the map"):
        load_points(tmp_path / "other.h5", cells=cells)
    hgcal(tmp_path / "wide.h5", np.zeros((2, 2, 4), "f4"))
    with pytest.raises(DataError, match=r"\(2, 4\), but the map of cells 'map' has \(2, 3\)"):
        load_points(tmp_path / "wide.h5", cells=cells)
    showers[1, 1] = 0.0, np.nan, 0.0
    hgcal(tmp_path / "nan.h5", showers)
    with pytest.raises(DataError, match="row 1 holds NaN"):
        load_points(tmp_path / "nan.h5", cells=cells)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_mm": np.zeros((2, 2))}, "one shape"),
        ({"x_mm": np.full((2, 3), np.nan)}, "x but no y"),
        (
            {"x_mm": np.full((2, 3), np.nan), "y_mm": np.full((2, 3), np.nan)},
            "layer 0 has no cells",
        ),
        ({"z_mm": np.array([1.0, 1.0])}, "depths that grow"),
        ({"z_mm": np.array([1.0, np.nan])}, "finite depths"),
    ],
)
def test_impossible_maps_are_refused(change: dict[str, np.ndarray], message: str) -> None:
    given = {"x_mm": np.zeros((2, 3)), "y_mm": np.zeros((2, 3)), "z_mm": np.array([0.0, 1.0])}
    with pytest.raises(DataError, match=message):
        CellMap("m", **{**given, **change})


def test_files_that_are_no_clouds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"

    def write(attributes: dict[str, object] | None = None, **datasets: object) -> Path:
        with h5py.File(path, "w") as file:
            for name, value in datasets.items():
                file[name] = value
            file.attrs.update(attributes or {})
        return path

    ragged = {"points": HITS, "offsets": OFFSETS, "incident_energies": ENERGY}
    cases: list[tuple[dict[str, object], str]] = [
        ({"cells": HITS}, "holds no point clouds; the file has cells"),
        ({**ragged, "points": HITS[:, :3]}, r"points must be numbers of shape \(M, 4\)"),
        ({**ragged, "offsets": [0.0, 1.0]}, "offsets must be integers"),
        ({**ragged, "offsets": [0, 4, 3, 4]}, "backwards in between"),
        ({**ragged, "offsets": [0, 3, 3, 10**12]}, "run from 0 to 1000000000000"),
        ({**ragged, "incident_energies": ENERGY[:2]}, "3 showers but 2 incident energies"),
        ({**ragged, "incident_energies": [b"a"] * 3}, "must be an array of numbers"),
        ({**ragged, "event_id": [1, 2, 3]}, "'event_id' must be numbers of shape"),
        ({"events": HITS, "energy": ENERGY}, r"\(N, points, 4\)"),
        ({"events": np.zeros((0, 5, 4)), "energy": np.zeros(0)}, "holds no showers"),
        ({**ragged, "points": np.where(HITS == 9, np.nan, HITS)}, "row 2 holds NaN"),
    ]
    for datasets, message in cases:
        with pytest.raises(DataError, match=message):
            load_points(write(**datasets))
    with pytest.raises(DataError, match="must name x, y, z, energy"):
        load_points(write({"columns": "x y z"}, **ragged))
    with pytest.raises(DataError, match="unit 'eV' is unknown"):
        load_points(write({"units": "eV"}, **ragged))
    with pytest.raises(DataError, match="there is no such file"):
        load_points(tmp_path / "none.h5")
    path.write_bytes(write(**ragged).read_bytes()[:900])
    assert not is_points(path)
    with pytest.raises(DataError, match="truncated or damaged"):
        load_points(path)


def test_a_header_that_declares_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hostile.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("events", (10**7, 6000, 4), "f4", chunks=(1, 6000, 4), compression=9)
        file.create_dataset("energy", (10**7, 1), "f4", chunks=(1000, 1), compression=9)
    with pytest.raises(DataError, match=r"declares .* bytes"):
        load_points(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("x_mm", (10**6, 10**4), "f8", chunks=(10, 10), compression=9)
        file["y_mm"] = np.zeros((2, 2))
    with pytest.raises(DataError, match=r"declares .* bytes"):
        CellMap.load(path)
