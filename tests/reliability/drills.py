"""Failure drills: break work on purpose, run it again, compare with a run that nobody disturbed.

    PYTHONPATH=tests python tests/reliability/drills.py NAME --times N [--seed S]

prints one JSON object of counts, and ends with an error at the first difference. Jobs run in forked
children of this process, so that importing torch costs nothing and a kill can come at any moment.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import hashlib
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

import stand_in_engine
from hepbridge.core.errors import DataError, HepbridgeError, OutputError
from hepbridge.data import io, sample
from hepbridge.deploy import refine_job
from hepbridge.deploy.contents import verify_file
from hepbridge.deploy.refine import refine_files
from hepbridge.deploy.refine_job import Options
from hepbridge.simulate.detector import load_detector
from hepbridge.simulate.gun import Gun
from hepbridge.simulate.produce import produce
from hepbridge.training import fit
from hepbridge.training.checkpoint import read_checkpoint, write_checkpoint
from hepbridge.training.tensor_file import content_digest
from test_training_loop import SETTINGS, Alternating

MODEL = "squirels-small"
ROWS = (900, 1500, 300)
refine_job.CHUNK = refine_job.TILE  # many pieces, so that there is much to interrupt
DAY = 86_400
Work = Callable[[Path], None]


class Difference(Exception):
    """What a drill must never find."""


# ------------------------------------------------------------------------------- the three jobs


def bulk_inputs(folder: Path, suffix: str = ".h5") -> None:
    showers, start = sample.load("train_fast"), 0
    for k, n in enumerate(ROWS):
        rows = showers[start : start + n]
        rows.columns["run"] = np.arange(n)
        if not (folder / f"in{k}{suffix}").exists():
            io.save(rows, folder / f"in{k}{suffix}")
        start += n


def bulk(folder: Path, shard: tuple[int, int] = (0, 1), workers: int = 1, suffix: str = ".h5"):
    files = {folder / f"in{k}{suffix}": folder / f"out{k}.h5" for k in range(len(ROWS))}
    refine_files(MODEL, files, Options(seed=3), shard=shard, workers=workers)


def training(folder: Path) -> None:
    """Four phases of two networks that learn from each other, and a third one; see the test."""
    output, state = folder / "out.safetensors", folder / "state.checkpoint"
    if output.exists():
        return
    problem = Alternating(steps=20)
    fit(problem.phases(), SETTINGS, seed=9, checkpoint=state, resume=True)
    weights = {
        f"{i}.{k}": v for i, m in enumerate(problem.modules()) for k, v in m.state_dict().items()
    }
    write_checkpoint(output, weights, {})
    state.unlink(missing_ok=True)


def simulation(folder: Path) -> None:
    detector = load_detector("squirels")
    gun = Gun.of(detector, "uniform:10-100", theta="uniform:0-10", seed=5)
    engine = stand_in_engine.engine()
    produce(engine, detector, gun, 3000, folder / "out.h5", workers=1, seed=3)


def results(folder: Path) -> dict[str, str]:
    """Digest of every output: of its bytes, or of weights, whose file has its metadata in any order."""
    found = {}
    for path in folder.glob("out*"):
        if path.suffix == ".safetensors":
            found[path.name] = content_digest(read_checkpoint(path)[0], "")
        else:
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".") or "checkpoint" in p.name]


# ------------------------------------------------------------------------------- children


def start(work: Work, folder: Path) -> int:
    """A forked child that does the work: exit code 0, that of a HepbridgeError, or 99 for a bug."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        logging.getLogger("hepbridge").setLevel(logging.ERROR)
        work(folder)
        code = 0
    except HepbridgeError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        with suppress(OSError):  # the disk may be full
            (folder / "said").write_text(str(error))
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(work: Work, folder: Path) -> int:
    return end(start(work, folder))


def skew(folder: Path, rng: np.random.Generator) -> None:
    """Clocks that are wrong by up to a day, and differ from file to file."""
    for path in folder.rglob("*"):
        moment = time.time() + rng.uniform(-DAY, DAY)
        os.utime(path, (moment, moment))


