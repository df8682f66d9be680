"""Calibration of the posteriors of single events, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hepbridge.report.plate import Plate, grid_of, new_figure
from hepbridge.report.unfolding import label_of, symbol_of

__all__ = ["calibration_plate"]

_LOOKS: tuple[
    tuple[str, Any], ...
] = (  # one for each observable: colours and lines that stay apart
    ("#0064b0", "-"),
    ("#b2182b", (0, (5, 1.5))),
    ("#e69f00", (0, (5, 1.2, 1, 1.2))),
    ("#009e73", (0, (3, 1, 1, 1, 1, 1))),
    ("#cc79a7", (0, (2, 1))),
    ("#56b4e9", (0, (8, 2))),
    ("#7f5f3f", (0, (1, 1))),
)


def calibration_plate(found: Mapping[str, Mapping[str, Any]]) -> Plate:
    """Calibration curves, less the diagonal, and histograms of the ranks, for each candidate."""
    columns = list(dict.fromkeys(name for rows in found.values() for name in rows))
    looks = {name: _LOOKS[k % len(_LOOKS)] for k, name in enumerate(columns)}
    width, height = 9.6, 0.55 + 3.1 * len(found)
    figure = new_figure(width, height)
    grid = grid_of(
        figure,
        len(found),
        2,
        left=0.78,
        right=0.15,
        bottom=0.5,
        top=0.62,
        wspace=0.24,
        hspace=0.4,
    )
    for k, (who, rows) in enumerate(found.items()):
        axes = figure.add_subplot(grid[k, 0]), figure.add_subplot(grid[k, 1])
        _curves(axes[0], rows, looks)
        _ranks(axes[1], rows, looks)
        axes[0].set_title(who, fontsize=9.5, loc="left", pad=3)
    handles: list[Any] = [
        Line2D([], [], color=colour, linestyle=line, label=symbol_of(name))
        for name, (colour, line) in looks.items()
    ]
    handles.append(Patch(facecolor="#cfcfcf", label="calibrated, ±1σ and ±2σ"))
    figure.legend(
        handles=handles,
        loc="upper left",
        ncols=len(handles),
        bbox_to_anchor=(0.7 / width, 1.0),
        handlelength=2.6,
    )
    return Plate(
        "calibration",
        "Calibration of the posteriors",
        "Left: fraction of events whose true value lies below a quantile of their posterior, less that "
        "quantile: above zero at small and below it at large quantiles means posteriors that are too narrow, "
        "the reverse too wide, one sign throughout a shift. Right: the ranks of the truth among the samples of "
        "the posterior; flat if calibrated, ∪ if too narrow, ∩ if too wide. Bands: one and two standard "
        "deviations of a calibrated posterior.",
        f"Calibration curves and ranks of {', '.join(label_of(n).lower() for n in columns)}.",
        figure,
    )


def _curves(ax: Axes, rows: Mapping[str, Any], looks: Mapping[str, Any]) -> None:
    first = next(iter(rows.values()))
    levels, band = np.asarray(first["levels"]), np.asarray(first["band"])
    for k, shade in ((2, "#e6e6e6"), (1, "#cfcfcf")):
        ax.fill_between(levels, -k * band, k * band, color=shade, linewidth=0, zorder=1)
    ax.axhline(0, color="#3d3d3d", linewidth=0.8, zorder=2)
    for name, row in rows.items():
        colour, line = looks[name]
        difference = np.asarray(row["curve"]) - np.asarray(row["levels"])
        ax.plot(row["levels"], difference, color=colour, linestyle=line, linewidth=1.3, zorder=3)
    ax.set_xlim(0, 1)
    reach = 1.1 * max(abs(v) for v in ax.get_ylim())
    ax.set_ylim(-reach, reach)
    ax.set_xlabel("Quantile of the posterior")
    ax.set_ylabel("Fraction of truth below − quantile")


def _ranks(ax: Axes, rows: Mapping[str, Any], looks: Mapping[str, Any]) -> None:
    first = next(iter(rows.values()))
    bins = len(first["counts"])
    edges = np.linspace(0, 1, bins + 1)
    sigma = np.sqrt(bins * (1 - 1 / bins) / first["n_effective"])
    for k, shade in ((2, "#e6e6e6"), (1, "#cfcfcf")):
        ax.axhspan(1 - k * sigma, 1 + k * sigma, color=shade, linewidth=0, zorder=1)
    ax.axhline(1, color="#3d3d3d", linewidth=0.8, zorder=2)
    for name, row in rows.items():
        colour, line = looks[name]
        ax.stairs(
            row["counts"],
            edges,
            baseline=None,
            color=colour,
            linestyle=line,
            linewidth=1.3,
            zorder=3,
        )
    ax.set_xlim(0, 1)
    reach = 1.1 * max(abs(v - 1) for v in ax.get_ylim())
    ax.set_ylim(max(0.0, 1 - reach), 1 + reach)
    ax.set_xlabel("Rank of the truth among the samples")
    ax.set_ylabel("Events / bin, relative to uniform")
