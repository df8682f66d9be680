"""The figures of the page of the simulators."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from simulators_judge import Compared
from simulators_speed import EVENTS, FAST, FULL, REFINED

from hepbridge.report.panels import PANELS, draw_histogram, histograms
from hepbridge.report.samples import DrawnSet, drawn_sets
from hepbridge.report.style import RC, styles

FIGURES = {"showers": ("e_sum", "n_hit"), "cells": ("e_max", "e_spec"), "profiles": ("profile_x",)}
SHOWN = ("50 GeV", "mixed")  # the others are in the tables
_COLUMN_IN, _ROW_IN = 3.75, 4.0


def comparisons(found: dict[str, Compared], stem: Path, reference: str) -> None:
    """``STEM-showers.png``, ``-cells.png`` and ``-profiles.png``: histograms with their ratios.

    ``reference`` names the sample of Geant4 that all is compared with.
    """
    sets = [s for part in ("fixed", "test") for s in _sets(found[part]) if s.label in SHOWN]
    for key, names in FIGURES.items():
        with matplotlib.rc_context(cast(Any, RC)):
            _grid(names, sets, reference).savefig(stem.with_name(f"{stem.name}-{key}.png"), dpi=150)


def _sets(compared: Compared) -> list[DrawnSet]:
    """The sets with the distances of the samples as they are, as in the tables of the page."""
    record = copy.deepcopy(compared.evaluation.to_dict())
    for entry in record["sets"]:
        for row in entry["rows"]:
            for cell in row["candidates"].values():
                cell["emd"] = cell["emd_sample"]
    return drawn_sets(record, compared.samples)


def _grid(names: tuple[str, ...], sets: list[DrawnSet], reference: str) -> Figure:
    """Observables down, sets across."""
    width, height = 1.05 + _COLUMN_IN * len(sets), 0.75 + _ROW_IN * len(names)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    outer = figure.add_gridspec(
        len(names), len(sets), left=0.78 / width, right=1 - 0.28 / width, bottom=0.5 / height,
        top=1 - 0.3 / height, wspace=0.2, hspace=0.22,
    )  # fmt: skip
    known = [name for drawn in sets for name in drawn.samples.candidates]
    looks = styles(dict.fromkeys(known), None, known[0])
    for i, name in enumerate(names):
        panels = [PANELS["e_ratio" if s.mixed and name == "e_sum" else name] for s in sets]
        binned = [histograms(p, s, looks) for p, s in zip(panels, sets, strict=True)]
        half = max(h.ratio_range() for h in binned)
        for j, (panel, drawn, h) in enumerate(zip(panels, sets, binned, strict=True)):
            inner = outer[i, j].subgridspec(2, 1, height_ratios=(3.0, 1.0), hspace=0.05)
            top, bottom = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
            draw_histogram((top, bottom), panel, h, drawn, looks, half)
            _rename(top.get_legend(), reference)
            if i == 0:
                top.set_title("10 to 100 GeV" if drawn.mixed else drawn.label, loc="left")
            if j == 0:
                top.set_ylabel(panel.y_label)
                bottom.set_ylabel("Ratio")
                for axes in (top, bottom):
                    axes.yaxis.set_label_coords(-0.15, 0.5)
    return figure


def _rename(legend: Any, reference: str) -> None:
    """Panels call their reference full simulation; here it may be a fast one."""
    for text in (legend.get_title(), *legend.get_texts()):
        words = text.get_text().replace("full simulation", reference)
        text.set_text(words.replace("Full simulation", reference[0].upper() + reference[1:]))


def times(record: dict[str, Any], recorded_ms: float, path: Path) -> None:
    """Milliseconds per shower against the incident energy."""
    marks = {
        FULL: ("Geant4", "#3d3d3d", "s"),
        REFINED: ("hepbridge GFLASH + refinement", "#0064b0", "o"),
        FAST: ("hepbridge GFLASH", "#b2182b", "v"),
    }
    with matplotlib.rc_context(cast(Any, RC)):
        figure = Figure(figsize=(6.0, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for name, (words, colour, marker) in marks.items():
            points = [record["timings"].get(f"{name} {energy} GeV") for energy in EVENTS]
            at = [energy for energy, p in zip(EVENTS, points, strict=True) if p]
            axes.errorbar(
                at, [p["ms"] for p in points if p], [p["error"] for p in points if p],
                marker=marker, color=colour, ls=":", lw=1, markersize=6, label=words,
            )  # fmt: skip
        axes.axhline(recorded_ms, color="0.45", lw=1.2, ls="--")
        axes.annotate(
            "Geant4's own GFLASH (recorded, not timed here)", (0.02, recorded_ms), (0, 4),
            xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=8.5,
            color="0.35",
        )  # fmt: skip
        axes.set(xlabel="incident energy [GeV]", ylabel="time per shower on one core [ms]",
                 yscale="log", xlim=(0, 105))  # fmt: skip
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * 6)
        axes.legend(loc="upper left")
        figure.savefig(path)
