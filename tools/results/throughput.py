"""How many showers a second: the refiner alone, and files through `hepbridge refine`, in turn.

    python tools/results/throughput.py [--large] [--record FILE] [-o docs/results/throughput.md]

Rounds of the three go one after the other for each number of rows, so that what else the machine does
meets all of them; medians are given. Files hold the bundled fast showers again and again, each row with
an event id of its own. ``--large``: 10 million rows, too, once, which need 12 GB on the disk. ``--record``
keeps each finished number of rows, which is then not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

from hepbridge.core.files import write_text
from hepbridge.core.jobs import cores
from hepbridge.data import io, sample
from hepbridge.data.showers import Showers
from hepbridge.systems.model_file import load, locate

MODEL = "squirels"
ROUNDS = {10_000: 5, 100_000: 5, 1_000_000: 3}
LARGE = {10_000_000: 1}
FILE = 1_000_000  # rows of one file, at most; smaller jobs have four files
BLOCK = 50_000  # rows in memory
FEW = 256  # rows of the job that shows what starting costs
WORKERS = (1, 2)


@dataclass
class Run:
    """Wall and CPU time in seconds, and the largest memory of all processes together in MB."""

    wall: float
    cpu: float
    memory: float = 0.0


def showers(rows: int, start: int) -> Showers:
    """Bundled fast showers, again and again; event ids count rows."""
    fast = sample.load("train_fast")
    some = fast[np.arange(start, start + rows) % len(fast)]
    some.event_ids[:] = np.stack([np.full(rows, 7), np.arange(start, start + rows)], axis=1)
    return some


def write_inputs(folder: Path, rows: int) -> None:
    folder.mkdir()
    size = min(FILE, -(-rows // 4)) if rows > FEW else rows
    for k, first in enumerate(range(0, rows, size)):
        last = min(first + size, rows)
        with io.open_writer(folder / f"{k:03d}.h5", n=last - first) as writer:
            for start in range(first, last, BLOCK):
                writer.append(showers(min(BLOCK, last - start), start))


def alone(rows: int) -> Callable[[], Run]:
    """`Model.refine` of showers in memory, on one core, as seconds for ``rows``."""
    model, some = load(locate(MODEL)), showers(min(rows, BLOCK), 0)
    model.refine(some)  # makes its tables

    def run() -> Run:
        wall, cpu = time.perf_counter(), time.process_time()
        model.refine(some)
        scale = rows / len(some)
        return Run((time.perf_counter() - wall) * scale, (time.process_time() - cpu) * scale)

    return run


def through_files(inputs: Path, output: Path, workers: int) -> Run:
    """The whole command, start-up included; its outputs are removed."""
    command = [sys.executable, "-m", "hepbridge", "--quiet", "refine", MODEL, f"{inputs}/*.h5"]
    command += ["-o", f"{output}/", "--device", "cpu", "--workers", str(workers)]
    before, wall = _used(), time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        largest = [0.0]
        watch = threading.Thread(target=_watch, args=(process, largest))
        watch.start()
        code = process.wait()
        passed = time.perf_counter() - wall
        watch.join()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}")
    shutil.rmtree(output)
    return Run(passed, _used() - before, largest[0])


def _used() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def _watch(process: subprocess.Popen[bytes], largest: list[float]) -> None:
    while process.poll() is None:
        largest[0] = max(largest[0], sum(map(_memory, _tree(process.pid))))
        time.sleep(0.1)


def _tree(parent: int) -> list[int]:
    """A process and all below it."""
    try:
        tasks = list(Path(f"/proc/{parent}/task").iterdir())
        below = {int(word) for task in tasks for word in (task / "children").read_text().split()}
    except OSError:  # it has ended
        return [parent]
    return [parent, *(process for child in below for process in _tree(child))]


def _memory(process: int) -> float:
    """Resident memory in MB; libraries that processes share count for each."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(rows: int, rounds: int, folder: Path) -> dict[str, Run]:
    """Medians by what was run."""
    inputs, few = folder / f"in{rows}", folder / "few"
    write_inputs(inputs, rows)
    if not few.exists():
        write_inputs(few, FEW)
    found: dict[str, list[Run]] = {}
    pure = alone(rows)
    for _ in range(rounds):
        found.setdefault("alone", []).append(pure())
        for workers in WORKERS:
            for name, source in (("start", few), ("files", inputs)):
                run = through_files(source, folder / "out", workers)
                found.setdefault(f"{name} {workers}", []).append(run)
                print(rows, name, workers, run, flush=True)
    shutil.rmtree(inputs)
    return {
        name: Run(*(median(getattr(run, key) for run in runs) for key in ("wall", "cpu", "memory")))
        for name, runs in found.items()
    }


