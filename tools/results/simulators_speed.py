"""Milliseconds per shower of GFLASH, of GFLASH with refinement, and of Geant4, in turn on one core."""

from __future__ import annotations

import dataclasses
import math
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
from simulators_memory import MODEL

from hepbridge.deploy.machine import on_one_core, state
from hepbridge.deploy.timer import Timing, interleaved, ratio
from hepbridge.simulate.beam import Beam, Floats
from hepbridge.simulate.detector import load_detector
from hepbridge.simulate.geant4 import geant4_version
from hepbridge.simulate.geant4 import simulate as geant4
from hepbridge.simulate.gflash import simulate as gflash
from hepbridge.systems.inference import refine_cells
from hepbridge.systems.model_file import load, locate

RANGE = "10–100 GeV"
# GeV -> showers of Geant4 in a call: about 2 s
EVENTS = {10: 60, 20: 30, 50: 12, 80: 8, 100: 6}
WARM = np.full(4, 5e4)  # MeV: the first showers of a worker are slower
EVENTS_RANGE, SHOWERS, SHOWERS_RANGE = 20, 2000, 10_000
FAST, REFINED, FULL = "gflash", "refined", "geant4"
_START = "geant4 start"
_MEDIAN_TO_SIGMA = 1.4826 * math.sqrt(math.pi / 2)  # error of a median from the absolute deviation


def spread(n: int) -> Floats:
    """Incident energies (n,) in MeV, uniform over 10 to 100 GeV: the middles of n equal parts."""
    return 1e4 + 9e4 * (np.arange(n) + 0.5) / n


def speed(repeats: int) -> dict[str, Any]:
    """What each takes at every energy, and how many times faster the fast ones are.

    Geant4 runs in a worker whose start and first showers do not count: a call that simulates only
    `WARM` is timed in every round, too, and taken off those that simulate the same and then others.
    """
    detector, model = load_detector("squirels"), load(locate(MODEL))
    calls: dict[str, Callable[[], object]] = {}
    rows: dict[str, int] = {}

    def fast(beam: Beam) -> Callable[[], object]:
        return lambda: gflash(detector, beam, seed=0, threads=1)

    def refined(beam: Beam) -> Callable[[], object]:
        return lambda: refine_cells(
            model, gflash(detector, beam, seed=0, threads=1), beam.energy_mev, beam.event_ids
        )

    def full(energies: Floats) -> Callable[[], object]:
        beam = Beam.of(np.concatenate([WARM, energies]))
        return lambda: geant4(detector, beam, seed=0, physics="em")

    labels = {f"{e} GeV": np.full(n, 1e3 * e) for e, n in EVENTS.items()}
    labels[RANGE] = spread(EVENTS_RANGE)
    calls[_START] = full(np.zeros(0))
    for label, energies in labels.items():
        many = spread(SHOWERS_RANGE) if label == RANGE else np.full(SHOWERS, energies[0])
        for name, how in ((FAST, fast), (REFINED, refined)):
            calls[f"{name} {label}"], rows[f"{name} {label}"] = how(Beam.of(many)), len(many)
        calls[f"{FULL} {label}"], rows[f"{FULL} {label}"] = full(energies), len(energies)
    machine = state()
    with on_one_core() as core:
        timed = interleaved(calls, repeats, cpu_clock=_cpu)
    start = timed.pop(_START)
    timed = {n: _after(t, start) if n.startswith(FULL) else t for n, t in timed.items()}
    return {
        "machine": machine | {"core": core, "geant4": geant4_version()},
        "repeats": repeats,
        "start_s": start.median,
        "timings": {name: _record(t, rows[name]) for name, t in timed.items()},
        "times_faster": {
            label: {
                name: dataclasses.asdict(
                    ratio(
                        timed[f"{FULL} {label}"],
                        timed[f"{name} {label}"],
                        rows[f"{name} {label}"] / rows[f"{FULL} {label}"],
                    )
                )
                for name in (FAST, REFINED)
            }
            for label in labels
        },
    }


def _cpu() -> float:
    """CPU time of this process and of its workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _after(timing: Timing, start: Timing) -> Timing:
    """The timing without the start, which every round has timed as well."""
    wall, cpu = (dict(zip(start.rounds, t, strict=True)) for t in (start.seconds, start.cpu))
    return Timing(
        tuple(s - wall[k] for s, k in zip(timing.seconds, timing.rounds, strict=True)),
        tuple(s - cpu[k] for s, k in zip(timing.cpu, timing.rounds, strict=True)),
        timing.rounds,
    )


def _record(timing: Timing, rows: int) -> dict[str, Any]:
    """Milliseconds per shower: median of the wall time with its standard error, and of CPU time."""
    each = 1e3 / rows
    return {
        "showers": rows,
        "ms": each * timing.median,
        "error": each * _MEDIAN_TO_SIGMA * timing.mad / math.sqrt(timing.repeats),
        "cpu_ms": each * timing.cpu_median,
        "cpu_over_wall": timing.cpu_over_wall,
    }
