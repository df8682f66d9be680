"""Jets and their observables against closed forms and slow loops."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize

pytest.importorskip("fastjet")

from hepbridge.simulate.zjets.jets import OBSERVABLES, Jets, leading_jets
from hepbridge.simulate.zjets.particles import Particles

R = 0.4


def momentum(pt: float, y: float, phi: float, mass: float = 0.0) -> tuple[float, ...]:
    transverse = math.hypot(pt, mass)
    return (
        pt * math.cos(phi),
        pt * math.sin(phi),
        transverse * math.sinh(y),
        transverse * math.cosh(y),
    )


def particles(events: list[list[tuple[float, ...]]]) -> Particles:
    event = np.array([i for i, one in enumerate(events) for _ in one], np.int64)
    p = np.array([q for one in events for q in one], float).reshape(-1, 4).T
    nothing = np.zeros(len(event))
    return Particles(event, *p, np.full(len(event), 211), nothing, nothing, nothing, nothing)


def measured(events: list[list[tuple[float, ...]]]) -> Jets:
    return leading_jets(particles(events), len(events), R)


def test_jet_of_one_particle_has_no_substructure() -> None:
    """Fails if the -1 and the 0 that stand for failed soft drop pass as values."""
    jets = measured([[momentum(100, 0.5, 2.0, 5.0)]])
    columns = {name: jets.columns[name][0] for name in OBSERVABLES}
    assert columns["pt"] == pytest.approx(100)
    assert columns["rapidity"] == pytest.approx(0.5)
    assert columns["phi"] == pytest.approx(2.0)
    assert columns["mass"] == pytest.approx(5.0)
    assert columns["multiplicity"] == 1
    assert columns["width"] == pytest.approx(0, abs=1e-12)
    for name in ("ln_rho", "z_g", "tau21"):
        assert not jets.defined[name][0] and math.isnan(columns[name])


def test_jet_of_two_particles() -> None:
    """Closed forms, across φ = π. Fails if Δφ does not wrap, or ρ has p_T instead of p_T²."""
    pt1, pt2, dy, dphi = 120.0, 40.0, 0.1, 0.2
    jets = measured([[momentum(pt1, 1.0, math.pi - 0.1), momentum(pt2, 1.0 + dy, -math.pi + 0.1)]])
    got = {name: jets.columns[name][0] for name in OBSERVABLES}
    mass2 = 2 * pt1 * pt2 * (math.cosh(dy) - math.cos(dphi))
    jet_pt = math.sqrt(pt1**2 + pt2**2 + 2 * pt1 * pt2 * math.cos(dphi))
    assert got["pt"] == pytest.approx(jet_pt)
    assert got["mass"] == pytest.approx(math.sqrt(mass2))
    assert got["ln_rho"] == pytest.approx(math.log(mass2 / jet_pt**2))
    assert got["z_g"] == pytest.approx(pt2 / (pt1 + pt2))
    assert got["multiplicity"] == 2
    # distances to the axis of the jet, from φ = π - 0.1: the transverse sum lies at this angle
    angle = math.atan2(pt2 * math.sin(dphi), pt1 + pt2 * math.cos(dphi))
    forward = [
        pt1 * math.exp(1.0) + pt2 * math.exp(1.0 + dy),
        pt1 / math.exp(1.0) + pt2 / math.exp(1.0 + dy),
    ]
    axis = 0.5 * math.log(forward[0] / forward[1])
    spread = pt1 * math.hypot(axis - 1.0, angle) + pt2 * math.hypot(axis - 1.0 - dy, angle - dphi)
    assert got["width"] == pytest.approx(spread / (pt1 + pt2))
    # on the axis of least τ1, which is the harder particle; the one pass comes close to it
    least = pt2 * math.hypot(dy, dphi) / (R * (pt1 + pt2))
    assert least * (1 - 1e-9) < got["tau1"] < 1.02 * least
    assert got["tau2"] == got["tau21"] == 0 and jets.defined["tau21"][0]


def test_soft_drop_fails_below_a_tenth() -> None:
    """z = 0.09 fails, 0.11 passes; fails if z_cut is another number."""
    soft, hard = 9.0, 11.0
    jets = measured(
        [[momentum(100 - p, 0, 0), momentum(p, 0.1, 0.1)] for p in (soft, hard)],
    )
    assert jets.defined["z_g"].tolist() == jets.defined["ln_rho"].tolist() == [False, True]
    assert jets.columns["z_g"][1] == pytest.approx(0.11)
    assert jets.defined["tau21"].all() and jets.defined["mass"].all()


def test_mass_lost_in_rounding_has_no_logarithm() -> None:
    """Parallel massless particles: a splitting, but m = 0. Fails if ln ρ is that of rounding."""
    rng = np.random.default_rng(2)
    at = rng.uniform(-2, 2, (40, 2))
    jets = measured([[momentum(60 + y, y, phi), momentum(40, y, phi)] for y, phi in at])
    np.testing.assert_allclose(jets.columns["z_g"], 40 / (100 + at[:, 0]))
    assert not jets.defined["ln_rho"].any()


def test_the_leading_jet_of_each_event() -> None:
    """Another jet, a particle beyond |η| = 5, events without a jet, and no particles at all."""
    jets = measured(
        [
            [momentum(50, 0, 0), momentum(80, 1, 2), momentum(30, -1, 4)],
            [momentum(500, 5.2, 0), momentum(60, 0, 1)],
            [momentum(19, 0, 0)],
            [],
            [momentum(20.5, 0, 0)],
        ]
    )
    assert jets.found.tolist() == [True, True, False, False, True]
    np.testing.assert_allclose(jets.columns["pt"][jets.found], [80, 60, 20.5])
    assert all(np.isnan(jets.columns[name][[2, 3]]).all() for name in OBSERVABLES)
    assert not measured([[], []]).found.any()


# The slow reference: four-momenta in loops.


def kinematics(p) -> tuple[float, float, float]:
    return (
        math.hypot(p[0], p[1]),
        0.5 * math.log((p[3] + p[2]) / (p[3] - p[2])),
        math.atan2(p[1], p[0]),
    )


def distance(a, b) -> float:
    (_, y1, phi1), (_, y2, phi2) = kinematics(a), kinematics(b)
    dphi = abs(phi1 - phi2)
    return math.hypot(y1 - y2, min(dphi, 2 * math.pi - dphi))


def cluster(momenta, power: int, radius: float):
    """Jets as (momentum, constituents, history), by the definition: the smallest distance first."""
    objects = [(tuple(p), [i], None) for i, p in enumerate(momenta)]
    jets = []
    while objects:
        best = None
        for i, (p, _, _) in enumerate(objects):
            d = kinematics(p)[0] ** (2 * power)
            best = min(best or (math.inf,), (d, i))
        for i, j in combinations(range(len(objects)), 2):
            p, q = objects[i][0], objects[j][0]
            d = min(kinematics(p)[0] ** (2 * power), kinematics(q)[0] ** (2 * power))
            best = min(best, (d * (distance(p, q) / radius) ** 2, i, j))
        if len(best) == 2:
            jets.append(objects.pop(best[1]))
            continue
        two, one = objects.pop(best[2]), objects.pop(best[1])
        both = tuple(a + b for a, b in zip(one[0], two[0], strict=True))
        objects.append((both, one[1] + two[1], (one, two)))
    return jets


def soft_drop(jet) -> tuple[float, float]:
    """(z_g, groomed mass²), or (-1, 0)."""
    while jet[2] is not None:
        one, two = sorted(jet[2], key=lambda part: kinematics(part[0])[0])
        small, large = kinematics(one[0])[0], kinematics(two[0])[0]
        if small / (small + large) > 0.1:
            e, p = jet[0][3], jet[0][:3]
            return small / (small + large), e**2 - sum(k**2 for k in p)
        jet = two
    return -1.0, 0.0


def tau(momenta, axes) -> float:
    total = sum(kinematics(p)[0] for p in momenta)
    out = 0.0
    for p in momenta:
        pt, y, phi = kinematics(p)
        nearest = min(math.hypot(y - ya, math.remainder(phi - pa, 2 * math.pi)) for ya, pa in axes)
        out += pt * nearest
    return out / (R * total)


def kt_axes(momenta, n: int) -> list[tuple[float, float]]:
    """Axes of the last n jets of exclusive k_T: merge the closest pair until n are left."""
    objects = [tuple(p) for p in momenta]
    while len(objects) > n:
        _, i, j = min(
            (min(kinematics(p)[0], kinematics(q)[0]) ** 2 * distance(p, q) ** 2, i, j)
            for (i, p), (j, q) in combinations(enumerate(objects), 2)
        )
        q, p = objects.pop(j), objects.pop(i)
        objects.append(tuple(a + b for a, b in zip(p, q, strict=True)))
    return [kinematics(p)[1:] for p in objects]


def least_tau(momenta, n: int, start) -> float:
    """τ_N at the best axes of several searches."""

    def value(x) -> float:
        return tau(momenta, x.reshape(n, 2))

    hard = sorted(momenta, key=lambda p: -kinematics(p)[0])[: n + 2]
    starts = [start, *([kinematics(p)[1:] for p in chosen] for chosen in combinations(hard, n))]
    options = {"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000}
    return min(
        minimize(value, np.ravel(s), method="Nelder-Mead", options=options).fun for s in starts
    )


def random_event(rng: np.random.Generator) -> list[tuple[float, ...]]:
    """Two or three prongs of a jet, wide radiation about it, and particles elsewhere."""
    event = []
    y0, phi0 = rng.uniform(-1.5, 1.5), rng.uniform(-math.pi, math.pi)
    for _ in range(rng.integers(2, 4)):
        y, phi = y0 + rng.normal(0, 0.12), phi0 + rng.normal(0, 0.12)
        scale = rng.uniform(3, 30)
        for _ in range(rng.integers(2, 6)):
            at = y + rng.normal(0, 0.04), phi + rng.normal(0, 0.04)
            event.append(momentum(1 + scale * rng.exponential(), *at, 0.1396))
    for _ in range(12):
        at = y0 + rng.normal(0, 0.35), phi0 + rng.normal(0, 0.35)
        event.append(momentum(0.5 + rng.exponential(6), *at, 0.1396))
    for _ in range(8):
        event.append(momentum(rng.exponential(2), rng.uniform(-4, 4), rng.uniform(-3, 3), 0.1396))
    return event


def test_random_jets_against_slow_loops() -> None:
    """Clustering, grooming and sums by their definitions; τ between its least value and that before
    the minimisation. Fails with another algorithm, radius, z_cut, measure or normalisation."""
    rng = np.random.default_rng(4)
    events = [random_event(rng) for _ in range(8)]
    jets = measured(events)
    dropped = 0
    for i, event in enumerate(events):
        got = {name: jets.columns[name][i] for name in OBSERVABLES}
        best = max(cluster(event, -1, R), key=lambda jet: kinematics(jet[0])[0])
        inside = [event[k] for k in best[1]]
        pt, y, phi = kinematics(best[0])
        assert got["pt"] == pytest.approx(pt)
        assert (got["rapidity"], got["phi"]) == pytest.approx((y, phi))
        assert got["mass"] == pytest.approx(
            math.sqrt(best[0][3] ** 2 - sum(k**2 for k in best[0][:3])), rel=1e-6
        )
        assert got["multiplicity"] == len(inside)
        weights = [kinematics(p)[0] for p in inside]
        spread = sum(w * distance(p, best[0]) for w, p in zip(weights, inside, strict=True))
        assert got["width"] == pytest.approx(spread / sum(weights))
        (again,) = cluster(inside, 0, 10.0)
        z_g, mass2 = soft_drop(again)
        assert jets.defined["z_g"][i] == (z_g > 0)
        if z_g > 0:
            assert got["z_g"] == pytest.approx(z_g)
            assert got["ln_rho"] == pytest.approx(math.log(mass2 / pt**2), abs=1e-5)
            dropped += 1
        for n in (1, 2):
            axes = kt_axes(inside, n)
            at_start, least = tau(inside, axes), least_tau(inside, n, axes)
            assert least * (1 - 1e-4) <= got[f"tau{n}"] <= at_start * (1 + 1e-6)
        assert got["tau21"] == pytest.approx(got["tau2"] / got["tau1"])
    assert dropped >= 5  # the test has looked at what it is for