class Drill:
    """A job, what it makes undisturbed and how long that takes."""

    def __init__(self, work: Work, prepare: Work, seed: int) -> None:
        self.work, self.prepare = work, prepare
        self.rng = np.random.default_rng(seed)
        self.count: Counter[str] = Counter()
        self.scratch = tempfile.TemporaryDirectory(prefix="drill-")
        calm = self.fresh()
        began = time.perf_counter()
        if run(work, calm):
            raise Difference("the undisturbed run failed")
        self.seconds = time.perf_counter() - began
        self.truth = results(calm)

    def fresh(self) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.scratch.name))
        self.prepare(folder)
        return folder

    def moment(self) -> float:
        return float(self.rng.uniform(0, self.seconds))

    def finish(self, folder: Path) -> None:
        """Run again without disturbance; all must be as if nothing had been."""
        code = run(self.work, folder)
        if code:
            raise Difference(f"the rerun ended with {code}: {(folder / 'said').read_text()}")
        self.compare(folder)
        if not folder.is_mount():
            shutil.rmtree(folder)

    def compare(self, folder: Path, *, clean: bool = True) -> None:
        """Raise Difference unless all results are right, and nothing else is there if it is ``clean``."""
        self.count["drills"] += 1
        if results(folder) != self.truth:
            raise Difference(f"in {folder}: {results(folder)} instead of {self.truth}")
        if clean and leftovers(folder):
            raise Difference(f"left behind in {folder}: {leftovers(folder)}")
        for path in folder.glob("out*.h5"):
            with io.open_reader(path) as reader:
                self.count["rows_compared"] += len(reader)
            if (folder / path.name.replace("out", "in")).exists():
                checked = verify_file(path, folder / path.name.replace("out", "in"))
                self.count["rows_verified"] += checked["rows"]


def no_half_file(folder: Path, truth: dict[str, str]) -> None:
    """Whatever has its final name is complete."""
    for name, digest in results(folder).items():
        if digest != truth[name]:
            raise Difference(f"{folder / name} is there, but not complete")


# ------------------------------------------------------------------------------- what goes wrong


def kill(drill: Drill) -> None:
    """kill -9 at random moments, one to three times in a row, with clocks that are wrong between."""
    folder = drill.fresh()
    while True:
        child = start(drill.work, folder)
        time.sleep(drill.moment())
        os.kill(child, signal.SIGKILL)
        drill.count["killed" if end(child) == -signal.SIGKILL else "too_late"] += 1
        no_half_file(folder, drill.truth)
        skew(folder, drill.rng)
        if drill.rng.random() < 0.7:
            break
    drill.finish(folder)


def together(drill: Drill) -> None:
    """Two or three processes do the same at the same time; one may be killed. All others succeed."""
    folder = drill.fresh()
    children = []
    for _ in range(int(drill.rng.integers(2, 4))):
        children.append(start(drill.work, folder))
        time.sleep(drill.moment() * 0.3)
    victim = drill.rng.random() < 0.5
    if victim:
        time.sleep(drill.moment() * 0.5)
        os.kill(children[0], signal.SIGKILL)
    codes = [end(child) for child in children]
    if any(codes[victim:]):
        raise Difference(f"processes beside each other ended with {codes}")
    drill.count["beside"] += len(children)
    # one that was killed after another had finished leaves its pieces, until the next run
    drill.compare(folder, clean=codes[0] != -signal.SIGKILL)
    drill.finish(folder)


def shards(drill: Drill) -> None:
    """Shards at the same time, some killed; then the run that puts together what is left."""
    folder, n = drill.fresh(), int(drill.rng.integers(2, 8))
    children = [start(lambda f, k=k: bulk(f, shard=(k, n)), folder) for k in range(n)]
    for child in children:
        if drill.rng.random() < 0.3:
            time.sleep(drill.moment() * 0.3)
            os.kill(child, signal.SIGKILL)
    codes = [end(child) for child in children]
    if set(codes) - {0, -signal.SIGKILL}:
        raise Difference(f"shards ended with {codes}: {(folder / 'said').read_text()}")
    drill.count["shards"] += n
    drill.count["killed"] += codes.count(-signal.SIGKILL)
    if -signal.SIGKILL not in codes:
        drill.compare(folder)
    drill.finish(folder)


def limit(drill: Drill) -> None:
    """No file may grow beyond a random size: writing fails in the middle."""
    folder, bytes_ = drill.fresh(), int(10 ** drill.rng.uniform(2, 5))

    def limited(where: Path) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, resource.RLIM_INFINITY))
        drill.work(where)

    code = run(limited, folder)
    if code not in (0, OutputError.exit_code):
        raise Difference(f"a write that failed ended with {code}")
    drill.count["writes_failed"] += code != 0
    no_half_file(folder, drill.truth)
    drill.finish(folder)


