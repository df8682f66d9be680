"""AUC of the classifier tests against the number of showers that the classifier learned from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from hepbridge.report.plate import Plate, new_figure
from hepbridge.report.style import FLOOR, Style

__all__ = ["KEY", "learning_curves"]

KEY = "classifier_curves"

_COLUMN_IN, _ROW_IN = 2.75, 2.05
_DODGE = 1.05  # factor in n between neighbouring candidates, so that their bars do not overlap
_CAPTION = (
    "AUC of each classifier test against the number of showers per class that the classifier was "
    "trained on, with its standard error; points are shifted sideways for legibility. {floor}A "
    "curve that still rises says that more showers would tell the candidate apart better: its last "
    "point is a lower bound of what there is to see. The smaller training sets are of one "
    "cross-validation, the largest is the mean of all seeds.{outside}"
)
_FLOOR = "Dotted with grey band: the floor, full simulation against full simulation. "


def learning_curves(
    record: Mapping[str, Any], styles: Mapping[str, Style], fast: str | None
) -> Iterator[Plate]:
    """One plate with a panel per set, classifier and level; none without learning curves.

    All panels share the axis of the AUC, which is chosen for the candidates other than ``fast``;
    a triangle at the edge stands for a point above it.
    """
    tests = _tests(record)
    if not any(len(t["curve"]) > 1 for _, found in tests for t in found.values()):
        return
    columns = len(record["sets"]) if len(record["sets"]) > 1 else len(tests)
    rows = len(tests) // columns
    low, high = _range([found for _, found in tests], fast)
    width, height = 0.75 + _COLUMN_IN * columns, 0.9 + _ROW_IN * rows
    figure = new_figure(width, height)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    outside: dict[str, float] = {}
    for ax, (title, found) in zip(axes.flat, tests, strict=True):
        ax.set_title(title, loc="left", fontsize=9)
        ax.axhline(0.5, color="#3d3d3d", linewidth=0.6, zorder=1)
        _floor(ax, next(iter(found.values()))["floor_curve"])
        for place, (name, test) in enumerate(found.items()):
            shift = _DODGE ** (place - (len(found) - 1) / 2)
            if _curve(ax, test["curve"], styles[name], shift, high):
                outside[name] = min(test["auc"], outside.get(name, 1.0))
        _count_axis(ax, [p["n"] for t in found.values() for p in t["curve"]])
        ax.set_ylim(low, high)
    for ax in axes[:, 0]:
        ax.set_ylabel("AUC")
    for ax in axes[-1]:
        ax.set_xlabel("Training showers per class")
    shown = [name for name in styles if any(name in found for _, found in tests)]
    with_floor = any(t["floor_curve"] for _, found in tests for t in found.values())
    handles = [_key(name, styles[name]) for name in shown]
    handles += [_key("floor", FLOOR)] if with_floor else []
    figure.legend(handles=handles, loc="upper left", ncols=len(handles), bbox_to_anchor=(0.0, 1.0))
    figure.subplots_adjust(
        left=0.62 / width,
        right=1 - 0.15 / width,
        bottom=0.48 / height,
        top=1 - 0.52 / height,
        wspace=0.08,
        hspace=0.36,
    )
    words = ", ".join(f"{name} (AUC {auc:.2f} or more)" for name, auc in outside.items())
    caption = _CAPTION.format(
        floor=_FLOOR if with_floor else "",
        outside=f" Triangles: above the drawn range: {words}." if outside else "",
    )
    alt = (
        f"Learning curves of the classifier tests, AUC of {', '.join(shown)} against the training "
        f"size, in {len(tests)} panels; the numbers are in the table."
    )
    yield Plate(KEY, "Learning curves of the classifiers", caption, alt, figure)


def _tests(record: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(title, candidate -> test) of every panel: classifiers and levels down, sets across."""
    sets = record["sets"]
    kinds = {
        (kind, level): None
        for entry in sets
        for tested in entry["classifier"].values()
        for kind, levels in tested.items()
        for level in levels
    }
    return [
        (
            f"{entry['label']}: {kind}, {level} level",
            {name: tested[kind][level] for name, tested in entry["classifier"].items()},
        )
        for kind, level in kinds
        for entry in sets
    ]


def _range(panels: Sequence[Mapping[str, Any]], fast: str | None) -> tuple[float, float]:
    """Limits of the AUC: all candidates but the fast one, the floors, and 0.5."""
    drawn = [
        points
        for panel in panels
        for name, test in panel.items()
        for points in (
            test["curve"] if name != fast or len(panel) == 1 else [],
            test["floor_curve"],
        )
        if points
    ]
    ends = [p["auc"] + side * p["se"] for points in drawn for p in points for side in (-1, 1)]
    low, high = min([0.5, *ends]), max([0.5, *ends])
    pad = 0.08 * (high - low)
    return low - pad, high + pad


def _floor(ax: Axes, points: Sequence[Mapping[str, float]] | None) -> None:
    if not points:
        return
    n, auc, se = (np.array([p[key] for p in points], dtype=float) for key in ("n", "auc", "se"))
    wide = np.concatenate([[n[0] / 2], n, [n[-1] * 2]])  # beyond the panel on both sides
    auc, se = np.pad(auc, 1, mode="edge"), np.pad(se, 1, mode="edge")
    ax.fill_between(wide, auc - se, auc + se, color="#9a9a9a", alpha=0.45, linewidth=0, zorder=1)
    ax.plot(wide, auc, color=FLOOR.colour, linestyle=FLOOR.line, linewidth=0.9, zorder=2)


def _curve(
    ax: Axes, points: Sequence[Mapping[str, float]], style: Style, shift: float, high: float
) -> bool:
    """Draw the points inside the panel, and triangles for those above; True if there are any."""
    n, auc, se = (np.array([p[key] for p in points], dtype=float) for key in ("n", "auc", "se"))
    n *= shift
    above = auc > high
    ax.errorbar(
        n,
        np.where(above, np.nan, auc),
        se,
        color=style.colour,
        linestyle=style.line,
        linewidth=1.1,
        marker=style.marker,
        markersize=4,
        elinewidth=0.9,
        zorder=style.front,
    )
    ax.plot(
        n[above],
        np.full(above.sum(), high),
        color=style.colour,
        linestyle="none",
        marker=6,
        markersize=5.5,
        zorder=style.front,
        clip_on=False,
    )
    return bool(above.any())


def _count_axis(ax: Axes, sizes: Sequence[int]) -> None:
    """A logarithmic axis with ticks at the training sizes."""
    ticks = sorted(set(sizes))
    ax.set_xscale("log")
    ax.set_xticks(ticks, labels=[f"{n:,}" for n in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(ticks[0] / 1.35, ticks[-1] * 1.35)


def _key(label: str, style: Style) -> Line2D:
    """The entry of a sample in the legend."""
    return Line2D(
        [],
        [],
        color=style.colour,
        linestyle=style.line,
        marker=style.marker,
        markersize=4,
        linewidth=1.1,
        label=label,
    )
