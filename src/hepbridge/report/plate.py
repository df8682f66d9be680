"""A figure of the report with its words, and as a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hepbridge.core.errors import OutputError
from hepbridge.core.files import atomic_path, check_output
from hepbridge.report.style import RC

__all__ = ["Plate", "check_picture", "new_figure", "write_picture"]

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
