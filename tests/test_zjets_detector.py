"""The fast detector: its formulas by numbers, its helices and energy flow by slow loops."""

from __future__ import annotations

import math
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest

from hepbridge.simulate.zjets import calorimeter, noise, propagation, tracker
from hepbridge.simulate.zjets.particles import Particles

PION, ELECTRON, MUON, PHOTON, K_LONG, K_SHORT = 211, 11, 13, 22, 130, 310


class Still:
    """Noise without noise: every log-normal number at its median, every point in the middle."""

    def uniform(self, event, width=1):
        return np.full((len(event), width), 0.5)

    def normal(self, event):
        return np.zeros(len(event))


def make(pdg_id, pt, eta, phi=0.0, *, charge=0.0, mass=0.0, event=0, at=(0, 0, 0)) -> Particles:
    """Particles from arrays or numbers."""
    values = np.broadcast_arrays(pdg_id, pt, eta, phi, charge, mass, event, *at)
    pdg_id, pt, eta, phi, charge, mass, event, x, y, z = map(np.atleast_1d, values)
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    e = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
    floats = (np.array(v, float) for v in (charge, x, y, z))
    return Particles(event.astype(np.int64), px, py, pz, e, pdg_id.astype(np.int64), *floats)


# Propagation


def stepped(p: Particles, i: int) -> tuple[float, float]:
    """(η, φ) where one particle leaves the cylinder, by small steps of dp/dt ∝ q v × B."""
    x, y, z = float(p.x[i]), float(p.y[i]), float(p.z[i])
    px, py, pz = float(p.px[i]), float(p.py[i]), float(p.pz[i])
    size = math.sqrt(px**2 + py**2 + pz**2)
    step = 0.3  # mm
    turn = float(p.charge[i]) * 0.299792458e-3 * 3.8 / size * step
    while math.hypot(x, y) < 1290 and abs(z) < 3000:
        # v × B = (v_y, -v_x, 0) B; the direction in the middle of the step, then the step
        half_x, half_y = px + 0.5 * turn * py, py - 0.5 * turn * px
        x, y, z = x + step * half_x / size, y + step * half_y / size, z + step * pz / size
        px, py = px + turn * half_y, py - turn * half_x
    return math.asinh(z / math.hypot(x, y)), math.atan2(y, x)


def test_helices_against_small_steps() -> None:
    """Barrel, end, curls, displaced vertices, both charges; fails if the field has the other sign."""
    pt = np.array([5.0, 0.9, 0.75, 0.5, 2.0, 1.0, 3.0, 0.8])
    eta = np.array([0.3, -1.0, 0.1, 1.2, 2.2, -0.5, 0.0, 0.9])
    phi = np.array([0.0, 2.0, -3.0, 1.0, 0.5, -1.5, 3.1, -0.3])
    charge = np.array([1, -1, 1, -1, 1, 1, -1, 0.0])
    at = np.array([[0, 0, 0], [30, -20, 100], [0, 5, 0], [0, 0, 0], [100, 0, 50], [0, 0, -20],
                   [-200, 150, 10], [-200, 150, 10]]).T  # fmt: skip
    particles = make(PION, pt, eta, phi, charge=charge, at=at)
    rows, got_eta, got_phi = propagation.to_calorimeter(particles)
    assert rows.tolist() == list(range(8))
    for i in range(8):
        want_eta, want_phi = stepped(particles, i)
        assert got_eta[i] == pytest.approx(want_eta, abs=2e-3)
        assert math.remainder(got_phi[i] - want_phi, 2 * math.pi) == pytest.approx(0, abs=2e-3)
    assert math.remainder(got_phi[0], 2 * math.pi) < 0  # a positive charge turns clockwise


def test_straight_lines_and_what_is_dropped() -> None:
    neutral = make(PHOTON, 3.0, [0.4, -2.7], [1.0, -2.0])
    _, eta, phi = propagation.to_calorimeter(neutral)
    np.testing.assert_allclose(eta, [0.4, -2.7])
    np.testing.assert_allclose(phi, [1.0, -2.0])
    at = ([0, 1300, 0, 0], [0, 0, 0, 0], [0, 0, 3100, 0])
    lost = make(PION, [1, 1, 1, 5e-5], 0.1, charge=1.0, at=at)
    assert propagation.to_calorimeter(lost)[0].tolist() == [0]


