"""Geant4 in worker processes: cells, seeds, data sets and requests."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepbridge.core.errors import ConfigError, MissingExtraError, SimulationError
from hepbridge.core.rng import stream
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import Detector, load_detector
from hepbridge.simulate.geant4 import check, geant4_version, provenance, simulate
from hepbridge.simulate.geant4.datasets import DATASETS, find_datasets, worker_environment
from hepbridge.simulate.geant4.physics import choose

SILICON = {"material": "G4_Si", "mm": 0.3, "active": True}


def telescope(*cells: dict[str, Any], gap_mm: float = 40.0, **more: Any) -> Detector:
    """Thin sheets of silicon, one per layer, with gaps of vacuum behind them."""
    gap = {"material": "G4_Galactic", "mm": gap_mm}
    layers = [{"slices": [SILICON, gap], "cells": c} for c in cells]
    return Detector.from_dict(
        {"name": "telescope", "world": "G4_Galactic", "layers": layers, **more}
    )


def polar(*r_mm: float, n_phi: int) -> dict[str, Any]:
    return {"kind": "polar", "r_mm": list(r_mm), "n_phi": n_phi}


def xy(nx: int, ny: int, px: float, py: float) -> dict[str, Any]:
    return {"kind": "xy", "n": [nx, ny], "pitch_mm": [px, py]}


# -- cells ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "detector",
    [
        telescope(polar(0, 3, 10, 40, n_phi=5), polar(0, 40, n_phi=2), radius_mm=50),
        telescope(polar(0, 10, 25, 40, n_phi=8), polar(0, 10, 60, n_phi=1), half_width_mm=60),
        telescope(xy(3, 16, 10, 4), xy(1, 1, 70, 50), xy(7, 2, 9, 20), half_width_mm=50),
        telescope(xy(5, 5, 12, 12), polar(0, 10, 40, n_phi=6), radius_mm=60),
    ],
    ids=["sectors", "rings", "rectangles", "mixed"],
)
def test_a_straight_track_is_seen_in_the_cells_that_it_crosses(
    detector: Detector, geant4_data: Path
) -> None:
    """Against the cells' own arithmetic and a straight line, for slanted tracks of 20 GeV.

    Fails if x and y, φ and θ, or the order of the cells are swapped, if sectors start at 0
    instead of -π, or if layers share a scorer.
    """
    n, rng = 150, stream(1, "telescope")
    x, y = rng.uniform(-30, 30, (2, n))
    theta, phi = rng.uniform(0, 0.2, n), rng.uniform(-np.pi, np.pi, n)
    beam = Beam.of(np.full(n, 2e4), theta_rad=theta, phi_rad=phi, x_mm=x, y_mm=y)
    found = simulate(detector, beam, seed=1)
    start, checked = 0, 0
    for layer, z in zip(detector.layers, (0.15, 40.45, 80.75), strict=False):
        cells = found[:, start : start + layer.cells.n_cells]
        start += layer.cells.n_cells
        at = [x + z * np.tan(theta) * np.cos(phi), y + z * np.tan(theta) * np.sin(phi)]
        near = np.stack(
            [layer.cells.index(at[0] + dx, at[1] + dy) for dx in (-0.2, 0.2) for dy in (-0.2, 0.2)]
        )
        clear = (near == near[0]).all(axis=0)  # not within 0.2 mm of an edge
        inside = clear & (near[0] >= 0)
        # now and then a photon or an electron of 20 GeV multiplies; the track's cell still leads
        leading = np.where(cells.max(axis=1) > 0.01, cells.argmax(axis=1), -1)
        assert (leading[clear] == near[0][clear]).mean() > 0.98
        # energy loss in 0.3 mm of silicon: most probable 0.084 MeV (PDG), mean below 0.12
        assert 0.075 < np.median(cells.max(axis=1)[inside]) < 0.105
        checked += int(inside.sum())
    assert start == found.shape[1] and checked > 50


@pytest.mark.slow
def test_slices_of_a_layer_add_up(geant4_data: Path) -> None:
    """Two sheets in one layer see twice the deposit of one; a passive sheet sees nothing."""
    two = {"slices": [SILICON, {**SILICON, "active": False}, SILICON], "cells": xy(1, 1, 50, 50)}
    one = {"slices": [SILICON], "cells": xy(1, 1, 50, 50)}
    detector = Detector.from_dict({"name": "sheets", "world": "G4_Galactic", "layers": [two, one]})
    cells = simulate(detector, Beam.of(np.full(300, 2e4)), seed=2)
    assert np.median(cells[:, 0]) / np.median(cells[:, 1]) == pytest.approx(2.0, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["calogan", "calochallenge-2", "ild-ecal"])
def test_presets_run(name: str, geant4_data: Path) -> None:
    detector = load_detector(name)
    beam = Beam.of(np.full(3, 2000.0), np.array(["e-", "e+", "gamma"]), theta_rad=0.05)
    cells = simulate(detector, beam, seed=1)
    assert cells.shape == (3, detector.geometry().n_cells) and cells.dtype == np.float32
    visible = cells.sum(axis=1) / 2000.0
    assert (visible > 0.005).all() and (visible < 0.5).all()


@pytest.mark.slow
def test_the_production_cut_is_that_of_the_request(geant4_data: Path, tmp_path: Path) -> None:
    """As Geant4 itself says in its log. Fails if the cut is set before Geant4 is initialised: then
    its kernel goes back to 1 mm without a word."""
    log = tmp_path / "log"
    simulate(load_detector("squirels"), Beam.of(10.0), seed=1, cut_mm=0.25, log=log)
    lines = [line.split() for line in log.read_text().splitlines() if "Range cuts" in line]
    cuts = ["gamma", "250", "um", "e-", "250", "um", "e+", "250", "um", "proton", "250", "um"]
    assert lines == 2 * [["Range", "cuts", ":", *cuts]]


# -- seeds ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_shower_depends_on_seed_event_and_row_alone(geant4_data: Path) -> None:
    """Equal bits for any cut into blocks; fails if the generator runs on from event to event."""
    squirels = load_detector("squirels")
    beam = Beam.of([500.0, 1000.0, 700.0, 1000.0], np.array(["e-", "e+", "gamma", "e+"]))
    whole = simulate(squirels, beam, seed=7)
    rows = np.array([3, 1])
    assert np.array_equal(simulate(squirels, beam.rows(rows), seed=7), whole[rows])
    other = simulate(squirels, beam.rows(rows), seed=8)
    assert (np.abs(other - whole[rows]).max(axis=1) > 1).all()
    assert np.abs(whole[1] - whole[3]).max() > 1, "another event id is another shower"


# -- physics lists and data sets --------------------------------------------------------------


def folder_of(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "table").write_text("1")
    return tmp_path


def test_auto_takes_the_full_list_where_its_data_is(tmp_path: Path) -> None:
    """Fails if folders count that hold nothing, empty files or hidden ones."""
    needed = [f"{d.name}{d.version}" for d in DATASETS if d.needed_for]
    environ = {"GEANT4_DATA_DIR": str(folder_of(tmp_path, *needed)), "HOME": str(tmp_path)}
    assert choose("auto", ["e-", "pi+"], find_datasets(environ)) == "FTFP_BERT"
    (tmp_path / needed[1] / "table").write_text("")
    (tmp_path / needed[1] / ".gitkeep").write_text("hidden")
    assert choose("auto", ["e-"], find_datasets(environ)) == "em"
    for physics, particles, message in (
        ("auto", ["pi+"], "pi.: physics list 'em'.*PhotonEvaporation"),
        ("QGSP_BERT", ["e-"], "data sets that are not found: PhotonEvaporation"),
        ("em_option4", ["e-"], "needs atomic shells"),
        ("em_optoin1", ["e-"], "did you mean 'em_option1'"),
    ):
        with pytest.raises(ConfigError, match=message):
            choose(physics, particles, find_datasets(environ))


def test_data_sets_are_found_by_variable_folder_and_home(tmp_path: Path) -> None:
    home = folder_of(
        tmp_path / ".geant4_pybind", "G4EMLOW8.6", "G4EMLOW8.10", "G4EMLOWER1.0"
    ).parent
    environ = {"HOME": str(home), "CI": "true", "PATH": "/bin"}
    assert find_datasets(environ)[0].version == "8.10"  # newer than 8.6, though "8.10" < "8.6"
    folder_of(home / ".geant4_pybind", "G4EMLOW8.8")
    found = find_datasets(environ)
    assert found[0].version == "8.8" and found[0].reduced and found[1].path is None
    other = folder_of(tmp_path / "other", "G4EMLOW8.2")
    assert find_datasets({**environ, "GEANT4_DATA_DIR": str(other)})[0].version == "8.2"
    own = {
        **environ,
        "GEANT4_DATA_DIR": str(other),
        "G4LEDATA": str(folder_of(tmp_path / "x", "E7")),
    }
    assert find_datasets(own)[0].path == tmp_path / "x"
    made = worker_environment(found, tmp_path, environ)
    assert made["G4LEDATA"] == str(home / ".geant4_pybind" / "G4EMLOW8.8")
    assert "CI" not in made and made["PATH"] == "/bin"
    folders = [Path(made[name]) for name in ("GEANT4_DATA_DIR", *(d.variable for d in DATASETS))]
    assert all(folder.is_dir() for folder in folders)
    with pytest.raises(ConfigError, match="is no folder"):
        find_datasets({"GEANT4_DATA_DIR": str(tmp_path / "nowhere"), "HOME": str(tmp_path)})


def test_missing_package_and_missing_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squirels = load_detector("squirels")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GEANT4_DATA_DIR", str(tmp_path))
    for dataset in DATASETS:
        monkeypatch.delenv(dataset.variable, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"hepbridge\[geant4\]"):
        simulate(squirels, Beam.of(100.0), seed=1)
    assert "pip install 'hepbridge[geant4]'" in check()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=r"G4EMLOW was not found.*GEANT4_DATA_DIR.*--check"):
        simulate(squirels, Beam.of(100.0), seed=1)


@pytest.mark.slow
def test_check_says_what_is_there_and_what_to_do(
    geant4_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = check()
    assert f"with Geant4 {geant4_version()}" in text and geant4_version().startswith("11.")
    assert "Geant4 is ready." in text and str(geant4_data / "G4EMLOW") in text
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GEANT4_DATA_DIR", str(tmp_path))
    text = check()
    assert "Nothing can be simulated" in text and "https://geant4.web.cern.ch/download" in text
    monkeypatch.setenv("GEANT4_DATA_DIR", str(tmp_path / "nowhere"))
    assert "is no folder" in check()
    folder_of(tmp_path, "G4EMLOW8.8")
    monkeypatch.setenv("GEANT4_DATA_DIR", str(tmp_path))
    assert "The test shower failed" in check()


@pytest.mark.slow
def test_provenance_names_all_that_defines_a_sample(geant4_data: Path) -> None:
    squirels = load_detector("squirels")
    record = provenance(squirels, physics="em_option1", cut_mm=0.1)
    assert record["physics_list"] == "em_option1" and record["cut_mm"] == 0.1
    assert record["detector_digest"] == squirels.digest() and "G4EMLOW" in record["datasets"]
    json.dumps(record)


# -- what is asked for cannot be --------------------------------------------------------------


def test_bad_requests_start_no_worker(geant4_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    squirels, beam = load_detector("squirels"), Beam.of([100.0, 100.0], x_mm=[0.0, 150.0])
    with pytest.raises(ConfigError, match=r"1 particles miss the front face.*row 1"):
        simulate(squirels, beam, seed=1)
    with pytest.raises(ConfigError, match="tables of Geant4 end"):
        simulate(squirels, Beam.of(1.1e8), seed=1)
    with pytest.raises(ConfigError, match="cut must be positive, got 0"):
        simulate(squirels, beam, seed=1, cut_mm=0.0)
    with pytest.raises(
        ConfigError, match=r"proton: physics list 'em' .* takes e-, e\+, gamma only"
    ):
        simulate(squirels, Beam.of(100.0, "proton"), seed=1, physics="em")
    assert simulate(squirels, beam.rows(slice(0, 0)), seed=1).shape == (0, 100)
    with pytest.raises(SimulationError, match=r"cannot start the Geant4 worker.*/nowhere/python"):
        simulate(squirels, beam.rows(slice(0, 1)), seed=1)


@pytest.mark.slow
def test_a_material_that_geant4_does_not_know(geant4_data: Path) -> None:
    sheet = {"material": "G4_UNOBTAINIUM", "mm": 1.0, "active": True}
    layers = [{"slices": [sheet], "cells": xy(1, 1, 10, 10)}]
    detector = Detector.from_dict({"name": "odd", "layers": layers})
    with pytest.raises(ConfigError, match="material 'G4_UNOBTAINIUM' of detector 'odd'"):
        simulate(detector, Beam.of(100.0), seed=1)
