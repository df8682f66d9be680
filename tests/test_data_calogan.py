"""Files of CaloGAN and of Getting High: read as their descriptions say, refused where they differ."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import hepbridge as hb
from hepbridge.core.errors import DataError
from hepbridge.data.formats.calogan import CALOGAN, ILD
from hepbridge.data.geometry import SQUIRELS
from hepbridge.simulate.detector import load_detector

SHAPES = {"layer_0": (3, 96), "layer_1": (12, 12), "layer_2": (12, 6)}
N = 12


def calogan(path: Path, **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """A file as CaloGAN's; arrays are changed or left out."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.exponential(5.0, (N, *shape)) for name, shape in SHAPES.items()}
    arrays |= {"energy": rng.uniform(1, 100, (N, 1)), "overflow": rng.exponential(1.0, (N, 3))}
    with h5py.File(path, "w") as file:
        for name, array in (arrays | changes).items():
            if array is not None:
                file[name] = array
    return arrays


def test_layers_follow_each_other_in_mev(tmp_path: Path) -> None:
    """Fails if layers, rows of cells or the units are exchanged."""
    arrays = calogan(tmp_path / "eplus.hdf5")
    found = hb.load(tmp_path / "eplus.hdf5")
    np.testing.assert_allclose(found.incident_energy, 1000 * arrays["energy"][:, 0])
    ends = np.cumsum([0, 288, 144, 72])
    for (name, shape), start, stop in zip(SHAPES.items(), ends[:-1], ends[1:], strict=True):
        part = found.cells[:, start:stop].reshape(N, *shape)
        np.testing.assert_allclose(part, arrays[name], rtol=1e-6)
    np.testing.assert_allclose(
        found.geometry.layer_sums(found.cells)[:, 2], arrays["layer_2"].sum((1, 2))
    )
    np.testing.assert_array_equal(found.columns["overflow"], arrays["overflow"])
    part = hb.load(tmp_path / "eplus.hdf5", rows=slice(3, 5))
    np.testing.assert_array_equal(part.cells, found.cells[3:5])
    np.testing.assert_array_equal(part.event_ids, found.event_ids[3:5])


def test_ild_is_read_layer_by_layer(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layers = rng.exponential(0.5, (4, 30, 30, 30)) * (rng.random((4, 30, 30, 30)) < 0.05)
    with h5py.File(tmp_path / "ild.hdf5", "w") as file:
        file["30x30/energy"], file["30x30/layers"] = np.full((4, 1), 50.0), layers
    found = hb.load(tmp_path / "ild.hdf5")
    assert found.geometry is ILD and (found.incident_energy == 50_000).all()
    np.testing.assert_allclose(
        found.geometry.layer_sums(found.cells), layers.sum((2, 3)), rtol=1e-5
    )


@pytest.mark.parametrize(("geometry", "name"), [(CALOGAN, "calogan"), (ILD, "ild-ecal")])
def test_geometries_are_those_of_the_detectors(geometry: hb.Geometry, name: str) -> None:
    """So that published and simulated showers may be compared."""
    assert geometry.digest() == load_detector(name).geometry().digest()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_1": np.ones((N, 12, 11))}, r"'layer_1' must be numbers of shape \(12, 12, 12\)"),
        ({"layer_2": np.ones((N - 1, 12, 6))}, "one row for each of the 12 energies"),
        ({"layer_0": np.full((N, 3, 96), b"x")}, "'layer_0' must be numbers"),
        ({"energy": np.full((N, 1), b"x")}, "'energy' must be numbers"),
        ({"energy": np.ones((0, 1))}, "holds no showers"),
        ({"overflow": np.ones((N + 1, 3))}, "'overflow' has other rows"),
        ({"layer_2": None}, "there is no dataset 'incident_energies'"),  # no file of CaloGAN
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray | None], message: str
) -> None:
    calogan(tmp_path / "bad.hdf5", **changes)
    with pytest.raises(DataError, match=message):
        hb.load(tmp_path / "bad.hdf5")


def test_another_geometry_must_have_as_many_cells(tmp_path: Path) -> None:
    calogan(tmp_path / "eplus.hdf5")
    with pytest.raises(DataError, match="504 cells per shower, but geometry 'squirels' has 100"):
        hb.load(tmp_path / "eplus.hdf5", geometry=SQUIRELS)


def test_what_is_read_is_written_in_the_usual_layout(tmp_path: Path) -> None:
    calogan(tmp_path / "eplus.hdf5")
    found = hb.load(tmp_path / "eplus.hdf5")
    hb.save(found, tmp_path / "own.h5")
    again = hb.load(tmp_path / "own.h5")
    np.testing.assert_array_equal(again.cells, found.cells)
    assert again.geometry.digest() == CALOGAN.digest()
