"""A simulation engine for tests of production: takes no time, and fails when it is told to."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from hepbridge.core.errors import ConfigError, SimulationError
from hepbridge.core.rng import event_uniform
from hepbridge.simulate.engines import Engine


def simulate(detector, beam, *, seed, response=1.0):
    """Cells of random shares; row by row a function of the seed, the event id and the beam.

    STAND_IN_FAILS=row: raises in that row; STAND_IN_DIES=row: the process is gone;
    STAND_IN_SLEEPS=seconds; STAND_IN_CALLS=folder: a file for each call, named by its first row.
    """
    first, last = int(beam.event_ids[0, 1]), int(beam.event_ids[-1, 1])
    if "STAND_IN_CALLS" in os.environ:
        Path(os.environ["STAND_IN_CALLS"], f"{first}-{os.getpid()}-{time.monotonic_ns()}").touch()
    time.sleep(float(os.environ.get("STAND_IN_SLEEPS", "0")))
    if first <= int(os.environ.get("STAND_IN_FAILS", "-1")) <= last:
        raise SimulationError("the engine stopped; its log: track got stuck")
    if first <= int(os.environ.get("STAND_IN_DIES", "-1")) <= last:
        os._exit(9)
    u = event_uniform(seed, "stand-in", beam.event_ids, detector.geometry().n_cells)
    share = u / u.sum(axis=1, keepdims=True)
    lost = 1 - 0.01 * np.sin(beam.theta_rad)
    return (share * (beam.energy_mev * lost * response)[:, None]).astype(np.float32)


def calm(detector, beam, *, seed, response=1.0):
    """An engine that always works."""
    u = event_uniform(seed, "calm", beam.event_ids, detector.geometry().n_cells)
    return (u * response).astype(np.float32)


def threaded(detector, beam, *, seed, threads):
    """An engine that expects to get three threads."""
    assert threads == 3
    return simulate(detector, beam, seed=seed)


def wrong_shape(detector, beam, *, seed):
    return np.zeros((len(beam), 3), np.float32)


def describe(detector, particles, *, response=1.0):
    if response < 0:
        raise ConfigError(f"the response must not be negative, got {response}")
    return {"response": response, "stand_in": "1.0"}


def fast(detector, beam, *, seed, published=False, resolution=None):
    """An engine with the options of GFLASH."""
    return simulate(detector, beam, seed=seed)


def describe_fast(detector, particles, *, published=False, resolution=None):
    return {}


def full(detector, beam, *, seed, physics="auto", cut_mm=0.7):
    """An engine with the options of Geant4."""
    return simulate(detector, beam, seed=seed)


def describe_full(detector, particles, *, physics="auto", cut_mm=0.7):
    return {"physics": physics, "cut_mm": cut_mm}


def engine(name: str = "stand-in", **changes) -> Engine:
    values = {
        "title": "Stand-in",
        "target": "stand_in_engine:simulate",
        "chunk": 100,
        "particles": ("e-", "e+", "gamma"),
        "libraries": ("numpy",),
        "described_by": "stand_in_engine:describe",
    }
    return Engine(name, **{**values, **changes})
