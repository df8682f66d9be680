"""Grids of cells in one layer of a calorimeter: rectangles, or sectors of rings."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["CellLayer", "Cells", "PolarCells", "XYCells", "square_images", "square_rings"]

Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ARC_POINTS = 8  # points on an arc of a drawn cell


def square_images(index: Ints) -> Ints:
    """The eight images (8, n) of an index under the turns and reflections of its last two axes."""
    turns = [np.rot90(index, k, axes=(-2, -1)) for k in range(4)]
    return np.stack([t.reshape(-1) for t in turns + [np.flip(t, -1) for t in turns]])


def square_rings(shape: tuple[int, ...]) -> Ints:
    """For every cell of a grid with two axes the number of its ring, 0 in the middle."""
    away = [np.abs(np.arange(n) - (n - 1) / 2) - (0.5 if n % 2 == 0 else 0.0) for n in shape]
    rings: Ints = np.maximum.outer(*away).astype(np.int64)
    return rings


class XYCells(BaseModel):
    """nx × ny rectangles of size ``pitch_mm``, centred on the z axis.

    The index of a cell is ``iy + ny · ix`` (row-major); ix grows with x, iy with y.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["xy"] = "xy"
    n: tuple[Count, Count]
    pitch_mm: tuple[Length, Length]

    def __str__(self) -> str:
        return "{} × {} (x × y) of {:g} × {:g} mm".format(*self.n, *self.pitch_mm)

    @property
    def n_cells(self) -> int:
        return self.n[0] * self.n[1]

    @property
    def half_width_mm(self) -> tuple[float, float]:
        """Half of what the cells cover in x and in y."""
        return self.n[0] * self.pitch_mm[0] / 2, self.n[1] * self.pitch_mm[1] / 2

    def has(self, symmetry: str) -> bool:
        """Does a symmetry of `hepbridge.data.Geometry` map these cells to each other?"""
        square = self.n[0] == self.n[1] and self.pitch_mm[0] == self.pitch_mm[1]
        return symmetry in ("none", "D2") or (symmetry == "D4" and square)

    def images(self, symmetry: str) -> Ints:
        """Index permutations (g, n_cells) of the symmetry, the identity first."""
        index = np.arange(self.n_cells).reshape(self.n)
        if symmetry == "D4":
            return square_images(index)
        every = [index, index[::-1], index[:, ::-1], index[::-1, ::-1]]
        return np.stack([i.reshape(-1) for i in every])

    def rings(self) -> Ints:
        """For every cell the number of its ring, 0 in the middle."""
        return square_rings(self.n).reshape(-1)

    def edges_mm(self) -> tuple[Floats, Floats]:
        """Edges (nx + 1,) in x and (ny + 1,) in y."""
        (nx, ny), (px, py) = self.n, self.pitch_mm
        x = px * (np.arange(nx + 1, dtype=np.float64) - nx / 2)
        return x, py * (np.arange(ny + 1, dtype=np.float64) - ny / 2)

    def centres_mm(self) -> tuple[Floats, Floats]:
        """x and y of the centre of every cell, each (n_cells,)."""
        x, y = ((e[:-1] + e[1:]) / 2 for e in self.edges_mm())
        return np.repeat(x, self.n[1]), np.tile(y, self.n[0])

    def outlines_mm(self) -> Floats:
        """Corners (n_cells, 4, 2) of every cell, in order around it, for drawing."""
        x, y = self.centres_mm()
        corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (np.array(self.pitch_mm) / 2)
        outlines: Floats = np.stack([x, y], axis=1)[:, None, :] + corner
        return outlines

    def index(self, x_mm: ArrayLike, y_mm: ArrayLike) -> Ints:
        """The cell that holds each point, -1 outside; a lower edge belongs to its cell."""
        at = [
            np.searchsorted(e, np.asarray(v), side="right") - 1
            for e, v in zip(self.edges_mm(), (x_mm, y_mm), strict=True)
        ]
        inside = (at[0] >= 0) & (at[0] < self.n[0]) & (at[1] >= 0) & (at[1] < self.n[1])
        return np.where(inside, at[1] + self.n[1] * at[0], -1)


