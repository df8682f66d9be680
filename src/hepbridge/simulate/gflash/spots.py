"""Spots: the grains of energy in a step, drawn one by one or counted."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hepbridge.simulate.gflash.cells import Circle, Grid
from hepbridge.simulate.gflash.compiled import bits_set, compiled
from hepbridge.simulate.gflash.parameters import Radial
from hepbridge.simulate.gflash.philox import State, uniform, word

__all__ = ["binomial", "share", "spot"]

_LOW = np.uint64(0x1FFFFF)
_21, _42 = np.uint64(21), np.uint64(42)
_MOST_MEAN = 30.0
_INVERSE = 1.0 / np.maximum(np.arange(128), 1)


@compiled
def spot(
    state: State, core: float, r: Radial, out_core: float, out_tail: float
) -> tuple[float, float]:
    """A spot (x, y) in mm that belongs to the core with probability ``core``.

    Drawn from outside a circle that holds all but ``out_core`` of the core and ``out_tail`` of the
    tail. r² = R² v / (1 - v) with v uniform in (0, 1), outside the circle in its upper part. For a
    point (a, b) in the unit disc s = a² + b² is uniform, too, and independent of the direction. One
    word gives 21 bits each to a and b, and 22 to the choice between core and tail.
    """
    a = b = s = 1.0
    w = np.uint64(0)
    while s >= 1.0:
        w = word(state)
        a = float(np.int64(w & _LOW)) * 2.0**-20 - (1.0 - 2.0**-21)
        b = float(np.int64((w >> _21) & _LOW)) * 2.0**-20 - (1.0 - 2.0**-21)
        s = a * a + b * b
    beyond, radius = out_tail, r.r_tail
    if float(np.int64(w >> _42)) + 0.5 < core * 2.0**22:
        beyond, radius = out_core, r.r_core
    beyond *= 1.0 - s  # 1 - v
    scale = radius * math.sqrt((1.0 - beyond) / (beyond * s))
    return a * scale, b * scale


@compiled
def binomial(state: State, n: int, p: float) -> int:
    """Successes in ``n`` tries, by inversion, in pieces with at most 30 successes on average."""
    rare = min(p, 1.0 - p)
    odds = rare / (1.0 - rare)
    found, todo = 0, n
    while todo > 0 and rare > 0.0:
        some = todo if todo * rare <= _MOST_MEAN else max(1, int(_MOST_MEAN / rare))
        todo -= some
        f, u, k = (1.0 - rare) ** some, uniform(state), 0
        while u > f and k < some:
            u -= f
            k += 1
            f *= odds * (some - k + 1) * (_INVERSE[k] if k < 128 else 1.0 / k)
        found += k
    return found if p <= 0.5 else n - found


@compiled
def share(
    grid: Grid, circle: Circle, n: int, each: float, state: State, cell: NDArray[np.float64]
) -> None:
    """Divides ``n`` spots evenly over the cells of the circle: two coins for every spot, one bit
    each."""
    c, ny = circle.first, grid.ny
    while n > 0:
        some = min(n, 64)
        n -= some
        all_of = ~np.uint64(0) >> np.uint64(64 - some)
        x = word(state) & all_of if circle.two_x else np.uint64(0)
        y = word(state) & all_of if circle.two_y else np.uint64(0)
        in_x, in_y, in_both = bits_set(x), bits_set(y), bits_set(x & y)
        cell[c] += (some - in_x - in_y + in_both) * each
        if circle.two_y:
            cell[c + 1] += (in_y - in_both) * each
        if circle.two_x:
            cell[c + ny] += (in_x - in_both) * each
        if circle.two_x and circle.two_y:
            cell[c + ny + 1] += in_both * each
