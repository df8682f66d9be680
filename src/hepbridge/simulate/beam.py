"""The particles that enter a detector: what every simulation engine takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.rng import event_uniform
from hepbridge.data.showers import row_ids

__all__ = ["BEAM_SPOT_MM", "PDG", "Beam", "Floats"]

Floats = NDArray[np.float64]

PDG = {
    "e-": 11,
    "e+": -11,
    "gamma": 22,
    "mu-": 13,
    "mu+": -13,
    "pi+": 211,
    "pi-": -211,
    "kaon+": 321,
    "kaon-": -321,
    "proton": 2212,
    "neutron": 2112,
}
"""Particles (Geant4's names) and their numbers of the Particle Data Group. Which of them an engine
takes, the engine says (`hepbridge.simulate.engines`)."""

BEAM_SPOT_MM = 1e-3
"""Half width of the beam spot in x and y (`Beam.spread`): a track exactly along the edge of a cell
gets stuck or lost in Geant4."""

_DEFAULT = {"theta_rad": 0.0, "phi_rad": 0.0, "x_mm": 0.0, "y_mm": 0.0}


@dataclass(frozen=True)
class Beam:
    """N particles on the front face z = 0 of a detector, flying towards +z.

    The direction of flight is (sin θ cos φ, sin θ sin φ, cos θ).

    Attributes:
        particle: (N,) names, see `PDG`.
        energy_mev: (N,) kinetic energy, exactly representable in float32, as files keep it.
        theta_rad, phi_rad: (N,) polar and azimuthal angle of the direction of flight.
        x_mm, y_mm: (N,) where the particle enters the front face.
        event_ids: (N, 2) uint64 = (data-set uid, row), the key of all per-event randomness.
    """

    particle: NDArray[np.str_]
    energy_mev: Floats
    theta_rad: Floats
    phi_rad: Floats
    x_mm: Floats
    y_mm: Floats
    event_ids: NDArray[np.uint64]

    @classmethod
    def of(
        cls,
        energy_mev: ArrayLike,
        particle: str | NDArray[np.str_] = "e-",
        *,
        theta_rad: ArrayLike = 0.0,
        phi_rad: ArrayLike = 0.0,
        x_mm: ArrayLike = 0.0,
        y_mm: ArrayLike = 0.0,
        event_ids: NDArray[np.uint64] | None = None,
    ) -> Beam:
        """A beam from numbers or arrays (N,); a number holds for all rows.

        Without ``event_ids`` the rows count from 0 in data set 0.

        Raises:
            DataError: lengths that differ; an energy that is not positive and finite; θ outside
                0 … π/2 (a particle has to fly into the detector); a position that is not finite.
        """
        with np.errstate(over="ignore"):  # infinity is refused below
            energy = np.atleast_1d(np.asarray(energy_mev, np.float64)).astype(np.float32)
        columns = {"theta_rad": theta_rad, "phi_rad": phi_rad, "x_mm": x_mm, "y_mm": y_mm}
        ids = row_ids(0, 0, len(energy)) if event_ids is None else np.asarray(event_ids, np.uint64)
        try:
            filled = {
                name: np.broadcast_to(np.asarray(value, np.float64), energy.shape).copy()
                for name, value in columns.items()
            }
            names = np.broadcast_to(np.asarray(particle, dtype=np.str_), energy.shape).copy()
        except ValueError as error:
            raise DataError(f"a beam of {len(energy)} energies: {error}") from error
        if ids.shape != (len(energy), 2):
            raise DataError(f"a beam of {len(energy)} energies has event ids of shape {ids.shape}")
        beam = cls(names, energy.astype(np.float64), **filled, event_ids=ids)
        beam._check()
        return beam

    def _check(self) -> None:
        columns = [self.energy_mev, *(getattr(self, name) for name in _DEFAULT)]
        if not all(np.isfinite(column).all() for column in columns):
            raise DataError("a beam has energies, angles or positions that are not finite")
        if (self.energy_mev <= 0).any():
            raise DataError(f"beam energies must be positive; got {self.energy_mev.min():g} MeV")
        if (self.theta_rad < 0).any() or (self.theta_rad >= np.pi / 2).any():
            raise DataError(
                "the polar angle of a beam must be at least 0 and less than 90 degrees; got "
                f"{np.degrees(self.theta_rad.min()):g} to {np.degrees(self.theta_rad.max()):g}"
            )

    def __len__(self) -> int:
        return len(self.energy_mev)

    def rows(self, rows: slice | NDArray[np.integer] | NDArray[np.bool_]) -> Beam:
        """The particles of a slice, an index array or a mask."""
        return Beam(
            self.particle[rows],
            self.energy_mev[rows],
            self.theta_rad[rows],
            self.phi_rad[rows],
            self.x_mm[rows],
            self.y_mm[rows],
            self.event_ids[rows],
        )

    def direction(self) -> Floats:
        """Unit vectors (N, 3) of flight."""
        sine = np.sin(self.theta_rad)
        return np.stack(
            [sine * np.cos(self.phi_rad), sine * np.sin(self.phi_rad), np.cos(self.theta_rad)], 1
        )

    def spread(self, seed: int) -> Beam:
        """The beam with a square spot: x and y move by a uniform ±`BEAM_SPOT_MM`, event by event."""
        u = (2 * event_uniform(seed, "beam-spot", self.event_ids, 2) - 1) * BEAM_SPOT_MM
        return replace(self, x_mm=self.x_mm + u[:, 0], y_mm=self.y_mm + u[:, 1])

    def pdg_id(self) -> NDArray[np.int64]:
        """The numbers (N,) of the Particle Data Group. Raises ConfigError on an unknown name."""
        for name in np.unique(self.particle):
            if str(name) not in PDG:
                raise ConfigError(f"unknown particle {str(name)!r}; allowed: {', '.join(PDG)}")
        return np.array([PDG[str(name)] for name in self.particle], np.int64)

    def conditions(self, names: tuple[str, ...] | None = None) -> dict[str, Floats]:
        """Named columns (N,) for `Showers`: ``incident_energy`` in MeV, and what else there is.

        Without ``names``: those of ``theta_rad``, ``phi_rad``, ``x_mm``, ``y_mm`` that are not 0
        everywhere (φ only if θ is not), and ``pdg_id`` unless all are e-. A part of a beam passes
        the names of the whole.
        """
        if names is None:
            names = tuple(name for name in _DEFAULT if (getattr(self, name) != 0).any())
            if "theta_rad" not in names:
                names = tuple(name for name in names if name != "phi_rad")
            if (self.particle != "e-").any():
                names = (*names, "pdg_id")
        found = {"incident_energy": self.energy_mev}
        for name in names:
            if name == "pdg_id":
                found[name] = self.pdg_id().astype(np.float64)
            elif name in _DEFAULT:
                found[name] = getattr(self, name)
            elif name != "incident_energy":
                raise ConfigError(
                    f"a beam has no condition {name!r}; it has incident_energy, "
                    f"{', '.join(_DEFAULT)} and pdg_id"
                )
        return found