def kept(rows: int, rounds: int, folder: Path, record: Path | None) -> dict[str, Run]:
    """What the record holds for so many rows, or what is measured now and put there."""
    known = json.loads(record.read_text("utf-8")) if record and record.exists() else {}
    if str(rows) not in known:
        known[str(rows)] = {
            name: asdict(run) for name, run in measure(rows, rounds, folder).items()
        }
        if record:
            write_text(record, json.dumps(known, indent=1))
    return {name: Run(**run) for name, run in known[str(rows)].items()}


def page(found: dict[int, dict[str, Run]], rounds: dict[int, int], load_average: float) -> str:
    lines = [
        "# Throughput",
        "",
        f"Written by `tools/results/throughput.py` on {date.today().isoformat()}: {platform.machine()}, "
        f"{cores()} cores, load {load_average:.1f} when it began, Python {platform.python_version()}, "
        f"model `{MODEL}`, 100 cells, from HDF5 to HDF5. *Alone* is `Model.refine` of showers in memory, "
        "on one core; the others are the whole command, its start included. In brackets: the speed "
        "over that of the refiner alone, and the same without what a job of "
        f"{FEW} showers takes. Memory is that of all processes together, in which shared libraries "
        "count for each. Medians of "
        + ", ".join(
            f"{n} round{'s' if n > 1 else ''} of {rows:,} rows" for rows, n in rounds.items()
        )
        + ".",
        "",
        "| rows | alone, rows/s | 1 worker, rows/s | 2 workers, rows/s | CPU µs per row: alone, 1, 2 "
        "| memory, MB: 1, 2 workers |",
        "|---|---|---|---|---|---|",
    ]
    for rows, runs in found.items():
        speed = rows / runs["alone"].wall
        cells = [f"{rows:,}", f"{speed:,.0f}"]
        for workers in WORKERS:
            whole, start = runs[f"files {workers}"], runs[f"start {workers}"]
            bare = rows / max(whole.wall - start.wall, 1e-9)
            cells.append(
                f"{rows / whole.wall:,.0f} ({rows / whole.wall / speed:.2f}; {bare / speed:.2f})"
            )
        named = ("alone", *(f"files {workers}" for workers in WORKERS))
        cells.append(", ".join(f"{runs[name].cpu / rows * 1e6:.1f}" for name in named))
        cells.append(", ".join(f"{runs[name].memory:,.0f}" for name in named[1:]))
        lines.append("| " + " | ".join(cells) + " |")
    starts = [runs[f"start {workers}"].wall for runs in found.values() for workers in (1,)]
    lines += ["", f"A job of {FEW} showers with one worker took {median(starts):.1f} s.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--large", action="store_true", help="10 million rows, too")
    parser.add_argument("--rows", type=int, action="append", help="these instead, once each")
    parser.add_argument("--record", type=Path, help="file of finished numbers of rows")
    parser.add_argument("--folder", type=Path, help="where the files are made (on a local disk)")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rounds = {n: 1 for n in given.rows} if given.rows else ROUNDS | (LARGE if given.large else {})
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = {rows: kept(rows, n, Path(folder), given.record) for rows, n in rounds.items()}
    text = page(found, rounds, busy)
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