# Tracks: the numbers of the card, typed again


@pytest.mark.parametrize(
    ("kind", "pt", "eta", "found", "sigma"),
    [
        (PION, 0.05, 0.2, 0.0, None),
        (PION, 0.5, 0.2, 0.70, math.hypot(0.06, 0.5 * 1.3e-3)),
        (PION, 50, 0.2, 0.95, math.hypot(0.06, 50 * 1.3e-3)),
        (PION, 50, -1.2, 0.95, math.hypot(0.10, 50 * 1.7e-3)),
        (PION, 0.5, 2.0, 0.60, math.hypot(0.25, 0.5 * 3.1e-3)),
        (PION, 50, 2.0, 0.85, math.hypot(0.25, 50 * 3.1e-3)),
        (PION, 50, 2.6, 0.0, None),
        (ELECTRON, 0.5, 1.0, 0.73, math.hypot(0.05, 0.5 * 1.7e-3)),
        (ELECTRON, 20, -0.1, 0.95, math.hypot(0.03, 20 * 1.3e-3)),
        (ELECTRON, 150, 1.0, 0.99, math.hypot(0.05, 150 * 1.7e-3)),
        (ELECTRON, 0.5, 2.0, 0.50, math.hypot(0.15, 0.5 * 3.1e-3)),
        (ELECTRON, 20, 2.0, 0.83, math.hypot(0.15, 20 * 3.1e-3)),
        (ELECTRON, 150, 2.0, 0.90, math.hypot(0.15, 150 * 3.1e-3)),
        (MUON, 0.5, 1.0, 0.75, math.hypot(0.015, 0.5 * 1.5e-4)),
        (MUON, 40, 0.1, 0.99, math.hypot(0.01, 40 * 1.0e-4)),
        (MUON, 2000, 0.1, 0.99 * math.exp(-0.5), math.hypot(0.01, 2000 * 1.0e-4)),
        (MUON, 40, 2.4, 0.98, math.hypot(0.025, 40 * 3.5e-4)),
    ],
)
def test_tracks(kind: int, pt: float, eta: float, found: float, sigma: float | None) -> None:
    """Efficiency, mean and spread within four standard errors. Fails with a wrong entry of a table."""
    n = 40_000
    particles = make(kind, np.full(n, pt), eta, 0.3, charge=-1.0, mass=0.1)
    drawn = noise.Noise(1, kind, np.array([round(pt * 10)]))
    tracks = tracker.find_tracks(particles, np.full(n, eta), np.full(n, 0.3), drawn)
    k = len(tracks.particles)
    assert abs(k / n - found) <= 4 * math.sqrt(found * (1 - found) / n)
    if sigma is None:
        return
    ratio = tracks.particles.pt / pt
    assert abs(ratio.mean() - 1) < 4 * sigma / math.sqrt(k)
    # of a log-normal with this σ: excess kurtosis, and so the error of the measured spread
    q = 1 + sigma**2
    kurtosis = q**4 + 2 * q**3 + 3 * q**2 - 6
    assert abs(ratio.std() / sigma - 1) < 4 * math.sqrt((kurtosis + 2) / (4 * k))
    assert ratio.min() > 0
    mass2 = tracks.particles.e**2 - tracks.particles.pt**2 * np.cosh(eta) ** 2
    np.testing.assert_allclose(mass2, 0.01, rtol=1e-3, atol=1e-6 * pt**2)
    np.testing.assert_allclose(tracks.particles.eta, eta, rtol=1e-9)


def test_neutral_particles_leave_no_track() -> None:
    particles = make([PHOTON, K_LONG, PION], 10.0, 0.1, charge=[0, 0, 1])
    tracks = tracker.find_tracks(particles, np.full(3, 0.1), np.zeros(3), Still())
    assert tracks.particles.pdg_id.tolist() == [PION]


# Towers


