"""Cells of any shape: layers that are lists of cell centres, such as the hexagons of the CMS HGCal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.formats.base import damaged
from hepbridge.data.formats.hdf5 import check_declared, open_hdf5

__all__ = ["CellMap"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CellMap:
    """Centres of the cells of every layer, from the axis of the particle.

    Attributes:
        name: of the detector.
        x_mm, y_mm: (layers, cells_max), NaN where a layer has fewer cells.
        z_mm: (layers,) depth of the middle of each layer, ascending, or None: not known.

    Raises DataError for shapes that do not fit, a layer without cells, NaN in only one of x and y, or
    depths that do not grow.
    """

    name: str
    x_mm: Floats
    y_mm: Floats
    z_mm: Floats | None = None

    def __post_init__(self) -> None:
        where = f"cell map {self.name!r}"
        if self.x_mm.ndim != 2 or self.x_mm.shape != self.y_mm.shape or not self.x_mm.size:
            raise DataError(
                f"{where}: x and y must have one shape (layers, cells), got {self.x_mm.shape} and "
                f"{self.y_mm.shape}"
            )
        if (np.isfinite(self.x_mm) != np.isfinite(self.y_mm)).any():
            raise DataError(f"{where}: a cell has x but no y, or y but no x")
        empty = np.flatnonzero(~self.exists.any(axis=1))
        if len(empty):
            raise DataError(f"{where}: layer {empty[0]} has no cells")
        if self.z_mm is not None and (
            self.z_mm.shape != (len(self.x_mm),)
            or not np.isfinite(self.z_mm).all()
            or (np.diff(self.z_mm) <= 0).any()
        ):
            raise DataError(f"{where}: z must be {len(self.x_mm)} finite depths that grow")

    @property
    def exists(self) -> NDArray[np.bool_]:
        """(layers, cells_max): is there such a cell?"""
        return np.isfinite(self.x_mm)

    @property
    def depths(self) -> Floats:
        """(layers,) depth in mm, or the numbers of the layers where it is not known."""
        return np.arange(len(self.x_mm), dtype=np.float64) if self.z_mm is None else self.z_mm

    @classmethod
    def load(cls, path: str | Path) -> CellMap:
        """Read ``x_mm``, ``y_mm`` (layers, cells) and, if there, ``z_mm`` (layers,) of an HDF5 file.

        Cells that a layer does not have are NaN, or lie beyond ``n_cells`` (layers,) if that is there.

        Raises DataError if the file is not that, or damaged.
        """
        path = Path(path)
        with damaged(path), open_hdf5(path) as file:
            for key in ("x_mm", "y_mm"):
                if not isinstance(file.get(key), h5py.Dataset):
                    raise DataError(
                        f"{path}: a map of cells has the datasets x_mm and y_mm (layers, cells), and "
                        f"maybe z_mm and n_cells (layers,); the file has {', '.join(file) or 'nothing'}"
                    )
            found = {
                key: _read(file[key], path)
                for key in ("x_mm", "y_mm", "z_mm", "n_cells")
                if isinstance(file.get(key), h5py.Dataset)
            }
        x, y = found["x_mm"], found["y_mm"]
        if "n_cells" in found and x.ndim == 2 and x.shape == y.shape:
            beyond = np.arange(x.shape[1]) >= found["n_cells"].reshape(-1, 1)
            if beyond.shape != x.shape:
                raise DataError(f"{path}: n_cells must have one number per layer, {len(x)}")
            x, y = np.where(beyond, np.nan, x), np.where(beyond, np.nan, y)
        return cls(path.stem, x, y, found.get("z_mm"))


def _read(dataset: Any, path: Path) -> Floats:
    check_declared(dataset, path)
    if dataset.dtype.kind not in "fiu":
        raise DataError(f"{path}: {dataset.name[1:]!r} must be numbers, got {dataset.dtype}")
    values: Floats = dataset[...].astype(np.float64)
    return values
