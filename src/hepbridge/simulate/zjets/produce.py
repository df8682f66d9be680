"""A file of Z + jet events: in pieces, resumable, complete or not there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge import __version__
from hepbridge.core.errors import ConfigError, HepbridgeError, OutputError
from hepbridge.core.files import check_output
from hepbridge.core.jobs import (
    EXECUTORS,
    Chunk,
    Request,
    chunks,
    cores,
    new_file,
    parts_folder,
    pieces,
    together,
    work_to_do,
)
from hepbridge.data.formats.tables import load_tables, read_tables_manifest, save_tables
from hepbridge.data.showers import row_ids
from hepbridge.data.tables import Table
from hepbridge.simulate.zjets.calorimeter import detect
from hepbridge.simulate.zjets.generator import Setup, generate, pythia_version
from hepbridge.simulate.zjets.jets import LEAST_PT_GEV, OBSERVABLES, Jets, leading_jets, library
from hepbridge.simulate.zjets.noise import Noise
from hepbridge.simulate.zjets.particles import Particles

__all__ = ["CHUNK", "DETECTOR", "PARTICLE", "Selection", "pair", "produce_zjets", "versions"]

PARTICLE, DETECTOR = "particle", "detector"
CHUNK = 500  # events for which one generator starts
SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class Selection:
    """Which jets are looked at: anti-k_T with ``radius``, and at least ``pt_gev`` of the leading one,
    at both levels. Raises ConfigError for values that are not allowed."""

    radius: float = 0.4
    pt_gev: float = 150.0

    def __post_init__(self) -> None:
        if not 0 < self.radius <= 1.5:
            raise ConfigError(f"the jet radius must lie between 0 and 1.5, not {self.radius:g}")
        if not LEAST_PT_GEV <= self.pt_gev < np.inf:
            raise ConfigError(
                f"the least transverse momentum of the jet must be at least {LEAST_PT_GEV:g} GeV, not "
                f"{self.pt_gev:g} GeV"
            )


def produce_zjets(
    n: int,
    output: str | Path,
    *,
    setup: Setup | None = None,
    selection: Selection | None = None,
    seed: int = 0,
    workers: int | None = None,
    chunk: int = CHUNK,
    executor: str = "local",
    overwrite: bool = False,
) -> bool:
    """Generate ``n`` events into a file with the tables ``particle`` and ``detector``.

    Both tables have a row for each generated event, with equal event ids: nothing is thrown away, so that
    efficiencies, misses and fakes can be counted. If a file with an equal manifest is there, it is
    complete and nothing is done (returns False). An interrupted run goes on where it stopped. Neither the
    number of workers nor interruptions change a bit of the file, and fewer events are the first of more.

    Args:
        workers: processes (default: `cores`).
        chunk: events for which one generator starts. Unlike the number of workers it changes the
            events, and so is part of the request.
        executor: a name in `EXECUTORS`: who runs the pieces.

    Raises:
        ConfigError, OutputError, MissingExtraError: as the message says.
        SimulationError: Pythia failed; finished pieces are kept.
    """
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise OutputError(f"cannot write {output}: events go into a file that ends in .h5 or .hdf5")
    if n < 1:
        raise ConfigError(f"the number of events must be at least 1, not {n}")
    workers = cores() if workers is None else workers
    for name, value in (("workers", workers), ("chunk", chunk)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    run = EXECUTORS[executor]
    work = _Work(setup or Setup(), selection or Selection(), seed, chunk)
    request = Request({"command": "simulate zjets", "n": n, **work.record()})
    if not work_to_do(output, request, read_tables_manifest, overwrite=overwrite):
        return False
    check_output(output, overwrite=overwrite)
    todo = chunks(n, chunk)
    with (
        together(output, request, read_tables_manifest),
        parts_folder(output, request) as folder,
        new_file(output, folder, overwrite=overwrite) as path,
    ):
        try:
            made = run(
                pieces(work, todo, folder, ".h5"), rows=n, workers=workers, title="simulate zjets"
            )
            parts = [load_tables(piece.path) for piece in made]
        except HepbridgeError as error:
            kept = len(list(folder.glob("*-*.h5")))
            words = (
                f"\n{kept} of {len(todo)} pieces are finished and kept; the same command goes on"
            )
            raise type(error)(f"{error}{words if kept else ''}") from error
        tables = {level: Table.joined(part[level] for part in parts) for level in parts[0]}
        save_tables(tables, path, meta=work.meta(), manifest=request.fields)
    return True


def versions() -> dict[str, str]:
    """What the events depend on, and its version. Raises MissingExtraError if any is missing."""
    library()
    return {
        "hepbridge": __version__,
        "pythia8mc": pythia_version(),
        "fastjet": version("fastjet"),
    }


@dataclass(frozen=True)
class _Work:
    """One piece, as a task that can be sent to another process."""

    setup: Setup
    selection: Selection
    seed: int
    chunk: int
    versions: dict[str, str] = field(default_factory=versions)

    def __call__(self, chunk: Chunk, path: Path) -> None:
        tables = pair(
            self.setup,
            self.selection,
            len(chunk),
            self.seed,
            number=chunk.start // self.chunk,
            first=chunk.start,
        )
        save_tables(tables, path, overwrite=True)

    def record(self) -> dict[str, Any]:
        """All that the events are a function of, but their number."""
        return {
            "setup": asdict(self.setup),
            "selection": asdict(self.selection),
            "seed": self.seed,
            "chunk": self.chunk,
            "versions": self.versions,
        }

    def meta(self) -> dict[str, Any]:
        """Everything that defines the sample, for the attributes of its file."""
        return {
            "simulation": f"Z + jet, {self.setup.configuration} (hepbridge {__version__})",
            **asdict(self.setup),
            "jet_radius": self.selection.radius,
            "jet_pt_min_gev": self.selection.pt_gev,
            "seed": self.seed,
            "generator_settings": self.setup.settings(),
            **self.versions,
        }


def pair(
    setup: Setup, selection: Selection, n: int, seed: int, *, number: int = 0, first: int = 0
) -> dict[str, Table]:
    """The tables ``particle`` and ``detector`` of ``n`` events: of a chunk by its number and first row.

    Flags of both: ``pass``, the leading jet of that level has at least the p_T of the selection;
    ``matched``, the leading jets of both levels are closer than half a radius, ΔR² = Δy² + Δφ². A miss
    is an event that passes at particle level and either fails at detector level or is not matched; a
    fake is the opposite.
    """
    uid = setup.uid(seed)
    particles, z = generate(setup, n, seed, number)
    noise = Noise(seed, uid, np.arange(first, first + n))
    measured = detect(particles, noise)
    jets = {
        PARTICLE: leading_jets(particles, n, selection.radius),
        DETECTOR: leading_jets(measured, n, selection.radius),
    }
    matched = _matched(jets[PARTICLE], jets[DETECTOR], selection.radius)
    ids = row_ids(uid, first, first + n)
    tables = {}
    for level, found in jets.items():
        columns, units = dict(found.columns), dict(OBSERVABLES)
        if level == PARTICLE:
            columns |= _of_the_z(z)
            units |= {"z_pt": "GeV", "z_rapidity": "1", "z_phi": "rad", "z_mass": "GeV"}
        passed = np.where(found.found, found.columns["pt"], 0.0) >= selection.pt_gev
        tables[level] = Table.from_columns(
            columns,
            units,
            defined=found.defined,
            flags={"pass": passed, "matched": matched},
            event_ids=ids,
            where=f"{level} level",
        )
    return tables


def _matched(one: Jets, other: Jets, radius: float) -> NDArray[np.bool_]:
    d_phi = np.mod(one.columns["phi"] - other.columns["phi"] + np.pi, 2 * np.pi) - np.pi
    d_r = np.hypot(one.columns["rapidity"] - other.columns["rapidity"], d_phi)
    return one.found & other.found & (np.where(np.isnan(d_r), np.inf, d_r) < radius / 2)


def _of_the_z(z: Particles) -> dict[str, NDArray[np.float64]]:
    mass2 = z.e**2 - z.px**2 - z.py**2 - z.pz**2
    return {
        "z_pt": z.pt,
        "z_rapidity": np.arctanh(z.pz / z.e),
        "z_phi": np.arctan2(z.py, z.px),
        "z_mass": np.sqrt(np.maximum(mass2, 0.0)),
    }
