"""The speed of refiners and generators, as a ratio to the paper's network timed in the same run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from hepbridge.core.errors import ConfigError
from hepbridge.core.progress import progress
from hepbridge.data import sample
from hepbridge.data.showers import Showers
from hepbridge.deploy.generator_stages import generators
from hepbridge.deploy.machine import on_one_core, state
from hepbridge.deploy.stages import Stage, competitors, refiners, simulations
from hepbridge.deploy.timer import Timing, interleaved, ratio
from hepbridge.systems.generation.model_file import is_generator
from hepbridge.systems.model_file import locate

__all__ = ["BATCHES", "PUBLISHED", "REPEATS", "bench", "measure"]

log = logging.getLogger(__name__)

BATCHES = (1, 100, 10_000)
REPEATS = 10

PUBLISHED: dict[str, Any] = {
    "source": "SQuIRELS, arXiv:2308.12339, Table II",
    "machine": "one core of an AMD EPYC 7713; 10 times 100 showers",
    "ms_per_shower": {
        "Geant4": [404.8, 8.5],
        "GFLASH": [8.5, 0.4],
        "SQuIRELS, refinement alone": [7.21, 0.04],
        "SQuIRELS with GFLASH": [15.7, 0.4],
    },
}

_STEP = 256  # rows are cut to a multiple of this, for what is too slow for a whole batch
_BUDGET_S = 35.0  # of one batch size, shared by the stages
_LEAST_S = 0.05  # a repeat of a small batch lasts about this long at least


def bench(
    models: Sequence[str | Path] = (),
    *,
    batches: Sequence[int] = BATCHES,
    repeats: int = REPEATS,
) -> dict[str, Any]:
    """Time refiners, generators and the paper's network in turn, on one core with one thread.

    A refiner is timed as a user runs it, from cells in MeV to cells in MeV, its noise keyed by
    event id. The paper's system is timed from MeV to MeV too, but with plain noise and in chunks
    of 128 rows, which is where it is fastest: what doubt there is benefits the competitor. Its
    weights are random, which does not change its speed. A generator draws showers of its own
    calorimeter and energies; as that is another task, it is timed in microseconds only. Loading,
    export and first calls are left out. Where a whole batch is too slow, fewer rows or repeats are
    timed, and the record says so.

    Args:
        models: names of shipped models, or paths, of generators too; default: the shipped model ``squirels``, or,
            where there is none, the recipe of that name with untrained networks.
        batches: showers per call.
        repeats: per stage and batch; small batches are called until a repeat lasts about 50 ms.

    Returns:
        A record of plain values: ``machine``, ``protocol``, ``stages`` (each with its ``timings``:
        microseconds per shower, of wall time and in ``cpu`` of CPU time, and how many
        ``times_faster`` than each of the paper's stages it is), ``absent``
        (what could not be timed, and why), ``published`` (figures of the paper, from another
        machine), ``noisy``.

    Raises:
        ModelFileError: a model does not exist, is damaged, or is a refiner of another calorimeter.
        ConfigError: a number is not positive, or two models have one name.
    """
    if repeats < 1 or not batches or min(batches) < 1:
        raise ConfigError(
            f"repeats and batch sizes must be at least 1, got {repeats} and {list(batches)}"
        )
    began, machine = time.perf_counter(), state()
    mine = [*(_wanted(models) if models else refiners(()))]
    names = [stage.name for stage in mine]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"models of one name: {', '.join(sorted(twice))}; name each file once")
    papers, absent = competitors()  # the slow part, after all that may be refused
    simulated, missing = simulations()
    stages, absent = [*mine, *papers, *simulated], [*absent, *missing]
    timings: dict[str, list[dict[str, Any]]] = {stage.name: [] for stage in stages}
    ordered = sorted(set(batches))
    with on_one_core() as core, progress("bench", len(ordered)) as bar:
        for batch in ordered:
            for name, record in measure(stages, batch, repeats, _BUDGET_S).items():
                timings[name].append(record)
            bar.advance(note=f"batch {batch}")
    noisy = any(entry["noisy"] for entries in timings.values() for entry in entries)
    if noisy:
        log.warning(
            "noisy: CPU time and wall time differ by more than 10 % in some timings, so something "
            "else used the core; ratios still compare like with like, but repeat on an idle machine"
        )
    return {
        "kind": "bench",
        "format_version": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - began, 1),
        "machine": {**machine, "core": core, "threads": 1},
        "protocol": {
            "batches": ordered,
            "repeats": repeats,
            "order": "one repeat of every stage in turn, every second round in reverse",
            "input": f"bundled sample, train_fast: {len(_inputs(1)[1])} GFLASH showers, repeated",
        },
        "noisy": noisy,
        "stages": [{**_described(stage), "timings": timings[stage.name]} for stage in stages],
        "absent": absent,
        "published": PUBLISHED,
    }


def _wanted(models: Sequence[str | Path]) -> Iterator[Stage]:
    for name in models:
        path = locate(str(name))
        yield from generators(path) if is_generator(path) else refiners([name])


def measure(
    stages: Sequence[Stage], batch: int, repeats: int, budget_s: float = _BUDGET_S
) -> dict[str, dict[str, Any]]:
    """Time stages in turn at one batch size; the record of each by its name.

    A stage that would need more than its share of ``budget_s`` is timed with fewer rows, but at
    least 256, and if that is too slow, with fewer repeats. Call it on one core (`on_one_core`).
    """
    showers = _inputs(batch)[0]
    share = budget_s / len(stages)
    parts = {stage.name: showers[: _rows(stage, showers, repeats, share)] for stage in stages}
    found = interleaved(
        {stage.name: _bound(stage.call, parts[stage.name]) for stage in stages},
        repeats,
        {stage.name: 2 * share for stage in stages},
        least_s=_LEAST_S if batch <= _STEP else 0.0,
    )
    rows = {name: len(part) for name, part in parts.items()}
    paper = [stage.name for stage in stages if stage.kind == "paper"]
    out = {}
    for name, timing in found.items():
        faster = {
            other: asdict(ratio(found[other], timing, rows[name] / rows[other])) for other in paper
        }
        out[name] = {
            "batch": batch,
            "rows": rows[name],
            "repeats": timing.repeats,
            "calls": timing.calls,
            "us_per_shower": _microseconds(timing, rows[name]),
            "times_faster": faster,
            "cpu_over_wall": round(timing.cpu_over_wall, 4),
            "noisy": timing.noisy,
        }
    return out


def _inputs(n: int) -> tuple[Showers, Showers]:
    """``n`` showers with event ids of their own, and the bundled ones that they repeat."""
    fast = sample.load("train_fast")
    rows = np.arange(n) % len(fast)
    return Showers.from_arrays(fast.cells[rows], fast.incident_energy[rows]), fast


def _bound(call: Callable[[Showers], object], showers: Showers) -> Callable[[], object]:
    return lambda: call(showers)


def _rows(stage: Stage, showers: Showers, repeats: int, seconds: float) -> int:
    """Rows with which ``repeats`` repeats take about ``seconds``: whole 256s, or all."""
    if len(showers) <= _STEP:
        return len(showers)
    few = showers[:_STEP]
    stage.call(few)
    began = time.perf_counter()
    stage.call(few)
    each = time.perf_counter() - began
    return min(len(showers), _STEP * max(1, int(seconds / (repeats * each))))


def _microseconds(timing: Timing, rows: int) -> dict[str, float]:
    q25, q75 = timing.quartiles
    values = {"median": timing.median, "q25": q25, "q75": q75, "mad": timing.mad}
    values["cpu"] = timing.cpu_median
    return {name: 1e6 * seconds / rows for name, seconds in values.items()}


def _described(stage: Stage) -> dict[str, Any]:
    return {"name": stage.name, "kind": stage.kind, "nfe": stage.nfe, "note": stage.note}
