"""The tracker: which charged particles become tracks, and how well they are measured.

All numbers are those of the card ``delphes_card_CMS_R4.tcl`` (Delphes: de Favereau et al., JHEP 02 (2014)
057), with p_T in GeV and η where the particle reaches the calorimeter. The card takes the resolution of
hadrons from arXiv:1405.6569, that of electrons from arXiv:1502.02701.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hepbridge.simulate.zjets.noise import Noise, log_normal
from hepbridge.simulate.zjets.particles import Particles

__all__ = ["ELECTRON", "HADRON", "MUON", "Tracks", "efficiency", "find_tracks", "resolution"]

Floats = NDArray[np.float64]

HADRON, ELECTRON, MUON = 0, 11, 13
LEAST_PT_GEV, MOST_ETA = 0.1, 2.5


@dataclass(frozen=True)
class Tracks:
    """Measured tracks.

    Attributes:
        particles: with the measured momentum, in the order of the events.
        resolution: (M,) σ(p_T) / p_T that each was measured with.
        eta, phi: (M,) where each reaches the calorimeter.
    """

    particles: Particles
    resolution: Floats
    eta: Floats
    phi: Floats


def efficiency(kind: int, pt: Floats, eta: Floats) -> Floats:
    """Probability that a charged particle is found, for `HADRON`, `ELECTRON` or `MUON`.

    For ``|η| ≤ 1.5``, and up to 2.5:

    - hadrons: 0.70 and 0.60 for 0.1 < p_T ≤ 1, 0.95 and 0.85 above
    - electrons: 0.73 and 0.50 for 0.1 < p_T ≤ 1, 0.95 and 0.83 above, 0.99 and 0.90 above 100
    - muons: 0.75 and 0.70 for 0.1 < p_T ≤ 1, 0.99 and 0.98 above, times exp(0.5 - p_T / 2000) above 1000
    """
    barrel = np.abs(eta) <= 1.5
    low, high = {HADRON: ((0.70, 0.60), (0.95, 0.85)), ELECTRON: ((0.73, 0.50), (0.95, 0.83))}.get(
        kind, ((0.75, 0.70), (0.99, 0.98))
    )
    out = np.where(pt <= 1.0, np.where(barrel, *low), np.where(barrel, *high))
    if kind == ELECTRON:
        out = np.where(pt > 100.0, np.where(barrel, 0.99, 0.90), out)
    if kind == MUON:
        out = np.where(pt > 1000.0, out * np.exp(0.5 - 5e-4 * pt), out)
    return np.where((pt > LEAST_PT_GEV) & (np.abs(eta) <= MOST_ETA), out, 0.0)


def resolution(kind: int, pt: Floats, eta: Floats) -> Floats:
    """σ(p_T) / p_T = √(a² + (b p_T)²), at most 1.

    For ``|η|`` up to 0.5, 1.5 and 2.5:

    - hadrons: a = 0.06, 0.10, 0.25 and b = 1.3e-3, 1.7e-3, 3.1e-3
    - electrons: a = 0.03, 0.05, 0.15, and the same b
    - muons: a = 0.010, 0.015, 0.025 and b = 1.0e-4, 1.5e-4, 3.5e-4
    """
    a = {HADRON: (0.06, 0.10, 0.25), ELECTRON: (0.03, 0.05, 0.15)}.get(kind, (0.01, 0.015, 0.025))
    b = (1.0e-4, 1.5e-4, 3.5e-4) if kind == MUON else (1.3e-3, 1.7e-3, 3.1e-3)
    region = np.digitize(np.abs(eta), (0.5, 1.5), right=True)
    out: Floats = np.minimum(np.hypot(np.take(a, region), np.take(b, region) * pt), 1.0)
    return out


def find_tracks(particles: Particles, eta: Floats, phi: Floats, noise: Noise) -> Tracks:
    """The tracks of charged particles that reach the calorimeter at ``eta``, ``phi`` (M,).

    The transverse momentum is smeared log-normally; direction and mass stay (modules Efficiency and
    MomentumSmearing of Delphes).
    """
    pt = particles.pt
    kind = np.abs(particles.pdg_id)
    kind = np.where((kind == ELECTRON) | (kind == MUON), kind, HADRON)
    probability, sigma = np.zeros(len(particles)), np.zeros(len(particles))
    for k in (HADRON, ELECTRON, MUON):
        chosen = kind == k
        probability[chosen] = efficiency(k, pt[chosen], eta[chosen])
        sigma[chosen] = resolution(k, pt[chosen], eta[chosen])
    drawn, normal = noise.uniform(particles.event)[:, 0], noise.normal(particles.event)
    found = (particles.charge != 0) & (drawn < probability)
    scale = log_normal(pt, sigma * pt, normal) / pt
    return Tracks(scaled(particles[found], scale[found]), sigma[found], eta[found], phi[found])


def scaled(particles: Particles, scale: Floats) -> Particles:
    """The particles with their momenta times ``scale`` (M,), and the mass that they had."""
    p2 = particles.px**2 + particles.py**2 + particles.pz**2
    mass2 = np.maximum(particles.e**2 - p2, 0.0)
    return replace(
        particles,
        px=particles.px * scale,
        py=particles.py * scale,
        pz=particles.pz * scale,
        e=np.sqrt(p2 * scale**2 + mass2),
    )
