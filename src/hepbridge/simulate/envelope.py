"""The outline of a detector's slabs, seen along the beam."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepbridge.data.cells import PolarCells, XYCells

__all__ = ["Envelope", "envelope_of"]

_GRACE = 1 + 1e-9  # for the dust of decimal numbers


class Envelope(NamedTuple):
    """Outline of all slabs: a ``box`` of half widths ``x_mm``, ``y_mm`` or a ``tube`` of radius
    ``x_mm`` = ``y_mm``."""

    shape: str
    x_mm: float
    y_mm: float

    def contains(self, x_mm: ArrayLike, y_mm: ArrayLike) -> NDArray[np.bool_]:
        """Is a point inside? Points on the border are not."""
        x, y = np.asarray(x_mm), np.asarray(y_mm)
        if self.shape == "tube":
            return np.asarray(np.hypot(x, y) < self.x_mm)
        return np.asarray((abs(x) < self.x_mm) & (abs(y) < self.y_mm))

    def holds(self, cells: XYCells | PolarCells) -> bool:
        """Do cells end inside, or at the border?"""
        if self.shape == "tube":
            return _radius(cells) <= self.x_mm * _GRACE
        x, y = (cells.radius_mm,) * 2 if isinstance(cells, PolarCells) else cells.half_width_mm
        return x <= self.x_mm * _GRACE and y <= self.y_mm * _GRACE


def envelope_of(cells: list[XYCells | PolarCells]) -> Envelope:
    """The smallest envelope around the cells of all layers: a box if all are rectangles."""
    if all(isinstance(c, XYCells) for c in cells):
        widths = [c.half_width_mm for c in cells if isinstance(c, XYCells)]
        return Envelope("box", max(w[0] for w in widths), max(w[1] for w in widths))
    radius = max(_radius(c) for c in cells)
    return Envelope("tube", radius, radius)


def _radius(cells: XYCells | PolarCells) -> float:
    return math.hypot(*cells.half_width_mm) if isinstance(cells, XYCells) else cells.radius_mm
