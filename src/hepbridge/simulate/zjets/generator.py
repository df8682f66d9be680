"""Z + jet events of proton collisions with Pythia (extra ``pythia``).

Pythia 8.3: Bierlich et al., SciPost Phys. Codebases 8 (2022), arXiv:2203.11601.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, MissingExtraError, SimulationError
from hepbridge.core.rng import stream_key
from hepbridge.simulate.zjets.native_output import native_output_kept
from hepbridge.simulate.zjets.particles import Particles

__all__ = ["CONFIGURATIONS", "Setup", "generate", "pythia_version"]

PROCESS = (
    "WeakBosonAndParton:qqbar2gmZg = on",
    "WeakBosonAndParton:qg2gmZq = on",
    "WeakZ0:gmZmode = 2",  # the Z alone, no photon
    "23:mayDecay = off",  # the jets are what is studied; a Z that does not decay is not in them
    "Random:setSeed = on",
    "Print:quiet = on",
)

CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "monash": ("Tune:pp = 14",),
    "a14": ("Tune:pp = 21",),
    "a14-var2plus": ("Tune:pp = 25",),
    "a14-var2minus": ("Tune:pp = 26",),
    "vincia": ("PartonShowers:model = 2",),
    "cp5": (  # the CMS tune CP5, arXiv:1903.12179, on the settings that all CMS tunes share
        "Tune:preferLHAPDF = 0",
        "Tune:pp = 14",
        "Tune:ee = 7",
        "MultipartonInteractions:ecmPow = 0.03344",
        "MultipartonInteractions:bProfile = 2",
        "MultipartonInteractions:pT0Ref = 1.41",
        "MultipartonInteractions:coreRadius = 0.7634",
        "MultipartonInteractions:coreFraction = 0.63",
        "ColourReconnection:range = 5.176",
        "SigmaTotal:zeroAXB = off",
        "SpaceShower:alphaSorder = 2",
        "SpaceShower:alphaSvalue = 0.118",
        "SigmaProcess:alphaSvalue = 0.118",
        "SigmaProcess:alphaSorder = 2",
        "MultipartonInteractions:alphaSvalue = 0.118",
        "MultipartonInteractions:alphaSorder = 2",
        "TimeShower:alphaSorder = 2",
        "TimeShower:alphaSvalue = 0.118",
        "SigmaTotal:mode = 0",
        "SigmaTotal:sigmaEl = 21.89",
        "SigmaTotal:sigmaTot = 100.309",
        "PDF:pSet = 18",
    ),
}

SEEDS = 900_000_000  # Pythia takes 1 … 900 000 000
BATCH = 100  # events whose full records are in memory at once
INVISIBLE = (12, 14, 16)
Z_BOSON = 23


@dataclass(frozen=True)
class Setup:
    """What is generated: the configuration, and whether there are multiparton interactions.

    Args:
        configuration: a name in `CONFIGURATIONS`.
        mpi: multiparton interactions on or off.
        ecm_gev: energy of the collision.
        pt_hat_min_gev: least transverse momentum of the hard process.

    Raises ConfigError for a name or a value that is not allowed.
    """

    configuration: str = "a14"
    mpi: bool = True
    ecm_gev: float = 14_000.0
    pt_hat_min_gev: float = 150.0

    def __post_init__(self) -> None:
        if self.configuration not in CONFIGURATIONS:
            raise ConfigError(
                f"there is no configuration {self.configuration!r} of the generator; there are: "
                f"{', '.join(CONFIGURATIONS)}"
            )
        if not 0 < self.pt_hat_min_gev < self.ecm_gev / 2 < np.inf:
            raise ConfigError(
                f"the least transverse momentum must lie between 0 and half the energy of the collision "
                f"({self.ecm_gev / 2:g} GeV), not {self.pt_hat_min_gev:g} GeV"
            )

    def settings(self) -> list[str]:
        """The settings of Pythia, but for the seed."""
        return [
            f"Beams:eCM = {self.ecm_gev:.15g}",
            *PROCESS,
            f"PhaseSpace:pTHatMin = {self.pt_hat_min_gev:.15g}",
            *CONFIGURATIONS[self.configuration],
            f"PartonLevel:MPI = {'on' if self.mpi else 'off'}",
        ]

    def uid(self, seed: int) -> int:
        """The data-set uid of the events: settings and seed name them."""
        return int(stream_key("zjets", *self.settings(), seed)[0])

    def pythia_seed(self, seed: int, chunk: int) -> int:
        """Seed of one chunk. Chunks of a sample have consecutive ones, so none occurs twice."""
        first = int(stream_key("zjets generator", *self.settings(), seed)[0])
        return (first + chunk) % SEEDS + 1


def generate(setup: Setup, n: int, seed: int, chunk: int = 0) -> tuple[Particles, Particles]:
    """The final particles of ``n`` events, without neutrinos and without the Z; and their N Zs.

    Pythia starts anew, so the events are a function of the arguments alone; fewer events are the
    first of more.

    Raises MissingExtraError without Pythia, SimulationError if it refuses a setting or gives up.
    """
    with native_output_kept() as printed:  # the banners of parton showers, and complaints
        try:
            parts = list(_batches(setup, n, setup.pythia_seed(seed, chunk)))
        except SimulationError as error:
            raise SimulationError(f"{error}\n{_end(printed())}") from error
    every = Particles.joined(parts)
    z = every.pdg_id == Z_BOSON
    if not np.array_equal(every.event[z], np.arange(n)):
        raise SimulationError("Pythia made events without exactly one Z")
    return every[~z & ~np.isin(np.abs(every.pdg_id), INVISIBLE)], every[z]


def pythia_version() -> str:
    """The version of Pythia. Raises MissingExtraError."""
    _library()
    return version("pythia8mc")


def _library() -> Any:
    try:
        import pythia8mc
    except ImportError as error:
        raise MissingExtraError.of("pythia", "pythia8mc", "The simulation of Z + jets") from error
    return pythia8mc


def _batches(setup: Setup, n: int, seed: int) -> Iterator[Particles]:
    """The final particles of ``n`` events, some events at a time."""
    pythia = _pythia(setup, seed)
    done = 0
    while done < n:
        batch = pythia.nextBatch(min(BATCH, n - done))  # it leaves out events that fail
        if len(batch) == 0:
            raise SimulationError(f"Pythia made no event any more after {done} of {n}")
        yield _particles(batch, done, pythia)
        done += len(batch)


def _pythia(setup: Setup, seed: int) -> Any:
    """A generator that is ready for its first event."""
    pythia = _library().Pythia("", False)
    for setting in (*setup.settings(), f"Random:seed = {seed}"):
        if not pythia.readString(setting):
            raise SimulationError(f"Pythia {pythia_version()} does not take {setting!r}")
    if not pythia.init():
        raise SimulationError(f"Pythia cannot start with {setup.configuration!r}")
    return pythia


def _end(printed: str) -> str:
    """The last lines that are not empty."""
    lines = [line.rstrip() for line in printed.splitlines() if line.strip()]
    return "\n".join(["what it printed last:", *lines[-5:]] if lines else ["it printed nothing"])


def _particles(batch: Any, first: int, pythia: Any) -> Particles:
    """The final particles of a batch of event records."""
    import awkward as ak

    records = batch.prt
    final = records[records.status > 0]
    flat = ak.flatten(final)
    pdg_id = _numpy(flat.id).astype(np.int64)
    kinds, which = np.unique(pdg_id, return_inverse=True)
    charges = np.array([pythia.particleData.charge(int(kind)) for kind in kinds])
    momentum, vertex = flat.p, flat.vProd  # without a vertex: from the collision itself
    return Particles(
        event=np.repeat(np.arange(first, first + len(batch)), _numpy(ak.num(final))),
        px=_numpy(momentum.px),
        py=_numpy(momentum.py),
        pz=_numpy(momentum.pz),
        e=_numpy(momentum.e),
        pdg_id=pdg_id,
        charge=charges[which],
        x=_numpy(ak.fill_none(vertex.px, 0.0)),
        y=_numpy(ak.fill_none(vertex.py, 0.0)),
        z=_numpy(ak.fill_none(vertex.pz, 0.0)),
    )


def _numpy(values: Any) -> NDArray[Any]:
    import awkward as ak

    return np.asarray(ak.to_numpy(values))
