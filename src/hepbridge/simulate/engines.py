"""The simulation engines by name, and what production has to know of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError
from hepbridge.core.registry import Registry
from hepbridge.simulate.beam import PDG
from hepbridge.simulate.detector import Detector

__all__ = ["ENGINES", "GEANT4", "GFLASH", "Engine"]


@dataclass(frozen=True)
class Engine:
    """An engine: ``simulate(detector, beam, *, seed, **options) -> cells (N, n_cells), MeV``.

    A shower depends on the seed, its event id and its row of the beam alone, so that the work can
    be cut anywhere.

    Attributes:
        name, title: on the command line, and in provenance.
        target: the function as ``"module:function"``, imported when it is used.
        chunk: most showers in one piece of work.
        particles: those that it takes.
        threaded: it shares a piece of work among ``threads`` itself; others run in processes.
        libraries: distributions whose version may change the showers.
        described_by: ``"module:function"`` of a function of detector and particles, and of the
            options of ``target``, that returns what else defines a sample as plain values. It
            raises at once what would fail in every piece: a missing library, a wrong option.
    """

    name: str
    title: str
    target: str
    chunk: int
    particles: tuple[str, ...]
    threaded: bool = False
    libraries: tuple[str, ...] = ()
    described_by: str = ""

    def simulate(self) -> Callable[..., NDArray[np.float32]]:
        """The function itself. Raises MissingExtraError if a library is missing."""
        found: Callable[..., NDArray[np.float32]] = _imported(self.target)
        return found

    def describe(
        self, detector: Detector, particles: tuple[str, ...], options: dict[str, Any]
    ) -> dict[str, Any]:
        """What defines a sample besides detector, beam and seed: options, versions, data sets.

        Raises ConfigError or MissingExtraError if the engine cannot do it.
        """
        if unknown := [name for name in particles if name not in self.particles]:
            raise ConfigError(
                f"{self.title} does not simulate {', '.join(unknown)}; allowed: "
                f"{', '.join(self.particles)}"
            )
        self.simulate()
        found: dict[str, Any] = dict(options)
        for library in self.libraries:
            found[library.replace("-", "_")] = metadata.version(library)
        if self.described_by:
            found |= _imported(self.described_by)(detector, particles, **options)
        return found


GFLASH = Engine(
    "gflash",
    "GFLASH",
    "hepbridge.simulate.gflash:simulate",
    chunk=10_000,
    particles=("e-", "e+", "gamma"),
    threaded=True,
    libraries=("numpy", "numba"),
    described_by="hepbridge.simulate.gflash:provenance",
)
GEANT4 = Engine(
    "geant4",
    "Geant4",
    "hepbridge.simulate.geant4:simulate",
    chunk=250,
    particles=tuple(PDG),
    described_by="hepbridge.simulate.geant4:provenance",
)

ENGINES = Registry(
    "simulation engine",
    {
        "gflash": "hepbridge.simulate.engines:GFLASH",
        "geant4": "hepbridge.simulate.engines:GEANT4",
    },
)


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
