"""Figures of an unfolding: every observable with its ratio to the truth, and where the data lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from hepbridge.data.tables import Table
from hepbridge.metrics.unfolding.observables import Observable, Values, values_of
from hepbridge.report.histograms import Array, Binned, bin_edges, ratio, shower_distribution
from hepbridge.report.plate import Plate, side_by_side, small_multiples
from hepbridge.report.strokes import ratio_points, shade, steps
from hepbridge.report.style import REFERENCE, Style
from hepbridge.report.text import percent
from hepbridge.report.unfolding import axis_label, label_of

__all__ = ["observable_plate", "support_plate"]

_RANGES = (0.1, 0.2, 0.5, 1.0)  # half of the ratio's axis
_MANY = 20_000  # events from which on bins are narrow
_DATA = Style("#b2182b", marker="s", front=4)


def observable_plate(
    truth: Table,
    shown: Mapping[str, Table],
    styles: Mapping[str, Style],
    observables: Sequence[Observable],
) -> Plate:
    """Distributions above, ratio to the truth below, for each observable; weights are respected."""
    entry = 0.75 + 0.075 * max(map(len, ["Truth", *shown]))  # of the legend, inches
    in_line = max(1, int((3.75 * side_by_side(len(observables)) - 0.3) / entry))
    legend = 0.22 * -(-(1 + len(shown)) // in_line)
    figure, places, columns = small_multiples(
        len(observables),
        panel=(3.75, 3.7),
        around=(0.3, 0.28 + legend),
        left=0.68,
        right=0.12,
        bottom=0.5,
        top=0.23 + legend,
        wspace=0.27,
        hspace=0.18,
    )
    outside: list[str] = []
    for k, observable in enumerate(observables):
        place = places[k].subgridspec(2, 1, height_ratios=(2, 1), hspace=0.05)
        axes = figure.add_subplot(place[0]), figure.add_subplot(place[1])
        outside += _panel(axes, observable, truth, shown, styles)
        if k % columns == 0:
            axes[0].set_ylabel("Fraction of events / bin")
            axes[1].set_ylabel("Ratio")
    handles: list[Any] = [
        Patch(facecolor=REFERENCE.fill, edgecolor=REFERENCE.colour, label="Truth")
    ]
    for name in shown:
        style = styles[name]
        handles.append(
            Line2D(
                [],
                [],
                color=style.colour,
                linestyle=style.line,
                marker=style.marker,
                markersize=3.5,
                label=name,
            )
        )
    figure.legend(
        handles=handles,
        loc="upper left",
        ncols=min(in_line, len(handles)),
        bbox_to_anchor=(0.6 / figure.get_size_inches()[0], 1.0),
        handlelength=2.6,
    )
    lost = f" Outside the range of a panel: {'; '.join(outside)}." if outside else ""
    return Plate(
        "observables",
        "Distributions",
        "Particle level, normalised to all events, also those without a value. Lower panels: ratio to the "
        "truth with the statistical error of the sample; grey band: that of the truth; triangles point to "
        f"values outside; where the truth is not known to 50 % there is no ratio.{lost}",
        f"Distributions of {', '.join(label_of(o.name).lower() for o in observables)} with ratio panels.",
        figure,
    )


def _panel(
    axes: tuple[Axes, Axes],
    observable: Observable,
    truth: Table,
    shown: Mapping[str, Table],
    styles: Mapping[str, Style],
) -> list[str]:
    """One observable; returns what lies outside, in words."""
    top, bottom = axes
    ref = values_of(truth, observable, "the truth")
    found = {name: values_of(table, observable, name) for name, table in shown.items()}
    edges = _edges(ref.x, [v.x for v in found.values()])
    bars = {name: _binned(values, edges) for name, values in found.items()}
    base = _binned(ref, edges)
    top.stairs(base.values, edges, fill=True, color=REFERENCE.fill, zorder=REFERENCE.front)
    steps(top, edges, base.values, REFERENCE, 1.0)
    one, _, error = ratio(base, base)
    shade(bottom, edges, one, error, "#9a9a9a", 0.45)
    bottom.axhline(1.0, color=REFERENCE.colour, linewidth=0.8, zorder=2)
    points = {name: ratio(b, base)[:2] for name, b in bars.items()}
    half = _half([points[name] for name in points])
    # points of different samples stand side by side in a bin
    shift = np.linspace(-0.25, 0.25, len(bars)) if len(bars) > 1 else np.zeros(1)
    for (name, b), off in zip(bars.items(), shift, strict=True):
        shade(top, edges, b.values, b.sigma, styles[name].colour, 0.18)
        steps(top, edges, b.values, styles[name], 1.4)
        places = base.centres + off * np.diff(edges)
        ratio_points(bottom, places, *points[name], styles[name], half)
    bottom.set_ylim(1 - half, 1 + half)
    bottom.set_yticks([1 - half / 2, 1, 1 + half / 2])
    bottom.yaxis.set_minor_locator(NullLocator())
    bottom.set_xlabel(axis_label(observable.name, observable.unit, observable.divisor))
    peak = max(float((b.values + b.sigma).max()) for b in (base, *bars.values()))
    top.set_ylim(0, 1.08 * peak)
    top.tick_params(labelbottom=False)
    for ax in axes:
        ax.set_xlim(edges[0], edges[-1])
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    return [
        f"{label_of(observable.name).lower()}, {who} {percent(part)} {side}"
        for who, b in {"truth": base, **bars}.items()
        for part, side in ((b.below, "below"), (b.above, "above"))
        if part > 0.01
    ]


def _binned(values: Values, edges: Array) -> Binned:
    """Fractions of all events, those without a value included."""
    b = shower_distribution(values.x, values.weights, edges)
    kept = 1.0 - values.undefined
    return replace(
        b,
        values=b.values * kept,
        sigma=b.sigma * kept,
        below=b.below * kept,
        above=b.above * kept,
    )


def _edges(ref: Array, others: Sequence[Array]) -> Array:
    """Equal bins; of few events half as many, so that four samples can be told apart in the ratio."""
    edges = bin_edges(ref, others, integer=_whole(ref))
    if len(ref) > _MANY:
        return edges
    width = 2 * (edges[1] - edges[0])
    return np.asarray(edges[0] + width * np.arange(np.ceil(len(edges) / 2) + 0.5))


def _whole(x: Array) -> bool:
    return bool((x == np.round(x)).all())


def _half(points: Sequence[tuple[Array, Array]]) -> float:
    """The smallest standard range that holds 85 % of the well measured ratios."""
    far = [np.abs(v - 1)[(e < 0.25) & np.isfinite(v)] for v, e in points]
    every = np.concatenate(far) if far else np.array([])
    needed = float(np.quantile(every, 0.85)) if every.size else 0.5
    return next((r for r in _RANGES if needed <= r), _RANGES[-1])


def support_plate(response: Table, data: Table, record: Mapping[str, Any]) -> Plate:
    """Each column of the data on that of the simulated detector level, with what lies beyond it."""
    names = list(record["columns"])
    figure, places, columns = small_multiples(
        len(names),
        panel=(3.75, 2.5),
        around=(0.3, 0.55),
        left=0.75,
        right=0.12,
        bottom=0.5,
        top=0.4,
        wspace=0.24,
        hspace=0.42,
    )
    for k, name in enumerate(names):
        _support_panel(figure, places[k], name, response, data, record["columns"][name])
        if k % columns == 0:
            figure.axes[-1].set_ylabel("Fraction of events / bin")
    handles = [
        Patch(facecolor=REFERENCE.fill, edgecolor=REFERENCE.colour, label="Simulated response"),
        Line2D(
            [], [], color=_DATA.colour, marker="s", markersize=3, linestyle="none", label="Data"
        ),
        Line2D(
            [], [], color=REFERENCE.colour, linestyle=(0, (4, 3)), label="End of the simulation"
        ),
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        ncols=3,
        bbox_to_anchor=(0.6 / figure.get_size_inches()[0], 1.0),
    )
    return Plate(
        "support",
        "Data and simulated detector level",
        "Detector level. Above each panel the number of data events beyond the smallest or largest "
        "simulated value, or without a value where every simulated event has one. There the response was "
        "never simulated.",
        "Histograms of data and simulated response at detector level.",
        figure,
    )


def _support_panel(
    figure: Any,
    place: SubplotSpec,
    name: str,
    response: Table,
    data: Table,
    row: Mapping[str, Any],
) -> None:
    ax = figure.add_subplot(place)
    unit = response.units[name]
    simulated = response.column(name)[response.is_defined(name)]
    seen = data.column(name, unit)[data.is_defined(name)]
    low, high = (float(f(np.append(seen, simulated))) for f in (np.min, np.max))
    edges = np.linspace(low, high, 41)
    if _whole(simulated):
        step = max(1, round((high - low) / 40))
        edges = np.arange(low, high + 1 + step, step) - 0.5
    base = shower_distribution(simulated, None, edges)
    ax.stairs(base.values, edges, fill=True, color=REFERENCE.fill)
    steps(ax, edges, base.values, REFERENCE, 1.0)
    if len(seen):
        b = shower_distribution(seen, None, edges)
        filled = b.values > 0
        ax.errorbar(
            b.centres[filled],
            b.values[filled],
            b.sigma[filled],
            color=_DATA.colour,
            linestyle="none",
            marker=_DATA.marker,
            markersize=2.4,
            elinewidth=0.8,
            zorder=_DATA.front,
        )
    for end in (row["low"], row["high"]):
        ax.axvline(end, color=REFERENCE.colour, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.set_yscale("log")
    drawn = base.values[base.values > 0]
    ax.set_ylim(0.5 * min(drawn.min(), 0.1 * drawn.max()), 3 * drawn.max())  # a decade at least
    span = 0.04 * (high - low)
    ax.set_xlim(low - span, high + span)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.set_xlabel(axis_label(name, unit))
    ax.yaxis.set_minor_formatter(NullFormatter())
    lost = (
        f"{row['outside']:,} outside ({percent(row['fraction'])})"
        if row["outside"]
        else "none outside"
    )
    ax.set_title(lost, fontsize=9, loc="right", pad=3)
