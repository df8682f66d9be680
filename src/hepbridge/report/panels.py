"""One panel of a figure: a histogram with its ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from hepbridge.core.units import GEV
from hepbridge.metrics.observables import HIT_THRESHOLD, OBSERVABLES
from hepbridge.report.histograms import (
    Array,
    Binned,
    band,
    bin_edges,
    cell_spectrum,
    profile,
    ratio,
    shower_distribution,
    spectrum_edges,
)
from hepbridge.report.samples import DrawnSet
from hepbridge.report.strokes import ratio_points, shade, steps
from hepbridge.report.style import FLOOR, REFERENCE, Style
from hepbridge.report.text import percent, plus_minus

__all__ = ["PANELS", "Histograms", "Panel", "draw_histogram", "histograms"]

_LEGEND_LINE_IN = 0.163  # height of one legend line at the font size of style.RC
_RATIO_RANGES = (0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class Panel:
    """How one panel is drawn. ``row`` is its row in the tables of the evaluation."""

    row: str
    x_label: str
    y_label: str = "Fraction of showers / bin"
    axis: str | None = None  # profiles
    spectrum: bool = False  # cells, both axes logarithmic
    log_y: bool = False
    integer: bool = False
    threshold_mev: float = HIT_THRESHOLD  # drawn in a spectrum

    def binned(self, samples: Sequence[Any]) -> list[Binned]:
        """All samples in the same bins; the first is the reference, which sets the range."""
        if self.axis is not None:
            return [profile(s, self.axis) for s in samples]
        if self.spectrum:
            edges = spectrum_edges(samples)
            return [cell_spectrum(s, edges) for s in samples]
        entries = [OBSERVABLES[self.row].entries(s) for s in samples]
        values = [e.values.astype(np.float64) for e in entries]
        edges = bin_edges(values[0], values[1:], integer=self.integer)
        return [
            shower_distribution(v, s.weights, edges) for v, s in zip(values, samples, strict=True)
        ]


PANELS = {
    "e_sum": Panel("e_sum", r"Energy sum $E_\mathrm{sum}$ [GeV]"),
    "e_ratio": Panel("e_ratio", r"$E_\mathrm{sum}\,/\,E_\mathrm{inc}$"),
    "e_max": Panel("e_max", "Largest cell energy [GeV]"),
    "n_hit": Panel("n_hit", "Number of cells above 1 MeV", integer=True),
    "e_spec": Panel(
        "e_spec_log", "Cell energy [GeV]", "Cells per shower / bin", spectrum=True, log_y=True
    ),
    "profile_x": Panel("profile_x", "x [cells]", "Fraction of energy", axis="x", log_y=True),
    "profile_y": Panel("profile_y", "y [cells]", "Fraction of energy", axis="y", log_y=True),
}


@dataclass(frozen=True)
class Histograms:
    """The bins of one panel; ``bands`` holds mean and spread of each ensemble."""

    ref: Binned
    candidates: dict[str, Binned]
    second: Binned | None
    bands: dict[str, tuple[Array, Array]]

    def ratio_range(self) -> float:
        """The smallest standard range that holds 85 % of the well measured ratios."""
        distances = [
            np.abs(value - 1)[(np.hypot(error, ref_error) < 0.25) & np.isfinite(value)]
            for value, error, ref_error in (ratio(b, self.ref) for b in self.candidates.values())
        ]
        every = np.concatenate(distances) if distances else np.array([])
        needed = float(np.quantile(every, 0.85)) if every.size else 0.5
        return next((r for r in _RATIO_RANGES if needed <= r), _RATIO_RANGES[-1])


def histograms(panel: Panel, drawn: DrawnSet, styles: dict[str, Style]) -> Histograms:
    """The samples of a set that have a style, in the bins of a panel."""
    samples = drawn.samples
    shown = {name: samples.candidates[name] for name in styles if name in samples.candidates}
    twin = samples.ref2
    members = [(n, m) for n in shown for m in drawn.bands.get(n, [])]
    every = [
        samples.ref,
        *shown.values(),
        *([twin] if twin is not None else []),
        *(m for _, m in members),
    ]
    binned = panel.binned(every)
    ref, candidates = binned[0], dict(zip(shown, binned[1 : 1 + len(shown)], strict=True))
    second = binned[1 + len(shown)] if twin is not None else None
    ensemble = binned[len(binned) - len(members) :]
    bands = {
        n: band([b for (name, _), b in zip(members, ensemble, strict=True) if name == n])
        for n in dict.fromkeys(name for name, _ in members)
    }
    return Histograms(ref, candidates, second, bands)


def draw_histogram(
    axes: tuple[Axes, Axes],
    panel: Panel,
    found: Histograms,
    drawn: DrawnSet,
    styles: dict[str, Style],
    half: float,
) -> str:
    """Distributions above, candidate / reference from 1 − ``half`` to 1 + ``half`` below.

    Returns in words what lies outside.
    """
    top, bottom = axes
    ref, candidates, second, bands = found.ref, found.candidates, found.second, found.bands

    mplhep.histplot(
        ref.values,
        ref.edges,
        ax=top,
        histtype="fill",
        facecolor=REFERENCE.fill,
        zorder=REFERENCE.front,
    )
    steps(top, ref.edges, ref.values, REFERENCE, 1.0)
    for name, b in candidates.items():
        if name in bands:
            shade(top, b.edges, *bands[name], styles[name].colour)
        steps(top, b.edges, b.values, styles[name], 1.5)
    free = _limits(top, panel, [ref, *candidates.values()], 2 + len(candidates))
    _legend(top, panel, drawn, list(candidates), styles)

    one, _, ref_error = ratio(ref, ref)
    known = one * ref.values  # NaN where there is no ratio
    shade(bottom, ref.edges, one, ref_error, "#9a9a9a", 0.45)
    bottom.axhline(1.0, color=REFERENCE.colour, linewidth=0.8, zorder=2)
    points = {n: ratio(b, ref)[:2] for n, b in candidates.items()}
    middles = np.sqrt(ref.edges[1:] * ref.edges[:-1]) if panel.spectrum else ref.centres
    if second is not None:
        steps(bottom, ref.edges, ratio(second, ref)[0], FLOOR, 0.9)
    for name, (value, error) in points.items():
        if name in bands:
            mean, spread = bands[name]
            shade(
                bottom,
                ref.edges,
                mean / known,
                spread / known,
                styles[name].colour,
            )
        ratio_points(bottom, middles, value, error, styles[name], half)
    bottom.set_ylim(1 - half, 1 + half)
    bottom.set_yticks([1 - half / 2, 1, 1 + half / 2])
    bottom.yaxis.set_minor_locator(NullLocator())
    bottom.set_xlabel(panel.x_label)
    for ax in axes:
        ax.set_xlim(ref.edges[0], ref.edges[-1])
        if panel.spectrum:
            ax.set_xscale("log")
            ax.axvline(
                panel.threshold_mev / GEV,
                ymax=free if ax is top else 1.0,
                color="#3d3d3d",
                linewidth=0.9,
                linestyle=(0, (4, 3)),
                zorder=2,
            )
        elif panel.axis is None:
            ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    top.tick_params(labelbottom=False)
    if panel.spectrum:
        top.annotate(
            f"{panel.threshold_mev:g} MeV",
            (panel.threshold_mev / GEV, 0.02),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=8,
            color="#3d3d3d",
        )
    return _outside(panel, {"full": ref, **candidates})


def _figure(ax: Axes) -> Figure:
    """The figure of axes that are not in a subfigure."""
    return cast(Figure, ax.get_figure())


def _limits(ax: Axes, panel: Panel, drawn: Sequence[Binned], lines: int) -> float:
    """Room above the data for a legend of so many lines, so that it can never cover a curve.

    Returns the height of the data as a fraction of the axes.
    """
    height = _figure(ax).get_size_inches()[1] * ax.get_position().height
    free = float(1 - min(0.6, (lines * _LEGEND_LINE_IN + 0.15) / height))
    peak = max(float(b.values.max()) for b in drawn)
    if not panel.log_y:
        ax.set_ylim(0, peak * 1.04 / free)
        return free
    low = float(drawn[0].values[drawn[0].values > 0].min()) / 3
    ax.set_yscale("log")
    ax.set_ylim(low, low * (peak * 1.2 / low) ** (1 / free))
    decades = np.arange(np.ceil(np.log10(low)), np.floor(np.log10(peak * 1.2)) + 1)
    ax.set_yticks(10.0**decades)
    minor = np.outer(10.0 ** np.arange(decades[0] - 1, decades[-1] + 1), np.arange(2, 10)).reshape(
        -1
    )
    ax.set_yticks(minor[(minor > low) & (minor < peak * 1.2)], minor=True)
    ax.yaxis.set_minor_formatter(NullFormatter())
    return free


def _legend(
    ax: Axes, panel: Panel, drawn: DrawnSet, shown: Sequence[str], styles: dict[str, Style]
) -> None:
    row = drawn.rows.get(panel.row)
    title, floor = "", ""
    if row is not None:
        title = (
            f"EMD to full simulation [{row['unit']}]" if row["unit"] else "EMD to full simulation"
        )
        floor = (
            f" (floor {plus_minus(row['floor']['mean'], row['floor']['std'])})"
            if row["floor"]
            else " (no floor)"
        )
    handles: list[Any] = [Patch(facecolor=REFERENCE.fill, edgecolor=REFERENCE.colour)]
    labels = [f"Full simulation{floor}"]
    for name in shown:
        handles.append(
            ax.plot([], [], color=styles[name].colour, linestyle=styles[name].line, linewidth=1.5)[
                0
            ]
        )
        cell = None if row is None else row["candidates"].get(name)
        labels.append(name if cell is None else f"{name}: {plus_minus(cell['emd'], cell['sigma'])}")
    legend = ax.legend(handles, labels, title=title, loc="upper left", alignment="left")
    legend.set_zorder(20)


def _outside(panel: Panel, drawn: dict[str, Binned]) -> str:
    """``gflash 3.1 % below``: only what is more than 1 %, and no cells below the spectrum."""
    parts = [
        f"{name} {percent(fraction)} {side}"
        for name, b in drawn.items()
        for fraction, side in ((b.below, "below"), (b.above, "above"))
        if fraction > 0.01 and not (panel.spectrum and side == "below")
    ]
    return ", ".join(parts)
