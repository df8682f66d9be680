"""Failure drills and fuzzing in earnest, and the throughput of bulk refinement.

    python tools/reliability.py -o docs/results/reliability.md   (make reliability)
    python tools/reliability.py --throughput ROWS                prints a table

Stops at the first result that differs from that of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "reliability"
TIMES = {
    "kill-bulk": 60,
    "kill-training": 50,
    "kill-simulation": 60,
    "together-bulk": 30,
    "together-simulation": 30,
    "shards": 30,
    "limit-bulk": 50,
    "limit-training": 20,
    "limit-simulation": 50,
    "full-bulk": 20,
    "truncate-hdf5": 50,
    "truncate-npy": 50,
    "worker": 10,
}
WHAT = {
    "kill-bulk": "`kill -9` in bulk refinement, clocks set wrong between",
    "kill-training": "`kill -9` in a training of several phases, clocks set wrong between",
    "kill-simulation": "`kill -9` in a simulation, clocks set wrong between",
    "together-bulk": "two or three processes refine into the same files, one may be killed",
    "together-simulation": "two or three processes simulate into the same file, one may be killed",
    "shards": "2 to 7 shards at once, some killed, then the run that finishes",
    "limit-bulk": "a write fails in the middle (file size limit): refinement",
    "limit-training": "the same: training",
    "limit-simulation": "the same: simulation",
    "full-bulk": "a disk that is full (tmpfs), then made larger",
    "truncate-hdf5": "an HDF5 input is cut while it is read, then restored",
    "truncate-npy": "an .npy input is cut while it is read, then restored",
    "worker": "`kill -9` of one of two worker processes",
}
FILES = 2000  # hostile files of each kind


def drill(name: str, times: int, seed: int) -> dict[str, float]:
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", str(TESTS / "drills.py"), name),
            *("--times", str(times), "--seed", str(seed)),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def fuzz(files: int) -> list[dict[str, int]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                TESTS / "test_fuzz.py",
            ],
            cwd=ROOT,
            env=os.environ
            | {"HEPBRIDGE_FUZZ": str(files), "HEPBRIDGE_FUZZ_REPORT": str(report)}
            | {"OMP_NUM_THREADS": "1"},
            check=True,
            stdout=sys.stderr,
        )
        return [json.loads(line) for line in report.read_text().splitlines()]


def recorded(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: Path, record: dict[str, Any]) -> None:
    print(record, flush=True)
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(record) + "\n")


def page(records: list[dict[str, Any]]) -> str:
    drills = [r["found"] for r in records if r["drill"] != "fuzz"]
    files = next(r["found"] for r in records if r["drill"] == "fuzz")
    seconds = sum(r["seconds"] for r in records)
    lines = [
        "# Reliability",
        "",
        f"Written by `make reliability` on {date.today().isoformat()} ({platform.machine()}, Python "
        f"{platform.python_version()}, {seconds / 60:.0f} minutes). Every drill breaks a job, checks "
        "that nothing half-written bears a final name, runs the same command again and compares all "
        "outputs, byte by byte, with those of a run that nobody disturbed; then no other file may be "
        "left. It stops at the first difference: **a page means that there was none.**",
        "",
        "| drill | times | killed | failed and said so | rows compared | rows verified |",
        "|---|---|---|---|---|---|",
    ]
    total = [0.0] * 5
    for found in drills:
        said = sum(found.get(k, 0) for k in ("writes_failed", "disk_full", "noticed"))
        numbers = [
            found["drills"],
            found.get("killed", 0) + found.get("worker_died", 0),
            said,
            found.get("rows_compared", 0),
            found.get("rows_verified", 0),
        ]
        total = [a + b for a, b in zip(total, numbers, strict=True)]
        lines.append(
            f"| {WHAT[str(found['name'])]} | " + " | ".join(f"{n:,.0f}" for n in numbers) + " |"
        )
    lines.append("| **all** | " + " | ".join(f"**{n:,.0f}**" for n in total) + " |")
    lines += [
        "",
        "*Killed* counts processes that were really ended by the signal; one that came after the end of "
        "the job counts as a drill without a kill. *Verified* are rows whose checksum, order and event "
        "ids were compared with the manifest and the input. A training has no rows: its weights are "
        "compared to the bit.",
        "",
        "## Hostile files",
        "",
        "Valid files with random changes (bytes, lengths, lost and repeated stretches, words that "
        "parsers know, pickles), each read by the reader of its kind in a process of its own. Every "
        "one was read or refused with one clear error: no other exception, no crash, none that took "
        "longer than 20 s or more than 300 MB, none that ran code.",
        "",
        "| kind | files | refused | read |",
        "|---|---|---|---|",
    ]
    for found in files:
        refused, read = found.get("refused", 0), found.get("ok", 0)
        lines.append(f"| {found['name']} | {refused + read:,} | {refused:,} | {read:,} |")
    lines += ["", f"All: {sum(f.get('refused', 0) + f.get('ok', 0) for f in files):,} files.", ""]
    return "\n".join(lines)


# ------------------------------------------------------------------------------- throughput


def throughput(rows: int) -> None:
    """Rows per second of `refine_cells` alone and of `hepbridge refine`, and the largest memory."""
    import numpy as np

    from hepbridge.data import io, sample
    from hepbridge.systems.inference import refine_cells
    from hepbridge.systems.model_file import load, locate

    fast = sample.load("train_fast")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "fast.h5"
        with io.open_writer(source, n=rows) as writer:
            for start in range(0, rows, 50_000):
                count = min(50_000, rows - start)
                some = fast[np.arange(start, start + count) % len(fast)]
                some.event_ids[:] = np.stack(
                    [np.full(count, 7), np.arange(start, start + count)], axis=1
                )
                writer.append(some)
        model, block = load(locate("squirels")), io.load(source, rows=50_000)

        def pure() -> None:
            refine_cells(
                model,
                block.cells,
                block.incident_energy,
                block.event_ids,
                conditions=block.conditions,
                batch=4096,
            )

        pure()
        print(f"{rows} rows; CPU and wall time in microseconds per row; peak memory of one process")
        for workers in (1, 2):
            cpu, wall = time.process_time(), time.perf_counter()
            pure()
            print(
                f"refine_cells: CPU {(time.process_time() - cpu) / len(block) * 1e6:.1f}, "
                f"wall {(time.perf_counter() - wall) / len(block) * 1e6:.1f}"
            )
            before, wall = used(), time.perf_counter()
            command = ["refine", "squirels", str(source), "-o", f"{folder}/{workers}.h5"]
            command += ["--device", "cpu", "--workers", str(workers)]
            subprocess.run(
                [sys.executable, "-m", "hepbridge", *command],
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            spent, passed = used() - before, time.perf_counter() - wall
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(
                f"{workers} worker(s): CPU {spent / rows * 1e6:.1f}, "
                f"wall {passed / rows * 1e6:.1f}, {memory:.0f} MB"
            )


def used() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the number of drills and files"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", help="file of finished drills, which are not repeated")
    parser.add_argument("--throughput", type=int, metavar="ROWS")
    given = parser.parse_args()
    if given.throughput:
        throughput(given.throughput)
        return
    done = Path(given.record) if given.record else Path(tempfile.mkdtemp()) / "record.jsonl"
    known = {r["drill"] for r in recorded(done)}
    for name, times in TIMES.items():
        if name not in known:
            began = time.perf_counter()
            found = drill(name, max(1, round(times * given.share)), given.seed)
            keep(done, {"drill": name, "seconds": time.perf_counter() - began, "found": found})
    if "fuzz" not in known:
        began = time.perf_counter()
        files = fuzz(max(1, round(FILES * given.share)))
        keep(done, {"drill": "fuzz", "seconds": time.perf_counter() - began, "found": files})
    text = page(recorded(done))
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
