"""ROOT files: users' trees, round trips, and the missing extra."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import uproot

from hepbridge.core.errors import DataError, MissingExtraError
from hepbridge.data import Geometry, Showers, load, open_reader, open_writer, read_manifest, save

GRID = Geometry("grid", (2, 3), ("x", "y"), (10.0, 10.0))


def make(n: int = 9) -> Showers:
    rng = np.random.default_rng(0)
    showers = Showers.from_arrays(
        rng.exponential(10.0, (n, 6)).astype(np.float32),
        rng.uniform(1e4, 1e5, n).astype(np.float32),
        geometry=GRID,
        conditions={"angle": rng.normal(size=n)},
        weights=rng.normal(size=n),
        columns={"run": np.arange(n), "vertex": rng.normal(size=(n, 3))},
        meta={"simulation": "toy"},
    )
    return replace(showers, event_ids=showers.event_ids + np.uint64(5))


def test_round_trip_in_blocks(tmp_path: Path) -> None:
    showers, path = make(), tmp_path / "a.root"
    with open_writer(path, like=showers, n=9, manifest={"a": 1}) as writer:
        writer.append(showers[:4])
        writer.append(showers[4:])
    assert read_manifest(path) == {"a": 1}
    with open_reader(path, geometry=GRID) as reader:
        parts = list(reader.blocks(5))
        assert reader.event_uid == showers.event_ids[0, 0]
    for whole, of in (
        (showers.cells, lambda s: s.cells),
        (showers.event_ids, lambda s: s.event_ids),
    ):
        assert np.array_equal(np.concatenate([of(p) for p in parts]), whole)
    back = load(path, geometry=None)
    assert back.geometry == GRID
    assert back.meta == showers.meta
    assert back.weights is not None and np.array_equal(back.weights, showers.weights)
    for name in ("incident_energy", "angle"):
        assert np.array_equal(back.conditions[name], showers.conditions[name])
    for name in ("run", "vertex"):
        assert np.array_equal(back.columns[name], showers.columns[name])


def user_tree(
    path: Path, cells: dict[str, np.ndarray], energy: np.ndarray, **extra: object
) -> Path:
    with uproot.recreate(path) as file:
        arrays = {**cells, "E": energy, **extra}
        file.mktree("ntuple", {k: np.dtype((v.dtype, v.shape[1:])) for k, v in arrays.items()})
        file["ntuple"].extend(arrays)
    return path


def test_trees_with_the_users_names(tmp_path: Path) -> None:
    showers = make()
    cells, energy = showers.cells / 1000, showers.incident_energy / 1000
    flat = {f"c{i}": np.ascontiguousarray(cells[:, i]) for i in range(6)}
    path = user_tree(tmp_path / "flat.root", flat, energy, run=np.arange(9))
    options = {"geometry": GRID, "unit": "GeV", "tree": "ntuple", "incident_energy": "E"}
    loaded = load(path, cells=[f"c{i}" for i in range(6)], **options)
    assert np.allclose(loaded.cells, showers.cells, rtol=1e-6)
    assert np.allclose(loaded.incident_energy, showers.incident_energy)
    assert loaded.columns["run"].tolist() == list(range(9))
    path = user_tree(tmp_path / "array.root", {"cells": cells}, energy)
    assert np.array_equal(load(path, cells="cells", **options).cells, loaded.cells)


def test_vectors_of_constant_length(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import awkward as ak

    path = tmp_path / "a.root"
    cells = make().cells
    with uproot.recreate(path) as file:
        file.mktree("t", {"cells": "var * float32", "hits": "var * float32", "E": np.float64})
        ragged = ak.Array([[1.0] * (i % 3) for i in range(9)])
        jagged = ak.values_astype(ak.from_regular(ak.Array(cells)), "float32")
        file["t"].extend({"cells": jagged, "hits": ragged, "E": np.full(9, 5e4)})
    options = {"geometry": GRID, "tree": "t", "incident_energy": "E"}
    assert np.array_equal(load(path, cells="cells", **options).cells, cells)
    assert "'hits' is not carried along" in caplog.text
    with pytest.raises(DataError, match="'hits' has rows of different lengths"):
        load(path, cells="hits", **options)


def test_wrong_names_and_cells(tmp_path: Path) -> None:
    path = user_tree(tmp_path / "a.root", {"cells": make().cells}, make().incident_energy)
    with pytest.raises(DataError, match=r"there is no TTree 'showers'; the file has: ntuple"):
        load(path, geometry=GRID)
    with pytest.raises(
        DataError, match=r"has no branch 'showers'; it has: .*cells.*E.*Pass cells="
    ):
        load(path, geometry=GRID, tree="ntuple")
    with pytest.raises(DataError, match="6 cells per shower, but geometry 'squirels' has 100"):
        load(path, tree="ntuple", cells="cells", incident_energy="E")
    with pytest.raises(DataError, match="'cells' must hold one number per row"):
        load(path, geometry=GRID, tree="ntuple", cells="cells", incident_energy="cells")
    save(make(), tmp_path / "b.root")
    with pytest.raises(DataError, match="was written for geometry"):
        load(tmp_path / "b.root", geometry=replace(GRID, pitch_mm=(1.0, 1.0)))
    assert load(tmp_path / "b.root").geometry == GRID


def test_what_a_tree_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'label' .* has no place in a ROOT tree"):
        save(replace(make(), columns={"label": np.array(["a"] * 9)}), tmp_path / "a.root")
    with (
        pytest.raises(DataError, match="got 9 showers, 10 needed"),
        open_writer(tmp_path / "a.root", n=10) as writer,
    ):
        writer.append(make())
    assert list(tmp_path.iterdir()) == []


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(make(), tmp_path / "a.root")
    monkeypatch.setitem(sys.modules, "uproot", None)
    with pytest.raises(
        MissingExtraError, match=r"needs .*'uproot': pip install 'hepbridge\[root\]'"
    ):
        load(tmp_path / "a.root", geometry=GRID)
    with pytest.raises(MissingExtraError, match=r"writing .*b.root needs"):
        save(make(), tmp_path / "b.root")