class PolarCells(BaseModel):
    """Rings with edges ``r_mm`` (the first is 0), each cut into ``n_phi`` equal sectors.

    The index of a cell is ``ir + n_r · iphi`` (r fastest); iphi grows with φ from -π. This is the
    order of the CaloChallenge (arXiv:2410.21611): ``reshape(n_phi, n_r)``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["polar"] = "polar"
    r_mm: Annotated[
        tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...],
        Field(min_length=2, max_length=1_000_001),
    ]
    n_phi: Count

    @field_validator("r_mm")
    @classmethod
    def _ordered(cls, r_mm: tuple[float, ...]) -> tuple[float, ...]:
        if r_mm[0] != 0:
            raise ValueError(f"the first radius must be 0, got {r_mm[0]:g}")
        wrong = [i for i in range(1, len(r_mm)) if r_mm[i] <= r_mm[i - 1]]
        if wrong:
            i = wrong[0]
            raise ValueError(
                f"the radii must grow; {r_mm[i]:g} follows {r_mm[i - 1]:g}, so that rings overlap"
            )
        return r_mm

    def __str__(self) -> str:
        return f"{self.n_r} × {self.n_phi} (r × φ) within {self.radius_mm:g} mm"

    @property
    def n_r(self) -> int:
        return len(self.r_mm) - 1

    @property
    def n_cells(self) -> int:
        return self.n_r * self.n_phi

    @property
    def radius_mm(self) -> float:
        """Radius of what the cells cover."""
        return self.r_mm[-1]

    def has(self, symmetry: str) -> bool:
        """Does a symmetry of `hepbridge.data.Geometry` map these cells to each other?"""
        return symmetry in ("none", "Dn")

    def images(self, n: int) -> Ints:
        """Index permutations (2n, n_cells) of the turns by 2π/n and the reflections, identity first.

        n must divide the number of sectors, if there is more than one.
        """
        index = np.arange(self.n_cells).reshape(self.n_phi, self.n_r)
        step = self.n_phi // n if self.n_phi > 1 else 0
        turns = [np.roll(index, k * step, axis=0) for k in range(n)]
        return np.stack([t.reshape(-1) for t in turns + [t[::-1] for t in turns]])

    def rings(self) -> Ints:
        """For every cell the number of its ring, 0 in the middle."""
        return np.tile(np.arange(self.n_r), self.n_phi)

    def edges_rad(self) -> Floats:
        """Edges (n_phi + 1,) in φ, from -π to π."""
        return np.linspace(-np.pi, np.pi, self.n_phi + 1)

    def polar_centres(self) -> tuple[Floats, Floats]:
        """r (mm) and φ of the centre of every cell, midway between its edges, each (n_cells,)."""
        r, phi = np.array(self.r_mm), self.edges_rad()
        return np.tile((r[:-1] + r[1:]) / 2, self.n_phi), np.repeat(
            (phi[:-1] + phi[1:]) / 2, self.n_r
        )

    def centres_mm(self) -> tuple[Floats, Floats]:
        """x and y of the centre of every cell, each (n_cells,)."""
        r, phi = self.polar_centres()
        return r * np.cos(phi), r * np.sin(phi)

    def outlines_mm(self) -> Floats:
        """Points (n_cells, 16, 2) along the edge of every cell, for drawing."""
        low, high = np.array(self.r_mm[:-1]), np.array(self.r_mm[1:])
        edges = self.edges_rad()
        phi = np.linspace(edges[:-1], edges[1:], ARC_POINTS, axis=1)  # (n_phi, points)
        phi = np.concatenate([phi, phi[:, ::-1]], axis=1)[:, None, :]
        r = np.repeat(np.stack([high, low], axis=1), ARC_POINTS, axis=1)[None]
        points = np.stack(np.broadcast_arrays(r * np.cos(phi), r * np.sin(phi)), axis=-1)
        return points.reshape(self.n_cells, 2 * ARC_POINTS, 2)

    def index(self, x_mm: ArrayLike, y_mm: ArrayLike) -> Ints:
        """The cell that holds each point, -1 outside; a lower edge belongs to its cell."""
        r, phi = np.hypot(x_mm, y_mm), np.arctan2(y_mm, x_mm)
        ir = np.searchsorted(self.r_mm, r, side="right") - 1
        turn = np.floor((phi + np.pi) / (2 * np.pi) * self.n_phi).astype(np.int64)
        return np.where(ir < self.n_r, ir + self.n_r * (turn % self.n_phi), -1)


Cells = Annotated[XYCells | PolarCells, Field(discriminator="kind")]


class CellLayer(NamedTuple):
    """One layer of cells and the depth (front, back) below the front face, if it is known."""

    cells: XYCells | PolarCells
    z_mm: tuple[float, float] | None = None
