"""Files of simulated showers: the same bits however they were made, and all that defines them."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import stand_in_engine as stand_in
from hepbridge import __version__
from hepbridge.core.errors import (
    ConfigError,
    DataError,
    HepbridgeError,
    MissingExtraError,
    OutputError,
    SimulationError,
)
from hepbridge.data import io
from hepbridge.simulate.detector import load_detector
from hepbridge.simulate.gun import Gun
from hepbridge.simulate.produce import cores, produce

SQUIRELS = load_detector("squirels")
ENGINE = stand_in.engine()


def gun(energy: str = "uniform:10-100", **options) -> Gun:
    return Gun.of(SQUIRELS, energy, **{"seed": 5, **options})


def make(path: Path, n: int | None = 250, *, engine=ENGINE, beam=None, **options) -> bool:
    beam = beam or gun(theta="uniform:0-10", impact="cell")
    return produce(engine, SQUIRELS, beam, n, path, **{"workers": 1, **options})


def bits(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one file for each call of the engine."""
    folder = tmp_path / "calls"
    folder.mkdir()
    monkeypatch.setenv("STAND_IN_CALLS", str(folder))
    return folder


def first_rows(calls: Path) -> list[int]:
    return sorted(int(p.name.partition("-")[0]) for p in calls.iterdir())


def leftovers(path: Path) -> list[str]:
    return [p.name for p in path.parent.iterdir() if path.name in p.name and p != path]


def test_file_holds_what_the_engine_made_of_the_beam(tmp_path: Path) -> None:
    """Cells, energies, ids and conditions against a call of the engine without any production."""
    beam = gun(theta="uniform:0-10", impact="cell")
    make(tmp_path / "o.h5", beam=beam)
    found, rows = io.load(tmp_path / "o.h5"), beam.beam(0, 250)
    assert np.array_equal(found.cells, stand_in.simulate(SQUIRELS, rows, seed=5))
    assert np.array_equal(found.incident_energy, rows.energy_mev)
    assert np.array_equal(found.event_ids, rows.event_ids)
    assert found.conditions.keys() == {"incident_energy", "theta_rad", "phi_rad", "x_mm", "y_mm"}
    assert np.array_equal(found.conditions["theta_rad"], rows.theta_rad)
    assert np.array_equal(found.conditions["y_mm"], rows.y_mm)
    assert found.geometry.digest() == SQUIRELS.geometry().digest()


def test_file_says_everything_that_defines_it(tmp_path: Path) -> None:
    """From the attributes alone the sample can be made again, to the bit."""
    make(tmp_path / "o.h5", options={"response": 0.5}, seed=7)
    meta = io.load(tmp_path / "o.h5").meta
    assert meta["engine"] == "stand-in" and meta["particle"] == "e-" and meta["response"] == 0.5
    assert meta["hepbridge"] == __version__ and meta["numpy"] == np.__version__
    assert meta["stand_in"] == "1.0"
    (tmp_path / "d.yaml").write_text(meta["detector_yaml"])
    again = load_detector(tmp_path / "d.yaml")
    assert again.digest() == meta["detector_digest"] == SQUIRELS.digest()
    beam = Gun.of(
        again,
        meta["energies_gev"],
        particle=meta["particle"],
        theta=meta["theta_deg"],
        phi=meta["phi_deg"],
        impact="cell",
        seed=meta["beam_seed"],
    )
    assert (str(beam.x), str(beam.y)) == (meta["x_mm"], meta["y_mm"])
    how = {"options": {"response": meta["response"]}, "seed": meta["seed"], "workers": 1}
    produce(ENGINE, again, beam, 250, tmp_path / "again.h5", **how)
    assert bits(tmp_path / "again.h5") == bits(tmp_path / "o.h5")


def test_a_longer_sample_begins_with_the_shorter_one(tmp_path: Path) -> None:
    make(tmp_path / "a.h5", 70)
    make(tmp_path / "b.h5", 150)
    short, long = io.load(tmp_path / "a.h5"), io.load(tmp_path / "b.h5")
    assert np.array_equal(short.cells, long.cells[:70])
    assert np.array_equal(short.event_ids, long.event_ids[:70])


@pytest.mark.slow
def test_workers_change_no_bit_of_the_file(tmp_path: Path) -> None:
    make(tmp_path / "one.h5", workers=1)
    make(tmp_path / "three.h5", workers=3)
    assert bits(tmp_path / "one.h5") == bits(tmp_path / "three.h5")


