"""Refining files: bit-identical however the work is cut, resumable, complete or not there."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import tiny
from hepbridge.core import jobs
from hepbridge.core.errors import (
    ConfigError,
    DataError,
    DomainError,
    HepbridgeError,
    ModelFileError,
    OutputError,
)
from hepbridge.core.local_jobs import run_local
from hepbridge.data import io, sample
from hepbridge.data.showers import Showers
from hepbridge.deploy import refine_job as module
from hepbridge.deploy.refine import refine_file
from hepbridge.systems.inference import TILE
from hepbridge.systems.model_file import load, read_header
from hepbridge.systems.train import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model and a file of 2,500 fast showers with a user's own column."""
    path = tmp_path_factory.mktemp("refine")
    fast, full = sample.load("train_fast"), sample.load("train_full")
    small = ["training.steps=10", *tiny.TINY]
    train(fast[:1000], full[:1000], overrides=small, output=path / "m.safetensors", device="cpu")
    some = fast[:2500]
    some.columns["run"] = np.arange(2500)
    io.save(some, path / "fast.h5")
    return path


@pytest.fixture
def small_chunks(monkeypatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 4 * TILE)


def refined(folder: Path, name: str, **options) -> np.ndarray:
    refine_file(folder / "m.safetensors", folder / "fast.h5", folder / name, **options)
    return io.load(folder / name).cells


@pytest.fixture(scope="module")
def truth(folder: Path) -> np.ndarray:
    return refined(folder, "truth.h5")


def test_file_and_memory_agree_to_the_bit(folder: Path, truth: np.ndarray) -> None:
    model = load(folder / "m.safetensors")
    assert np.array_equal(model.refine(io.load(folder / "fast.h5")).cells, truth)


def test_everything_else_in_the_file_survives(folder: Path, truth: np.ndarray) -> None:
    fast, out = io.load(folder / "fast.h5"), io.load(folder / "truth.h5")
    assert np.array_equal(out.event_ids, fast.event_ids)
    assert np.array_equal(out.columns["run"], np.arange(2500))
    assert np.array_equal(out.incident_energy, fast.incident_energy)
    assert not out.columns["outside_domain"].any()
    assert out.meta["refined_by"] == "squirels"


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("batch", [1, 3 * TILE])
def test_chunks_and_batches_change_no_bit(folder: Path, truth: np.ndarray, tmp_path, batch) -> None:
    model, fast = folder / "m.safetensors", folder / "fast.h5"
    refine_file(model, fast, tmp_path / "o.h5", batch=batch)
    assert np.array_equal(io.load(tmp_path / "o.h5").cells, truth)


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
def test_workers_change_no_bit(folder: Path, truth: np.ndarray, tmp_path) -> None:
    refine_file(folder / "m.safetensors", folder / "fast.h5", tmp_path / "o.h5", workers=2)
    assert np.array_equal(io.load(tmp_path / "o.h5").cells, truth)


@pytest.mark.usefixtures("small_chunks")
def test_a_restart_continues_and_changes_no_bit(folder: Path, truth, tmp_path, monkeypatch) -> None:
    """Cut off in the second chunk; the restart computes two chunks, not three."""
    model, fast, out = folder / "m.safetensors", folder / "fast.h5", tmp_path / "o.h5"
    whole = module.refine_cells
    calls: list[int] = []

    def breaks(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    monkeypatch.setattr(module, "refine_cells", breaks)
    with pytest.raises(KeyboardInterrupt):
        refine_file(model, fast, out)
    assert not out.exists()
    refine_file(model, fast, out)
    assert len(calls) == 4
    assert np.array_equal(io.load(out).cells, truth)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.h5"]


def test_a_complete_output_is_skipped_and_a_foreign_one_refused(folder: Path, tmp_path) -> None:
    model, fast, out = folder / "m.safetensors", folder / "fast.h5", tmp_path / "o.h5"
    assert refine_file(model, fast, out)
    before = out.stat().st_mtime_ns
    assert not refine_file(model, fast, out)
    assert out.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="exists already and is a file of another request"):
        refine_file(model, fast, out, seed=1)
    assert out.stat().st_mtime_ns == before
    assert refine_file(model, fast, out, seed=1, overwrite=True)
    out.write_text("something else")
    with pytest.raises(
        OutputError, match="that this command did not make; choose another name or pass --overwrite"
    ):
        refine_file(model, fast, out)
    assert out.read_text() == "something else"


