"""The cells of a detector as compiled code sees them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hepbridge.simulate.detector import Detector, PolarCells
from hepbridge.simulate.gflash.compiled import compiled

__all__ = ["Cells", "Circle", "Grid", "cells_of", "circle_around", "find", "grid_of"]

Floats = NDArray[np.float64]

ON_EDGE_MM = 0.002  # nearer than this to an edge, a shower's axis is taken to lie on it


class Cells(NamedTuple):
    """The grids of all layers.

    Attributes:
        counts: (layers, 3) index of the first cell; columns and rows, or 0 and the sectors of a
            polar grid.
        pitch: (layers, 2) pitch in mm; of polar grids 0.
        radii: (layers, n) edges of the rings in mm, filled up with infinity.
        total: number of cells.
    """

    counts: NDArray[np.int64]
    pitch: Floats
    radii: Floats
    total: int


class Grid(NamedTuple):
    """The grid of one layer; ``nx`` = 0 for a polar one with ``ny`` sectors."""

    first: int
    nx: int
    ny: int
    px: float
    py: float


class Circle(NamedTuple):
    """The largest circle around the axis that lies in one cell, or in two or four that it touches.

    Attributes:
        radius: in mm; 0 where there is none.
        first: flat index of the cell, of those that share the circle the one lowest in x and y.
        two_x, two_y: do two cells share it in x, in y?
    """

    radius: float
    first: int
    two_x: bool
    two_y: bool


def cells_of(detector: Detector) -> Cells:
    """The grids of a detector."""
    grids = [layer.cells for layer in detector.layers]
    rings = max([len(g.r_mm) for g in grids if isinstance(g, PolarCells)], default=1)
    radii = np.full((len(grids), rings), np.inf)
    counts, pitch, first = [], [], 0
    for i, grid in enumerate(grids):
        if isinstance(grid, PolarCells):
            radii[i, : len(grid.r_mm)] = grid.r_mm
            counts.append((first, 0, grid.n_phi))
            pitch.append((0.0, 0.0))
        else:
            counts.append((first, *grid.n))
            pitch.append(grid.pitch_mm)
        first += grid.n_cells
    return Cells(np.array(counts, np.int64), np.array(pitch, np.float64), radii, first)


@compiled
def grid_of(cells: Cells, layer: int) -> Grid:
    """The grid of a layer."""
    n, p = cells.counts, cells.pitch
    return Grid(n[layer, 0], n[layer, 1], n[layer, 2], p[layer, 0], p[layer, 1])


@compiled
def find(grid: Grid, radii: Floats, layer: int, x: float, y: float) -> int:
    """Flat index of the cell of a layer at (x, y), -1 outside."""
    if grid.nx > 0:
        u, v = x / grid.px + 0.5 * grid.nx, y / grid.py + 0.5 * grid.ny
        if 0.0 <= u < grid.nx and 0.0 <= v < grid.ny:
            return grid.first + int(u) * grid.ny + int(v)
        return -1
    r, rings = math.hypot(x, y), 0
    ring = -1
    for i in range(radii.shape[1]):
        if radii[layer, i] < math.inf:
            rings = i
            if radii[layer, i] <= r:
                ring = i
    if ring >= rings:
        return -1
    sector = int((math.atan2(y, x) + math.pi) / (2.0 * math.pi) * grid.ny) % grid.ny
    return grid.first + sector * rings + ring


@compiled
def circle_around(grid: Grid, x: float, y: float) -> Circle:
    """The circle around an axis at (x, y); none in a polar grid."""
    if grid.nx == 0:
        return Circle(0.0, 0, False, False)
    ix, two_x, rx = _between(x, grid.px, grid.nx)
    iy, two_y, ry = _between(y, grid.py, grid.ny)
    return Circle(max(0.0, min(rx, ry)), grid.first + ix * grid.ny + iy, two_x, two_y)


@compiled
def _between(x: float, pitch: float, n: int) -> tuple[int, bool, float]:
    """(column, is x on the edge to the next column, distance to the next edge that counts)."""
    at = x / pitch + 0.5 * n
    line = math.floor(at + 0.5)
    off = abs(at - line) * pitch
    if off < ON_EDGE_MM:
        return int(line) - 1, True, pitch - off if 0.0 < line < n else 0.0
    return math.floor(at), False, off if 0.0 <= at < n else 0.0
