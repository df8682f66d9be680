"""Particles of many events, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Particles", "summed"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Particles:
    """M particles of N events, in the order of the events. Energies in GeV, lengths in mm.

    Attributes:
        event: (M,) int64, ascending: the event of each particle, 0 … N - 1.
        px, py, pz, e: (M,) momentum and energy, GeV.
        pdg_id: (M,) int64, in the numbers of the Particle Data Group; 0: a neutral hadron that was
            measured by its energy alone.
        charge: (M,) in units of e.
        x, y, z: (M,) where it was produced, mm.
    """

    event: NDArray[np.int64]
    px: Floats
    py: Floats
    pz: Floats
    e: Floats
    pdg_id: NDArray[np.int64]
    charge: Floats
    x: Floats
    y: Floats
    z: Floats

    def __len__(self) -> int:
        return len(self.event)

    def __getitem__(self, rows: NDArray[Any]) -> Particles:
        return Particles(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def pt(self) -> Floats:
        """Transverse momentum (M,), GeV."""
        return np.hypot(self.px, self.py)

    @property
    def eta(self) -> Floats:
        """Pseudorapidity (M,) = arsinh(p_z / p_T)."""
        with np.errstate(divide="ignore"):
            return np.arcsinh(self.pz / self.pt)

    @staticmethod
    def joined(parts: Sequence[Particles]) -> Particles:
        """The particles of all parts, sorted by event, those of one event in the order of the parts."""
        together = {
            f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Particles)
        }
        return Particles(**together)[np.argsort(together["event"], kind="stable")]


def summed(values: Floats, owner: NDArray[np.int64], n: int) -> Floats:
    """Sums (n,) of ``values`` (M,) over those of each ``owner`` (M,), 0 … n - 1."""
    return np.bincount(owner, values, n).astype(np.float64, copy=False)
