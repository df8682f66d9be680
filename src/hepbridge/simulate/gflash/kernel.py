"""GFLASH showers: Geant4's GFlashShowerModel step by step, spots counted where they can be.

In every step of 0.1 X0 the profile gives an energy and a number n of spots that share it. Spots in
the largest circle around the axis that holds nothing but one cell (or the two or four cells that
the axis passes between) need no position: how many they are is binomial, and how they divide over
the cells is a matter of coin throws. Only the others are drawn one by one. The distribution is
exactly that of n independent spots.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepbridge.simulate.gflash.cells import Cells, Circle, Grid, circle_around, find, grid_of
from hepbridge.simulate.gflash.compiled import compiled
from hepbridge.simulate.gflash.longitudinal import density, integral
from hepbridge.simulate.gflash.medium import Medium, Stack
from hepbridge.simulate.gflash.parameters import Radial, exponentials, origins, profile, radial
from hepbridge.simulate.gflash.philox import (
    State,
    exponential,
    gamma,
    normal_pair,
    philox,
    uniform,
)
from hepbridge.simulate.gflash.spots import binomial, share, spot

__all__ = ["showers"]

Floats = NDArray[np.float64]

KILL_MEV = 100.0  # GFlashParticleBounds: what is left below is deposited in one step
EVEN = 1e-12  # radiation lengths: spacings that differ by less are the same
PARALLEL = 1e-12


class Track(NamedTuple):
    """Where a shower goes: entry point in mm, direction, start in radiation lengths along the path,
    and the path in mm on which it leaves the slabs sideways."""

    x: float
    y: float
    dx: float
    dy: float
    dz: float
    start: float
    side: float


@compiled
def showers(
    medium: Medium,
    stack: Stack,
    cells: Cells,
    energy: Floats,
    tracks: Floats,
    photon: NDArray[np.bool_],
    keys: NDArray[np.uint64],
    key_of: NDArray[np.int64],
    rows: NDArray[np.uint64],
    out: NDArray[np.float32],
) -> None:
    """Fills ``out`` (N, n_cells) with the visible energies in MeV of N showers.

    ``tracks`` (N, 6): x, y, the three components of the direction, and the path to the side.
    """
    cell = np.zeros(cells.total)
    for i in range(len(energy)):
        state = philox(keys[key_of[i], 0], keys[key_of[i], 1], rows[i])
        start, x = 0.0, 1.0
        if photon[i]:
            # the pair shares the energy as dσ/dx ∝ 1 - 4/3 x (1 - x) (complete screening)
            start = 9.0 / 7.0 * exponential(state)
            x = uniform(state)
            while uniform(state) > 1.0 - 4.0 / 3.0 * x * (1.0 - x):
                x = uniform(state)
        t = tracks[i]
        track = Track(t[0], t[1], t[2], t[3], t[4], start, t[5])
        for part in (x, 1.0 - x):
            if part > 0.0:
                _shower(medium, stack, cells, part * energy[i], track, state, cell)
        for c in range(cells.total):
            out[i, c] = cell[c]
            cell[c] = 0.0


@compiled
def _shower(
    medium: Medium,
    stack: Stack,
    cells: Cells,
    energy: float,
    track: Track,
    state: State,
    cell: Floats,
) -> None:
    """Adds the shower of one electron or positron to ``cell`` (n_cells,), in MeV."""
    g1, g2 = normal_pair(state)
    p = profile(medium, energy, g1, g2)
    parallel = track.dz > 1.0 - PARALLEL
    log_path = -math.log(track.dz)
    origin = origins(medium, p.log_e)
    powers = ratios = (1.0, 1.0, 1.0)
    energy_at, spots_at = density(p.alpha, p.beta), density(p.spot_alpha, p.spot_beta)
    left, spots_done = energy, 0.0
    t = middle = spacing = 0.0
    layer, grid, circle = -1, Grid(0, 0, 0, 0.0, 0.0), Circle(0.0, 0, False, False)
    per_depth, deepest = 1.0 / track.dz, track.side * track.dz
    depth, log_depth, z_mm, layers, visible = stack
    radii = cells.radii
    for k in range(len(layers)):
        t1 = depth[k + 1] * per_depth - track.start
        if t1 <= 0.0:
            continue
        if z_mm[k] >= deepest or left <= 0.0:
            break
        log_t1 = log_depth[k + 1] + log_path if track.start == 0.0 else math.log(t1)
        energy_part, energy_at = integral(energy_at, t, t1, log_t1)
        spots_part, spots_at = integral(spots_at, t, t1, log_t1)
        if left > KILL_MEV:
            deposit = min(left, energy_part * energy)
            n = max(1, int(spots_part * p.spots))
        else:
            deposit = left
            n = max(1, int((1.0 - spots_done) * p.spots))
        left -= deposit
        spots_done += spots_part
        if medium.resolution > 0.0 and deposit > 0.0:
            unit = 1000.0 * medium.resolution**2
            deposit = unit * gamma(state, deposit / unit)
        before, middle = middle, 0.5 * (t + t1)
        if abs(middle - before - spacing) < EVEN:
            powers = (powers[0] * ratios[0], powers[1] * ratios[1], powers[2] * ratios[2])
        else:
            spacing = middle - before
            powers = exponentials(p.log_e, p.tau * middle)
            ratios = exponentials(p.log_e, p.tau * spacing)
        r = radial(medium, p.log_e, p.tau * middle, powers, origin)
        t = t1
        if not parallel:
            _oblique(stack, cells, k, track, r, n, deposit / n, state, cell)
        elif layers[k] >= 0:
            if layers[k] != layer:
                layer = layers[k]
                grid = grid_of(cells, layer)
                circle = circle_around(grid, track.x, track.y)
            each = deposit / n * visible[k]
            _straight(grid, radii, layer, circle, track, r, n, each, state, cell)


@compiled
def _straight(
    grid: Grid,
    radii: Floats,
    layer: int,
    circle: Circle,
    track: Track,
    r: Radial,
    n: int,
    each: float,
    state: State,
    cell: Floats,
) -> None:
    """Adds ``n`` spots of energy ``each`` around an axis parallel to z."""
    outside, core = n, r.core
    out_core = out_tail = 1.0
    if circle.radius > 0.0:
        square = circle.radius * circle.radius
        core_square, tail_square = r.r_core * r.r_core, r.r_tail * r.r_tail
        out_core = core_square / (core_square + square)
        out_tail = tail_square / (tail_square + square)
        p = r.core * out_core + (1.0 - r.core) * out_tail
        core = r.core * out_core / p if p > 0.0 else 0.0
        outside = binomial(state, n, p)
        share(grid, circle, n - outside, each, state, cell)
    for _ in range(outside):
        x, y = spot(state, core, r, out_core, out_tail)
        c = find(grid, radii, layer, track.x + x, track.y + y)
        if c >= 0:
            cell[c] += each


@compiled
def _oblique(
    stack: Stack,
    cells: Cells,
    k: int,
    track: Track,
    r: Radial,
    n: int,
    each: float,
    state: State,
    cell: Floats,
) -> None:
    """Adds ``n`` spots around an axis that is not parallel to z, equally spaced along it."""
    sine = math.hypot(track.dx, track.dy)
    # across the axis: a = (-dy, dx, 0) / sine and b = d × a
    ax, ay = -track.dy / sine, track.dx / sine
    bx, by = -track.dz * ay, track.dz * ax
    z_mm, layers, visible = stack.z_mm, stack.layer, stack.visible
    radii, steps = cells.radii, len(layers)
    z0, width = z_mm[k], z_mm[k + 1] - z_mm[k]
    for i in range(n):
        z = z0 + width * (i + 0.5) / n
        path = z / track.dz
        a, b = spot(state, r.core, r, 1.0, 1.0)
        z += b * sine
        j = k
        while j < steps - 1 and z >= z_mm[j + 1]:
            j += 1
        while j > 0 and z < z_mm[j]:
            j -= 1
        if layers[j] >= 0 and z_mm[j] <= z < z_mm[j + 1]:
            x = track.x + path * track.dx + a * ax + b * bx
            y = track.y + path * track.dy + a * ay + b * by
            c = find(grid_of(cells, layers[j]), radii, layers[j], x, y)
            if c >= 0:
                cell[c] += each * visible[j]
