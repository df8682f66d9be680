"""Where the cells of a calorimeter are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError

__all__ = ["SQUIRELS", "Geometry"]


@dataclass(frozen=True)
class Geometry:
    """A regular grid of cells; the flat cell index is row-major in ``shape``.

    ``axes`` names the directions (``("x", "y")``, ``("z", "x", "y")``); ``pitch_mm`` is the cell
    size along each. ``symmetry`` is a *declaration* (``"none"`` or ``"D4"``: the eight turns and
    reflections of the last two axes) that holds for this geometry with a beam on its axis; it is
    verified on the data before use (`hepbridge.data.symmetry`).
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    pitch_mm: tuple[float, ...]
    symmetry: str = "none"

    def __post_init__(self) -> None:
        if not len(self.shape) == len(self.axes) == len(self.pitch_mm):
            raise DataError(
                f"geometry {self.name!r}: shape {self.shape}, axes {self.axes} and pitch_mm "
                f"{self.pitch_mm} must have the same length"
            )
        if any(n < 1 for n in self.shape) or any(not 0 < p < np.inf for p in self.pitch_mm):
            raise DataError(
                f"geometry {self.name!r}: sizes must be positive, got {self.shape}, {self.pitch_mm}"
            )
        if self.symmetry not in ("none", "D4"):
            raise DataError(
                f"geometry {self.name!r}: symmetry {self.symmetry!r} is unknown; allowed: none, D4"
            )
        if self.symmetry == "D4" and (len(self.shape) < 2 or self.shape[-1] != self.shape[-2]):
            raise DataError(
                f"geometry {self.name!r}: D4 needs a square in the last two axes, got {self.shape}"
            )

    @property
    def n_cells(self) -> int:
        return int(np.prod(self.shape))

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
        turns = [np.rot90(index, k, axes=(-2, -1)) for k in range(4)]
        return np.stack([t.reshape(-1) for t in turns + [np.flip(t, -1) for t in turns]])

    def rings(self) -> NDArray[np.int64]:
        """For every cell the number of its ring in the last two axes, 0 in the middle."""
        if len(self.shape) < 2:
            return np.zeros(self.n_cells, dtype=np.int64)
        away = [
            np.abs(np.arange(n) - (n - 1) / 2) - (0.5 if n % 2 == 0 else 0.0)
            for n in self.shape[-2:]
        ]
        ring = np.maximum.outer(*away).astype(np.int64)
        return np.broadcast_to(ring, self.shape).reshape(-1)

    def orbits(self) -> NDArray[np.int64]:
        """For every cell the number (0, 1, …) of its class of symmetry-equivalent cells."""
        smallest = self.permutations().min(axis=0)
        return np.unique(smallest, return_inverse=True)[1].reshape(-1)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "shape": list(self.shape),
            "axes": list(self.axes),
            "pitch_mm": list(self.pitch_mm),
            "symmetry": self.symmetry,
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Geometry:
        try:
            return cls(
                str(record["name"]),
                tuple(int(n) for n in record["shape"]),
                tuple(str(a) for a in record["axes"]),
                tuple(float(p) for p in record["pitch_mm"]),
                str(record.get("symmetry", "none")),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"not a description of a geometry: {record!r} ({error})") from error

    def digest(self) -> str:
        """Hash of what matters to a model: everything but the name."""
        record = {k: v for k, v in self.to_dict().items() if k != "name"}
        text = json.dumps(record, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


SQUIRELS = Geometry("squirels", (10, 10), ("x", "y"), (30.0, 30.0), symmetry="D4")
