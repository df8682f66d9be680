"""The figures of the results page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from hepbridge.report.style import RC

LABELS = {"squirels-paper": "squirels-paper, reduced budget"}
MARKS = {
    "quantile": ("#e69f00", "s"),
    "squirels-paper": ("#b2182b", "v"),
    "squirels-flow": ("#5aa0dc", "o"),
    "squirels": ("#0064b0", "*"),
    "squirels-2": ("#0064b0", "D"),
    "squirels-small": ("#0064b0", "."),
    "squirels-mmd": ("#009e73", "^"),
    "squirels-i2sb": ("#cc79a7", "P"),
    "squirels-dsbm": ("#7a7a7a", "X"),
}


def pareto(points: dict[str, dict[str, Any]], path: Path) -> None:
    """Geometric-mean floor ratio against µs/shower, every refiner × number of evaluations."""
    with matplotlib.rc_context(cast(Any, RC)):
        figure = Figure(figsize=(6.6, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for name, (colour, marker) in MARKS.items():
            mine = sorted(
                (p["ms"] * 1e3, p["ratio"], p["error"], p["nfe"])
                for p in points.values()
                if p["model"] == name
            )
            if not mine:
                continue
            x, y, error, _ = zip(*mine, strict=True)
            size = {"*": 13, ".": 11}.get(marker, 7)
            axes.errorbar(x, y, error, marker=marker, color=colour, markersize=size, lw=1, ls=":",
                          elinewidth=0.9, label=LABELS.get(name, name))  # fmt: skip
            for at, value, _, count in mine:
                axes.annotate(
                    str(count),
                    (at, value),
                    (5, 5),
                    textcoords="offset points",
                    fontsize=8,
                    color=colour,
                )
        best: list[tuple[float, float]] = []
        for p in sorted(points.values(), key=lambda p: p["ms"]):
            if not best or p["ratio"] < best[-1][1]:
                best.append((p["ms"] * 1e3, p["ratio"]))
        axes.step(
            *zip(*best, strict=True),
            where="post",
            color="0.6",
            lw=1,
            zorder=0,
            label="Pareto front",
        )
        axes.axhline(1, color="0.3", lw=0.8)
        axes.annotate("two samples of full simulation", (0.98, 1), (0, -11), xycoords=("axes fraction", "data"),
                      textcoords="offset points", ha="right", fontsize=8, color="0.3")  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="time per shower on one core [µs]",
                 ylabel="geometric-mean floor ratio, 20, 50 and 80 GeV")  # fmt: skip
        plain(axes.yaxis, (1, 1.5, 2, 3, 4, 5, 7, 10))
        axes.set_ylim(0.85, None)
        axes.legend(title="number: network evaluations", fontsize=8)
        figure.savefig(path)


def training_size(study: dict[str, Any], path: Path) -> None:
    """Floor ratio and AUC against the number of training pairs."""
    points, paper = study["points"], study["paper"]
    pairs = [p["pairs"] for p in points]
    with matplotlib.rc_context(cast(Any, RC)):
        figure = Figure(figsize=(7.4, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        left.plot(pairs, [p["ratio"] for p in points], "o-", color="#0064b0", label="squirels")
        right.errorbar(
            pairs,
            [p["auc"] for p in points],
            [p["se"] for p in points],
            fmt="o-",
            color="#0064b0",
            label="squirels",
        )
        for axes, key, none in ((left, "ratio", 1), (right, "auc", 0.5)):
            words = f"squirels-paper, {paper['pairs']:,} pairs, reduced budget"
            axes.axhline(paper[key], color="#b2182b", ls="--", lw=1.2, label=words)
            axes.axhline(none, color="0.3", lw=0.8)
            axes.set(xscale="log", xlabel="training pairs")
        left.legend(fontsize=8)
        left.set(yscale="log", ylabel="geometric-mean floor ratio", ylim=(0.9, 5))
        plain(left.yaxis, (1, 1.5, 2, 3, 4, 5))
        right.set_ylabel("classifier AUC (trees)")
        figure.savefig(path)


def statistics(study: dict[str, Any], path: Path) -> None:
    """Floor ratio against training pairs at one energy, beside what their number alone makes."""
    points, n = study["points"], study["n"]
    pairs = np.array([p["pairs"] for p in points])
    curve = np.geomspace(0.8 * pairs.min(), 1.25 * pairs.max(), 100)
    with matplotlib.rc_context(cast(Any, RC)):
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.plot(curve, np.sqrt(1 + n / (2 * curve)), color="#e69f00", label=r"$\sqrt{1 + n/2m}$")
        axes.errorbar(pairs, [p["ratio"] for p in points], [p["error"] for p in points],
                      fmt="o", color="#0064b0", label="squirels, 20 GeV")  # fmt: skip
        axes.axhline(1, color="0.3", lw=0.8)
        axes.set(xscale="log", yscale="log", xlabel="training pairs m, 19 to 21 GeV",
                 ylabel=f"geometric-mean floor ratio, n = {n:,}", ylim=(0.7, 4))  # fmt: skip
        plain(axes.yaxis, (0.7, 1, 1.5, 2, 3))
        axes.legend(fontsize=8)
        figure.savefig(path)


def plain(axis: Any, ticks: tuple[float, ...]) -> None:
    axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
