"""Single showers of any calorimeter in three dimensions: cells where they are known, else points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.ticker import MaxNLocator

from hepbridge.core.errors import DataError
from hepbridge.core.units import GEV
from hepbridge.data.points import PointShowers
from hepbridge.data.showers import Showers
from hepbridge.metrics.shapes.shapes import Shapes
from hepbridge.report.display import event_display
from hepbridge.report.plate import Plate, new_figure, plain_walls

__all__ = ["point_display", "shower_display"]

# pale to black: the order of the colours survives grey-scale print
_COLOURS = ListedColormap(colormaps["magma_r"](np.linspace(0.08, 0.95, 256)))
_INSIDE = 0.995  # of the hits are within the drawn box


def shower_display(samples: Mapping[str, Shapes]) -> Plate:
    """One shower of each sample (at most three): the first that all have kept.

    Raises DataError if there is none, or none with a hit above the threshold.
    """
    names = list(samples)[:3]
    kept = [set(samples[name].kept_rows.tolist()) for name in names]
    common = sorted(set.intersection(*kept))
    if not common:
        raise DataError("no shower is kept in all samples")
    row = common[0]
    events = {n: samples[n].kept[np.searchsorted(samples[n].kept_rows, row)] for n in names}
    first = samples[names[0]]
    threshold = first.threshold_mev or 1e-3
    if first.layout.geometry is not None and not first.from_axis:
        cells = {n: _as_cells(e, samples[n]) for n, e in events.items()}
        return event_display(cells, threshold_mev=threshold)
    return point_display(events, threshold, first.layout.name, first.layout.z_unit)


def point_display(
    events: Mapping[str, PointShowers], threshold_mev: float, detector: str, z_unit: str = "mm"
) -> Plate:
    """One shower each as points whose colour is the energy, beside each other with common axes.

    Raises DataError if no hit lies above the threshold.
    """
    seen = {name: e.energy > threshold_mev for name, e in events.items()}
    if not any(s.any() for s in seen.values()):
        raise DataError(f"no hit lies above {threshold_mev:g} MeV")
    every = {
        key: np.concatenate([getattr(e, key)[seen[n]] for n, e in events.items()])
        for key in ("x_mm", "y_mm", "z_mm", "energy")
    }
    norm = LogNorm(threshold_mev / GEV, float(every["energy"].max()) / GEV)
    radius = np.maximum(np.abs(every["x_mm"]), np.abs(every["y_mm"]))
    reach = 1.08 * float(np.quantile(radius, _INSIDE)) or 1.0
    low, high = float(every["z_mm"].min()), float(every["z_mm"].max())
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    width = 4.4 * len(events) + 0.9
    figure = new_figure(width, 4.0)
    outside = 0
    for k, (name, event) in enumerate(events.items()):
        ax: Any = figure.add_axes(
            ((4.4 * k + 0.05) / width, 0.06, 4.2 / width, 0.9), projection="3d"
        )
        x, y, z, energy = (
            getattr(event, key)[seen[name]] for key in ("x_mm", "y_mm", "z_mm", "energy")
        )
        inside = np.maximum(np.abs(x), np.abs(y)) <= reach
        outside += int((~inside).sum())
        order = np.argsort(energy[inside])  # what holds much is drawn last
        shown = [v[inside][order] for v in (z, x, y, energy)]
        strength = np.clip(np.asarray(norm(shown[3] / GEV)), 0, 1)
        ax.scatter(
            *shown[:3],
            c=_COLOURS(norm(shown[3] / GEV)),
            s=2 + 26 * strength**2,
            alpha=0.75,
            linewidths=0,
            depthshade=False,
        )
        _dress(ax, (low, high), reach, z_unit)
        total = float(event.energy.sum(dtype=np.float64)) / GEV
        words = f"{name}: {total:.3g} GeV, {int(seen[name].sum())} hits"
        figure.text((4.4 * k + 2.2) / width, 0.93, words, ha="center")
    bar = figure.colorbar(
        ScalarMappable(norm, _COLOURS),
        cax=figure.add_axes((1 - 0.72 / width, 0.2, 0.13 / width, 0.6)),
    )
    bar.set_label("Hit energy [GeV]", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    first = next(iter(events.values()))
    caption = (
        f"One shower of {first.incident_energy[0] / GEV:.4g} GeV per sample in {detector}: all hits "
        f"above {threshold_mev:g} MeV; above each picture the energy of all hits."
        + (f" {outside} hits lie outside of the boxes." if outside else "")
    )
    alt = f"Three-dimensional display of single showers: {', '.join(events)}."
    return Plate("display", "Single showers", caption, alt, figure)


def _dress(ax: Any, z: tuple[float, float], reach: float, z_unit: str) -> None:
    ax.set(xlim=z, ylim=(-reach, reach), zlim=(-reach, reach))
    ax.set_box_aspect((1.5, 1, 1), zoom=1.02)
    ax.view_init(elev=18, azim=-62)
    ax.set_xlabel("Depth [mm]" if z_unit == "mm" else "Layer", labelpad=4)
    ax.set_ylabel("x [mm]", labelpad=-1)
    ax.set_zlabel("y [mm]", labelpad=-3)
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    plain_walls(ax)


def _as_cells(event: PointShowers, shapes: Shapes) -> Showers:
    """The cells of one shower, from their centres."""
    geometry = shapes.layout.geometry
    assert geometry is not None  # asked before
    cells = np.zeros(geometry.n_cells)
    layer = shapes.layout.layer_of(event.z_mm)
    for k, plane in enumerate(geometry.planes()):
        here = layer == k
        number = plane.cells.index(event.x_mm[here], event.y_mm[here])
        inside = number >= 0
        np.add.at(cells, geometry.layer_starts[k] + number[inside], event.energy[here][inside])
    return Showers.from_arrays(
        cells[None],
        event.incident_energy,
        geometry=geometry,
        event_ids=event.event_ids,
        allow_empty_showers=True,
    )
