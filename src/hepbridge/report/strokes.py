"""The strokes of a histogram with its ratio: steps, bands, and points that stay in their panel."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from hepbridge.report.histograms import Array
from hepbridge.report.style import Style

__all__ = ["ratio_points", "shade", "steps"]


def steps(ax: Axes, edges: Array, values: Array, style: Style, width: float) -> None:
    """The outline of a histogram."""
    ax.stairs(
        values,
        edges,
        color=style.colour,
        linestyle=style.line,
        linewidth=width,
        zorder=style.front,
        baseline=None,
    )


def shade(
    ax: Axes, edges: Array, centre: Array, half: Array, colour: str, alpha: float = 0.25
) -> None:
    """A band of ``centre`` ± ``half`` in every bin."""
    low, high = centre - half, centre + half
    ax.fill_between(
        edges,
        np.append(low, low[-1]),
        np.append(high, high[-1]),
        step="post",
        color=colour,
        alpha=alpha,
        linewidth=0,
        zorder=2,
    )


def ratio_points(
    ax: Axes, centres: Array, value: Array, error: Array, style: Style, half: float
) -> None:
    """Ratios with their errors; those outside 1 ± ``half`` are arrows at the border."""
    inside = np.isfinite(value) & (np.abs(value - 1) <= half)
    ax.errorbar(
        centres[inside],
        value[inside],
        error[inside],
        color=style.colour,
        linestyle="none",
        marker=style.marker,
        markersize=2.6,
        elinewidth=0.8,
        zorder=style.front,
    )
    for outside, edge, marker in ((value > 1 + half, 1 + half, 6), (value < 1 - half, 1 - half, 7)):
        ax.plot(
            centres[outside],
            np.full(outside.sum(), edge),
            color=style.colour,
            linestyle="none",
            marker=marker,
            markersize=4.5,
            zorder=style.front,
            clip_on=False,
        )
