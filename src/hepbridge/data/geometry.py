"""Where the cells of a calorimeter are."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from hepbridge.core.errors import DataError
from hepbridge.data.cells import (
    CellLayer,
    Cells,
    PolarCells,
    XYCells,
    square_images,
    square_rings,
)

__all__ = ["SQUIRELS", "Geometry"]


SYMMETRIES = ("none", "D4", "D2", "Dn")
_CELLS: TypeAdapter[XYCells | PolarCells] = TypeAdapter(Cells)


@dataclass(frozen=True)
class Geometry:
    """Cells on a regular grid, or layers of cells that may differ; the flat index is row-major.

    ``axes`` names the directions (``("x", "y")``, ``("z", "x", "y")``); ``pitch_mm`` is the cell
    size along each.

    ``layers``, if there are any, describe the cells of each layer and its depth; a shower is then
    the layers one after another. `of_layers` derives the other fields from them: equal layers have
    the axes (z, x, y) or (z, phi, r), others the one axis ``cell``; ``pitch_mm`` is empty.

    ``symmetry`` is a *declaration* that holds for this geometry with a beam on its axis; it is
    verified on the data before use (`hepbridge.data.symmetry`):

    - ``"none"``;
    - ``"D4"``: the eight turns and reflections of a square, in the last two axes or in every layer;
    - ``"D2"``: the reflections of x and of y in every layer of rectangles;
    - ``"Dn"``: the 2n turns and reflections of layers of rings; n is the largest number that
      divides the number of sectors of all layers that have sectors.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    pitch_mm: tuple[float, ...]
    symmetry: str = "none"
    layers: tuple[CellLayer, ...] = ()

    def __post_init__(self) -> None:
        if self.symmetry not in SYMMETRIES:
            raise DataError(
                f"geometry {self.name!r}: symmetry {self.symmetry!r} is unknown; allowed: "
                f"{', '.join(SYMMETRIES)}"
            )
        if self.layers:
            self._check_layers()
            return
        if not len(self.shape) == len(self.axes) == len(self.pitch_mm):
            raise DataError(
                f"geometry {self.name!r}: shape {self.shape}, axes {self.axes} and pitch_mm "
                f"{self.pitch_mm} must have the same length"
            )
        if any(n < 1 for n in self.shape) or any(not 0 < p < np.inf for p in self.pitch_mm):
            raise DataError(
                f"geometry {self.name!r}: sizes must be positive, got {self.shape}, {self.pitch_mm}"
            )
        if self.symmetry in ("D2", "Dn"):
            raise DataError(
                f"geometry {self.name!r}: symmetry {self.symmetry} is for layers of cells; a "
                "regular grid has none or D4"
            )
        if self.symmetry == "D4" and (len(self.shape) < 2 or self.shape[-1] != self.shape[-2]):
            raise DataError(
                f"geometry {self.name!r}: D4 needs a square in the last two axes, got {self.shape}"
            )

    @classmethod
    def of_layers(cls, name: str, layers: Sequence[CellLayer], symmetry: str = "none") -> Geometry:
        """The geometry of layers of cells, in the order of the beam.

        Raises DataError if there are none, if their depths overlap, or if they do not have the
        symmetry.
        """
        if not layers:
            raise DataError(f"geometry {name!r} has no layers")
        shape, axes = _grid([layer.cells for layer in layers])
        return cls(name, shape, axes, (), symmetry, tuple(layers))

    def _check_layers(self) -> None:
        where = f"geometry {self.name!r}"
        if (self.shape, self.axes) != _grid([x.cells for x in self.layers]) or self.pitch_mm:
            raise DataError(
                f"{where}: shape {self.shape}, axes {self.axes} and pitch_mm {self.pitch_mm} are "
                "not those of its layers; make it with Geometry.of_layers"
            )
        if len({x.z_mm is None for x in self.layers}) > 1:
            raise DataError(f"{where}: give the depth of every layer, or of none")
        depth = -math.inf
        for number, layer in enumerate(self.layers):
            front, back = layer.z_mm or (0.0, 1.0)
            if not -math.inf < front < back < math.inf:
                raise DataError(f"{where}: layer {number} reaches from {front} to {back} mm")
            if layer.z_mm and front < depth - 1e-6:
                raise DataError(
                    f"{where}: layer {number} begins at {front:g} mm, inside the layer before it, "
                    f"which ends at {depth:g} mm"
                )
            depth = back
        wrong = [k for k, x in enumerate(self.layers) if not x.cells.has(self.symmetry)]
        if wrong:
            raise DataError(
                f"{where}: layer {wrong[0]} does not have the symmetry {self.symmetry} (D4: square "
                "grids of x and y, D2: grids of x and y, Dn: rings)"
            )

    @property
    def n_cells(self) -> int:
        return int(np.prod(self.shape))

    def planes(self) -> tuple[CellLayer, ...]:
        """The layers, also those of a regular grid of (x, y) or (z, x, y).

        Raises DataError for a grid with other axes: it does not say where its cells are.
        """
        if self.layers:
            return self.layers
        if self.axes not in (("x", "y"), ("z", "x", "y")):
            raise DataError(
                f"geometry {self.name!r} with axes {', '.join(self.axes)} does not say where its "
                "cells are; positions need the axes x, y or z, x, y, or layers"
            )
        (nx, ny), (px, py) = self.shape[-2:], self.pitch_mm[-2:]
        cells = XYCells(n=(nx, ny), pitch_mm=(px, py))
        if len(self.axes) == 2:
            return (CellLayer(cells),)
        dz = self.pitch_mm[0]
        return tuple(CellLayer(cells, (k * dz, (k + 1) * dz)) for k in range(self.shape[0]))

    @property
    def layer_starts(self) -> NDArray[np.int64]:
        """Flat index (n_layers + 1,) at which each layer begins, and n_cells."""
        return np.cumsum([0, *(layer.cells.n_cells for layer in self.planes())])

    @property
    def layer_index(self) -> NDArray[np.int64]:
        """For every cell the number of its layer, 0 in front."""
        sizes = [layer.cells.n_cells for layer in self.planes()]
        return np.repeat(np.arange(len(sizes)), sizes)

    @property
    def x_mm(self) -> NDArray[np.float64]:
        """x of the centre of every cell; 0 is the axis."""
        return np.concatenate([layer.cells.centres_mm()[0] for layer in self.planes()])

    @property
    def y_mm(self) -> NDArray[np.float64]:
        """y of the centre of every cell; 0 is the axis."""
        return np.concatenate([layer.cells.centres_mm()[1] for layer in self.planes()])

    @property
    def z_mm(self) -> NDArray[np.float64]:
        """Depth of the middle of every cell's layer, from the front face.

        Raises DataError if the geometry does not know it (a grid of x and y, a binning file).
        """
        planes = self.planes()
        middle = [sum(layer.z_mm) / 2 for layer in planes if layer.z_mm]
        if len(middle) < len(planes):
            raise DataError(f"geometry {self.name!r} does not say how deep its layers are")
        return np.repeat(middle, [layer.cells.n_cells for layer in planes])

    def layer_sums(self, cells: NDArray[Any]) -> NDArray[np.float64]:
        """Energies (N, n_layers) of the layers of showers (N, n_cells), added in double precision.

        Raises DataError if the showers have another number of cells.
        """
        if cells.ndim != 2 or cells.shape[1] != self.n_cells:
            raise DataError(
                f"cells of shape {cells.shape} are no showers of geometry {self.name!r} with "
                f"{self.n_cells} cells"
            )
        starts = self.layer_starts[:-1]
        sums: NDArray[np.float64] = np.add.reduceat(cells, starts, axis=1, dtype=np.float64)
        return sums

    def centres(self, axis: str) -> NDArray[np.float64]:
        """Cell centres along an axis for every flat cell index, in cells: 0.5, 1.5, …"""
        if axis not in self.axes:
            raise DataError(
                f"geometry {self.name!r} has no axis {axis!r}; it has {', '.join(self.axes)}"
            )
        grid: NDArray[np.int64] = np.indices(self.shape)[self.axes.index(axis)]
        return grid.reshape(-1).astype(np.float64) + 0.5

    def permutations(self) -> NDArray[np.int64]:
        """Index permutations (g, n_cells) of the declared symmetry, the identity first."""
        index = np.arange(self.n_cells).reshape(self.shape)
        if self.symmetry == "none":
            return index.reshape(1, -1)
        if self.layers:
            return self._layer_permutations()
        return square_images(index)

    def _layer_permutations(self) -> NDArray[np.int64]:
        cells = [layer.cells for layer in self.layers]
        n = math.gcd(*(c.n_phi for c in cells if isinstance(c, PolarCells) and c.n_phi > 1))
        images = [
            c.images(n or 1) if isinstance(c, PolarCells) else c.images(self.symmetry)
            for c in cells
        ]
        starts = self.layer_starts[:-1]
        return np.concatenate([i + k for i, k in zip(images, starts, strict=True)], axis=1)

    def rings(self) -> NDArray[np.int64]:
        """For every cell the number of its ring in the last two axes, 0 in the middle.

        In layers of rings that is the number of the ring. Raises DataError for layers whose rings
        are not the same: a ring then means something else in every layer.
        """
        if self.layers:
            return self._layer_rings()
        if len(self.shape) < 2:
            return np.zeros(self.n_cells, dtype=np.int64)
        return np.broadcast_to(square_rings(self.shape[-2:]), self.shape).reshape(-1)

    def _layer_rings(self) -> NDArray[np.int64]:
        cells = [layer.cells for layer in self.layers]
        radii = {c.r_mm for c in cells if isinstance(c, PolarCells)}
        grids = {(c.n, c.pitch_mm) for c in cells if isinstance(c, XYCells)}
        square = all(pitch[0] == pitch[1] for _, pitch in grids)
        if len(radii) + len(grids) != 1 or not square:
            raise DataError(
                f"geometry {self.name!r}: rings need square cells or equal radii in all layers; "
                "these layers have no rings in common"
            )
        return np.concatenate([c.rings() for c in cells])

    def orbits(self) -> NDArray[np.int64]:
        """For every cell the number (0, 1, …) of its class of symmetry-equivalent cells."""
        smallest = self.permutations().min(axis=0)
        return np.unique(smallest, return_inverse=True)[1].reshape(-1)

    def to_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "name": self.name,
            "shape": list(self.shape),
            "axes": list(self.axes),
            "pitch_mm": list(self.pitch_mm),
            "symmetry": self.symmetry,
        }
        if self.layers:
            runs = groupby(self.layers, key=lambda layer: layer.cells)
            record["layers"] = [
                {
                    "cells": cells.model_dump(mode="json"),
                    "z_mm": [x.z_mm and [float(x.z_mm[0]), float(x.z_mm[1])] for x in run],
                }
                for cells, run in runs
            ]
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Geometry:
        try:
            return cls(
                str(record["name"]),
                tuple(int(n) for n in record["shape"]),
                tuple(str(a) for a in record["axes"]),
                tuple(float(p) for p in record["pitch_mm"]),
                str(record.get("symmetry", "none")),
                tuple(x for entry in record.get("layers", ()) for x in _run(entry)),
            )
        except ValidationError as error:
            first = error.errors()[0]
            path = ".".join(str(p) for p in first["loc"])
            raise DataError(
                f"not a description of a geometry: cells.{path}: {first['msg']}"
            ) from error
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"not a description of a geometry: {record!r} ({error})") from error

    def digest(self) -> str:
        """Hash of what matters to a model: everything but the name."""
        return _digest(self)


@lru_cache(maxsize=64)  # asked for by every refinement, also of a single shower
def _digest(geometry: Geometry) -> str:
    record = {k: v for k, v in geometry.to_dict().items() if k != "name"}
    text = json.dumps(record, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _grid(
    cells: Sequence[XYCells | PolarCells],
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(shape, axes) of layers: those of the common grid if they all have the same."""
    first = cells[0]
    if any(c != first for c in cells):
        return (sum(c.n_cells for c in cells),), ("cell",)
    if isinstance(first, XYCells):
        return (len(cells), *first.n), ("z", "x", "y")
    return (len(cells), first.n_phi, first.n_r), ("z", "phi", "r")


def _run(entry: dict[str, Any]) -> list[CellLayer]:
    """Neighbouring layers with the same cells, from their record."""
    cells = _CELLS.validate_python(entry["cells"])
    depths = [None if z is None else (float(z[0]), float(z[1])) for z in entry["z_mm"]]
    return [CellLayer(cells, z) for z in depths]


SQUIRELS = Geometry("squirels", (10, 10), ("x", "y"), (30.0, 30.0), symmetry="D4")
