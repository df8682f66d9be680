"""Longitudinal and transverse profiles of samples in any layered geometry, and their energy sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.showers import Showers
from hepbridge.metrics.shapes.layout import radial_edges
from hepbridge.report.histograms import (
    Array,
    Binned,
    ratio,
    ratio_of_sums,
    shower_distribution,
)
from hepbridge.report.plate import Plate, new_figure
from hepbridge.report.strokes import ratio_points, shade, steps
from hepbridge.report.style import REFERENCE, Style, roles, styles

__all__ = ["longitudinal", "profiles", "radial_edges", "transverse"]

_RATIO_RANGES = (0.1, 0.2, 0.5, 1.0)
_DECADES = 4.0  # of the transverse profile that are drawn
_MATTERS = 0.02  # of the highest bin: ratios of lower ones do not set the range of their panel
_SUM_BINS = 25  # over the central 98 % of all samples: enough for some hundred showers


@dataclass(frozen=True)
class _Panel:
    x_label: str
    y_label: str
    binned: list[Binned]
    log_y: bool = False


def profiles(samples: Mapping[str, Showers]) -> Plate:
    """Energy against depth, energy against radius, and energy sums; the first sample is the reference.

    Below each panel stands the ratio to the reference. Geometries with one layer have no
    longitudinal profile. Errors are those of means over showers (`ratio_of_sums`).

    Raises:
        ConfigError: no sample.
        DataError: samples of different geometries, or a geometry that does not say where its
            cells are.
    """
    if not samples:
        raise ConfigError("profiles need a sample; the first is the reference of the ratios")
    names, showers = list(samples), list(samples.values())
    geometry = showers[0].geometry
    for name, s in samples.items():
        if s.geometry.digest() != geometry.digest():
            raise DataError(
                f"{name} has geometry {s.geometry.name!r} {s.geometry.shape}, but {names[0]} has "
                f"{geometry.name!r} {geometry.shape}; profiles compare samples of one geometry"
            )
    panels = _panels(showers)
    fast, refined = roles(names[1:])
    look = styles(names[1:], fast, refined)
    width, height = 3.75 * len(panels) + 0.4, 4.3
    figure = new_figure(width, height)
    grid = figure.add_gridspec(
        2,
        len(panels),
        height_ratios=[2.6, 1],
        hspace=0.06,
        wspace=0.33,
        left=0.75 / width,
        right=1 - 0.2 / width,
        top=1 - 0.42 / height,
        bottom=0.55 / height,
    )
    for k, panel in enumerate(panels):
        top = figure.add_subplot(grid[0, k])
        bottom = figure.add_subplot(grid[1, k], sharex=top)
        _draw((top, bottom), panel, look)
        if k == 0:
            bottom.set_ylabel("Ratio")
    handles: list[Any] = [Patch(facecolor=REFERENCE.fill, edgecolor=REFERENCE.colour)]
    handles += [
        figure.axes[0].plot([], [], color=s.colour, linestyle=s.line, linewidth=1.5)[0]
        for s in look.values()
    ]
    figure.legend(
        handles, names, loc="upper left", ncols=len(names), bbox_to_anchor=(0.6 / width, 1.0)
    )
    many = ", ".join(f"{len(s):,} of {name}" for name, s in samples.items())
    caption = (
        f"{geometry.name}, showers: {many}. Means of the visible energy with their standard "
        "errors: bands above, bars below, and the grey band of the reference. Ratios outside a "
        "panel are arrows at its border; where the reference is not known to 50 % there are none."
    )
    alt = f"Profiles of {', '.join(names)} with ratios to {names[0]}."
    return Plate("profiles", "Profiles", caption, alt, figure)


def longitudinal(showers: Showers) -> Binned | None:
    """Mean energy of each layer over the incident energy; None for a single layer.

    Edges are depths in mm, or the numbers of the layers where the geometry does not know depths.
    """
    planes = showers.geometry.planes()
    if len(planes) < 2:
        return None
    depths = [plane.z_mm for plane in planes if plane.z_mm is not None]
    edges: Array = np.arange(len(planes) + 1, dtype=np.float64) - 0.5
    if len(depths) == len(planes):
        edges = np.array([*(front for front, _ in depths), depths[-1][1]])
    sums = showers.geometry.layer_sums(showers.cells)
    values, sigma = ratio_of_sums(sums, showers.incident_energy, showers.weights)
    return Binned(edges, values, sigma)


def transverse(showers: Showers, edges: Array) -> Binned:
    """(1/E) dE/dr in 1/mm: the cells' energies by the distance of their centres from the axis.

    r is measured from where the particle entered, along its direction, if the sample says so
    (conditions ``x_mm`` … ``phi_rad``) and the geometry knows its depths; E is the visible energy.
    """
    contents = np.zeros((len(showers), len(edges) - 1))
    for k, radius in enumerate(_radii(showers)):
        inside = np.searchsorted(edges, radius, side="right") - 1
        ok = (inside >= 0) & (inside < contents.shape[1])
        contents[k] = np.bincount(
            inside[ok], weights=showers.cells[k][ok], minlength=contents.shape[1]
        )
    values, sigma = ratio_of_sums(contents, showers.e_sum, showers.weights)
    width = np.diff(edges)
    return Binned(edges, values / width, sigma / width)


def _radii(showers: Showers) -> Sequence[Array]:
    """For every shower the distances (n_cells,) of the cells' centres from its axis."""
    g, c = showers.geometry, showers.conditions
    x, y = g.x_mm, g.y_mm
    names = ("x_mm", "y_mm", "theta_rad", "phi_rad")
    if not any(name in c for name in names):
        return [np.hypot(x, y)] * len(showers)
    x0, y0, theta, phi = (c.get(name, np.zeros(len(showers))) for name in names)
    try:
        z = g.z_mm
    except DataError:  # a grid of x and y: the entry point is all there is
        z = np.zeros(g.n_cells)
    slope = np.tan(theta)
    return [
        np.hypot(
            x - x0[k] - z * slope[k] * np.cos(phi[k]), y - y0[k] - z * slope[k] * np.sin(phi[k])
        )
        for k in range(len(showers))
    ]


