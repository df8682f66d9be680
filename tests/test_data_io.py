"""Shower files: round trips, streaming, and every bad input with its message."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hepbridge.core.errors import ConfigError, DataError, HepbridgeError, OutputError
from hepbridge.data import (
    SQUIRELS,
    Geometry,
    Showers,
    load,
    open_reader,
    open_writer,
    read_manifest,
    save,
)
from hepbridge.data.showers import make_event_ids

GRID = Geometry("grid", (2, 3), ("x", "y"), (10.0, 10.0))
PROPERTY = settings(
    derandomize=True,
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def make(n: int = 7, seed: int = 0, **changes: object) -> Showers:
    rng = np.random.default_rng(seed)
    showers = Showers.from_arrays(
        rng.exponential(10.0, (n, 6)).astype(np.float32),
        rng.uniform(1e4, 1e5, n).astype(np.float32),
        geometry=GRID,
        meta={"simulation": "toy", "year": 2026, "cut": 0.7, "ok": True},
    )
    return replace(showers, **changes)


def rich(n: int = 7) -> Showers:
    rng = np.random.default_rng(1)
    return make(
        n,
        weights=rng.normal(size=n),
        columns={
            "run": np.arange(n),
            "vertex": rng.normal(size=(n, 3)),
            "flag": np.arange(n) % 2 == 0,
            "label": np.array([f"é{i}" for i in range(n)]),
        },
        conditions={**make(n).conditions, "angle": rng.normal(size=n)},
    )


def user_file(path: Path, **datasets: object) -> Path:
    """A plain CaloChallenge file as a user has it; None removes a dataset."""
    showers = make()
    content = {"incident_energies": showers.incident_energy[:, None], "showers": showers.cells}
    with h5py.File(path, "w") as file:
        for name, value in {**content, **datasets}.items():
            if value is not None:
                file[name] = value
    return path


def assert_same(a: Showers, b: Showers) -> None:
    assert np.array_equal(a.cells, b.cells)
    assert np.array_equal(a.event_ids, b.event_ids)
    assert a.geometry == b.geometry
    assert a.conditions.keys() == b.conditions.keys()
    assert all(np.array_equal(a.conditions[k], b.conditions[k]) for k in a.conditions)
    assert a.columns.keys() == b.columns.keys()
    assert all(np.array_equal(a.columns[k], b.columns[k]) for k in a.columns)
    assert (a.weights is None) == (b.weights is None)
    assert a.weights is None or np.array_equal(a.weights, b.weights)
    assert a.meta == b.meta


# --- round trips -------------------------------------------------------------------------------


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    """Fails if ids are made anew on reading, or if a column, weight or condition is dropped."""
    odd = {"simulation": "toy", "geometry": "prose", "list": [1, "a", None], "nul": "a\0b", "": 1}
    showers = replace(rich(), meta=odd)
    save(showers, tmp_path / "a.h5")
    assert_same(load(tmp_path / "a.h5", geometry=GRID), showers)
    assert_same(load(tmp_path / "a.h5", geometry=None), showers)


def test_layout_is_that_of_the_calochallenge(tmp_path: Path) -> None:
    showers = make()
    save(showers, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["incident_energies"].shape == (7, 1)
        assert file["showers"].shape == (7, 6)
        assert file["event_id"].dtype == np.uint64
        for name in ("incident_energies", "showers"):
            assert file[name].dtype == np.float32
            assert (file[name].compression, file[name].shuffle) == ("gzip", True)
            assert file[name].fletcher32
        assert np.array_equal(file["showers"][...], showers.cells)
        assert json.loads(file.attrs["geometry"]) == GRID.to_dict()


def test_user_columns_and_ids_survive_read_change_write(tmp_path: Path) -> None:
    path = user_file(tmp_path / "user.h5", run=np.arange(7), name=[f"n{i}" for i in range(7)])
    before = load(path, geometry=GRID)
    save(before.with_cells(before.cells * 2), tmp_path / "refined.h5")
    after = load(tmp_path / "refined.h5", geometry=GRID)
    assert np.array_equal(after.event_ids, before.event_ids)
    assert after.columns["run"].tolist() == list(range(7))
    assert after.columns["name"].tolist() == [b"n0".decode()] + [f"n{i}" for i in range(1, 7)]


def test_columns_that_cannot_be_carried_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = user_file(tmp_path / "a.h5", summary=np.arange(3))
    assert load(path, geometry=GRID).columns == {}
    assert "'summary' has no 7 rows and is not carried along" in caplog.text


def test_ids_of_streaming_and_of_loading_agree(tmp_path: Path) -> None:
    """Fails if the uid depends on the block size or on anything but energies and 2 x 1024 rows."""
    showers = make(2500)
    path = tmp_path / "a.h5"
    user_file(path, incident_energies=showers.incident_energy, showers=showers.cells)
    expected = make_event_ids(showers.cells, showers.incident_energy)
    assert np.array_equal(load(path, geometry=GRID).event_ids, expected)
    with open_reader(path, geometry=GRID) as reader:
        assert reader.event_uid == expected[0, 0]
        assert len(reader) == 2500
        ids = np.concatenate([block.event_ids for block in reader.blocks(999)])
    assert np.array_equal(ids, expected)
    assert np.array_equal(load(path, geometry=GRID, rows=slice(3, 9, 2)).event_ids, expected[3:9:2])
    assert len(load(path, geometry=GRID, rows=5)) == 5


def test_unit_of_the_file_and_of_the_user(tmp_path: Path) -> None:
    path = user_file(tmp_path / "a.h5")
    plain = load(path, geometry=GRID)
    with h5py.File(path, "a") as file:
        file.attrs["units"] = "GeV"
    gev = load(path, geometry=GRID)
    assert np.allclose(gev.cells, plain.cells * 1000, rtol=1e-6)
    assert np.allclose(gev.incident_energy, plain.incident_energy * 1000)
    assert np.array_equal(load(path, geometry=GRID, unit="MeV").cells, plain.cells)
    with pytest.raises(DataError, match="unit 'keV' is unknown; allowed: MeV, GeV"):
        load(path, geometry=GRID, unit="keV")


@PROPERTY
@given(
    cells=arrays(np.float32, (5, 6), elements=st.floats(0, 1e6, width=32)),
    energy=arrays(np.float32, 5, elements=st.floats(1, 1e6, width=32)),
    meta=st.dictionaries(
        st.text(max_size=8),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()),
    ),
    blocks=st.integers(1, 5),
)
def test_any_showers_come_back(
    tmp_path: Path, cells: np.ndarray, energy: np.ndarray, meta: dict, blocks: int
) -> None:
    meta.pop("units", None)
    showers = Showers.from_arrays(cells + np.float32(1), energy, geometry=GRID, meta=meta)
    path = tmp_path / "a.h5"
    with open_writer(path, like=showers, n=5, overwrite=True) as writer:
        for start in range(0, 5, blocks):
            writer.append(showers[start : start + blocks])
    assert_same(load(path, geometry=GRID), showers)


def test_manifest(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    manifest = {"model": "abc", "inputs": ["x" * 100] * 2000}  # more than an HDF5 header holds
    save(make(), path, manifest=manifest)
    assert read_manifest(path) == manifest
    save(make(), path, overwrite=True)
    assert read_manifest(path) is None
    assert read_manifest(tmp_path / "none.h5") is None
    (tmp_path / "b.h5").write_bytes(path.read_bytes()[:1000])
    assert read_manifest(tmp_path / "b.h5") is None


# --- writing that goes wrong -------------------------------------------------------------------


def test_output_exists(tmp_path: Path) -> None:
    save(make(), tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
        save(make(seed=1), tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_bytes() == before
    save(make(seed=1), tmp_path / "a.h5", overwrite=True)
    assert np.array_equal(load(tmp_path / "a.h5", geometry=GRID).cells, make(seed=1).cells)


def test_suffix_and_folder(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"suffix '.txt' is not one.*allowed: .h5, .hdf5, .npy, .root"
    ):
        save(make(), tmp_path / "a.txt")
    with pytest.raises(OutputError, match=r"the folder .* does not exist"):
        save(make(), tmp_path / "no" / "a.h5")


@pytest.mark.parametrize("n", [5000, 300], ids=["while adding rows", "when closing"])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """The disk is full after 50 kB, at whatever write of HDF5 that is."""
    real, room = os.write, 50_000

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal room
        room -= len(data)
        if room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    cells = np.random.default_rng(0).random((n, 100), dtype=np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OutputError, match=r"the disk is full while writing .*a.h5; free some"):
            save(Showers.from_arrays(cells, np.full(n, 100.0)), tmp_path / "a.h5")
    assert room < 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_real_write_failure_leaves_nothing(tmp_path: Path) -> None:
    """The system refuses to let the file grow beyond 64 kB; the process ends in good order.

    Fails (segmentation fault at exit) if HDF5 itself sees the failure.
    """
    script = f"""
