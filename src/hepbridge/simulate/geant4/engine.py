"""Full simulation with Geant4: a block of showers in a fresh worker process."""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, MissingExtraError, SimulationError
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import Detector
from hepbridge.simulate.geant4.datasets import find_datasets, worker_environment
from hepbridge.simulate.geant4.physics import choose
from hepbridge.simulate.geant4.process import run_worker

__all__ = ["CUT_MM", "geant4_version", "provenance", "require", "simulate"]

CUT_MM = 0.7  # Geant4's default
START_TIMEOUT_S = 300.0  # hadronic lists read tables for a minute on a slow disk
EVENT_TIMEOUT_S = 1800.0
MOST_MEV = 1e8  # where Geant4's tables end


def simulate(
    detector: Detector,
    beam: Beam,
    *,
    seed: int,
    physics: str = "auto",
    cut_mm: float = CUT_MM,
    log: str | Path | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
    event_timeout_s: float = EVENT_TIMEOUT_S,
) -> NDArray[np.float32]:
    """Cells (N, n_cells) in MeV of the showers that Geant4 makes of a beam.

    Energy deposited in the active slices, by step, without noise, threshold or calibration. A
    shower depends on the seed, its event id and its row of the beam alone: Geant4's generator is
    started anew for every event, so that any cut into blocks gives the same bits. The impact point
    is spread over ±1 µm (`Beam.spread`).

    Args:
        physics: "auto" (FTFP_BERT where its data sets are installed, else "em"), "em" or
            "em_option1" … "em_option4" (`G4EmStandardPhysics`, no nuclear processes), or the name
            of one of Geant4's reference lists.
        cut_mm: production cut in range for photons, electrons, positrons and protons.
        log: where Geant4's output goes; kept. Without it, the log is kept if the worker fails.
        start_timeout_s, event_timeout_s: how long to wait for the first event to begin, and for
            any event to end.

    Raises:
        MissingExtraError: geant4-pybind is not installed.
        ConfigError: no data sets; a physics list, particle or material that cannot be had; an
            impact point outside the front face; more than 100 TeV.
        SimulationError: the worker crashed or went silent; the message names its log.
    """
    chosen = require(beam.particle, physics=physics, cut_mm=cut_mm)
    _check_beam(detector, beam)
    if not len(beam):
        return np.zeros((0, detector.geometry().n_cells), np.float32)
    spread = beam.spread(seed)
    impact = np.stack([spread.x_mm, spread.y_mm, np.zeros(len(beam))], axis=1)
    job = {
        "particle": beam.particle,
        "energy_mev": beam.energy_mev,
        "direction": beam.direction(),
        "impact_mm": impact,
        "event_ids": beam.event_ids,
    }
    settings = {
        "detector": detector.to_dict(),
        "physics": chosen,
        "cut_mm": float(cut_mm),
        "seed": int(seed),
    }
    with tempfile.TemporaryDirectory(prefix="hepbridge-geant4-") as folder:
        output = Path(folder) / "cells.npy"
        _run(settings, job, Path(folder), log, start_timeout_s, event_timeout_s)
        cells: NDArray[np.float32] = np.load(output, allow_pickle=False)
    if cells.shape != (len(beam), detector.geometry().n_cells) or not np.isfinite(cells).all():
        raise SimulationError(f"the Geant4 worker returned cells {cells.shape} that cannot be")
    return cells


def require(
    particles: Iterable[str] = ("e-",), *, physics: str = "auto", cut_mm: float = CUT_MM
) -> str:
    """The physics list that `simulate` would use for these particles.

    Cheap: nothing is started. Raises MissingExtraError without geant4-pybind, ConfigError if data
    sets are missing, list and particles do not fit, or the cut is not positive.
    """
    if util.find_spec("geant4_pybind") is None:
        raise MissingExtraError.of("geant4", "geant4-pybind", "simulation with Geant4")
    if not 0 < cut_mm < np.inf:
        raise ConfigError(f"the production cut must be positive, got {cut_mm} mm")
    return choose(physics, particles, find_datasets())


def provenance(
    detector: Detector,
    particles: Iterable[str] = ("e-",),
    *,
    physics: str = "auto",
    cut_mm: float = CUT_MM,
) -> dict[str, Any]:
    """What defines a sample besides beam and seed, as plain values. Raises what `require` raises."""
    chosen = require(particles, physics=physics, cut_mm=cut_mm)
    found = find_datasets()
    used = [f for f in found if f.usable]
    return {
        "geant4": geant4_version(),
        "geant4_pybind": metadata.version("geant4-pybind"),
        "physics_list": chosen,
        "cut_mm": cut_mm,
        "datasets": ", ".join(
            f"{f.dataset.name}{f.version}" + (" (reduced)" if f.reduced else "") for f in used
        ),
        "detector": detector.name,
        "detector_digest": detector.digest(),
    }


@functools.cache
def geant4_version() -> str:
    """The version of Geant4 inside geant4-pybind, such as "11.4.1", asked of a worker."""
    with tempfile.TemporaryDirectory(prefix="hepbridge-geant4-") as folder:
        lines = _run({"detector": None}, {}, Path(folder), None, START_TIMEOUT_S, START_TIMEOUT_S)
    return next(x.removeprefix("geant4 ") for x in lines if x.startswith("geant4 "))


def _run(
    settings: Mapping[str, Any],
    job: Mapping[str, NDArray[Any]],
    folder: Path,
    log: str | Path | None,
    start_timeout_s: float,
    event_timeout_s: float,
) -> list[str]:
    """Run a worker in ``folder``, which receives ``cells.npy``. Returns its status lines."""
    record = json.dumps({**settings, "parent": os.getpid()})
    arrays: dict[str, Any] = {**job, "settings": np.array(record)}
    np.savez(folder / "request.npz", **arrays)
    paths = [str(folder / name) for name in ("request.npz", "cells.npy", "status")]
    # -u: what Geant4 prints is in the log even if it aborts; -P: no modules of the current folder
    return run_worker(
        [sys.executable, "-u", "-P", "-m", "hepbridge.simulate.geant4.worker", *paths],
        worker_environment(find_datasets(), folder),
        folder / "status",
        log_file=folder / "log" if log is None else Path(log),
        start_timeout_s=start_timeout_s,
        event_timeout_s=event_timeout_s,
        keep_log=log is not None,
    )


def _check_beam(detector: Detector, beam: Beam) -> None:
    if len(beam) and (most := beam.energy_mev.max()) > MOST_MEV:
        raise ConfigError(f"{most:g} MeV: the tables of Geant4 end at {MOST_MEV:g} MeV")
    outline = detector.envelope()
    outside = ~outline.contains(beam.x_mm, beam.y_mm)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise ConfigError(
            f"{int(outside.sum())} particles miss the front face of detector {detector.name!r} "
            f"(first: row {row} at x = {beam.x_mm[row]:g} mm, y = {beam.y_mm[row]:g} mm; the face "
            f"is a {outline.shape} of ±{outline.x_mm:g} mm, ±{outline.y_mm:g} mm)"
        )
