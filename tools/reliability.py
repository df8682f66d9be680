"""Failure drills and fuzzing in earnest: two parts at a time, each with its share of the minutes.

    python tools/reliability.py -o docs/results/reliability.md                 (make reliability)
    python tools/reliability.py --part kill-bulk --part points --share 0.1     some parts, briefly

Stops at the first result that differs from that of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "reliability"
TIMES = {
    "kill-bulk": 60,
    "kill-training": 60,
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
KINDS = (
    "hdf5", "npy", "root", "points", "tables", "xml", "detector", "recipe", "model", "model header",
    "generator", "generator header", "checkpoint", "contract", "texts that grow",
)  # fmt: skip
LANES = 2  # parts at a time
START = 15  # seconds that a part needs before it begins


def run_part(name: str, share: float, seconds: float, seed: int) -> dict[str, Any]:
    """The counts of a drill or of a kind of hostile files."""
    if name in TIMES:
        return drill(name, max(1, round(TIMES[name] * share)), seconds, seed)
    return fuzz(name, max(1, round(FILES * share)), seconds)


def drill(name: str, times: int, seconds: float, seed: int) -> dict[str, Any]:
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", str(TESTS / "drills.py"), name),
            *("--times", str(times), "--seconds", str(seconds), "--seed", str(seed)),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def fuzz(kind: str, files: int, seconds: float) -> dict[str, Any]:
    test = f"test_damaged_files_are_refused[{kind}]"
    if kind.endswith(" header"):
        target = kind.removesuffix(" header")
        key = {"model": "hepbridge", "generator": "hepbridge-generator"}[target]
        test = f"test_models_with_any_header_are_refused_or_work[{target}-{key}]"
    if kind == "texts that grow":
        test = "test_texts_that_grow_are_refused"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                f"{TESTS / 'test_fuzz.py'}::{test}",
            ],
            cwd=ROOT,
            env=os.environ
            | {"HEPBRIDGE_FUZZ": str(files), "HEPBRIDGE_FUZZ_SECONDS": str(seconds)}
            | {"HEPBRIDGE_FUZZ_REPORT": str(report), "OMP_NUM_THREADS": "1"},
            check=True,
            stdout=sys.stderr,
        )
        if not report.exists():  # a list of texts, not of files at random
            return {"name": kind}
        return dict(json.loads(report.read_text()))


def recorded(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: Path, record: dict[str, Any]) -> None:
    print(record, flush=True)
    with open(path, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(record) + "\n")


def page(records: list[dict[str, Any]]) -> str:
    found_by = {r["part"]: r["found"] for r in records}
    drills = [found_by[name] for name in TIMES if name in found_by]
    files = [found_by[name] for name in KINDS if found_by.get(name, {}).keys() - {"name"}]
    minutes = sum(r["seconds"] for r in records) / 60
    lines = [
        "# Reliability",
        "",
        f"Written by `make reliability` on {date.today().isoformat()} ({platform.machine()}, Python "
        f"{platform.python_version()}, {minutes:.0f} minutes of one core). Every drill breaks a job, checks "
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
        "longer than 20 s or more than 300 MB, none that ran code. Point clouds are HDF5 files of two "
        "layouts, tables those of events, contracts the JSON beside an ONNX file.",
        "",
        "| kind | files | refused | read |",
        "|---|---|---|---|",
    ]
    for found in files:
        refused, read = found.get("refused", 0), found.get("ok", 0)
        lines.append(f"| {found['name']} | {refused + read:,} | {refused:,} | {read:,} |")
    lines += ["", f"All: {sum(f.get('refused', 0) + f.get('ok', 0) for f in files):,} files.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the number of drills and files"
    )
    parser.add_argument("--minutes", type=float, default=25, help="of the whole, at most, about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", help="file of finished parts, which are not repeated")
    parser.add_argument("--part", action="append", choices=(*TIMES, *KINDS), help="only this one")
    given = parser.parse_args()
    done = Path(given.record) if given.record else Path(tempfile.mkdtemp()) / "record.jsonl"
    known = {r["part"] for r in recorded(done)}
    parts = [name for name in given.part or (*TIMES, *KINDS) if name not in known]
    # kills have twice the time; one that has begun a drill ends it: a tenth is left for that
    shares = {name: 2 if name.startswith("kill") else 1 for name in parts}
    share = 0.9 * given.minutes * 60 * LANES / max(1, sum(shares.values()))
    writing = threading.Lock()

    def one(name: str) -> None:
        began = time.perf_counter()
        seconds = max(5.0, shares[name] * share - START)
        found = run_part(name, given.share, seconds, given.seed)
        with writing:
            keep(done, {"part": name, "seconds": time.perf_counter() - began, "found": found})

    with ThreadPoolExecutor(LANES) as pool:
        running = [pool.submit(one, name) for name in parts]
        try:
            for future in running:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    text = page(recorded(done))
    print(text)
    if given.output:
        given.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