def card_towers(name: str) -> list[tuple[float, float, int]]:
    """(lower η, upper η, towers around) as the card makes them: φ belongs to the upper edge."""
    around: dict[float, int] = {}
    if name == "ECAL":
        for i in range(-85, 87):
            around[i * 0.0174] = 360
        for i in range(1, 85):
            around[-2.958 + i * 0.0174] = 360
        for i in range(1, 85):
            around[1.4964 + i * 0.0174] = 360
        hf = "-5 -4.7 -4.525 -4.35 -4.175 -4 -3.825 -3.65 -3.475 -3.3 -3.125 -2.958 3.125 3.3 3.475 " \
            "3.65 3.825 4 4.175 4.35 4.525 4.7 5"  # fmt: skip
        around |= {float(v): 36 for v in hf.split()}
    else:
        five = "-1.566 -1.479 -1.392 -1.305 -1.218 -1.131 -1.044 -0.957 -0.87 -0.783 -0.696 -0.609 -0.522 " \
            "-0.435 -0.348 -0.261 -0.174 -0.087 0 0.087 0.174 0.261 0.348 0.435 0.522 0.609 0.696 0.783 " \
            "0.87 0.957 1.044 1.131 1.218 1.305 1.392 1.479 1.566 1.653"  # fmt: skip
        ten = "-4.35 -4.175 -4 -3.825 -3.65 -3.475 -3.3 -3.125 -2.95 -2.868 -2.65 -2.5 -2.322 -2.172 -2.043 " \
            "-1.93 -1.83 -1.74 -1.653 1.74 1.83 1.93 2.043 2.172 2.322 2.5 2.65 2.868 2.95 3.125 3.3 3.475 " \
            "3.65 3.825 4 4.175 4.35 4.525"  # fmt: skip
        around |= {float(v): 72 for v in five.split()}
        around |= {float(v): 36 for v in ten.split()}
        around |= {v: 18 for v in (-5, -4.7, -4.525, 4.7, 5)}
    edges = sorted(around)
    return [(a, b, around[b]) for a, b in pairwise(edges)]


@pytest.mark.parametrize("name", ["ECAL", "HCAL"])
def test_towers_are_those_of_the_card(name: str) -> None:
    """Fails if a ring has another number of towers, or an edge is missing."""
    device, rings = getattr(calorimeter, name), card_towers(name)
    np.testing.assert_allclose(device.edges, [rings[0][0], *(b for _, b, _ in rings)], atol=1e-9)
    assert device.in_phi.tolist() == [n for _, _, n in rings]
    rng = np.random.default_rng(0)
    eta, phi = rng.uniform(-5, 5, 5000), rng.uniform(-np.pi, np.pi, 5000)
    tower = device.tower(eta, phi)
    low, high, left, right = device.bounds(tower)
    assert ((low < eta) & (eta <= high) & (left <= phi) & (phi <= right)).all()
    assert tower.min() >= 0 and tower.max() < sum(n for _, _, n in rings)
    assert device.tower(np.array([5.1, -5.1]), np.zeros(2)).tolist() == [-1, -1]
    where = {}
    for t, box in zip(tower, zip(low, high, left, right, strict=True), strict=True):
        assert where.setdefault(int(t), box) == box


