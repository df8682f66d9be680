"""The particle gun: makes any rows of a beam from what a user asks for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepbridge.core.errors import ConfigError
from hepbridge.core.rng import event_uniform, stream_key
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import row_ids
from hepbridge.simulate.beam import PDG, Beam
from hepbridge.simulate.detector import Detector
from hepbridge.simulate.energies import (
    Distribution,
    Energies,
    FileEnergies,
    distribution,
    energies,
)

__all__ = ["Gun"]

_ZERO = Distribution("fixed", 0.0, 0.0)


@dataclass(frozen=True)
class Gun:
    """Particles whose energy, direction and impact point are drawn independently of each other.

    Row i is a function of the seed, these settings and i alone (`core.rng`): a longer beam begins
    with the shorter one, and any rows can be had without the others.

    Attributes:
        energies: incident energies.
        particles: names; if there are several, each is as likely as the others.
        theta, phi: distributions of the polar and the azimuthal angle, degrees.
        x, y: distributions of the impact point on the front face, mm.
        seed: of all of them.
    """

    energies: Energies | FileEnergies
    particles: tuple[str, ...] = ("e-",)
    theta: Distribution = _ZERO
    phi: Distribution = _ZERO
    x: Distribution = _ZERO
    y: Distribution = _ZERO
    seed: int = 0

    @classmethod
    def of(
        cls,
        target: Detector | Geometry,
        energy: str,
        *,
        particle: str = "e-",
        theta: str = "fixed:0",
        phi: str = "uniform:0-360",
        impact: str = "axis",
        seed: int = 0,
    ) -> Gun:
        """The gun of the options of the command line.

        Args:
            target: what is shot at. Of a geometry it is not known how far it reaches.
            energy: see `hepbridge.simulate.energies.energies`.
            particle: a name, or several separated by commas.
            theta, phi: ``fixed:A`` or ``uniform:A-B``, degrees; φ does not matter at θ = 0.
            impact: ``axis``; ``cell``: uniform over one cell of the first layer, the one that has
                the axis in its middle or, where cells meet on the axis, the one at x > 0, y > 0;
                or ``X,Y`` in mm.

        Raises:
            ConfigError: an option that is not understood, an angle or a point from which nothing
                enters the detector. DataError: a file of energies that has none; ``cell``, but the
                geometry does not say where its cells are.
        """
        kinds = ("fixed", "uniform")
        tilt = distribution(theta, "theta", "degrees", kinds=kinds, allowed=_wrong_theta)
        turn = distribution(phi, "phi", "degrees", kinds=kinds, allowed=_wrong_phi)
        x, y = _impact(impact, target)
        straight = tilt == _ZERO
        return cls(
            energies(energy), _particles(particle), tilt, _ZERO if straight else turn, x, y, seed
        )

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions besides the incident energy: what varies or is not the default."""
        laws = {"theta_rad": self.theta, "phi_rad": self.phi, "x_mm": self.x, "y_mm": self.y}
        named = tuple(name for name, law in laws.items() if law != _ZERO)
        return named if self.particles == ("e-",) else (*named, "pdg_id")

    @property
    def uid(self) -> int:
        """The data-set uid of the events: a hash of the seed and of all settings."""
        return int(stream_key("beam", json.dumps(self.record(), sort_keys=True))[0])

    def beam(self, start: int, stop: int) -> Beam:
        """The rows start … stop - 1."""
        ids = row_ids(self.uid, start, stop)
        u = event_uniform(self.seed, "beam", ids, 6)
        kind = (u[:, 5] * len(self.particles)).astype(np.int64)
        return Beam.of(
            self.energies.mev(start, u[:, 0]),
            np.array(self.particles)[kind],
            theta_rad=np.radians(self.theta.quantile(u[:, 1])),
            phi_rad=np.radians(self.phi.quantile(u[:, 2])),
            x_mm=self.x.quantile(u[:, 3]),
            y_mm=self.y.quantile(u[:, 4]),
            event_ids=ids,
        )

    def record(self) -> dict[str, Any]:
        """Everything that defines the beam, as plain values."""
        return {
            "energies_gev": str(self.energies),
            "particle": ",".join(self.particles),
            "theta_deg": str(self.theta),
            "phi_deg": str(self.phi),
            "x_mm": str(self.x),
            "y_mm": str(self.y),
            "seed": self.seed,
        }


def _particles(text: str) -> tuple[str, ...]:
    if not isinstance(text, str):
        raise ConfigError(
            f"particle {text!r}: write a name, or several with commas; allowed: {', '.join(PDG)}"
        )
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in PDG:
            raise ConfigError(f"unknown particle {name!r}; allowed: {', '.join(PDG)}")
    if len(set(names)) < len(names):
        raise ConfigError(f"particle {text!r}: names one of them twice")
    return names


def _wrong_theta(degrees: float) -> str:
    return "" if 0 <= degrees < 90 else "a polar angle must be at least 0 and less than 90 degrees"


def _wrong_phi(degrees: float) -> str:
    return "" if -360 <= degrees <= 360 else "an azimuth must be between -360 and 360 degrees"


def _impact(text: str, target: Detector | Geometry) -> tuple[Distribution, Distribution]:
    if text == "axis":
        return _ZERO, _ZERO
    if text == "cell":
        layers = target.planes() if isinstance(target, Geometry) else target.layers
        cells, kind = layers[0].cells, type(target).__name__.lower()
        if cells.kind != "xy":
            raise ConfigError(
                f"impact 'cell' needs cells in x and y, but {kind} {target.name!r} has "
                f"{cells.kind} cells; use axis or X,Y"
            )
        (nx, ny), (px, py) = cells.n, cells.pitch_mm
        return _middle(nx, px), _middle(ny, py)
    try:
        x, y = (float(number) for number in text.split(","))
    except (ValueError, AttributeError):  # the latter: no text
        raise ConfigError(f"impact {text!r}: write axis, cell or X,Y (mm), e.g. 5,-2.5") from None
    if isinstance(target, Detector) and not target.envelope().contains(x, y):
        raise ConfigError(
            f"impact {text!r}: a particle there misses the front face of detector {target.name!r}"
        )
    return Distribution("fixed", x, x), Distribution("fixed", y, y)


def _middle(n: int, pitch: float) -> Distribution:
    """Across the middle one of an odd number of cells, or the first one behind the middle."""
    low = -pitch / 2 if n % 2 else 0.0
    return Distribution("uniform", low, low + pitch)
