"""Into which layers and rings an evaluation sorts the energy of a shower."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.cell_map import CellMap
from hepbridge.data.cells import PolarCells
from hepbridge.data.geometry import Geometry
from hepbridge.data.points import PointShowers

__all__ = ["Layout", "radial_edges"]

Floats = NDArray[np.float64]

_LAYERS = 30  # of points whose depths are not those of layers
_MOST_LAYERS = 128  # more different depths than these are no layers
# shares of the energy within the rings of points; what lies farther out counts in the last
_WITHIN = (*(0.05 * k for k in range(1, 20)), 0.97, 0.98, 0.99, 0.995, 0.998)


@dataclass(frozen=True)
class Layout:
    """Layers along the axis and rings around it.

    Attributes:
        name: of the detector.
        z_edges: (layers + 1,) borders of the layers in ``z_unit``.
        depths: (layers,) where the energy of a layer is counted.
        z_unit: "mm", or "layers" where depths are not known.
        r_edges: (rings + 1,) radii in mm.
        geometry: of dense cells; None for points.

    What lies outside counts in the first or last layer, or in the last ring.
    """

    name: str
    z_edges: Floats
    depths: Floats
    z_unit: str
    r_edges: Floats
    geometry: Geometry | None = None

    @classmethod
    def of(cls, geometry: Geometry) -> Layout:
        """The layers of a detector. Raises DataError if it does not say where its cells are."""
        planes = geometry.planes()
        known = [plane.z_mm for plane in planes if plane.z_mm is not None]
        if len(known) == len(planes):
            edges = np.array([*(front for front, _ in known), known[-1][1]], dtype=np.float64)
            depths = np.array([(front + back) / 2 for front, back in known], dtype=np.float64)
            return cls(geometry.name, edges, depths, "mm", radial_edges(geometry), geometry)
        edges = np.arange(len(planes) + 1, dtype=np.float64) - 0.5
        depths = np.arange(len(planes), dtype=np.float64)
        return cls(geometry.name, edges, depths, "layers", radial_edges(geometry), geometry)

    @classmethod
    def of_cell_map(cls, cells: CellMap) -> Layout:
        """The layers of a map of cells, and rings about as wide as a cell to the outermost one."""
        reach = float(np.hypot(cells.x_mm, cells.y_mm)[cells.exists].max())
        count = max(1, round(float(np.sqrt(cells.exists.sum(axis=1).max() / np.pi))))
        rings = np.linspace(0.0, (reach or 1.0) * (1 + 1e-6), count + 1)
        unit = "layers" if cells.z_mm is None else "mm"
        return cls(cells.name, _between(cells.depths), cells.depths, unit, rings)

    @classmethod
    def of_points(cls, points: PointShowers, name: str = "points") -> Layout:
        """Layers and rings that suit some showers, usually the first of the reference.

        The different depths of the hits are the layers; more than 128 are no layers, and 30 equal
        slices take their place, which hold all but the outer 0.1 % of the energy on either side.
        Rings hold equal shares of the energy, 5 % each, finer towards their end, where 0.2 % lie
        farther out. Raises DataError if there are no hits.
        """
        if not len(points.energy):
            raise DataError("these showers have no hits, so their layers cannot be told")
        depths = np.unique(points.z_mm).astype(np.float64)
        if len(depths) > _MOST_LAYERS:
            low, high = (_quantile(points.z_mm, points.energy, q) for q in (0.001, 0.999))
            edges = np.linspace(low, high, _LAYERS + 1)
            depths = (edges[1:] + edges[:-1]) / 2
        else:
            edges = _between(depths)
        radius = np.hypot(points.x_mm, points.y_mm, dtype=np.float64)
        return cls(name, edges, depths, "mm", _rings(radius, points.energy))

    @property
    def n_layers(self) -> int:
        return len(self.depths)

    @property
    def shape(self) -> tuple[int, ...]:
        """Layers and rings; of dense cells their shape."""
        return (len(self.depths), len(self.radii)) if self.geometry is None else self.geometry.shape

    @property
    def radii(self) -> Floats:
        """(rings,) where the energy of a ring is counted."""
        middle: Floats = (self.r_edges[1:] + self.r_edges[:-1]) / 2
        return middle

    def layer_of(self, z: NDArray[Any]) -> NDArray[np.int64]:
        """The layer of every depth."""
        return np.searchsorted(self.z_edges[1:-1], z, side="right")

    def ring_of(self, r: NDArray[Any]) -> NDArray[np.int64]:
        """The ring of every distance from the axis."""
        return np.searchsorted(self.r_edges[1:-1], r, side="right")

    def digest(self) -> str:
        """Hash of what matters: everything but the name and what the cells are."""
        digest = hashlib.blake2b(self.z_unit.encode(), digest_size=8)
        for edges in (self.z_edges, self.depths, self.r_edges):
            digest.update(edges.astype("<f8").tobytes() + b"|")
        if self.geometry is not None:
            digest.update(self.geometry.digest().encode())
        return digest.hexdigest()


def radial_edges(geometry: Geometry) -> Floats:
    """Bins of the transverse profile in mm: the finest rings, or steps as wide as a cell.

    The width of a rectangle is its larger side; of layers with different cells the finest counts.
    """
    cells = [plane.cells for plane in geometry.planes()]
    rings = [c for c in cells if isinstance(c, PolarCells)]
    if rings:
        finest = max(rings, key=lambda c: c.n_r).r_mm
        return np.asarray(finest, dtype=np.float64)
    width = min(max(c.pitch_mm) for c in cells if not isinstance(c, PolarCells))
    reach = float(np.hypot(geometry.x_mm, geometry.y_mm).max())
    return np.asarray(width * np.arange(np.floor(reach / width) + 2), dtype=np.float64)


def _between(depths: Floats) -> Floats:
    """Borders halfway between neighbouring depths; the outermost as far as their neighbours'."""
    if len(depths) == 1:
        return np.array([depths[0] - 0.5, depths[0] + 0.5])
    middle = (depths[1:] + depths[:-1]) / 2
    first, last = 2 * depths[0] - middle[0], 2 * depths[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def _rings(radius: Floats, energy: NDArray[Any]) -> Floats:
    """Edges of rings, none of them where hits are: halfway to the next larger radius."""
    known = np.unique(radius)
    inner = np.searchsorted(known, [_quantile(radius, energy, share) for share in _WITHIN])
    outer = np.minimum(inner + 1, len(known) - 1)
    edges = np.unique(np.concatenate([[0.0], (known[inner] + known[outer]) / 2]))
    return edges if len(edges) > 1 else np.array([0.0, 1.0])


def _quantile(values: NDArray[Any], weights: NDArray[Any], q: float) -> float:
    """Value below which a share q of the weight lies."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order], dtype=np.float64)
    return float(values[order][np.searchsorted(total, q * total[-1])])