@pytest.mark.parametrize(
    ("kind", "energy", "eta", "sigma"),
    [
        (PHOTON, 50.0, 0.3, (1 + 0.64 * 0.3045**2) * math.sqrt(0.4**2 + 0.11**2 * 50 + 0.4**2)),
        (PHOTON, 50.0, 2.2, (2.16 + 5.6 * 0.2011**2) * math.sqrt(0.4**2 + 0.11**2 * 50 + 0.4**2)),
        (PHOTON, 200.0, 3.5, math.sqrt(21.4**2 + 2.08**2 * 200)),
        (K_LONG, 100.0, 0.3, math.sqrt(5.0**2 + 1.5**2 * 100)),
        (K_LONG, 400.0, 3.5, math.sqrt(52**2 + 2.7**2 * 400)),
    ],
)
def test_resolution_of_calorimeters(kind: int, energy: float, eta: float, sigma: float) -> None:
    """Mean and spread of one particle's energy within four standard errors of the card's formula."""
    n = 20_000
    pt = energy / math.cosh(eta)
    seen = calorimeter.detect(
        make(kind, np.full(n, pt), eta, event=np.arange(n)), noise.Noise(2, 3, np.arange(n))
    )
    assert len(seen) == n and (seen.pdg_id == (22 if kind == PHOTON else 0)).all()
    assert abs(seen.e.mean() - energy) < 4 * sigma / math.sqrt(n)
    q = 1 + (sigma / energy) ** 2
    kurtosis = q**4 + 2 * q**3 + 3 * q**2 - 6
    # the shape in η is taken in the middle of the tower, at most 0.009 away
    assert abs(seen.e.std() / sigma - 1) < 4 * math.sqrt((kurtosis + 2) / (4 * n)) + 0.005
    np.testing.assert_allclose(seen.e**2 - seen.pt**2 - seen.pz**2, 0, atol=1e-6 * energy**2)
    width = 0.0175 if kind == PHOTON and eta < 3 else 0.175
    assert (np.abs(seen.eta - eta) < width).all() and seen.eta.std() > width / 8


def test_thresholds() -> None:
    """Nothing below 0.5 GeV in the ECAL and 1 GeV in the HCAL, or below 2 and 1 σ."""
    n = 5000
    for kind, least, significance in ((PHOTON, 0.5, 2.0), (K_LONG, 1.0, 1.0)):
        seen = calorimeter.detect(
            make(kind, np.full(n, 1.5), 0.05, event=np.arange(n)), noise.Noise(5, 6, np.arange(n))
        )
        sigma = calorimeter.ecal_sigma if kind == PHOTON else calorimeter.hcal_sigma
        assert 0 < len(seen) < n
        assert (seen.e > least).all()
        assert (seen.e >= significance * sigma(seen.e, np.full(len(seen), 0.05)) * 0.999).all()


def slow_flow(particles: Particles) -> list[tuple[float, float, int]]:
    """(energy, pT, kind) of the energy flow of one event by loops and dictionaries, without noise."""
    rows, eta, phi = propagation.to_calorimeter(particles)
    tracks = []
    for i, at_eta, at_phi in zip(rows, eta, phi, strict=True):
        kind, pt = abs(int(particles.pdg_id[i])), float(particles.pt[i])
        kind = kind if kind in (11, 13) else 0
        if not particles.charge[i] or float(tracker.efficiency(kind, pt, at_eta)) <= 0.5:
            continue
        resolution = float(tracker.resolution(kind, pt, at_eta))
        scale = 1 / math.sqrt(1 + resolution**2)  # the median of a log-normal of mean 1
        mass2 = particles.e[i] ** 2 - pt**2 - particles.pz[i] ** 2
        p = math.hypot(pt, particles.pz[i])
        tracks.append([abs(int(particles.pdg_id[i])), p * scale, pt * scale, mass2, resolution,
                       at_eta, at_phi])  # fmt: skip
    neutral = []
    for name, rings in (("ECAL", card_towers("ECAL")), ("HCAL", card_towers("HCAL"))):
        ecal = name == "ECAL"

        def part(kind: int, ecal: bool = ecal) -> float:
            if kind in (11, 22):
                return 1.0 if ecal else 0.0
            return 0.0 if kind == 13 else (0.3 if ecal else 0.7) if kind == 310 else float(not ecal)

        def tower(at_eta: float, at_phi: float, rings=rings) -> tuple[int, int] | None:
            for ring, (low, high, around) in enumerate(rings):
                if low < at_eta <= high:
                    return ring, int((at_phi + math.pi) / (2 * math.pi / around))
            return None

        hits: dict[tuple[int, int], float] = {}
        inside: dict[tuple[int, int], list] = {}
        for i, at_eta, at_phi in zip(rows, eta, phi, strict=True):
            fraction = part(abs(int(particles.pdg_id[i])))
            if fraction:
                where = tower(at_eta, at_phi)
                if where is None:  # beyond |η| = 5
                    continue
                hits[where] = hits.get(where, 0.0) + fraction * particles.e[i]
        for track in tracks:
            if part(track[0]):
                inside.setdefault(tower(track[5], track[6]), []).append(track)
        for where, true in hits.items():
            low, high, _ = rings[where[0]]
            middle = (low + high) / 2
            formula = calorimeter.ecal_sigma if ecal else calorimeter.hcal_sigma
            energy = true / math.sqrt(1 + (float(formula(true, middle)) / true) ** 2)
            sigma = float(formula(energy, middle))
            least, significance = (0.5, 2.0) if ecal else (1.0, 1.0)
            if energy < least or energy < significance * sigma:
                energy = 0.0
            mine = inside.get(where, [])
            energies = [math.sqrt(t[1] ** 2 + t[3]) for t in mine]
            charged = sum(energies)
            variance = sum((t[4] * e) ** 2 for t, e in zip(mine, energies, strict=True))
            excess = max(energy - charged, 0.0)
            if excess > least and excess / math.sqrt(variance + sigma**2) > significance:
                neutral.append((excess, excess / math.cosh(middle), 22 if ecal else 0))
            elif mine:
                tower_weight = 1 / sigma**2 if sigma > 0 else 0.0
                best = (charged / variance + energy * tower_weight) / (1 / variance + tower_weight)
                for t in mine:
                    t[1] *= best / charged
                    t[2] *= best / charged
    charged_objects = [(math.sqrt(t[1] ** 2 + t[3]), t[2], t[0]) for t in tracks]
    return sorted(charged_objects + neutral)