def _panels(showers: Sequence[Showers]) -> list[_Panel]:
    found = []
    along = [b for s in showers if (b := longitudinal(s)) is not None]
    if along:
        deep = all(plane.z_mm is not None for plane in showers[0].geometry.planes())
        label = "Depth [mm]" if deep else "Layer"
        found.append(_Panel(label, r"$E_\mathrm{layer}\,/\,E_\mathrm{inc}$", along))
    edges = radial_edges(showers[0].geometry)
    across = [transverse(s, edges) for s in showers]
    filled = np.flatnonzero(across[0].values > across[0].values.max() * 10**-_DECADES)
    last = int(filled[-1]) + 1
    across = [Binned(b.edges[: last + 1], b.values[:last], b.sigma[:last]) for b in across]
    label = r"$(1/E)\;\mathrm{d}E/\mathrm{d}r$ [mm$^{-1}$]"
    found.append(_Panel("Distance from the axis [mm]", label, across, log_y=True))
    sums = [s.e_sum / s.incident_energy for s in showers]
    low, high = np.quantile(np.concatenate(sums), [0.01, 0.99])
    margin = 0.05 * (high - low) or 0.01 * high
    edges = np.linspace(low - margin, high + margin, _SUM_BINS + 1)
    binned = [shower_distribution(v, s.weights, edges) for v, s in zip(sums, showers, strict=True)]
    label = r"Energy sum $E\,/\,E_\mathrm{inc}$"
    return [*found, _Panel(label, "Fraction of showers / bin", binned)]


def _draw(axes: tuple[Axes, Axes], panel: _Panel, look: Mapping[str, Style]) -> None:
    """Distributions above, ratios to the first of them below."""
    top, bottom = axes
    ref, *others = panel.binned
    top.stairs(ref.values, ref.edges, fill=True, facecolor=REFERENCE.fill, zorder=REFERENCE.front)
    steps(top, ref.edges, ref.values, REFERENCE, 1.0)
    ratios = [ratio(b, ref) for b in others]
    matters = ref.values > _MATTERS * ref.values.max()
    half = _half([np.abs(value[matters] - 1) for value, *_ in ratios])
    one, _, ref_error = ratio(ref, ref)
    shade(bottom, ref.edges, one, ref_error, "#9a9a9a", 0.45)
    bottom.axhline(1.0, color=REFERENCE.colour, linewidth=0.8, zorder=2)
    for b, (value, error, _), style in zip(others, ratios, look.values(), strict=True):
        shade(top, b.edges, b.values, b.sigma, style.colour)
        steps(top, b.edges, b.values, style, 1.5)
        ratio_points(bottom, ref.centres, value, error, style, half)
    peak = max(float((b.values + b.sigma).max()) for b in panel.binned)
    if panel.log_y:
        least = min(float(b.values[b.values > 0].min()) for b in panel.binned)
        top.set_yscale("log")
        top.set_ylim(max(least / 2, peak * 10 ** -(_DECADES + 0.5)), 2 * peak)
    else:
        top.set_ylim(0, 1.06 * peak)
    top.set_ylabel(panel.y_label)
    top.tick_params(labelbottom=False)
    top.set_xlim(ref.edges[0], ref.edges[-1])
    bottom.set_ylim(1 - half, 1 + half)
    bottom.set_yticks([1 - half / 2, 1, 1 + half / 2])
    bottom.yaxis.set_minor_locator(NullLocator())
    bottom.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    bottom.set_xlabel(panel.x_label)


def _half(distances: Sequence[Array]) -> float:
    """The smallest standard range that holds 85 % of the ratios."""
    every = np.concatenate([d[np.isfinite(d)] for d in distances]) if distances else np.array([])
    needed = float(np.quantile(every, 0.85)) if every.size else 0.1
    return next((r for r in _RATIO_RANGES if needed <= r), _RATIO_RANGES[-1])
