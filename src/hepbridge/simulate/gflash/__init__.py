"""GFLASH: parameterised electromagnetic showers, compiled.

>>> from hepbridge.simulate.beam import Beam
>>> from hepbridge.simulate.detector import load_detector
>>> from hepbridge.simulate.gflash import simulate
>>> simulate(load_detector("squirels"), Beam.of([50_000.0]), seed=1).shape
(1, 100)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError
from hepbridge.core.jobs import cores
from hepbridge.core.rng import stream_key
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import Detector
from hepbridge.simulate.envelope import Envelope
from hepbridge.simulate.gflash.cells import cells_of
from hepbridge.simulate.gflash.kernel import showers
from hepbridge.simulate.gflash.medium import medium_of, stack_of

__all__ = ["LEAST_MEV", "MOST_MEV", "provenance", "simulate"]

_logger = logging.getLogger(__name__)

LEAST_MEV, MOST_MEV = 100.0, 1e7  # GFlashParticleBounds of Geant4
_PARTICLES = ("e-", "e+", "gamma")
_PIECE = 256  # showers that one thread takes at a time


def simulate(
    detector: Detector,
    beam: Beam,
    *,
    seed: int,
    published: bool = False,
    resolution: float | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Cell energies (N, n_cells) in MeV, visible, without calibration.

    A shower depends on the seed, its event id and its row of the beam, and on nothing else: not on
    the batch it is in, the order or the threads. Electrons and positrons shower from the front face;
    a photon flies on for a depth with mean 9/7 X0 and becomes two showers that share its energy.

    Args:
        published: use the critical energy and the Molière radius of the publication in a
            homogeneous detector, too, where Geant4 has its own (`medium_of`).
        resolution: sampling fluctuations c in σ(E)/E = c / sqrt(E/GeV) of a sampling detector;
            default: Wigmans' estimate (`medium_of`). Other fluctuations come on top.
        threads: threads that share the work; default: ``OMP_NUM_THREADS``, or all cores that the
            process may use.

    Raises:
        ConfigError: a particle that GFLASH does not describe, an option that is not allowed.
    """
    names = np.asarray(beam.particle)
    for name in np.unique(names):
        if name not in _PARTICLES:
            raise ConfigError(
                f"GFLASH has no showers of {str(name)!r}; allowed: {', '.join(_PARTICLES)}. "
                "For other particles simulate with Geant4"
            )
    energy = np.ascontiguousarray(beam.energy_mev, dtype=np.float64)
    outside = (energy < LEAST_MEV) | (energy > MOST_MEV)
    if outside.any():
        _logger.warning(
            "%d of %d energies are outside the range of GFLASH (0.1 GeV to 10 TeV); their showers "
            "are an extrapolation",
            outside.sum(),
            len(energy),
        )
    medium = medium_of(detector, published=published, resolution=resolution)
    stack, cells = stack_of(detector, medium), cells_of(detector)
    uids, key_of = np.unique(beam.event_ids[:, 0], return_inverse=True)
    keys = np.array([stream_key(seed, "gflash", int(u)) for u in uids], np.uint64).reshape(-1, 2)
    direction, point = beam.direction(), np.stack([beam.x_mm, beam.y_mm], axis=1)
    side = _path_sideways(detector.envelope(), point, direction)
    tracks = np.concatenate([point, direction, side[:, None]], axis=1)
    photon = names == "gamma"
    key_of, rows = key_of.reshape(-1), np.ascontiguousarray(beam.event_ids[:, 1])
    out = np.empty((len(energy), cells.total), np.float32)

    def work(begin: int) -> None:
        i = slice(begin, begin + _PIECE)
        showers(
            medium, stack, cells, energy[i], tracks[i], photon[i], keys, key_of[i], rows[i], out[i]
        )

    begins = range(0, len(energy), _PIECE)
    with ThreadPoolExecutor(min(_threads(threads), max(1, len(begins)))) as pool:
        list(pool.map(work, begins))
    return out


def provenance(
    detector: Detector,
    particles: Iterable[str] = ("e-",),
    *,
    published: bool = False,
    resolution: float | None = None,
) -> dict[str, Any]:
    """What defines a sample besides detector, beam, seed and the options as given: nothing.

    Raises ConfigError, as `simulate` would, for options that are not allowed.
    """
    medium_of(detector, published=published, resolution=resolution)
    return {}


def _threads(asked: int | None) -> int:
    if asked is None:
        given = os.environ.get("OMP_NUM_THREADS", "")
        asked = int(given) if given.isdigit() and int(given) else cores()
    if asked < 1:
        raise ConfigError(f"threads must be at least 1, got {asked}")
    return asked


def _path_sideways(
    slabs: Envelope, point: NDArray[np.float64], direction: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Path (N,) in mm on which a particle leaves the slabs sideways; 0 outside of them."""
    across, place = direction[:, :2], point
    if slabs.shape == "tube":
        a = (across**2).sum(1)
        b = (across * place).sum(1)
        c = (place**2).sum(1) - slabs.x_mm**2
        root = np.sqrt(np.maximum(b * b - a * c, 0.0))
        path = np.where(a > 0, (root - b) / np.where(a > 0, a, 1.0), np.inf)
        return np.where(c < 0, path, 0.0)
    half = np.array([slabs.x_mm, slabs.y_mm])
    speed = np.abs(across)
    room = half - np.sign(across) * place
    paths = np.where(speed > 0, room / np.where(speed > 0, speed, 1.0), np.inf).min(1)
    return np.where((np.abs(place) < half).all(1), paths, 0.0)
