"""Work that is killed, cut off, starved or doubled ends as if nothing had been (see drills.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hepbridge.core.files import write_text

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, kills and limits"),
]


ENDS = """
import os, signal, sys
from hepbridge.core.files import atomic_path
with atomic_path(sys.argv[1]) as path:
    path.write_text("half")
    if sys.argv[2] == "wait":
        print(flush=True)
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_temporary_file_of_a_killed_process_goes_that_of_another_stays(tmp_path: Path) -> None:
    """Fails if nothing is removed, or the file of a process that lives and writes."""
    output = str(tmp_path / "o.txt")
    words = [sys.executable, "-c", ENDS, output]
    subprocess.run([*words, "die"], check=False)
    (dead,) = tmp_path.iterdir()
    with subprocess.Popen(
        [*words, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (alive,) = tmp_path.iterdir()
        assert alive != dead
        write_text(output, "whole")
        assert alive.exists() and Path(output).read_text() == "whole"
        process.kill()
    write_text(output, "again")
    assert [p.name for p in tmp_path.iterdir()] == ["o.txt"]


def drilled(name: str, times: int) -> dict[str, float]:
    """The counts of a drill; fails with its words at the first difference."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(here / "drills.py"), name, "--times", str(times)],
        env=os.environ | {"PYTHONPATH": str(here.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("job", ["bulk", "training", "simulation"])
def test_kill_9_at_any_moment(job: str) -> None:
    """Five times: the rerun gives the same bits, and nothing else is in the folder.

    Fails if a piece or an output gets its name before it is complete, if a piece is named by its
    rows alone, or if the temporary file of a killed process stays.
    """
    found = drilled(f"kill-{job}", 5)
    assert found["drills"] == 5 and found.get("killed", 0) + found.get("too_late", 0) >= 5
    assert found.get("killed", 0) >= 1


def test_processes_beside_each_other_share_the_work() -> None:
    """Fails if one of two that make the same output ends with an error, or if a lock stays."""
    assert drilled("together-bulk", 3)["beside"] >= 6


def test_shards_beside_each_other_lose_nothing() -> None:
    """Fails if a file between two shards is forgotten, or put together from some of its pieces."""
    assert drilled("shards", 4)["shards"] >= 8


@pytest.mark.parametrize("job", ["bulk", "training", "simulation"])
def test_writes_that_fail_leave_nothing(job: str) -> None:
    assert drilled(f"limit-{job}", 3)["drills"] == 3


@pytest.mark.parametrize("kind", ["hdf5", "npy"])
def test_an_input_that_is_cut_is_noticed(kind: str) -> None:
    """Fails if an .npy file is mapped into memory (the process is gone), or if rows are lost."""
    assert drilled(f"truncate-{kind}", 3)["drills"] == 3


def test_a_worker_that_dies_is_reported() -> None:
    assert drilled("worker", 1)["drills"] == 1
