"""Showers of toy calorimeters with layers, as cells and as points, for tests of metrics."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hepbridge.data.cells import CellLayer, PolarCells, XYCells
from hepbridge.data.geometry import Geometry
from hepbridge.data.points import PointShowers
from hepbridge.data.showers import Showers

STACK = Geometry("stack", (6, 6, 6), ("z", "x", "y"), (20.0, 10.0, 10.0))
BARREL = Geometry.of_layers(
    "barrel",
    [
        CellLayer(XYCells(n=(2, 5), pitch_mm=(30.0, 10.0)), (0.0, 15.0)),
        CellLayer(PolarCells(r_mm=(0.0, 8.0, 20.0, 45.0), n_phi=8), (15.0, 60.0)),
        CellLayer(XYCells(n=(3, 3), pitch_mm=(20.0, 20.0)), (60.0, 75.0)),
    ],
)
RINGS = Geometry.of_layers("rings", [CellLayer(PolarCells(r_mm=(0.0, 5.0, 12.0, 30.0), n_phi=6))])
VOXELS = Geometry.of_layers("voxels", [CellLayer(PolarCells(r_mm=(0.0, 5.0, 12.0), n_phi=4))] * 3)
GEOMETRIES = (STACK, BARREL, RINGS, VOXELS)


def stack_showers(n: int, seed: int, energy: ArrayLike = 20_000.0, **options: object) -> Showers:
    """n showers in STACK: the depth of a shower fluctuates, which correlates its layers."""
    rng = np.random.default_rng(seed)
    incident = np.broadcast_to(np.asarray(energy, dtype=np.float64), (n,))
    deepest = rng.normal(2.4, 0.5, n)[:, None]
    layer = np.exp(-0.5 * ((np.arange(6) - deepest) / 1.4) ** 2)
    x, y = (v.reshape(6, 36)[0] for v in (STACK.x_mm, STACK.y_mm))
    across = np.exp(-np.hypot(x, y) / 9.0)
    mean = layer[:, :, None] * across
    mean *= (incident * rng.normal(0.9, 0.02, n) / mean.sum(axis=(1, 2)))[:, None, None]
    cells = (rng.gamma(mean / 40.0) * 40.0).reshape(n, -1)
    cells[cells < 0.05] = 0.0
    return Showers.from_arrays(cells, incident, geometry=STACK, **options)  # type: ignore[arg-type]


def random_showers(geometry: Geometry, n: int, seed: int) -> Showers:
    """n showers of sparse random cells, the last of them empty."""
    rng = np.random.default_rng(seed)
    shape = (n, geometry.n_cells)
    cells = rng.exponential(5.0, shape) * (rng.random(shape) < 0.4)
    cells[-1] = 0.0
    energy = rng.uniform(100.0, 1000.0, n)
    return Showers.from_arrays(cells, energy, geometry=geometry, allow_empty_showers=True)


def as_points(showers: Showers) -> PointShowers:
    """The cells with energy as points at their centres, found by a loop."""
    g = showers.geometry
    depth = [
        float(k) if layer.z_mm is None else sum(layer.z_mm) / 2
        for k, layer in enumerate(g.planes())
    ]
    x, y, layer = g.x_mm, g.y_mm, g.layer_index
    hits, offsets = [], [0]
    for row in showers.cells:
        for cell in np.flatnonzero(row):
            hits.append((x[cell], y[cell], depth[layer[cell]], row[cell]))
        offsets.append(len(hits))
    return PointShowers.from_hits(
        hits, offsets, showers.incident_energy, event_ids=showers.event_ids
    )
