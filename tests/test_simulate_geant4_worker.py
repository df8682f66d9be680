"""Workers that crash, hang, are killed or never start: reported, and never more than that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hepbridge.core.errors import ConfigError, SimulationError
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import load_detector
from hepbridge.simulate.geant4 import require, simulate
from hepbridge.simulate.geant4.datasets import DATASETS
from hepbridge.simulate.geant4.process import run_worker


def stand_in(tmp_path: Path, code: str, **limits: Any) -> list[str]:
    """Run a worker made of these lines; ``say(line)`` writes into its status file."""
    status = tmp_path / "status"
    say = f"say = lambda line: print(line, file=open({str(status)!r}, 'a'))\n"
    how: dict[str, Any] = {"start_timeout_s": 10.0, "event_timeout_s": 10.0, **limits}
    return run_worker(
        [sys.executable, "-c", say + code], os.environ, status, log_file=tmp_path / "log", **how
    )


def test_a_good_worker(tmp_path: Path) -> None:
    code = "print('hello'); say('geant4 1'); say('ready'); say('done')"
    assert stand_in(tmp_path, code) == ["geant4 1", "ready", "done"]
    assert (tmp_path / "log").read_text() == "hello\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV, while it started"),
        ("say('ready'); say('event'); import os; os.abort()", "SIGABRT, after 1 events"),
        ("raise SystemExit(5)", "exit code 5"),
        ("say('done'); raise SystemExit(1)", "exit code 1"),
        ("pass", "exit code 0"),  # ends well but has not done its work
        ("print('Download? '); input()", "(?s)exit code 1.*Download.*EOFError"),
        (
            "print('-------- EEEE ------- G4Exception-START -------- EEEE -------\\nbad data\\n'"
            " + 20 * 'more\\n'); raise SystemExit(1)",
            "(?s)G4Exception-START.*bad data",
        ),
    ],
)
def test_a_worker_that_ends_badly_is_reported_with_its_log(
    tmp_path: Path, code: str, message: str
) -> None:
    with pytest.raises(SimulationError, match=message) as caught:
        stand_in(tmp_path, code)
    assert str(tmp_path / "log") in str(caught.value)


def test_what_the_worker_finds_wrong_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^no such thing$"):
        stand_in(tmp_path, "say('error no such thing'); raise SystemExit(3)")


@pytest.mark.parametrize(("first", "when"), [("", "was not ready"), ("say('ready')", "no event")])
def test_a_worker_that_hangs_is_killed_with_its_children(
    tmp_path: Path, first: str, when: str
) -> None:
    """Like a question on standard input that is asked again and again, or a stuck track."""
    child = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True)"
    start = time.monotonic()
    with pytest.raises(SimulationError, match=f"{when}.* within 1 s and was killed"):
        code = f"{first}\n{child}\ntime.sleep(60)"
        stand_in(tmp_path, code, start_timeout_s=1.0, event_timeout_s=1.0)
    assert time.monotonic() - start < 30
    with pytest.raises(ProcessLookupError):
        wait_for_end(int((tmp_path / "log").read_text()))


def wait_for_end(pid: int, seconds: float = 15.0) -> None:
    """Raises ProcessLookupError as soon as the process is gone; ends it if it does not go."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            raise ProcessLookupError  # a zombie is gone
        os.kill(pid, 0)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)


def test_a_worker_that_makes_progress_may_take_longer_than_the_time_out(tmp_path: Path) -> None:
    code = "import time; say('ready')\nfor _ in range(4): time.sleep(1); say('event')\nsay('done')"
    assert stand_in(tmp_path, code, event_timeout_s=3).count("event") == 4


def test_the_log_of_a_failure_outlives_the_folder_of_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "block").mkdir()
    with pytest.raises(SimulationError) as caught:
        stand_in(tmp_path / "block", "print('last words'); raise SystemExit(1)", keep_log=False)
    (kept,) = tmp_path.glob("hepbridge-geant4-*.log")
    assert kept.read_text() == "last words\n" and str(kept) in str(caught.value)


@pytest.mark.slow
def test_geant4_that_gives_up_is_reported(
    geant4_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables that are none: Geant4 aborts its process, and only that."""
    (tmp_path / "data" / "G4EMLOW8.8").mkdir(parents=True)
    (tmp_path / "data" / "G4EMLOW8.8" / "table").write_text("1")
    monkeypatch.setenv("GEANT4_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for dataset in DATASETS:
        monkeypatch.delenv(dataset.variable, raising=False)
    log = tmp_path / "log"
    with pytest.raises(SimulationError, match=r"(?s)SIGABRT.*G4Exception.*G4EMLOW8.8") as caught:
        simulate(load_detector("squirels"), Beam.of(100.0), seed=1, log=log)
    assert str(log) in str(caught.value) and "G4Exception" in log.read_text()


@pytest.mark.slow
def test_electromagnetic_tables_alone_are_enough(
    geant4_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Geant4 itself refuses to start without the folders of the other data sets."""
    (tables,) = geant4_data.glob("G4EMLOW*")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / tables.name).symlink_to(tables.resolve())
    monkeypatch.setenv("GEANT4_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for dataset in DATASETS:
        monkeypatch.delenv(dataset.variable, raising=False)
    assert simulate(load_detector("squirels"), Beam.of(100.0), seed=1).sum() > 80


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker in /proc")
@pytest.mark.parametrize("killed", ["worker", "parent"])
def test_a_kill_in_the_middle_of_a_run(geant4_data: Path, tmp_path: Path, killed: str) -> None:
    """A killed worker is an error of the parent; a killed parent leaves no worker behind."""
    code = (
        "from hepbridge.simulate.geant4 import simulate\n"
        "from hepbridge.simulate.beam import Beam\n"
        "from hepbridge.simulate.detector import load_detector\n"
        "simulate(load_detector('squirels'), Beam.of([3e3] * 10000), seed=1)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        deadline = time.monotonic() + 60
        while not any("event" in p.read_text() for p in tmp_path.glob("*/status")):
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.1)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        worker = int(children[0])
        os.kill(worker if killed == "worker" else parent.pid, signal.SIGKILL)
        error = parent.communicate(timeout=20)[1]
    finally:
        parent.kill()
    if killed == "worker":
        assert parent.returncode == 1 and "was ended by signal SIGKILL" in error
        (kept,) = tmp_path.glob("hepbridge-geant4-*.log")
        assert str(kept) in error
    with pytest.raises(ProcessLookupError):
        wait_for_end(worker)


@pytest.mark.slow
def test_no_question_and_no_download(geant4_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``CI=true`` geant4-pybind would download 2 GB when it is imported; fails if it tries."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("HOME", "/nowhere")  # where it would download to
    assert require() in ("em", "FTFP_BERT")
    assert simulate(load_detector("squirels"), Beam.of(100.0), seed=1).sum() > 80
