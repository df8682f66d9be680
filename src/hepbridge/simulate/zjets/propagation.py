"""Where particles reach the calorimeter: straight lines and helices in a solenoid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepbridge.simulate.zjets.particles import Particles

__all__ = ["FIELD_TESLA", "HALF_LENGTH_MM", "RADIUS_MM", "to_calorimeter"]

Floats = NDArray[np.float64]

FIELD_TESLA, RADIUS_MM, HALF_LENGTH_MM = 3.8, 1290.0, 3000.0  # of the CMS card
GEV_PER_TESLA_MM = 0.299792458e-3  # p_T = 0.3 q B r
LEAST_PT_GEV = 1e-4


def to_calorimeter(particles: Particles) -> tuple[NDArray[np.int64], Floats, Floats]:
    """(rows, η, φ): which particles leave the cylinder of the tracker, and the direction, seen from
    the origin, of the point where they do.

    The field points along +z. A charge q with transverse momentum p_T runs on a circle of radius
    r = p_T / (0.3 |q| B); the angle θ on it at which it reaches the radius R follows from the law of
    cosines, with the centre c of the circle: R² = c² + r² + 2 c r cos α. If it reaches the end of the
    cylinder first, or curls up, it leaves there, at z = ± L. Particles that are made outside the
    cylinder, and those with p_T < 0.1 MeV, are dropped. After the module ParticlePropagator of Delphes.
    """
    inside = (np.hypot(particles.x, particles.y) < RADIUS_MM) & (
        np.abs(particles.z) < HALF_LENGTH_MM
    )
    rows = np.flatnonzero(inside & (particles.pt > LEAST_PT_GEV))
    chosen = particles[rows]
    charged = chosen.charge != 0
    x, y, z = np.empty(len(rows)), np.empty(len(rows)), np.empty(len(rows))
    for kind, leave in ((charged, _helix), (~charged, _line)):
        x[kind], y[kind], z[kind] = leave(chosen[kind])
    return rows, np.arcsinh(z / np.hypot(x, y)), np.arctan2(y, x)


def _line(p: Particles) -> tuple[Floats, Floats, Floats]:
    """Where straight lines leave the cylinder, mm."""
    pt2 = p.pt**2
    along = p.px * p.x + p.py * p.y
    across = p.px * p.y - p.py * p.x
    t = (np.sqrt(pt2 * RADIUS_MM**2 - across**2) - along) / pt2
    t = np.minimum(t, _to_the_end(p))
    return p.x + t * p.px, p.y + t * p.py, p.z + t * p.pz


def _helix(p: Particles) -> tuple[Floats, Floats, Floats]:
    """Where helices leave the cylinder, mm."""
    pt, phi, sign = p.pt, np.arctan2(p.py, p.px), np.sign(p.charge)
    r = pt / (GEV_PER_TESLA_MM * FIELD_TESLA * np.abs(p.charge))
    # a positive charge turns clockwise: after the angle θ its direction is φ - θ
    x_centre, y_centre = p.x + sign * r * np.sin(phi), p.y - sign * r * np.cos(phi)
    centre, towards = np.hypot(x_centre, y_centre), np.arctan2(y_centre, x_centre)
    start = sign * (phi - towards) + np.pi / 2  # from the direction of the centre
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (RADIUS_MM**2 - centre**2 - r**2) / (2 * centre * r)
    reaches = np.abs(cosine) <= 1
    alpha = np.arccos(np.where(reaches, cosine, 1.0))
    first = np.minimum(np.mod(start - alpha, 2 * np.pi), np.mod(start + alpha, 2 * np.pi))
    # the path on the circle is r θ, and in units of the momentum t = r θ / p_T
    end = _to_the_end(p) * pt / r
    theta = np.where(reaches, np.minimum(first, end), end)
    direction = phi - sign * theta
    return (
        x_centre - sign * r * np.sin(direction),
        y_centre + sign * r * np.cos(direction),
        p.z + theta * r / pt * p.pz,
    )


def _to_the_end(p: Particles) -> Floats:
    """The parameter t of z + t p_z at which the end of the cylinder is reached."""
    with np.errstate(divide="ignore"):
        return (np.copysign(HALF_LENGTH_MM, p.pz) - p.z) / p.pz