@pytest.mark.parametrize("chunk", [7, 100, 249, 1000])
def test_pieces_change_no_bit_of_the_file(tmp_path: Path, chunk: int) -> None:
    make(tmp_path / "a.h5", chunk=chunk)
    make(tmp_path / "b.h5")
    assert bits(tmp_path / "a.h5") == bits(tmp_path / "b.h5")


def test_a_restart_after_a_failure_makes_only_what_is_missing(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine fails in row 150; its words are shown; the first piece is not made again."""
    out = tmp_path / "o.h5"
    with monkeypatch.context() as patch:
        patch.setenv("STAND_IN_FAILS", "150")
        words = r"its log: track got stuck\n1 of 3 pieces are finished and kept; the same command"
        with pytest.raises(SimulationError, match=words):
            make(out)
    assert not out.exists() and len(leftovers(out)) == 1
    assert make(out)
    assert first_rows(calls) == [0, 100, 100, 200]
    assert leftovers(out) == []
    make(tmp_path / "whole.h5")
    assert bits(out) == bits(tmp_path / "whole.h5")


@pytest.mark.slow
def test_a_worker_that_dies_is_reported_and_the_rest_is_kept(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o.h5"
    with monkeypatch.context() as patch:
        patch.setenv("STAND_IN_DIES", "450")
        with pytest.raises(HepbridgeError, match=r"a worker process died .* finished pieces"):
            make(out, 500, workers=2)
    # a piece that its writer did not finish, killed with the pool, has another name
    kept = len(list(next(tmp_path.glob(".o.h5.*.parts")).glob("*.npy")))
    assert kept >= 2
    before = len(first_rows(calls))
    assert make(out, 500)
    assert len(first_rows(calls)) - before == 5 - kept


SCRIPT = """
import sys
from pathlib import Path
import test_simulate_produce as t
t.make(Path(sys.argv[1]), 400, workers=int(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills differently on Windows")
@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_keeps_finished_pieces_and_leaves_no_worker(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Killed after the first piece: the restart gives the bits of a run that was not disturbed."""
    out = tmp_path / "o.h5"
    environment = {
        **os.environ,
        "STAND_IN_SLEEPS": "0.5",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(out), str(workers)]
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".o.h5.*.parts/*.npy")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    pids = {int(p.name.split("-")[1]) for p in calls.iterdir()}
    assert len(pids) >= workers
    deadline = time.monotonic() + 10
    while any(map(_alive, pids)):
        assert time.monotonic() < deadline, "a worker outlives the process that started it"
        time.sleep(0.05)
    done = {p.name for p in tmp_path.glob(".o.h5.*.parts/*.npy")}
    assert 1 <= len(done) < 4
    before = len(first_rows(calls))
    make(out, 400)
    assert len(first_rows(calls)) - before == 4 - len(done)
    make(tmp_path / "whole.h5", 400)
    assert bits(out) == bits(tmp_path / "whole.h5")
    assert leftovers(out) == []


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def test_a_complete_file_is_left_alone_and_another_one_refused(tmp_path: Path, calls: Path) -> None:
    out = tmp_path / "o.h5"
    assert make(out)
    before = bits(out), len(first_rows(calls))
    assert not make(out)
    assert not make(out, workers=2)
    for changed in ({"seed": 6}, {"options": {"response": 2.0}}, {"beam": gun()}):
        with pytest.raises(OutputError, match="exists already and is a file of another request"):
            make(out, **changed)
    with pytest.raises(OutputError, match="of another request"):
        make(out, 251)
    assert (bits(out), len(first_rows(calls))) == before
    assert make(out, seed=6, overwrite=True)
    (tmp_path / "x.h5").write_text("mine")
    with pytest.raises(OutputError, match="is a file that this command did not make"):
        make(tmp_path / "x.h5")


def test_pieces_of_a_large_detector_are_small(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by the cells in a piece, here 40 showers of 100 cells of 4 bytes."""
    monkeypatch.setattr("hepbridge.simulate.beam_file.PIECE_BYTES", 40 * 100 * 4)
    make(tmp_path / "o.h5", 100)
    assert first_rows(calls) == [0, 40, 80]


def test_energies_of_a_file_are_taken_in_order(tmp_path: Path) -> None:
    make(tmp_path / "first.h5", 150)
    again = gun(f"file:{tmp_path / 'first.h5'}", seed=1)
    make(tmp_path / "second.h5", None, beam=again)
    first, second = io.load(tmp_path / "first.h5"), io.load(tmp_path / "second.h5")
    assert np.array_equal(first.incident_energy, second.incident_energy)
    assert not (first.event_ids == second.event_ids).all(axis=1).any()
    assert second.conditions.keys() == {"incident_energy"}
    with pytest.raises(ConfigError, match="151 showers are asked for, but the file has 150"):
        make(tmp_path / "third.h5", 151, beam=again)


def test_workers_of_a_threaded_engine_are_its_threads(tmp_path: Path, calls: Path) -> None:
    """All pieces run here, with that many threads, and the number is no part of the request."""
    threaded = stand_in.engine(target="stand_in_engine:threaded", threaded=True)
    assert make(tmp_path / "o.h5", engine=threaded, workers=3)
    assert {p.name.split("-")[1] for p in calls.iterdir()} == {str(os.getpid())}
    assert not make(tmp_path / "o.h5", engine=threaded, workers=1)
    assert "threads" not in io.load(tmp_path / "o.h5").meta
    with pytest.raises(AssertionError):
        make(tmp_path / "p.h5", engine=threaded, workers=1)


def test_showers_without_energy_are_written_and_told(tmp_path: Path, caplog) -> None:
    make(tmp_path / "o.h5", 10, options={"response": 0.0})
    assert "10 of 10 showers left no energy in any cell" in caplog.text
    assert not io.load(tmp_path / "o.h5", allow_empty_showers=True).cells.any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, ConfigError, "the number of showers must be at least 1, not 0"),
        ({"n": -3}, ConfigError, "must be at least 1, not -3"),
        ({"n": None}, ConfigError, "pass --n, or energies file:E.h5"),
        ({"workers": 0}, ConfigError, "workers must be at least 1, not 0"),
        ({"chunk": 0}, ConfigError, "chunk must be at least 1, not 0"),
        ({"executor": "cluster"}, ConfigError, "unknown executor 'cluster'. Available: local"),
        ({"options": {"response": -1.0}}, ConfigError, "must not be negative, got -1.0"),
        (
            {"engine": stand_in.engine(particles=("gamma",))},
            ConfigError,
            "Stand-in does not simulate e-; allowed: gamma",
        ),
        (
            {"engine": stand_in.engine(target="stand_in_engine:wrong_shape")},
            DataError,
            r"stand-in returned cells of shape \(100, 3\), not \(100, 100\)",
        ),
    ],
)
def test_bad_requests_are_refused(tmp_path: Path, options, error, message) -> None:
    with pytest.raises(error, match=message):
        make(tmp_path / "o.h5", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["o.npy", "o.root", "o"])
def test_other_kinds_of_files_are_refused(tmp_path: Path, name: str, calls: Path) -> None:
    with pytest.raises(OutputError, match=r"go into a file that ends in \.h5 or \.hdf5"):
        make(tmp_path / name)
    with pytest.raises(OutputError, match=r"the folder .*nowhere does not exist"):
        make(tmp_path / "nowhere" / "o.h5")
    assert first_rows(calls) == []


def test_a_missing_library_is_missed_at_once(tmp_path: Path, monkeypatch, calls: Path) -> None:
    """Before any worker starts, although only workers would import the engine."""
    (tmp_path / "needs_much.py").write_text(
        "from hepbridge.core.errors import MissingExtraError\n"
        "raise MissingExtraError.of('geant4', 'geant4-pybind', 'simulation')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match=r"pip install 'hepbridge\[geant4\]'"):
        make(tmp_path / "o.h5", engine=stand_in.engine(target="needs_much:simulate"))
    assert first_rows(calls) == []


def test_manifest_is_the_request(tmp_path: Path) -> None:
    make(tmp_path / "o.h5")
    with h5py.File(tmp_path / "o.h5") as file:
        manifest = json.loads(file.attrs["hepbridge_manifest"])
    assert manifest["command"] == "simulate" and manifest["n"] == 250 and manifest["seed"] == 5
    assert "chunk" not in manifest


def test_cores_are_those_that_are_allowed() -> None:
    assert 1 <= cores() <= multiprocessing.cpu_count()