def full(drill: Drill) -> None:
    """A disk (tmpfs) that is really full; then it is made larger and the command repeated."""
    folder = drill.fresh()
    size, verdict = int(drill.rng.integers(64, 1200)) << 10, folder.with_suffix(".verdict")

    def on_a_small_disk(where: Path) -> None:
        disk = where / "disk"
        disk.mkdir()
        mount(disk, 1 << 30)
        for path in where.glob("in*"):
            shutil.copy(path, disk)
        used = sum(p.stat().st_size + 4096 for p in disk.iterdir())
        mount(disk, used + size, again=True)
        code = run(drill.work, disk)
        if code not in (0, OutputError.exit_code):
            raise Difference(f"a full disk ended with {code}")
        said = (disk / "said").read_text() if (disk / "said").exists() else ""
        if code and said and "disk is full" not in said:
            raise Difference(f"a full disk was called: {said}")
        no_half_file(disk, drill.truth)
        mount(disk, 1 << 30, again=True)
        drill.finish(disk)
        verdict.write_text(json.dumps({**drill.count, "disk_full": int(code != 0)}))

    if run(on_a_small_disk, folder):
        raise Difference("a full disk, see above")
    drill.count = Counter(json.loads(verdict.read_text())) + Counter(
        disk_full=drill.count["disk_full"]
    )


def mount(path: Path, size: int, *, again: bool = False) -> None:
    """A file system in memory that only this process and its children see."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not again and libc.unshare(0x00020000):  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=not again, capture_output=again)
    options = f"size={size}" if not again else f"remount,size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=True)


def truncate(drill: Drill) -> None:
    """An input is cut at a random moment, then restored."""
    folder = drill.fresh()
    victim = sorted(folder.glob("in*"))[int(drill.rng.integers(len(ROWS)))]
    whole = victim.read_bytes()
    child = start(drill.work, folder)
    time.sleep(drill.moment())
    os.truncate(victim, int(drill.rng.integers(len(whole))))
    code = end(child)
    if code not in (0, DataError.exit_code):
        raise Difference(f"a truncated input ended with {code}")
    drill.count["noticed"] += code != 0
    no_half_file(folder, drill.truth)
    victim.write_bytes(whole)
    drill.finish(folder)


def worker(drill: Drill) -> None:
    """kill -9 of one of two worker processes."""
    folder = drill.fresh()
    child = start(lambda f: bulk(f, workers=2), folder)
    deadline = time.monotonic() + 60
    while not (pids := children_of(child)) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(drill.rng.uniform(0, 6))
    pids = children_of(child) or pids
    try:
        os.kill(int(drill.rng.choice(pids)), signal.SIGKILL)
    except ProcessLookupError:
        drill.count["too_late"] += 1
    code = end(child)
    if code not in (0, 1):
        raise Difference(f"a dead worker ended with {code}")
    if code and "worker process died" not in (folder / "said").read_text():
        raise Difference(f"a dead worker was called: {(folder / 'said').read_text()}")
    drill.count["worker_died"] += code != 0
    drill.finish(folder)


def children_of(parent: int) -> list[int]:
    """Worker processes: children that are not multiprocessing's tracker of resources."""
    try:
        text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        text += "".join(p.read_text() for p in Path(f"/proc/{parent}/task").glob("*/children"))
    except OSError:
        return []
    found = {int(word) for word in text.split()}
    return [p for p in sorted(found) if b"spawn_main" in _words(p)]


def _words(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH):
            raise
        return b""


def npy_inputs(folder: Path) -> None:
    bulk_inputs(folder, ".npy")


def npy_bulk(folder: Path) -> None:
    bulk(folder, suffix=".npy")


def nothing(folder: Path) -> None:
    """Training and simulation need no files."""


DRILLS: dict[str, tuple[Work, Work, Callable[[Drill], None]]] = {
    "kill-bulk": (bulk, bulk_inputs, kill),
    "kill-training": (training, nothing, kill),
    "kill-simulation": (simulation, nothing, kill),
    "together-bulk": (bulk, bulk_inputs, together),
    "together-simulation": (simulation, nothing, together),
    "shards": (bulk, bulk_inputs, shards),
    "limit-bulk": (bulk, bulk_inputs, limit),
    "limit-training": (training, nothing, limit),
    "limit-simulation": (simulation, nothing, limit),
    "full-bulk": (bulk, bulk_inputs, full),
    "truncate-hdf5": (bulk, bulk_inputs, truncate),
    "truncate-npy": (npy_bulk, npy_inputs, truncate),
    "worker": (bulk, bulk_inputs, worker),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=DRILLS)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after that")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    refine_job.Trained.of(MODEL).load().refine(sample.load("train_fast")[:300])  # children have it
    work, prepare, accident = DRILLS[given.name]
    end = time.monotonic() + given.seconds
    drill = Drill(work, prepare, given.seed)
    for k in range(given.times):
        if k and time.monotonic() >= end:
            break
        accident(drill)
    found = {"name": given.name, "seconds_undisturbed": drill.seconds, **drill.count}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