import resource, signal, numpy as np
from hepbridge.core.errors import OutputError
from hepbridge.data import Showers, save
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
cells = np.random.default_rng(0).random((5000, 100), dtype=np.float32)
showers = Showers.from_arrays(cells, np.full(5000, 100.0))
try:
    save(showers, {str(tmp_path / "a.h5")!r})
except OutputError as error:
    print("OutputError", error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("OutputError cannot write")
    assert "a.h5" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_incomplete_writing_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="got 7 showers, 8 needed"),
        open_writer(tmp_path / "a.h5", n=8) as writer,
    ):
        writer.append(make())
    with (
        pytest.raises(DataError, match="got 0 showers, at least one needed"),
        open_writer(tmp_path / "a.h5"),
    ):
        pass
    with pytest.raises(ZeroDivisionError), open_writer(tmp_path / "a.h5") as writer:
        writer.append(make())
        raise ZeroDivisionError
    with (
        pytest.raises(DataError, match=r"cannot add rows.*they have"),
        open_writer(tmp_path / "a.h5") as writer,
    ):
        writer.append(make())
        writer.append(rich())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"a/b": np.arange(7)}, "the name 'a/b' is no name of a dataset"),
        ({"o": np.array([{}] * 7)}, "column 'o' of object has no HDF5 type"),
        ({"t": np.array(["a\0b"] * 7)}, "column 't' has text with a NUL character"),
    ],
)
def test_columns_that_hdf5_cannot_hold(tmp_path: Path, column: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        save(make(columns=column), tmp_path / "a.h5")


def test_meta_that_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="meta and manifest must be JSON-able"):
        save(make(meta={"x": object()}), tmp_path / "a.h5")


