"""Histograms of what an evaluation of any calorimeter compares, as panels of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepbridge.core.units import GEV
from hepbridge.metrics.shapes.rows import Value, shape_rows
from hepbridge.metrics.shapes.shapes import Shapes
from hepbridge.report.histograms import (
    Array,
    Binned,
    bin_edges,
    ratio_of_sums,
    shower_distribution,
)
from hepbridge.report.panels import Panel

__all__ = ["LayerPanel", "RadialPanel", "SpectrumPanel", "ValuePanel", "shape_panels"]

_BINS_PER_DECADE = 8
_DECADES = 4.0  # of the radial profile that are drawn


@dataclass(frozen=True)
class ValuePanel(Panel):
    """One number per shower; showers without energy are not drawn where they do not have it."""

    mixed: bool = False

    def binned(self, samples: Sequence[Any]) -> list[Binned]:
        """All samples in the same bins; the first is the reference, which sets the range."""
        rows = {row.name: row for row in shape_rows(samples[0], mixed=self.mixed)}
        row = rows[self.row]
        assert isinstance(row, Value)
        entries = [row.entries(s) for s in samples]
        values = [e.values.astype(np.float64) for e in entries]
        edges = bin_edges(values[0], values[1:], integer=self.integer)
        return [
            shower_distribution(v, _weights(e.weights, e.owner), edges)
            for v, e in zip(values, entries, strict=True)
        ]


@dataclass(frozen=True)
class SpectrumPanel(Panel):
    """Cells per shower and bin of cell energy, of the showers that were kept."""

    def binned(self, samples: Sequence[Any]) -> list[Binned]:
        """All samples in logarithmic bins from a tenth of the threshold to the largest cell."""
        top = max(float(s.kept.energy.max(initial=0.0)) for s in samples) / GEV
        low = 0.1 * self.threshold_mev / GEV
        decades = np.log10(max(top, 10 * low) / low)
        count = int(np.ceil(decades * _BINS_PER_DECADE))
        edges = low * 10.0 ** (np.arange(count + 1) / _BINS_PER_DECADE)
        return [_spectrum(s, edges) for s in samples]


@dataclass(frozen=True)
class LayerPanel(Panel):
    """Fraction of the sample's energy in each layer."""

    def binned(self, samples: Sequence[Any]) -> list[Binned]:
        """All samples in the layers."""
        found = []
        for s in samples:
            values, sigma = ratio_of_sums(s.layers, s.layers.sum(axis=1), s.weights)
            found.append(Binned(s.layout.z_edges, values, sigma))
        return found


@dataclass(frozen=True)
class RadialPanel(Panel):
    """(1/E) dE/dr over four decades."""

    def binned(self, samples: Sequence[Any]) -> list[Binned]:
        """All samples in the rings, as far out as the reference fills four decades."""
        edges = samples[0].layout.r_edges
        width = np.diff(edges)
        found = []
        for s in samples:
            values, sigma = ratio_of_sums(s.rings, s.rings.sum(axis=1), s.weights)
            found.append((values / width, sigma / width))
        first = found[0][0]
        last = int(np.flatnonzero(first > first.max() * 10**-_DECADES)[-1]) + 1
        return [Binned(edges[: last + 1], v[:last], e[:last]) for v, e in found]


def shape_panels(shapes: Shapes, *, mixed: bool) -> dict[str, Panel]:
    """Name of the row -> its panel."""
    threshold, z = shapes.threshold_mev, shapes.layout.z_unit
    depth = "Depth [mm]" if z == "mm" else "Layer"
    panels: dict[str, Panel] = {
        "e_sum": ValuePanel("e_sum", r"Energy sum $E_\mathrm{sum}$ [GeV]"),
        "e_ratio": ValuePanel("e_ratio", r"$E_\mathrm{sum}\,/\,E_\mathrm{inc}$", mixed=True),
        "e_max": ValuePanel(
            "e_max",
            r"Largest cell $E_\mathrm{max}\,/\,E_\mathrm{inc}$"
            if mixed
            else "Largest cell energy [GeV]",
            mixed=mixed,
        ),
        "hits": ValuePanel("hits", f"Number of cells above {threshold:g} MeV", integer=True),
        "e_spec": SpectrumPanel(
            "e_spec_log",
            "Cell energy [GeV]",
            "Cells per shower / bin",
            spectrum=True,
            log_y=True,
            threshold_mev=threshold or 1e-3,
        ),
        "profile_r": RadialPanel(
            "profile_r",
            "Distance from the axis [mm]",
            r"$(1/E)\;\mathrm{d}E/\mathrm{d}r$ [mm$^{-1}$]",
            axis="r",
            log_y=True,
        ),
    }
    if shapes.layout.n_layers > 1:
        panels["profile_z"] = LayerPanel("profile_z", depth, "Fraction of energy", axis="z")
    for kind, words in (("centre", "Centre of energy"), ("width", "Width")):
        for axis in ("x", "y", "z"):
            unit = "layers" if axis == "z" and z != "mm" else "mm"
            along = "depth" if axis == "z" else axis
            name = f"{kind}_{axis}"
            panels[name] = ValuePanel(name, f"{words} in {along} [{unit}]")
    return panels


def _weights(weights: Array | None, owner: Any) -> Array | None:
    return weights if weights is None or owner is None else weights[owner]


def _spectrum(shapes: Shapes, edges: Array) -> Binned:
    """Mean number of cells per kept shower and bin, with the scatter between showers."""
    kept, n, bins = shapes.kept, len(shapes.kept), len(edges) - 1
    index = np.searchsorted(edges, kept.energy / GEV, side="right") - 1
    index[kept.energy / GEV == edges[-1]] = bins - 1
    inside = (index >= 0) & (index < bins)
    flat = kept.owner[inside] * bins + index[inside]
    counts = np.bincount(flat, minlength=n * bins).reshape(n, bins).astype(np.float64)
    weights = None if shapes.weights is None else shapes.weights[shapes.kept_rows]
    values, sigma = ratio_of_sums(counts, np.ones(n), weights)
    every = max(1, len(kept.energy))
    return Binned(edges, values, sigma, (index < 0).sum() / every, (index >= bins).sum() / every)
