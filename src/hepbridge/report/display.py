"""A shower in three dimensions: every cell above a threshold, coloured by its energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.units import GEV
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.report.histograms import Array
from hepbridge.report.plate import Plate, new_figure, plain_walls

__all__ = ["event_display", "prisms"]

THRESHOLD_MEV = 0.1
"""Cells below are not drawn: about half of what a minimum ionising particle leaves in 0.5 mm of
silicon."""

_MOST_ALIKE = 3  # events beside each other
_THIN = 0.05  # of the depth: cells of thinner layers are drawn as plates
_ROOM = 0.08  # beyond the outermost cells that are drawn
# pale to black: the order of the colours survives grey-scale print
_COLOURS = ListedColormap(colormaps["magma_r"](np.linspace(0.08, 0.95, 256)))


def event_display(
    samples: Mapping[str, Showers], row: int = 0, *, threshold_mev: float = THRESHOLD_MEV
) -> Plate:
    """One shower of each sample (at most three), beside each other with common axes and colours.

    Layers are drawn where they are, to scale, the beam from the left: each cell is a prism, or a
    plate where layers are thin. Of a geometry that does not know its depth, the layers of
    (x, y) are summed and the height of a tower is the logarithm of its energy.

    Raises:
        ConfigError: no sample or more than three, a threshold that is not positive.
        DataError: a row that a sample does not have, samples of different geometries, or no cell
            above the threshold.
    """
    if not 1 <= len(samples) <= _MOST_ALIKE:
        raise ConfigError(f"one to {_MOST_ALIKE} samples fit beside each other, got {len(samples)}")
    if not 0 < threshold_mev < np.inf:
        raise ConfigError(f"the threshold must be positive, got {threshold_mev:g} MeV")
    geometry = _common_geometry(samples)
    for name, s in samples.items():
        if not 0 <= row < len(s):
            raise DataError(f"{name} has no event {row}; its events are 0 to {len(s) - 1}")
    deep = _knows_depth(geometry)
    energies = {name: _drawn_energies(s, row, deep) for name, s in samples.items()}
    most = max(float(e.max()) for e in energies.values())
    if most <= threshold_mev:
        raise DataError(
            f"no cell of event {row} holds more than {threshold_mev:g} MeV (the largest has "
            f"{most:.3g} MeV); choose a lower threshold"
        )
    norm = LogNorm(threshold_mev / GEV, most / GEV)
    shown = np.any([e > threshold_mev for e in energies.values()], axis=0)
    space = _Space(geometry, shown, deep, float(np.log10(most / threshold_mev)))
    width = 4.4 * len(samples) + 0.9
    figure = new_figure(width, 4.0)
    for k, (name, energy) in enumerate(energies.items()):
        ax: Any = figure.add_axes(
            ((4.4 * k + 0.05) / width, 0.06, 4.2 / width, 0.9),
            projection="3d",
            computed_zorder=False,
        )
        drawn = np.flatnonzero(energy > threshold_mev)
        heights = np.log10(energy[drawn] / threshold_mev)
        faces, owner = space.faces(drawn, heights)
        colours = _COLOURS(norm(energy[drawn] / GEV))
        # what holds little must not hide what holds much
        colours[:, 3] = 0.25 + 0.7 * np.clip(np.asarray(norm(energy[drawn] / GEV)), 0, 1)
        ax.add_collection3d(
            Poly3DCollection(
                _equally_long(faces),
                facecolors=colours[owner],
                edgecolors="#00000030",
                linewidths=0.15,
                zorder=3,
            )
        )
        space.dress(ax, threshold_mev, arrow=_impact(samples[name], row) if deep else None)
        seen = float(samples[name].cells[row].sum(dtype=np.float64)) / GEV
        figure.text(
            (4.4 * k + 2.2) / width,
            0.93,
            f"{name}: {seen:.3g} GeV, {len(drawn)} cells",
            ha="center",
        )
    bar = figure.colorbar(
        ScalarMappable(norm, _COLOURS),
        cax=figure.add_axes((1 - 0.72 / width, 0.2, 0.13 / width, 0.6)),
    )
    bar.set_label("Cell energy [GeV]", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    first = next(iter(samples.values()))
    incident, number = first.incident_energy[row] / GEV, int(first.event_ids[row, 1])
    what = "cells" if deep else "towers (height: logarithm of the energy)"
    caption = (
        f"Event {number}, {incident:.4g} GeV, in {geometry.name}: all {what} above "
        f"{threshold_mev:g} MeV; above each picture the energy in all cells."
    )
    alt = f"Three-dimensional display of single showers: {', '.join(samples)}."
    return Plate("display", "Event display", caption, alt, figure)


def prisms(outlines: Array, low: Array, high: Array) -> tuple[list[Array], NDArray[np.int64]]:
    """Faces of prisms over outlines (N, P, 2), from ``low`` to ``high`` (N,).

    Returns the faces as polygons of points (across, across, along) and for each the number of its
    prism. Where ``low`` = ``high``, a prism is one plate.
    """
    faces: list[Array] = []
    owner: list[int] = []
    for k, (outline, a, b) in enumerate(zip(outlines, low, high, strict=True)):
        bottom, top = (np.column_stack([outline, np.full(len(outline), z)]) for z in (a, b))
        mine = [top]
        if b > a:
            mine.append(bottom)
            mine += [
                np.stack([bottom[i - 1], bottom[i], top[i], top[i - 1]])
                for i in range(len(outline))
            ]
        faces += mine
        owner += [k] * len(mine)
    return faces, np.array(owner, np.int64)


def _equally_long(faces: list[Array]) -> list[Array]:
    """Polygons with as many corners as the longest, the last one repeated.

    Matplotlib fills up shorter ones with memory that nobody has written, and takes it for corners.
    """
    longest = max(len(face) for face in faces)
    return [np.concatenate([face, face[-1:].repeat(longest - len(face), 0)]) for face in faces]


class _Space:
    """Where things are drawn: the axes of the picture from (x, y, depth) or (x, y, height)."""

    def __init__(
        self, geometry: Geometry, shown: NDArray[np.bool_], deep: bool, tallest: float
    ) -> None:
        planes = geometry.planes() if deep else geometry.planes()[:1]
        self.deep, self.tallest = deep, tallest
        self.outlines = [plane.cells.outlines_mm() for plane in planes]
        self.starts = np.cumsum([0, *(len(o) for o in self.outlines)])
        self.depths = [plane.z_mm or (0.0, 0.0) for plane in planes]
        self.depth = self.depths[-1][1] - self.depths[0][0]
        reach = [np.abs(self.outlines[k][i]).max() for k, i in self._places(np.flatnonzero(shown))]
        self.reach = float(max(reach)) * (1 + _ROOM)

    def _places(self, cells: NDArray[np.int64]) -> list[tuple[int, int]]:
        """(layer, number in it) of flat cell indices."""
        layer = np.searchsorted(self.starts, cells, side="right") - 1
        return [(int(k), int(c - self.starts[k])) for k, c in zip(layer, cells, strict=True)]

    def faces(
        self, cells: NDArray[np.int64], heights: Array
    ) -> tuple[list[Array], NDArray[np.int64]]:
        """Polygons in the axes of the picture, and the number of the cell of each."""
        found: list[Array] = []
        owner: list[int] = []
        for number, (k, i) in enumerate(self._places(cells)):
            low, high = self.depths[k] if self.deep else (0.0, float(heights[number]))
            if self.deep and high - low < _THIN * self.depth:
                low = high = (low + high) / 2
            mine, _ = prisms(self.outlines[k][i][None], np.array([low]), np.array([high]))
            found += [self._turned(face) for face in mine]
            owner += [number] * len(mine)
        return found, np.array(owner, np.int64)

    def _turned(self, points: Array) -> Array:
        """(x, y, depth) drawn with the depth to the right and y upwards; towers stand upright."""
        turned: Array = points[:, [2, 0, 1]] if self.deep else points
        return turned

    def dress(self, ax: Any, threshold_mev: float, arrow: tuple[Array, Array] | None) -> None:
        """Limits, labels, the outline of the detector and the incoming particle."""
        r = self.reach
        if self.deep:
            front, back = self.depths[0][0], self.depths[-1][1]
            ax.set(xlim=(front, back), ylim=(-r, r), zlim=(-r, r))
            ax.set_box_aspect((self.depth / (2 * r), 1, 1), zoom=0.93)
            ax.view_init(elev=18, azim=-62)
            ax.set_xlabel("Depth [mm]", labelpad=3)
            ax.set_ylabel("x [mm]", labelpad=-1)
            ax.set_zlabel("y [mm]", labelpad=-3)
        else:
            ax.set(xlim=(-r, r), ylim=(-r, r), zlim=(0, self.tallest * 1.05))
            ax.set_box_aspect((1, 1, 0.75), zoom=1.0)
            ax.view_init(elev=28, azim=-55)
            ax.set_xlabel("x [mm]", labelpad=0)
            ax.set_ylabel("y [mm]", labelpad=0)
            low, high = np.log10([threshold_mev / GEV, threshold_mev / GEV * 10**self.tallest])
            decades = np.arange(np.ceil(low - 1e-9), np.floor(high) + 1)
            ax.set_zticks(decades - low, [f"$10^{{{d:.0f}}}$" for d in decades])
            ax.set_zlabel("Energy [GeV]", labelpad=-2)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis) if self.deep else (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        plain_walls(ax)
        if arrow is not None:
            start, end = arrow
            lines = np.stack([start, end])[None]
            ax.add_collection3d(Line3DCollection(lines, colors="#0064b0", linewidths=1.6, zorder=4))


def _impact(showers: Showers, row: int) -> tuple[Array, Array]:
    """The last stretch of the incoming particle, in the axes of the picture."""
    names = ("x_mm", "y_mm", "theta_rad", "phi_rad")
    x, y, theta, phi = (
        float(showers.conditions[n][row]) if n in showers.conditions else 0.0 for n in names
    )
    planes = showers.geometry.planes()
    front, back = planes[0].z_mm, planes[-1].z_mm
    assert front is not None and back is not None  # asked before
    end = np.array([front[0], x, y])
    flight = np.array([np.cos(theta), np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)])
    return end - 0.2 * (back[1] - front[0]) * flight, end


def _knows_depth(geometry: Geometry) -> bool:
    """More than one layer, all at a known depth."""
    planes = geometry.planes()
    return len(planes) > 1 and all(plane.z_mm is not None for plane in planes)


def _drawn_energies(showers: Showers, row: int, deep: bool) -> Array:
    """Energies in MeV of what is drawn: the cells, or the sums of equal layers."""
    energy: Array = showers.cells[row].astype(np.float64)
    if deep:
        return energy
    planes = showers.geometry.planes()
    if any(plane.cells != planes[0].cells for plane in planes):
        raise DataError(
            f"geometry {showers.geometry.name!r} does not say how deep its layers are, and they "
            "have different cells: there is no picture of such a shower"
        )
    towers: Array = energy.reshape(len(planes), -1).sum(axis=0)
    return towers


def _common_geometry(samples: Mapping[str, Showers]) -> Geometry:
    first, *others = samples.values()
    for s in others:
        if s.geometry.digest() != first.geometry.digest():
            raise DataError(
                f"the samples have different geometries, {first.geometry.name!r} "
                f"{first.geometry.shape} and {s.geometry.name!r} {s.geometry.shape}; draw them "
                "one by one"
            )
    return first.geometry