# --- bad input ---------------------------------------------------------------------------------


def corrupt(values: np.ndarray, index: object, value: float) -> np.ndarray:
    values = values.copy()
    values[index] = value
    return values


CELLS, ENERGY = make().cells, make().incident_energy
BAD = {
    "missing key": (
        {"showers": None, "images": CELLS},
        r"there is no dataset 'showers' \(N, cells\); the file has: images, incident_energies",
    ),
    "group": ({"showers": None, "showers/a": CELLS}, "there is no dataset 'showers'"),
    "cells": (
        {"showers": np.ones((7, 5))},
        "5 cells per shower, but geometry 'grid' has 6; pass the right geometry",
    ),
    "lengths": ({"incident_energies": ENERGY[:6]}, "7 showers but 6 incident energies"),
    "ids length": ({"event_id": np.zeros((6, 2), "u8")}, "'event_id' has 6 rows, but there are 7"),
    "weights length": ({"weights": np.ones(6)}, "'weights' has 6 rows, but there are 7 showers"),
    "column length": ({"columns/c": np.ones(6)}, "'c' has 6 rows, but there are 7 showers"),
    "no rows": (
        {"showers": np.ones((0, 6)), "incident_energies": np.ones((0, 1))},
        "holds no showers",
    ),
    "shape": ({"showers": np.ones(7)}, r"'showers' must have shape \(N, cells\), got \(7,\)"),
    "scalar": ({"showers": 1.0}, r"'showers' must have shape \(N, cells\), got \(\)"),
    "text": ({"showers": [b"a"] * 7}, "'showers' must be numbers, got"),
    "nan": ({"showers": corrupt(CELLS, (5, 2), np.nan)}, "must be finite; row 5 holds NaN"),
    "inf": ({"showers": corrupt(CELLS, (4, 2), np.inf)}, "must be finite; row 4 holds NaN or inf"),
    "too large": (
        {"showers": corrupt(CELLS.astype("f8"), 3, 1e300)},
        "finite; row 3 holds NaN or inf",
    ),
    "negative": (
        {"showers": corrupt(CELLS, (3, 1), -2.5)},
        r"cell energies must not be negative; row 3 holds -2.5 MeV \(subtract no pedestal, or clip",
    ),
    "empty shower": (
        {"showers": corrupt(CELLS, 6, 0)},
        r"1 showers have no energy at all \(first: row 6\); remove them, or in Python pass allow_empty",
    ),
    "energy": ({"incident_energies": corrupt(ENERGY, 2, 0)}, "must be positive; row 2 is 0 MeV"),
    "energy nan": ({"incident_energies": corrupt(ENERGY, 2, np.nan)}, "finite; row 2 is nan"),
    "weights nan": (
        {"weights": corrupt(ENERGY, 2, np.nan)},
        "weights must be finite; row 2 is not",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_content(tmp_path: Path, name: str) -> None:
    datasets, message = BAD[name]
    path = user_file(tmp_path / "bad.h5", **datasets)
    with pytest.raises(DataError, match=message) as caught:
        load(path, geometry=GRID)
    assert str(path) in str(caught.value)


def test_row_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    path = user_file(tmp_path / "bad.h5", showers=corrupt(CELLS, (5, 2), np.nan))
    with open_reader(path, geometry=GRID) as reader:
        reader.read(0, 5)
        with pytest.raises(DataError, match="row 5 holds NaN"):
            reader.read(4, 7)


def test_empty_showers_on_request(tmp_path: Path) -> None:
    path = user_file(tmp_path / "a.h5", showers=corrupt(CELLS, 6, 0))
    assert len(load(path, geometry=GRID, allow_empty_showers=True)) == 7


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(DataError, match=r"a.h5: there is no such file"):
        load(path)
    path.touch()
    with pytest.raises(DataError, match=r"a.h5: the file is empty \(0 bytes\)"):
        load(path)
    path.write_bytes(b"hello world, I am text")
    with pytest.raises(
        DataError, match=r"not a calochallenge file, although it is named .h5: it starts"
    ):
        load(path)
    with pytest.raises(DataError, match="is not a file"):
        load(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"x")
    with pytest.raises(DataError, match=r"not a shower file.*Allowed: HDF5 of the CaloChallenge"):
        load(tmp_path / "a.txt")
    with pytest.raises(DataError, match="the format calochallenge has no such option"):
        load(user_file(tmp_path / "b.h5"), geometry=GRID, tree="t")
    with pytest.raises(DataError, match="runs backwards"):
        load(user_file(tmp_path / "b.h5"), geometry=GRID, rows=slice(None, None, -1))
    with pytest.raises(DataError, match="holds no showers"):
        load(user_file(tmp_path / "b.h5"), geometry=GRID, rows=slice(9, 12))


def test_geometry_must_agree(tmp_path: Path) -> None:
    save(make(), tmp_path / "a.h5")
    other = replace(GRID, pitch_mm=(10.0, 20.0))
    with pytest.raises(
        DataError,
        match=r"was written for geometry 'grid' \(2, 3\).*differs in pitch_mm; leave the geometry out",
    ):
        load(tmp_path / "a.h5", geometry=other)
    load(tmp_path / "a.h5", geometry=replace(GRID, name="renamed"))
    assert load(tmp_path / "a.h5").geometry == GRID
    with pytest.raises(DataError, match=r"'squirels' \(10, 10\) is asked for"):
        load(tmp_path / "a.h5", geometry=SQUIRELS)
    with pytest.raises(DataError, match="must be Showers, got ndarray"):
        save(make().cells, tmp_path / "b.h5")


def test_declared_sizes_are_checked_before_allocation(tmp_path: Path) -> None:
    """A kilobyte-sized file that declares 400 GB. Fails (kills the machine) without the check."""
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("showers", shape=(10**9, 100), dtype="f4", chunks=(1024, 100))
        file.create_dataset("incident_energies", shape=(10**9, 1), dtype="f4", chunks=(1024, 1))
    assert path.stat().st_size < 10_000
    with pytest.raises(
        DataError, match=r"'incident_energies' declares 4e.09 bytes .* but only 0 are"
    ):
        load(path)


@pytest.mark.parametrize("suffix", ["h5", "npy", "root"])
def test_every_truncation_is_a_clear_error(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    save(make(50), whole)
    data = whole.read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for size in {*range(0, 64, 7), *np.linspace(64, len(data) - 1, 40, dtype=int).tolist()}:
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"truncated|empty") as caught:
            load(path, geometry=GRID)
        assert str(path) in str(caught.value)


@PROPERTY
@given(
    noise=st.binary(max_size=300),
    head=st.sampled_from([b"", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY\x01\x00", b"root"]),
)
def test_random_bytes(tmp_path: Path, noise: bytes, head: bytes) -> None:
    path = tmp_path / "noise.h5"
    path.write_bytes(head + noise)
    with pytest.raises(HepbridgeError):
        load(path)


@pytest.mark.parametrize("suffix", ["h5", "npy", "root"])
def test_flipped_bytes(tmp_path: Path, suffix: str) -> None:
    """Damage inside is either not visible or a HepbridgeError, whatever the library raised."""
    save(make(50), tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / f"b.{suffix}"
    for _ in range(40):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        try:
            load(path, geometry=GRID)
        except HepbridgeError as error:
            assert str(path) in str(error)


# --- the .npy layout of the SQuIRELS reference code --------------------------------------------


def npy_file(path: Path, width: int = 13, dtype: str = "f8") -> tuple[Path, Showers]:
    showers = make()
    table = np.zeros((7, width), dtype)
    table[:, :6] = showers.cells / 1000.0
    if width > 12:
        table[:, 12] = showers.incident_energy
        table[:, 6:12] = np.nan  # never read
    np.save(path, table)
    return path, showers


def test_npy_layout(tmp_path: Path) -> None:
    path, showers = npy_file(tmp_path / "a.npy")
    loaded = load(path, geometry=GRID)
    assert np.allclose(loaded.cells, showers.cells, rtol=1e-6)
    assert np.array_equal(loaded.incident_energy, showers.incident_energy)
    assert np.allclose(load(path, geometry=GRID, unit="MeV").cells * 1000, loaded.cells)
    with pytest.raises(DataError, match="column 12 holds the incident energies"):
        load(path, geometry=GRID, incident_energy=5e4)


@pytest.mark.parametrize("width", [6, 12])
def test_npy_without_energy_is_never_guessed(tmp_path: Path, width: int) -> None:
    """Fails if a missing column is filled with 50 GeV, as the reference code does."""
    path, showers = npy_file(tmp_path / "a.npy", width)
    with pytest.raises(
        DataError, match="no column 12 with incident energies; pass incident_energy in MeV"
    ):
        load(path, geometry=GRID)
    assert set(load(path, geometry=GRID, incident_energy=2e4).incident_energy) == {2e4}
    given_energy = load(path, geometry=GRID, incident_energy=showers.incident_energy)
    assert np.array_equal(given_energy.incident_energy, showers.incident_energy)
    with pytest.raises(DataError, match="7 showers but 3 incident energies given"):
        load(path, geometry=GRID, incident_energy=[1.0, 2.0, 3.0])


def test_npy_bad_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array, message in (
        (np.ones(5), "must be a two-dimensional array of numbers"),
        (np.ones((0, 13)), "holds no showers"),
        (np.ones((3, 5)), "5 columns, but geometry 'grid' has 6 cells"),
        (np.array([[{}]]), "array of numbers, got object"),  # would need pickle
    ):
        np.save(path, array, allow_pickle=True)
        with pytest.raises(DataError, match=message):
            load(path, geometry=GRID)


def test_npy_writing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    showers = make(25)
    with open_writer(tmp_path / "a.npy", n=25) as writer:
        writer.append(showers[:20])
        writer.append(showers[20:])
    assert "keeps only cells and incident energies" in caplog.text
    assert np.load(tmp_path / "a.npy").shape == (25, 13)
    loaded = load(tmp_path / "a.npy", geometry=GRID)
    assert np.allclose(loaded.cells, showers.cells, rtol=1e-6)
    assert np.array_equal(loaded.incident_energy, showers.incident_energy)
    with (
        pytest.raises(DataError, match="got 5 showers, 6 needed"),
        open_writer(tmp_path / "b.npy", n=6) as writer,
    ):
        writer.append(showers[:5])
    assert not (tmp_path / "b.npy").exists()


def test_real_files(sample_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    showers = load(sample_dir / "squirels_full_e50.h5", rows=100)
    assert set(showers.incident_energy) == {5e4}
    assert 0.95 < (showers.e_sum / showers.incident_energy).mean() < 1.0
    assert showers.meta["simulation"].startswith("Geant4")
    assert caplog.text == ""


def test_formats_are_registered() -> None:
    from hepbridge.data.formats import FORMATS

    assert list(FORMATS) == ["calogan", "calochallenge", "squirels-npy", "root"]
    with pytest.raises(ConfigError, match="unknown file format 'rot'; did you mean 'root'"):
        FORMATS["rot"]


def test_no_permission(tmp_path: Path) -> None:
    path = user_file(tmp_path / "a.h5")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(DataError, match=r"cannot be opened|no permission"):
        load(path, geometry=GRID)
