"""The calorimeters, and the energy flow: tracks, and what the towers measure beyond them.

All numbers are those of the card ``delphes_card_CMS_R4.tcl``, the method is the module SimpleCalorimeter
of Delphes (de Favereau et al., JHEP 02 (2014) 057). Energies in GeV.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.simulate.zjets.noise import Noise, log_normal
from hepbridge.simulate.zjets.particles import Particles, summed
from hepbridge.simulate.zjets.propagation import to_calorimeter
from hepbridge.simulate.zjets.tracker import Tracks, find_tracks, scaled

__all__ = ["ECAL", "HCAL", "Calorimeter", "detect", "ecal_sigma", "hcal_sigma"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NO_HADRON = (11, 22, 111)  # electrons, photons and neutral pions leave all in the ECAL
NOTHING = (12, 13, 14, 16)  # muons and neutrinos leave nothing anywhere
BOTH = (310, 3122)  # K0S and Λ: on average they have decayed to some neutral pions


def ecal_sigma(energy: Floats, eta: Floats) -> Floats:
    """σ(E) of the ECAL in GeV.

    s √((0.008 E)² + 0.11² E + 0.40²), with s = 1 + 0.64 η² for |η| ≤ 1.5 and
    s = 2.16 + 5.6 (|η| - 2)² for |η| ≤ 2.5; √((0.107 E)² + 2.08² E) beyond. The card takes the shape in η
    from arXiv:1306.2016, that in E from arXiv:1502.02701.
    """
    eta = np.abs(eta)
    shape = np.where(eta <= 1.5, 1 + 0.64 * eta**2, 2.16 + 5.6 * (eta - 2) ** 2)
    central = shape * np.sqrt((0.008 * energy) ** 2 + 0.11**2 * energy + 0.40**2)
    forward = np.sqrt((0.107 * energy) ** 2 + 2.08**2 * energy)
    return np.where(eta <= 2.5, central, forward)


def hcal_sigma(energy: Floats, eta: Floats) -> Floats:
    """σ(E) of the HCAL in GeV: √((0.05 E)² + 1.5² E) for |η| ≤ 3, √((0.13 E)² + 2.7² E) beyond."""
    central = np.sqrt((0.050 * energy) ** 2 + 1.50**2 * energy)
    forward = np.sqrt((0.130 * energy) ** 2 + 2.70**2 * energy)
    return np.where(np.abs(eta) <= 3.0, central, forward)


@dataclass(frozen=True)
class Calorimeter:
    """One calorimeter.

    Attributes:
        edges: (k + 1,) of the towers in η, ascending.
        in_phi: (k,) towers around the beam in each of the k rings.
        sigma: (energy, η) -> σ(E), GeV.
        least_gev, significance: what is below this energy, or below this many σ, is not seen.
        pdg_id: of what is measured by this calorimeter alone: photons, or 0 for neutral hadrons.
    """

    edges: Floats
    in_phi: Integers
    sigma: Callable[[Floats, Floats], Floats]
    least_gev: float
    significance: float
    pdg_id: int

    def fraction(self, pdg_id: Integers) -> Floats:
        """The part of its energy that each particle leaves in this calorimeter (M,)."""
        kind, ecal = np.abs(pdg_id), self.pdg_id == 22
        out = np.where(np.isin(kind, NO_HADRON), float(ecal), float(not ecal))
        out = np.where(np.isin(kind, BOTH), 0.3 if ecal else 0.7, out)
        return np.where(np.isin(kind, NOTHING), 0.0, out)

    def tower(self, eta: Floats, phi: Floats) -> Integers:
        """The number of the tower at each point (M,); -1 where there is none."""
        ring = np.searchsorted(self.edges, eta, side="left") - 1
        there = (ring >= 0) & (ring < len(self.in_phi))
        ring = np.where(there, ring, 0)
        around = self.in_phi[ring]
        sector = np.clip(((phi + np.pi) / (2 * np.pi) * around).astype(np.int64), 0, around - 1)
        first = np.cumsum(self.in_phi) - self.in_phi
        return np.where(there, first[ring] + sector, -1)

    def bounds(self, tower: Integers) -> tuple[Floats, Floats, Floats, Floats]:
        """(lower η, upper η, lower φ, upper φ) of towers (M,)."""
        last = np.cumsum(self.in_phi)
        ring = np.searchsorted(last, tower, side="right")
        width = 2 * np.pi / self.in_phi[ring]
        low = (tower - (last - self.in_phi)[ring]) * width - np.pi
        return self.edges[ring], self.edges[ring + 1], low, low + width


def detect(particles: Particles, noise: Noise) -> Particles:
    """What the detector makes of final particles: tracks, photons and neutral hadrons.

    The objects of the energy flow, sorted by event; the positions of production are those of the
    tracks' particles, and 0 for the others.
    """
    rows, eta, phi = to_calorimeter(particles)
    arrived = particles[rows]
    tracks = find_tracks(arrived, eta, phi, noise)
    neutral = []
    for calorimeter in (ECAL, HCAL):
        tracks, seen = _measure(calorimeter, arrived, eta, phi, tracks, noise)
        neutral.append(seen)
    return Particles.joined([tracks.particles, *neutral])


def _measure(
    calorimeter: Calorimeter,
    particles: Particles,
    eta: Floats,
    phi: Floats,
    tracks: Tracks,
    noise: Noise,
) -> tuple[Tracks, Particles]:
    """The tracks after one calorimeter, and the towers' excess over them.

    A tower measures the sum E of its particles with σ(E), log-normally. If the excess over the tracks in
    it is above the threshold and significant, √(σ_tracks² + σ(E)²) being its uncertainty, the tracks stay
    and the excess is a neutral particle at a random point of the tower. Else there is none, and the tracks
    are scaled to the mean of both measurements, weighted with 1/σ².
    """
    part = calorimeter.fraction(particles.pdg_id)
    tower = calorimeter.tower(eta, phi)
    hit = (part > 0) & (tower >= 0)
    track_tower = calorimeter.tower(tracks.eta, tracks.phi)
    share = calorimeter.fraction(tracks.particles.pdg_id)
    joins = (share > 0) & (track_tower >= 0)
    size = int(calorimeter.in_phi.sum())
    keys = np.concatenate(
        [
            particles.event[hit] * size + tower[hit],
            tracks.particles.event[joins] * size + track_tower[joins],
        ]
    )
    found, which = np.unique(keys, return_inverse=True)
    of_hit, of_track = which[: int(hit.sum())], which[int(hit.sum()) :]
    event, number = found // size, found % size
    deposited = summed((particles.e * part)[hit], of_hit, len(found))
    low, high, left, right = calorimeter.bounds(number)
    middle = 0.5 * (low + high)
    true_sigma = calorimeter.sigma(deposited, middle)
    energy = log_normal(deposited, true_sigma, noise.normal(event))
    sigma = calorimeter.sigma(energy, middle)
    below = (energy < calorimeter.least_gev) | (energy < calorimeter.significance * sigma)
    energy = np.where(below, 0.0, energy)

    track_e = tracks.particles.e[joins]
    tracked = summed(track_e * share[joins], of_track, len(found))
    track_variance = summed((tracks.resolution[joins] * track_e) ** 2, of_track, len(found))
    excess = np.maximum(energy - tracked, 0.0)
    uncertainty = np.sqrt(track_variance + sigma**2)
    neutral = (excess > calorimeter.least_gev) & (excess > calorimeter.significance * uncertainty)
    scale = np.ones(len(tracks.particles))
    scale[joins] = np.where(neutral, 1.0, _best(tracked, track_variance, energy, sigma))[of_track]
    measured = Tracks(scaled(tracks.particles, scale), tracks.resolution, tracks.eta, tracks.phi)
    at = noise.uniform(event, 2)[neutral]
    eta_at = low[neutral] + at[:, 0] * (high - low)[neutral]
    phi_at = left[neutral] + at[:, 1] * (right - left)[neutral]
    return measured, _massless(event[neutral], excess[neutral], eta_at, phi_at, calorimeter.pdg_id)


def _best(tracked: Floats, variance: Floats, energy: Floats, sigma: Floats) -> Floats:
    """Weighted mean of the energies of tracks and tower, over that of the tracks; 1 without tracks."""
    with np.errstate(divide="ignore", invalid="ignore"):
        of_tracks = np.where(variance > 0, 1 / variance, 0.0)
        of_tower = np.where(sigma > 0, 1 / sigma**2, 0.0)
        mean = (of_tracks * tracked + of_tower * energy) / (of_tracks + of_tower)
        return np.where(tracked > 0, mean / tracked, 1.0)


def _massless(event: Integers, energy: Floats, eta: Floats, phi: Floats, pdg_id: int) -> Particles:
    pt, nothing = energy / np.cosh(eta), np.zeros(len(event))
    return Particles(
        event,
        pt * np.cos(phi),
        pt * np.sin(phi),
        pt * np.sinh(eta),
        energy,
        np.full(len(event), pdg_id, np.int64),
        nothing,
        nothing,
        nothing,
        nothing,
    )


def _rings(groups: list[tuple[int, NDArray[Any]]]) -> tuple[Floats, Integers]:
    """Edges in η and towers around the beam, from (towers around, upper edges of the rings)."""
    upper = np.concatenate([edges for _, edges in groups])
    around = np.concatenate([np.full(len(edges), n) for n, edges in groups])
    order = np.argsort(upper)
    return upper[order], around[order][1:]  # the lowest edge ends no ring


def _both(*edges: float) -> Floats:
    return np.array([*(-e for e in edges), *edges])


_FORWARD = (3.3, 3.475, 3.65, 3.825, 4.0, 4.175, 4.35)
_STEP = 0.0174  # 1 degree

ECAL = Calorimeter(
    *_rings(
        [
            (360, np.arange(-85, 87) * _STEP),
            (360, -2.958 + np.arange(1, 85) * _STEP),
            (360, 1.4964 + np.arange(1, 85) * _STEP),
            (36, np.array([-2.958, *_both(*_FORWARD, 3.125, 4.525, 4.7, 5.0)])),
        ]
    ),
    ecal_sigma,
    least_gev=0.5,
    significance=2.0,
    pdg_id=22,
)

HCAL = Calorimeter(
    *_rings(
        [
            (72, np.array([*np.arange(-18, 19) * 0.087, 1.653])),
            (
                36,
                np.array([-1.653, *_both(1.74, 1.83, 1.93, 2.043, 2.172, 2.322, 2.5, 2.65, 2.868)]),
            ),
            (36, np.array([*_both(2.95, 3.125, *_FORWARD), 4.525])),
            (18, np.array([-4.525, *_both(4.7, 5.0)])),
        ]
    ),
    hcal_sigma,
    least_gev=1.0,
    significance=1.0,
    pdg_id=0,
)