def test_output_that_cannot_be_written(folder: Path, tmp_path) -> None:
    model, fast = folder / "m.safetensors", folder / "fast.h5"
    with pytest.raises(OutputError, match=r"the folder .*nowhere does not exist"):
        refine_file(model, fast, tmp_path / "nowhere" / "o.h5")
    with pytest.raises(ConfigError, match="is the input"):
        refine_file(model, fast, fast)
    for name in ("o.txt", "o"):  # seen before anything is made
        with pytest.raises(OutputError, match=rf"cannot write .*/{name}: the suffix"):
            refine_file(model, fast, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing(folder: Path, tmp_path, monkeypatch) -> None:
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_array", full)
    with pytest.raises(
        OutputError, match=r"the disk is full while writing .*nothing was left behind"
    ):
        refine_file(folder / "m.safetensors", folder / "fast.h5", tmp_path / "o.h5")
    assert not (tmp_path / "o.h5").exists()


def test_a_dead_worker_is_reported(folder: Path, tmp_path) -> None:
    with pytest.raises(HepbridgeError, match="a worker process died"):
        list(run_local(jobs.pieces(_dies, jobs.chunks(4, 1), tmp_path), rows=4, workers=2))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_waits_until_a_worker_is_started(tmp_path, monkeypatch, capfd, name) -> None:
    """Another thread takes the signal while a worker is told what to do.

    Fails if signals are blocked in the main thread only: the worker prints a traceback then.
    """
    number, begun, end = getattr(signal, name), [], threading.Event()
    launch = multiprocessing.util.spawnv_passfds

    def interrupted(program, arguments, fds) -> int:
        pid = launch(program, arguments, fds)
        if "spawn_main" in str(arguments):  # a worker, and not the tracker of resources
            begun.append(pid)
            os.kill(os.getpid(), number)
            time.sleep(0.2)  # the other thread takes it
        return pid

    def interrupt(*args) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    other = threading.Thread(target=end.wait, daemon=True)
    other.start()
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(run_local(jobs.pieces(_dies, jobs.chunks(4, 1), tmp_path), rows=4, workers=2))
    finally:
        signal.signal(number, before)
        end.set()
    for pid in begun:
        with contextlib.suppress(ChildProcessError):  # the pool waited for it
            os.waitpid(pid, 0)
    assert begun and "Traceback" not in capfd.readouterr().err


INTERRUPTED = """
import sys
from pathlib import Path
from hepbridge.cli.streams import interrupt_on_sigterm
from hepbridge.core import jobs
from hepbridge.core.local_jobs import run_local

if __name__ == "__main__":
    from work import work  # the workers import it when they get their first piece

    interrupt_on_sigterm()
    list(run_local(jobs.pieces(work, jobs.chunks(8, 1), Path("parts")), rows=8, workers=2))
"""
WORK = """
import multiprocessing, os, time
from pathlib import Path
from hepbridge.core.files import atomic_path

def wait():
    Path("begun", str(os.getpid())).touch()
    {wait}

def work(chunk, path):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        wait()

{after}
"""
SWALLOWS = """
    try:
        time.sleep(60)
    except BaseException as error:  # as compiled libraries do
        raise RuntimeError("SystemExit: 1") from error
"""
WHERE = {
    "works": WORK.format(wait="time.sleep(60)", after=""),
    "in a library": WORK.format(wait=SWALLOWS, after=""),
    "imports": WORK.format(
        wait=SWALLOWS, after="if multiprocessing.parent_process():\n    wait()\n"
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("name", "group"), [("SIGINT", True), ("SIGINT", False), ("SIGTERM", True)]
)
def test_workers_end_without_a_word(tmp_path: Path, name: str, group: bool, where: str) -> None:
    """Ctrl-C goes to all processes: fails if a worker prints a traceback, outlives the parent, goes
    on with its piece, or leaves its temporary file."""
    parts, begun = tmp_path / "parts", tmp_path / "begun"
    parts.mkdir()
    begun.mkdir()
    (tmp_path / "main.py").write_text(INTERRUPTED)
    (tmp_path / "work.py").write_text(WHERE[where])
    process = subprocess.Popen(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(list(begun.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    began, number = time.monotonic(), getattr(signal, name)
    (os.killpg if group else os.kill)(process.pid, number)
    said = process.communicate(timeout=30)[1]  # until the last worker has closed it, too
    assert time.monotonic() - began < 20
    assert said.count("Traceback") == 1 and "SpawnProcess" not in said, said  # the script's own
    assert said.rstrip().endswith("KeyboardInterrupt") and process.returncode == -signal.SIGINT
    assert not list(parts.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
@pytest.mark.parametrize("after", [0.0, 0.3, 1.0, 3.0])
def test_ctrl_c_is_one_line(folder: Path, tmp_path: Path, after: float) -> None:
    """At the start of two workers, and later. Fails if one that still imports is interrupted."""
    inputs = [str(shutil.copy(folder / "fast.h5", tmp_path / f"{k}.h5")) for k in range(6)]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "hepbridge", "--quiet", "refine", "squirels-small", *inputs),
            *("-o", f"{tmp_path}/out/", "--workers", "2"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("out/.0.h5.*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    if process.returncode == 0:  # it came too late
        assert after > 0 and said == ""
        return
    assert process.returncode == 130
    assert said == "error: interrupted; no output is half-written\n"


def _dies(chunk: jobs.Chunk, path: Path) -> None:
    os._exit(9)


def test_strict_refuses_energies_outside_the_range(folder: Path, tmp_path) -> None:
    fast = io.load(folder / "fast.h5")[:10]
    io.save(Showers.from_arrays(fast.cells * 50, fast.incident_energy * 50), tmp_path / "far.h5")
    with pytest.raises(DomainError, match="10 of 10 showers have incident energies outside"):
        refine_file(folder / "m.safetensors", tmp_path / "far.h5", tmp_path / "o.h5", strict=True)
    refine_file(folder / "m.safetensors", tmp_path / "far.h5", tmp_path / "o.h5")
    assert io.load(tmp_path / "o.h5").columns["outside_domain"].all()


def test_bad_model_files(folder: Path, tmp_path) -> None:
    """Missing, truncated, foreign, of a later version, or with weights that do not fit."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    fast, out = folder / "fast.h5", tmp_path / "o.h5"
    with pytest.raises(ModelFileError, match="there is no model file"):
        refine_file(tmp_path / "none.safetensors", fast, out)
    with pytest.raises(ModelFileError, match="no shipped model is called 'nonsense'"):
        refine_file("nonsense", fast, out)
    data = (folder / "m.safetensors").read_bytes()
    bad = tmp_path / "bad.safetensors"
    for keep in (0, 5, 100, len(data) // 2, len(data) - 1):
        bad.write_bytes(data[:keep])
        with pytest.raises(ModelFileError, match=r"is not a readable model file|cannot be read"):
            refine_file(bad, fast, out)
    bad.write_bytes(b"\x00" * 1000)
    with pytest.raises(ModelFileError, match="is not a readable model file"):
        refine_file(bad, fast, out)
    with safe_open(folder / "m.safetensors", framework="pt") as handle:
        tensors = {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118
        meta = handle.metadata()
    save_file(tensors, bad)
    with pytest.raises(ModelFileError, match="safetensors file, but no model file of hepbridge"):
        refine_file(bad, fast, out)
    save_file(
        tensors,
        bad,
        {"hepbridge": meta["hepbridge"].replace('"format_version": 1', '"format_version": 99')},
    )
    with pytest.raises(ModelFileError, match="format version 99; this hepbridge reads 1 to 1"):
        refine_file(bad, fast, out)
    save_file(tensors, bad, {"hepbridge": meta["hepbridge"].replace('"width": 16', '"width": 24')})
    with pytest.raises(ModelFileError, match="the weights do not fit the recipe"):
        refine_file(bad, fast, out)
    save_file(tensors, bad, {"hepbridge": "{not json"})
    with pytest.raises(ModelFileError, match="the header of the model is damaged"):
        refine_file(bad, fast, out)
    assert not out.exists()


def test_bad_shower_files(folder: Path, tmp_path) -> None:
    model, out = folder / "m.safetensors", tmp_path / "o.h5"
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(DataError):
        refine_file(model, tmp_path / "text.h5", out)
    with h5py.File(tmp_path / "cells.h5", "w") as handle:
        handle["incident_energies"] = np.full((5, 1), 5e4)
        handle["showers"] = np.ones((5, 64), np.float32)
    with pytest.raises(DataError, match="64"):
        refine_file(model, tmp_path / "cells.h5", out)
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_model_file_says_what_it_is(folder: Path) -> None:
    header = read_header(folder / "m.safetensors")
    assert header["format_version"] == 1
    assert header["recipe"]["model"]["symmetry"] == "declared"
    assert header["domain"]["incident_energy_mev"][0] == pytest.approx(10_000, rel=0.05)
    assert header["provenance"]["request"]["fast"] != header["provenance"]["request"]["full"]
    assert set(header["metrics"]["distance"]) == {"fast", "quantile", "refined"}
