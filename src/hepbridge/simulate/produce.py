"""A file of simulated showers: in pieces, resumable, complete or not there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge import __version__
from hepbridge.core.errors import ConfigError
from hepbridge.core.jobs import Chunk, Request, cores
from hepbridge.data.geometry import Geometry
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.beam_file import checked_number, checked_output, write_beam_file
from hepbridge.simulate.detector import Detector
from hepbridge.simulate.engines import Engine
from hepbridge.simulate.gun import Gun

__all__ = ["produce"]


def produce(
    engine: Engine,
    detector: Detector,
    gun: Gun,
    n: int | None,
    output: str | Path,
    *,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    chunk: int | None = None,
    workers: int | None = None,
    executor: str = "local",
    overwrite: bool = False,
) -> bool:
    """Simulate ``n`` showers into a file.

    The file holds the showers, their event ids, the conditions of the beam, everything that defines
    the sample as attributes, and a manifest of the request. If a file with an equal manifest is
    there, it is complete and nothing is done (returns False). An interrupted run, even a killed
    one, goes on where it stopped. Neither the pieces, nor the number of workers, nor interruptions
    change a bit of the file.

    Args:
        n: number of showers; None: as many as the gun's file of energies has.
        seed: of the engine (default: that of the gun).
        options: further arguments of the engine.
        chunk: showers in one piece of work.
        workers: processes, or threads of an engine that is threaded (default: `cores`).
        executor: a name in `EXECUTORS`: who runs the pieces.

    Raises:
        ConfigError, DataError, OutputError, MissingExtraError: as the message says.
        SimulationError: the engine failed; finished pieces are kept.
    """
    output, n = checked_output(output, "simulated showers"), checked_number(n, gun)
    workers = cores() if workers is None else workers
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    options = dict(options or {})
    described = engine.describe(detector, gun.particles, options)
    alone = {"threads": workers} if engine.threaded else {}
    maker = _Simulation(engine, detector, gun.seed if seed is None else seed, options | alone)
    request = Request(
        {
            "command": "simulate",
            "engine": engine.name,
            "detector": detector.to_dict(),
            "beam": gun.record(),
            "n": n,
            "seed": maker.seed,
            "described": described,
            "hepbridge": __version__,
        }
    )
    done = write_beam_file(
        maker,
        gun,
        n,
        output,
        request,
        {**_provenance(maker, gun), **described, "seed": maker.seed},
        chunk=chunk,
        workers=1 if engine.threaded else workers,
        executor=executor,
        overwrite=overwrite,
        title=f"simulate {engine.name}",
    )
    return done == "made"


@dataclass(frozen=True)
class _Simulation:
    """An engine and its detector as a `Maker`."""

    engine: Engine
    detector: Detector
    seed: int
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def chunk(self) -> int:
        return self.engine.chunk

    @property
    def geometry(self) -> Geometry:
        return self.detector.geometry()

    def begin(self, gun: Gun, rows: Chunk) -> None:
        """Nothing: `Engine.describe` has refused what cannot be."""

    def cells(self, beam: Beam) -> NDArray[np.float32]:
        return self.engine.simulate()(self.detector, beam, seed=self.seed, **self.options)

    def columns(self, beam: Beam) -> dict[str, NDArray[Any]]:
        return {}


def _provenance(maker: _Simulation, gun: Gun) -> dict[str, Any]:
    """Everything that defines the sample, for the attributes of its file."""
    beam, detector = gun.record(), maker.detector
    return {
        "simulation": f"{maker.engine.title} (hepbridge {__version__})",
        "engine": maker.engine.name,
        "hepbridge": __version__,
        "detector": detector.name,
        "detector_digest": detector.digest(),
        "detector_yaml": detector.to_yaml(),
        "particle": beam.pop("particle"),
        "beam_seed": beam.pop("seed"),
        **beam,
    }
