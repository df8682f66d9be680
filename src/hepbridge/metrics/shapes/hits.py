"""A block of showers as a list of hits, whether they come as cells or as points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.geometry import Geometry
from hepbridge.data.points import PointShowers
from hepbridge.data.showers import Showers
from hepbridge.metrics.shapes.layout import Layout

__all__ = ["AXIS", "HitMaker", "Hits"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

AXIS = ("x_mm", "y_mm", "theta_rad", "phi_rad")
"""Conditions that say where the axis of a shower is; without them it is x = y = 0."""


@dataclass(frozen=True)
class Hits:
    """M hits of n showers, those of one shower together; each has energy.

    ``owner`` (M,) is the row of the shower, ``energy`` (M,) in MeV, ``x``, ``y`` (M,) in mm from the
    axis of the shower, ``z`` (M,) along it, ``layer`` and ``ring`` (M,) those of the layout.
    """

    n: int
    owner: Ints
    energy: Floats
    x: Floats
    y: Floats
    z: Floats
    layer: Ints
    ring: Ints


class HitMaker:
    """Turns blocks of showers into `Hits` for a layout.

    Places are rounded to single precision, in which clouds of points come: a cell and a point at its
    centre then fall into the same ring. Raises DataError for cells that are not those of the layout,
    and for angles where depths are not known.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._at = None if layout.geometry is None else _Places(layout, layout.geometry)

    def __call__(self, block: Showers | PointShowers) -> Hits:
        if isinstance(block, PointShowers):
            return self._of_points(block)
        return self._of_cells(block)

    def _of_points(self, block: PointShowers) -> Hits:
        x, y, z, energy = (
            v.astype(np.float64) for v in (block.x_mm, block.y_mm, block.z_mm, block.energy)
        )
        layer, ring = self.layout.layer_of(z), self.layout.ring_of(np.hypot(x, y))
        return Hits(len(block), block.owner, energy, x, y, z, layer, ring)

    def _of_cells(self, block: Showers) -> Hits:
        at, geometry = self._at, self.layout.geometry
        if at is None or geometry is None or not _same_cells(geometry, block.geometry):
            raise DataError(
                f"cells of geometry {block.geometry.name!r} cannot be sorted into the layers of "
                f"{self.layout.name!r}; compare like with like"
            )
        flat = np.flatnonzero(block.cells)
        owner, cell = np.divmod(flat, block.cells.shape[1])
        energy = block.cells.reshape(-1)[flat].astype(np.float64)
        x, y, z, layer = at.x[cell], at.y[cell], at.z[cell], at.layer[cell]
        if not any(name in block.conditions for name in AXIS):
            return Hits(len(block), owner, energy, x, y, z, layer, at.ring[cell])
        x, y = self._from_axis(block, owner, x, y, z)
        return Hits(len(block), owner, energy, x, y, z, layer, self.layout.ring_of(np.hypot(x, y)))

    def _from_axis(
        self, block: Showers, owner: Ints, x: Floats, y: Floats, z: Floats
    ) -> tuple[Floats, Floats]:
        x0, y0, theta, phi = (block.conditions.get(k, np.zeros(len(block))) for k in AXIS)
        if theta.any() and self.layout.z_unit != "mm":
            raise DataError(
                f"the showers come at angles, but geometry {self.layout.name!r} does not say how deep "
                "its layers are"
            )
        slope = np.tan(theta)
        along_x, along_y = slope * np.cos(phi), slope * np.sin(phi)
        return x - x0[owner] - z * along_x[owner], y - y0[owner] - z * along_y[owner]


class _Places:
    """Where every cell of a geometry is, each (n_cells,)."""

    def __init__(self, layout: Layout, geometry: Geometry) -> None:
        depth = layout.depths[geometry.layer_index]
        self.x, self.y, self.z = (
            v.astype(np.float32).astype(np.float64) for v in (geometry.x_mm, geometry.y_mm, depth)
        )
        self.layer = layout.layer_of(self.z)
        self.ring = layout.ring_of(np.hypot(self.x, self.y))


def _same_cells(a: Geometry, b: Geometry) -> bool:
    """The same cells, whatever the symmetry that is declared and the name."""
    return a is b or a.planes() == b.planes()
