"""The parts of GFLASH, each against an independent truth: NumPy, SciPy, closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import gammainc

from hepbridge.core.rng import stream_key
from hepbridge.data.cells import PolarCells, XYCells
from hepbridge.simulate.detector import Detector, load_detector
from hepbridge.simulate.gflash.cells import Circle, cells_of, circle_around, find, grid_of
from hepbridge.simulate.gflash.compiled import compiled
from hepbridge.simulate.gflash.kernel import Track, _straight
from hepbridge.simulate.gflash.longitudinal import density, integral
from hepbridge.simulate.gflash.medium import medium_of, stack_of
from hepbridge.simulate.gflash.parameters import Radial, profile
from hepbridge.simulate.gflash.philox import gamma, normal_pair, philox, uniform, word
from hepbridge.simulate.gflash.spots import binomial, share, spot


@compiled
def _words(key0, key1, row, n):
    state, out = philox(key0, key1, row), np.empty(n, np.uint64)
    for i in range(n):
        out[i] = word(state)
    return out


@compiled
def _gammas(row, shape, n):
    state, out = philox(np.uint64(1), np.uint64(2), row), np.empty(n)
    for i in range(n):
        out[i] = gamma(state, shape)
    return out


@compiled
def _normals(row, n):
    state, out = philox(np.uint64(1), np.uint64(2), row), np.empty((n, 3))
    for i in range(n):
        out[i, 0], out[i, 1] = normal_pair(state)
        out[i, 2] = uniform(state)
    return out


@compiled
def _binomials(row, tries, p, n):
    state, out = philox(np.uint64(1), np.uint64(2), row), np.empty(n, np.int64)
    for i in range(n):
        out[i] = binomial(state, tries, p)
    return out


@compiled
def _spots(row, core, r, out_core, out_tail, n):
    state, out = philox(np.uint64(1), np.uint64(2), row), np.empty((n, 2))
    for i in range(n):
        out[i, 0], out[i, 1] = spot(state, core, r, out_core, out_tail)
    return out


@compiled
def _shares(row, grid, circle, spots, n, cells):
    state, out = philox(np.uint64(1), np.uint64(2), row), np.zeros((n, cells))
    for i in range(n):
        share(grid, circle, spots, 1.0, state, out[i])
    return out


@compiled
def _integrals(alpha, beta, edges):
    f, out = density(alpha, beta), np.zeros(len(edges) - 1)
    for k in range(len(edges) - 1):
        out[k], f = integral(f, edges[k], edges[k + 1], np.log(edges[k + 1]))
    return out


@compiled
def _found(cells, layer, x, y):
    grid, out = grid_of(cells, layer), np.empty(len(x), np.int64)
    for i in range(len(x)):
        out[i] = find(grid, cells.radii, layer, x[i], y[i])
    return out


@compiled
def _steps(row, cells, x, y, r, spots, n, cell):
    state, grid = philox(np.uint64(1), np.uint64(2), row), grid_of(cells, 0)
    track, circle = Track(x, y, 0.0, 0.0, 1.0, 0.0, 1e9), circle_around(grid, x, y)
    for _ in range(n):
        _straight(grid, cells.radii, 0, circle, track, r, spots, 1.0, state, cell)


@pytest.mark.parametrize("row", [0, 1, 2**63, 2**64 - 1])
def test_words_are_numpy_philox(row: int) -> None:
    """Across several fills of the buffer; fails if the counter starts one later."""
    key = stream_key(3, "gflash", 2**64 - 5)
    counter = np.array([0, row, 0, 0], np.uint64)
    want = np.random.Philox(key=key, counter=counter).random_raw(1003)
    np.testing.assert_array_equal(_words(key[0], key[1], np.uint64(row), 1003), want)


def test_uniform_and_normal() -> None:
    found = _normals(np.uint64(7), 20_000)
    assert found[:, 2].min() > 0 and found[:, 2].max() < 1
    assert stats.kstest(found[:, 2], "uniform").pvalue > 1e-4
    for z in found[:, :2].T:
        assert stats.kstest(z, "norm").pvalue > 1e-4
    assert abs(np.corrcoef(found[:, 0], found[:, 1])[0, 1]) < 5 / 20_000**0.5


@pytest.mark.parametrize("shape", [0.05, 0.7, 1.0, 12.5])
def test_gamma(shape: float) -> None:
    """Fails if shapes below 1 are not scaled back."""
    assert stats.kstest(_gammas(np.uint64(1), shape, 20_000), "gamma", (shape,)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("tries", "p"),
    [(1, 0.3), (54, 0.05), (64, 0.97), (400, 0.5), (3000, 0.2), (9, 0.0), (9, 1.0)],
)
def test_binomial(tries: int, p: float) -> None:
    """3000 tries go in pieces; fails if one piece is drawn with a success too many or too few."""
    found, truth = _binomials(np.uint64(2), tries, p, 20_000), stats.binom(tries, p)
    if p in (0.0, 1.0):
        assert (found == tries * p).all()
        return
    edges = np.unique(truth.ppf(np.linspace(0, 1, 12)[1:-1]))
    counts = np.bincount(np.searchsorted(edges, found), minlength=len(edges) + 1)
    expected = np.diff([0.0, *truth.cdf(edges), 1.0]) * len(found)
    kept = expected > 5
    chi2 = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    assert stats.chi2.sf(chi2, kept.sum() - 1) > 1e-4
    assert found.min() >= 0 and found.max() <= tries


@pytest.mark.parametrize(("two_x", "two_y"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("spots", [3, 64, 100])
def test_share_is_multinomial(two_x: bool, two_y: bool, spots: int) -> None:
    """Means, variances and covariances of equal shares; fails with one coin for two directions."""
    grid = grid_of(cells_of(load_detector("squirels")), 0)
    n, circle = 20_000, Circle(30.0, 44, two_x, two_y)
    found = _shares(np.uint64(3), grid, circle, spots, n, 100)
    used = [44] + [54] * two_x + [45] * two_y + [55] * (two_x and two_y)
    assert (found.sum(1) == spots).all()
    assert (np.delete(found, used, axis=1) == 0).all()
    p = 1 / len(used)
    truth = spots * (p * np.eye(len(used)) - p * p)
    cov = np.cov(found[:, used].T)
    assert np.all(np.abs(found[:, used].mean(0) - spots * p) < 5 * (truth[0, 0] / n) ** 0.5)
    assert np.all(np.abs(cov - truth) < 5 * truth[0, 0] * (2 / n) ** 0.5)


@pytest.mark.parametrize("circle", [0.0, 7.0])
def test_spots_follow_the_radial_profile(circle: float) -> None:
    """F(r) = r² / (r² + R²) beyond the circle, in all directions; fails if the radius is drawn with
    v where 1 - v belongs, or core and tail are exchanged."""
    r, core, n = Radial(0.7, 2.0, 13.0), 0.7, 40_000
    beyond = [R**2 / (R**2 + circle**2) for R in (r.r_core, r.r_tail)]
    outside = core * beyond[0] + (1 - core) * beyond[1]
    found = _spots(np.uint64(4), core * beyond[0] / outside, r, *beyond, n)
    radius, phi = np.hypot(*found.T), np.arctan2(*found.T)
    assert radius.min() >= circle * (1 - 1e-6)

    def cdf(x):
        far = core * r.r_core**2 / (x**2 + r.r_core**2)
        far = far + (1 - core) * r.r_tail**2 / (x**2 + r.r_tail**2)
        return 1 - far / outside

    assert stats.kstest(radius, cdf).pvalue > 1e-4
    assert stats.kstest(phi, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-4
    assert abs(np.corrcoef(np.abs(phi), np.log(radius))[0, 1]) < 5 / n**0.5


def _quadrant(a, b):
    """Integral of 1 / (π (1 + x² + y²)²) over 0 < x < a, 0 < y < b."""
    u, v = np.sqrt(1 + a * a), np.sqrt(1 + b * b)
    return (a / u * np.arctan(b / u) + b / v * np.arctan(a / v)) / (2 * np.pi)


@pytest.mark.parametrize(
    ("x", "y"),
    [(0.0, 0.0), (0.0015, -0.0015), (15.0, 15.0), (-29.9, 2.0), (60.0, 44.0), (149.9995, 40.0)],
)
def test_cells_get_their_exact_part_of_a_step(x: float, y: float) -> None:
    """Counts of two million spots against the closed form of the profile's integral over rectangles,
    cell by cell. Fails if the circle is 10 % too large, if x and y share a coin, or if
    the core has its whole weight outside the circle."""
    cells, r = cells_of(load_detector("squirels")), Radial(0.7, 3.0, 20.0)
    spots, n = 100, 20_000
    found = np.zeros(100)
    _steps(np.uint64(5), cells, x, y, r, spots, n, found)
    edges = [30.0 * np.arange(-5, 6) - c for c in (x, y)]
    truth = np.zeros((10, 10))
    for weight, radius in ((r.core, r.r_core), (1 - r.core, r.r_tail)):
        corner = _quadrant(edges[0][:, None] / radius, edges[1][None] / radius)
        truth += weight * np.diff(np.diff(corner, axis=0), axis=1)
    expected = spots * n * truth.reshape(-1)
    assert (
        abs(found.sum() - expected.sum()) < 5 * (spots * n * truth.sum() * (1 - truth.sum())) ** 0.5
    )
    # within 2 micrometres of an edge the axis counts as on it: at most 0.5 μm / R of the spots
    slack = (abs(x) % 30 > 0.0) * (abs(x) < 0.002) * 0.0015 / r.r_core * expected
    z = np.maximum(np.abs(found - expected) - slack, 0) / np.sqrt(expected)
    assert stats.chi2.sf((z**2).sum(), 100) > 1e-4
    assert z.max() < 5


@pytest.mark.parametrize(("alpha", "beta"), [(1.2, 0.5), (2.5, 0.9), (4.8, 0.45), (9.0, 0.6)])
def test_integral_is_the_incomplete_gamma_function(alpha: float, beta: float) -> None:
    """Steps of 0.1 from 0 to 30: error of every partial sum below 2e-4 of the whole for an α near 1,
    2e-6 for those of showers; fails without the end correction, or without the series."""
    edges = np.linspace(0, 30, 301)
    found = np.cumsum(_integrals(alpha, beta, edges))
    error = np.abs(found - gammainc(alpha, beta * edges[1:])).max()
    assert error < (2e-4 if alpha < 2 else 2e-6)


def test_find_is_index() -> None:
    """The cell of every point, in grids of both kinds."""
    x, y = np.random.default_rng(0).uniform(-60, 60, (2, 5000))
    grids = [
        XYCells(n=(3, 8), pitch_mm=(30, 5)),
        PolarCells(r_mm=(0, 4.65, 9.3, 40), n_phi=16),
        PolarCells(r_mm=(0, 11), n_phi=3),
    ]
    slices = [{"material": "G4_W", "mm": 1, "active": True}]
    d = Detector.from_dict(
        {
            "name": "t",
            "radius_mm": 90,
            "layers": [{"slices": slices, "cells": g.model_dump()} for g in grids],
        }
    )
    first = 0
    for layer, grid in enumerate(grids):
        want = grid.index(x, y)
        found = _found(cells_of(d), layer, x, y)
        np.testing.assert_array_equal(found, np.where(want >= 0, want + first, -1))
        assert (want >= 0).any() and (want < 0).any()
        first += grid.n_cells


@pytest.mark.parametrize(
    ("x", "y", "radius", "cell", "shared"),
    [
        (0, 0, 30, 44, (True, True)),
        (15, -15, 15, 54, (False, False)),
        (0.001, 10, 10, 45, (True, False)),
        (29, 0, 1, 54, (False, True)),
        (150, 15, 0, None, None),
        (-300, 0, 0, None, None),
        (0, 149.999, 0, None, None),
    ],
)
def test_circle(x, y, radius, cell, shared) -> None:
    """Nothing else inside it: at the border of the grid there is none."""
    c = circle_around(grid_of(cells_of(load_detector("squirels")), 0), float(x), float(y))
    assert c.radius == pytest.approx(radius, abs=2e-3)
    if cell is not None:
        assert c.first in (cell, cell - 1) if shared[1] else c.first == cell
        assert (c.two_x, c.two_y) == shared


def test_profile_has_the_published_mean() -> None:
    """The mean shower of hep-ex/0001020, appendix A.1 (T = ln y - 0.858, α = 0.21 + (0.492 + 2.38/Z)
    ln y) was fitted apart from the distribution of single showers: centre of gravity and width of
    their sum agree within 3 % and 10 %; ln T and ln α have the published correlation. Fails if α
    has the constants of the mean shower, or if ln T and ln α are independent."""
    medium, n = medium_of(load_detector("squirels"), published=True), 2000
    for energy in (5e3, 5e4, 5e5):
        g = np.random.default_rng(1).standard_normal((n, 2))
        drawn = [profile(medium, energy, *pair) for pair in g]
        log_y = np.log(energy / medium.critical_mev)
        centre = np.array([p.alpha / p.beta for p in drawn])
        variance = np.mean([p.alpha / p.beta**2 for p in drawn]) + centre.var()
        alpha = 0.21 + (0.492 + 2.38 / medium.z) * log_y
        beta = (alpha - 1) / (log_y - 0.858)
        assert centre.mean() == pytest.approx(alpha / beta, rel=0.03)
        assert variance == pytest.approx(alpha / beta**2, rel=0.1)
        logs = np.log([((p.alpha - 1) / p.beta, p.alpha) for p in drawn])
        rho = 0.705 - 0.023 * log_y
        assert abs(np.corrcoef(logs.T)[0, 1] - rho) < 5 * (1 - rho**2) / n**0.5


def test_medium_of_lead_and_argon() -> None:
    """Sums by hand: densities and radiation lengths of the Particle Data Group, mass fractions."""
    m = medium_of(load_detector("calogan"))
    lead, argon = 2 * 11.35, 4 * 1.396  # g/cm2, times 10
    w = lead / (lead + argon)
    x0 = 1 / (w / 6.37 + (1 - w) / 19.55)
    assert m.x0_mm == pytest.approx(x0 * 60 / (lead + argon), rel=5e-3)
    assert m.z == pytest.approx(82 * w + 18 * (1 - w), rel=1e-2)
    assert m.ehat == pytest.approx(1 / (1 + 0.007 * (82 - 18)), rel=1e-3)
    assert m.sampling == pytest.approx(6 / m.x0_mm, rel=1e-2)
    energy_loss = w * 7.4 / 6.37 + (1 - w) * 29 / 19.55  # critical energies of Rossi's formula
    assert m.critical_mev == pytest.approx(x0 * energy_loss, rel=0.02)
    assert m.moliere_mm == pytest.approx(212 / energy_loss / (lead + argon) * 60 / 10, rel=0.02)


@pytest.mark.parametrize("name", ["squirels", "calogan", "ild-ecal", "calochallenge-2"])
def test_stack(name: str) -> None:
    """Steps are even, in order, and all layers see about the same of the shower (active over all
    ionisation times e/mip), whatever their order of slabs."""
    d = load_detector(name)
    medium = medium_of(d)
    s = stack_of(d, medium)
    steps = np.diff(s.depth)
    assert s.depth[0] == 0 and (steps > 0).all() and (steps <= 0.1 + 1e-9).all()
    assert np.all(np.diff(s.z_mm) >= 0)
    np.testing.assert_array_equal(np.unique(s.layer[s.layer >= 0]), np.arange(len(d.layers)))
    assert np.all(np.diff(s.layer[s.layer >= 0]) >= 0)
    seen = (steps * s.visible).sum() / steps.sum()
    assert 0 < seen <= 1 + 1e-12
    if name == "squirels":
        assert (s.visible == pytest.approx(1)) and len(steps) == 269
        assert s.z_mm[-1] == 240 and np.allclose(steps[:-1], 0.1)
    if name == "calogan":  # MIPs lose 12.73 MeV/cm in lead and 2.11 in argon (PDG)
        fraction = 4 * 2.105 / (4 * 2.105 + 2 * 12.73)
        assert seen == pytest.approx(fraction * medium.ehat, rel=0.03)
