"""Where candidates stand among the published entries of a protocol, as a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.lines import Line2D

from hepbridge.report.plate import Plate, new_figure
from hepbridge.report.protocol import NAMES, Record
from hepbridge.report.style import REFERENCE, Style

__all__ = ["places_plate"]

_WIDTH = 8.6  # inches
_GREY = "#8a8a8a"
_GEANT4 = "GEANT4"  # full simulation among the published entries


def places_plate(record: Record, styles: Mapping[str, Style]) -> Plate:
    """One line for each published metric, from its smallest value to its largest.

    For a ``record`` that has published entries; every candidate then has a ``ranking``.
    """
    entries = record["published"]["entries"]
    rankings = {name: record["candidates"][name]["ranking"] for name in styles}
    metrics = list(dict.fromkeys(m for ranking in rankings.values() for m in ranking))
    height = 0.9 + 0.36 * len(metrics)
    figure = new_figure(_WIDTH, height)
    ax = figure.add_axes((1.45 / _WIDTH, 0.48 / height, 6.95 / _WIDTH, 1 - 0.95 / height))
    for line, metric in enumerate(metrics):
        theirs = {name: row[metric] for name, row in entries.items() if metric in row}
        mine = {name: r[metric]["value"] for name, r in rankings.items() if metric in r}
        place = _scale([*theirs.values(), *mine.values()], linear=metric.startswith("auc"))
        ax.axhline(line, color="#e2e2e2", linewidth=0.8, zorder=1)
        for name, value in theirs.items():
            if name != _GEANT4:
                ax.plot(place(value), line, "|", color=_GREY, markersize=11, zorder=2)
        if _GEANT4 in theirs:
            where = place(theirs[_GEANT4])
            ax.plot(where, line, "D", color=REFERENCE.colour, markersize=5, zorder=3)
        for name, value in mine.items():
            s = styles[name]
            ax.plot(place(value), line, s.marker, color=s.colour, markersize=7, zorder=s.front)
    ax.set(xlim=(-0.04, 1.04), ylim=(len(metrics) - 0.5, -0.5))
    ax.set_yticks(range(len(metrics)), [NAMES[m] for m in metrics])
    ax.set_xticks([0, 1], ["best", "worst"])
    ax.minorticks_off()
    ax.tick_params(left=False, right=False, top=False, bottom=False)
    figure.legend(
        handles=[
            _dot("Geant4, published", REFERENCE.colour, "D", 5),
            _dot("models, published", _GREY, "|", 11),
            *(_dot(name, styles[name].colour, styles[name].marker, 7) for name in rankings),
        ],
        loc="upper left",
        ncols=2 + len(rankings),
        bbox_to_anchor=(1.3 / _WIDTH, 1.0),
    )
    return Plate(
        "protocol_places",
        "Among the published entries",
        "Each line runs from the smallest to the largest value of its metric: AUC on a linear scale, "
        "others on a logarithmic one, on which values that are not positive stand at the best end. "
        "The tables above have the numbers.",
        "Values of the candidates among those of the published entries.",
        figure,
    )


def _scale(values: Sequence[float], *, linear: bool) -> Callable[[float], float]:
    """From a value to its place between 0 (smallest) and 1 (largest)."""
    positive = values if linear else [v for v in values if v > 0]
    low, high = (v if linear else np.log(v) for v in (min(positive), max(positive)))

    def place(value: float) -> float:
        if not linear and value <= 0:
            return 0.0
        return float(((value if linear else np.log(value)) - low) / max(high - low, 1e-12))

    return place


def _dot(label: str, colour: str, marker: str, size: float) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, markersize=size, linestyle="", label=label)