def test_energy_flow_against_slow_loops() -> None:
    """Jets of all kinds of particles, several in each tower: excess, rescaled tracks, thresholds.

    Fails if the excess is not subtracted, tracks are not rescaled, or a fraction is another one."""
    rng = np.random.default_rng(8)
    kinds = np.array([PION, ELECTRON, MUON, PHOTON, K_LONG, K_SHORT])
    charged, heavy = np.array([1, -1, -1, 0, 0, 0.0]), np.array([0.14, 0, 0.106, 0, 0.5, 0.5])
    n, each = 6, 60
    which = rng.integers(6, size=n * each)
    particles = make(
        kinds[which],
        rng.exponential(4, n * each) + 0.05,
        rng.normal(0.4, 0.1, n * each) + np.repeat([0, 1, -2, 0.5, -3, 0], each),
        rng.normal(2.0, 0.1, n * each),
        charge=charged[which],
        mass=heavy[which],
        event=np.repeat(np.arange(n), each),
    )
    got = calorimeter.detect(particles, Still())
    assert (np.diff(got.event) >= 0).all()
    for i in range(n):
        mine = got[got.event == i]
        flow = sorted(zip(mine.e, mine.pt, np.abs(mine.pdg_id), strict=True))
        want = slow_flow(particles[particles.event == i])
        assert len(flow) == len(want)
        np.testing.assert_allclose(np.array(flow), np.array(want), rtol=1e-6)
    assert {0, 11, 13, 22, 211} == set(np.abs(got.pdg_id))


def test_noise_of_an_event_is_its_own() -> None:
    """Fails if the numbers of an event depend on the events beside it."""
    rng = np.random.default_rng(1)
    m = 400
    particles = make(
        rng.choice([PION, PHOTON, K_LONG], m), rng.exponential(5, m) + 0.1, rng.normal(0, 1, m),
        rng.uniform(-3, 3, m), charge=1.0, event=np.sort(rng.integers(10, size=m)),
    )  # fmt: skip
    together = calorimeter.detect(particles, noise.Noise(3, 4, np.arange(20, 30)))
    chosen = particles[(particles.event >= 6)]
    later = Particles(
        **{f.name: getattr(chosen, f.name) for f in fields(chosen)} | {"event": chosen.event - 6}
    )
    alone = calorimeter.detect(later, noise.Noise(3, 4, np.arange(26, 30)))
    same = together[together.event >= 6]
    np.testing.assert_array_equal(same.px, alone.px)
    np.testing.assert_array_equal(same.e, alone.e)
    other = calorimeter.detect(later, noise.Noise(4, 4, np.arange(26, 30)))
    assert len(other) != len(alone) or (other.e != alone.e).any()
