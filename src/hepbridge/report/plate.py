"""A figure of the report with its words."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["Plate", "new_figure"]


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
