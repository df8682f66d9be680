"""The figures of the page of unfolding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.ticker import LogLocator, NullFormatter
from unfolding_samples import NAMES

from hepbridge.data.tables import Table
from hepbridge.metrics.unfolding.observables import observables_of
from hepbridge.report.plate import Plate, grid_of, new_figure, write_picture
from hepbridge.report.style import styles
from hepbridge.report.unfolding import label_of, symbol_of
from hepbridge.report.unfolding_calibration import calibration_plate
from hepbridge.report.unfolding_figures import observable_plate

SHOWN = ("prior", "data", "omnifold ×5", "sbunfold", "sbunfold ×5")  # the others are in the tables
_COLOURS = {"sbunfold": "#d5572a", "omnifold": "#2a6fb0"}


def spectra(truth: Table, tables: Mapping[str, Table], path: Path) -> None:
    """Every observable with its ratio to the truth."""
    shown = {name: table for name, table in tables.items() if name in SHOWN}
    look = styles(shown, "data", list(shown)[-1])

    def draw() -> Plate:
        return observable_plate(truth, shown, look, observables_of(truth, NAMES))

    write_picture(draw, path, overwrite=True)


def figures(found: Mapping[str, Any], work: Path, docs: Path) -> None:
    """Calibration, and the distances against iterations."""
    chosen = {k: found["calibration"][k] for k in ("sbunfold", "sbunfold-paper")}
    write_picture(
        lambda: calibration_plate(chosen), docs / "unfolding-calibration.png", overwrite=True
    )
    write_picture(lambda: _iterations(found["prior"]), docs / "unfolding-prior.png", overwrite=True)


def _iterations(found: Mapping[str, Any]) -> Plate:
    figure = new_figure(9.6, 5.6)
    grid = grid_of(
        figure, 2, 3, left=0.8, right=0.12, bottom=0.55, top=0.75, wspace=0.28, hspace=0.36
    )
    for k, name in enumerate(NAMES):
        ax = figure.add_subplot(grid[k // 3, k % 3])
        for method, colour in _COLOURS.items():
            points = sorted(
                (int(n), row[name][0]) for n, row in found[method].items() if int(n) >= 0
            )
            ax.plot(*zip(*points, strict=True), "o-", color=colour, label=method, markersize=4)
        ax.axhline(found["sbunfold"]["-1"][name][0], color="#777777", ls="--", label="prior")
        ax.axhline(found["floor"][name], color="#777777", ls=":", label="truth, twice")
        ax.set(yscale="log")
        ax.set_title(f"{label_of(name)} {symbol_of(name)}", fontsize=9)
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        if k % 3 == 0:
            ax.set_ylabel("EMD × 10")
        if k // 3:
            ax.set_xlabel("Iterations")
        if k == 0:
            handles = ax.get_legend_handles_labels()
            figure.legend(*handles, loc="upper center", ncols=4, frameon=False)
    return Plate(
        "prior", "Iterations from a wrong prior", "", "Distance against iterations", figure
    )
