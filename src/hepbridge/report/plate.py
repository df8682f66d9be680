"""A figure of the report with its words, and as a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.ticker import NullLocator

from hepbridge.core.errors import OutputError
from hepbridge.core.files import atomic_path, check_output
from hepbridge.report.style import RC

__all__ = [
    "Plate",
    "check_picture",
    "grid_of",
    "new_figure",
    "plain_walls",
    "side_by_side",
    "small_multiples",
    "write_picture",
]

_FORMATS = ("png", "pdf", "svg")


@dataclass(frozen=True)
class Plate:
    """A figure with its words. ``figure`` is None for one that these data do not allow."""

    key: str
    title: str
    caption: str
    alt: str = ""
    figure: Figure | None = None


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches that no window belongs to."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def grid_of(
    figure: Figure,
    lines: int,
    columns: int,
    *,
    left: float,
    right: float,
    bottom: float,
    top: float,
    **spaces: Any,
) -> GridSpec:
    """Places for axes, with margins in inches, so that labels fit whatever the size of the figure."""
    width, height = figure.get_size_inches()
    return figure.add_gridspec(
        lines,
        columns,
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        **spaces,
    )


def small_multiples(
    count: int,
    *,
    panel: tuple[float, float],
    around: tuple[float, float],
    most: int = 3,
    **margins: float,
) -> tuple[Figure, list[SubplotSpec], int]:
    """A figure with places for ``count`` panels, row by row, at most ``most`` side by side, few left empty.

    ``panel``: width and height of a place, ``around``: what is added once for all; inches, as the margins
    of `grid_of`. Returns the figure, the places, and how many stand side by side.
    """
    columns = side_by_side(count, most)
    lines = -(-count // columns)
    figure = new_figure(around[0] + panel[0] * columns, around[1] + panel[1] * lines)
    grid = grid_of(figure, lines, columns, **margins)
    return figure, [grid[k // columns, k % columns] for k in range(count)], columns


def side_by_side(count: int, most: int = 3) -> int:
    """How many of ``count`` panels stand in a row: as many as allowed, with rows of nearly equal length."""
    return -(-count // -(-count // most))


def plain_walls(ax: Any) -> None:
    """Light walls, a thin grid and small labels for axes in three dimensions."""
    for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
        axis.pane.set_facecolor("#f7f7f7")
        axis.pane.set_edgecolor("#d0d0d0")
        axis._axinfo["grid"].update(color="#e2e2e2", linewidth=0.5)
        axis.set_minor_locator(NullLocator())
        axis.label.set_size(8.5)
    ax.tick_params(labelsize=7.5, pad=-1)


def check_picture(path: str | Path, *, overwrite: bool = False) -> Path:
    """The path, if a picture may be written there; call it before long work.

    Raises OutputError as `check_output` does, and for a suffix other than .png, .pdf and .svg.
    """
    path = check_output(path, overwrite=overwrite)
    if path.suffix.lower().removeprefix(".") not in _FORMATS:
        raise OutputError(
            f"cannot write {path}: a picture ends in .{', .'.join(_FORMATS[:-1])} or "
            f".{_FORMATS[-1]}"
        )
    return path


def write_picture(
    draw: Callable[[], Plate], path: str | Path, *, dpi: float = 150, overwrite: bool = False
) -> Plate:
    """Draw in the style of the report and write the figure to a file, complete or not at all.

    Raises OutputError as `check_picture` does, and what ``draw`` raises.
    """
    path = check_picture(path, overwrite=overwrite)
    with matplotlib.rc_context(cast(Any, RC)):
        plate = draw()
        assert plate.figure is not None  # pictures of their own always have one
        with atomic_path(path, overwrite=overwrite) as temporary:
            plate.figure.savefig(temporary, dpi=dpi, format=path.suffix.lower().removeprefix("."))
    return plate
