"""The figures of an evaluation of any calorimeter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from hepbridge.core.errors import DataError
from hepbridge.metrics.shapes.correlation import correlations
from hepbridge.metrics.shapes.rows import correlated
from hepbridge.metrics.shapes.shapes import Shapes
from hepbridge.report.figures import PER_SHOWER, histogram_grid
from hepbridge.report.plate import Plate, grid_of, new_figure
from hepbridge.report.point_display import shower_display
from hepbridge.report.samples import DrawnSet
from hepbridge.report.shape_panels import shape_panels
from hepbridge.report.style import REFERENCE, Style
from hepbridge.report.text import number

__all__ = ["draw_shapes"]

_SHOWERS_SCATTER = "uncertainties from the scatter between showers"


def draw_shapes(
    sets: Sequence[DrawnSet], styles: dict[str, Style], fast: str | None, refined: str | None
) -> Iterator[Plate]:
    """Every plate of an evaluation of `Shapes`, made one at a time."""
    first: Shapes = sets[0].samples.ref
    panels = shape_panels(first, mixed=sets[0].mixed)
    threshold = f"{first.threshold_mev:g} MeV"
    deep = first.layout.n_layers > 1

    def grid(key: str, title: str, names: list[str], *notes: str) -> Plate:
        return histogram_grid(key, title, names, sets, styles, notes, panels, wide=len(sets) == 1)

    yield grid("sum_and_maximum", "Energy sum and largest cell", ["e_sum", "e_max"], PER_SHOWER)
    yield grid(
        "hits_and_spectrum",
        "Number of cells and their energies",
        ["hits", "e_spec"],
        PER_SHOWER,
        f"Spectrum: mean number of cells per shower, of about a thousand showers per sample; dashed "
        f"line: {threshold}, above which a cell is a hit; {_SHOWERS_SCATTER}, because the cells of one "
        "shower are not independent; the EMD is that of the logarithm of the cell energy.",
    )
    names = ["profile_z", "profile_r"] if deep else ["profile_r"]
    yield grid(
        "profiles",
        "Profiles in depth and radius" if deep else "Profile in radius",
        names,
        f"Fraction of the sample's energy by layer, and energy by distance from the axis; "
        f"{_SHOWERS_SCATTER}."
        if deep
        else f"Energy by distance from the axis; {_SHOWERS_SCATTER}.",
    )
    along = ["x", "y", "z"] if deep else ["x", "y"]
    yield grid("centres", "Centres of energy", [f"centre_{a}" for a in along], PER_SHOWER)
    yield grid("widths", "Widths", [f"width_{a}" for a in along], PER_SHOWER)
    if deep:
        yield _layers(sets, styles)
    if any("correlation" in s.rows for s in sets):
        main = [n for n in styles if n in (fast, refined)] or list(styles)[:2]
        yield _correlations(sets, main)
    yield _display(sets, fast, refined)


def _layers(sets: Sequence[DrawnSet], styles: Mapping[str, Style]) -> Plate:
    """Distances of every layer in units of the floor, energies above and numbers of cells below."""
    if not any(row.get("floor") for s in sets for row in s.rows.values() if "group" in row):
        words = "Omitted: without a second full simulation layers have no floor."
        return Plate("layers", "Layer by layer", words)
    kinds = {"e_layer": "Energy of layer", "hits_layer": "Hits in layer"}
    width, height = 0.9 + max(5.2, 3.9 * len(sets)), 5.2
    figure = new_figure(width, height)
    axes = figure.subplots(len(kinds), len(sets), squeeze=False, sharex="col", sharey="row")
    for line, (group, title) in zip(axes, kinds.items(), strict=True):
        for ax, drawn in zip(line, sets, strict=True):
            _layer_ratios(ax, drawn, group, styles)
        line[0].set_ylabel(f"{title}:\nEMD / mean floor")
    for ax, drawn in zip(axes[0], sets, strict=True):
        ax.set_title(drawn.title, loc="left")
    for ax in axes[-1]:
        ax.set_xlabel("Layer")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper left", ncols=len(labels), bbox_to_anchor=(0.6 / width, 1.0)
    )
    figure.subplots_adjust(
        left=0.75 / width,
        right=1 - 0.15 / width,
        top=1 - 0.62 / height,
        bottom=0.5 / height,
        hspace=0.09,
        wspace=0.06,
    )
    caption = (
        "Distance of the energy, and of the number of cells above the threshold, of every layer to full "
        "simulation, over the mean of its floor; grey: up to the 95 % quantile of the floor, where "
        "one layer of twenty lies above by chance. Filled markers: layers that stand out even among "
        "all rows of this evaluation (corrected p below 0.05). Layers without a floor (always empty, or "
        "always full), and distances of exactly 0, have no point."
    )
    alt = f"Floor ratios of the layers for {', '.join(styles)}."
    return Plate("layers", "Layer by layer", caption, alt, figure)


def _layer_ratios(ax: Axes, drawn: DrawnSet, group: str, styles: Mapping[str, Style]) -> None:
    rows = [row for row in drawn.rows.values() if row.get("group") == group]
    layer = np.arange(len(rows))
    floors = [row["floor"] for row in rows]
    if not any(floors):
        ax.text(0.5, 0.5, "no floor", transform=ax.transAxes, ha="center", fontsize=9)
        return
    known = np.array([f is not None and f["mean"] > 0 for f in floors])
    top = [f["q95"] / f["mean"] if k else np.nan for f, k in zip(floors, known, strict=True)]
    edges = np.arange(len(rows) + 1) - 0.5
    ax.stairs(np.nan_to_num(np.array(top)), edges, fill=True, color=REFERENCE.fill, label="floor")
    ax.axhline(1.0, color=REFERENCE.colour, linewidth=0.8)
    for name, style in styles.items():
        cells = [row["candidates"].get(name) for row in rows]
        # a number of hits that agrees exactly (a layer that is always full) has no logarithm
        ratio = np.array([(c and c["ratio"]) or np.nan for c in cells], dtype=np.float64)
        ax.plot(layer, ratio, color=style.colour, linestyle=style.line, linewidth=0.7, zorder=3)
        out = np.array([bool(c) and (c["p_adjusted"] or 1.0) < 0.05 for c in cells])
        for chosen, face, label in ((out, style.colour, name), (~out, "white", None)):
            ax.plot(
                layer[chosen],
                ratio[chosen],
                color=style.colour,
                linestyle="none",
                marker=style.marker,
                markersize=3.6,
                markerfacecolor=face,
                zorder=style.front,
                label=label,
            )
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(edges[0], edges[-1])
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def _correlations(sets: Sequence[DrawnSet], names: Sequence[str]) -> Plate:
    """Matrices of the reference and of candidates, and their differences: a set per row."""
    what = correlated(sets[0].samples.ref)[0]
    columns = 1 + 2 * len(names)
    size = 2.35
    width, height = 0.75 + size * columns + 1.6, 0.75 + size * len(sets)
    figure = new_figure(width, height)
    widths = [1.0] * (1 + len(names)) + [0.07, 0.33] + [1.0] * len(names) + [0.07]
    grid = grid_of(
        figure,
        len(sets),
        len(widths),
        width_ratios=widths,
        left=0.7,
        right=0.65,
        bottom=0.45,
        top=0.3,
        wspace=0.12,
        hspace=0.12,
    )
    matrices = [{n: _matrix(s) for n, s in _shown(d, names).items()} for d in sets]
    differences = [{n: m[n] - m["ref"] for n in names if n in m} for m in matrices]
    largest = max(float(np.abs(x).max()) for d in differences for x in d.values())
    half = next(r for r in (0.1, 0.2, 0.5, 1.0, 2.0) if largest <= r or r == 2.0)
    for i, (drawn, found, apart) in enumerate(zip(sets, matrices, differences, strict=True)):
        heads = [("full simulation", found["ref"], 1.0)]
        heads += [(n, found[n], 1.0) for n in names]
        heads += [(f"{n} − full", apart[n], half) for n in names]
        for j, (head, matrix, limit) in enumerate(heads):
            minus = j > len(names)
            ax = figure.add_subplot(grid[i, j + 2 * minus])
            image = ax.imshow(
                matrix,
                origin="lower",
                vmin=-limit,
                vmax=limit,
                cmap="RdBu_r",
                interpolation="nearest",
            )
            if minus:
                change = image
            else:
                level = image
            if i == 0:
                ax.set_title(head, fontsize=10)
            if j == 0:
                ax.set_ylabel(f"{drawn.label}\n{what[:-1].capitalize()}")
            ax.minorticks_off()
            ax.tick_params(
                which="both",
                length=0,
                labelsize=8,
                labelleft=j == 0,
                labelbottom=i == len(sets) - 1,
            )
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(MaxNLocator(5, integer=True))
            if i == len(sets) - 1:
                ax.set_xlabel(what[:-1].capitalize())
    bar = figure.colorbar(level, cax=figure.add_subplot(grid[:, 1 + len(names)]))
    bar.ax.set_title(r"$\rho$", fontsize=9)
    bar = figure.colorbar(change, cax=figure.add_subplot(grid[:, -1]))
    bar.ax.set_title(r"$\Delta\rho$", fontsize=9)
    words = "; ".join(_words(d) for d in sets if "correlation" in d.rows)
    caption = (
        f"Pearson correlation coefficients of the energies of {what} over the incident energy, and "
        f"differences to full simulation. Root mean square differences: {words}. {what.capitalize()} that "
        "do not vary have 0."
    )
    alt = f"Correlation matrices of full simulation and {', '.join(names)}, and their differences."
    return Plate("correlations", f"Correlations of {what}", caption, alt, figure)


def _words(drawn: DrawnSet) -> str:
    """``20 GeV: floor 0.094, gflash 0.234 (corrected p 0.005)``."""
    row = drawn.rows["correlation"]
    floor = f"floor {row['floor']['mean']:.3f}" if row["floor"] else "no floor"
    found = [
        f"{name} {cell['emd_sample']:.3f}"
        + ("" if cell["p_adjusted"] is None else f" (corrected p {number(cell['p_adjusted'])})")
        for name, cell in row["candidates"].items()
    ]
    return f"{drawn.label}: {', '.join([floor, *found])}"


def _shown(drawn: DrawnSet, names: Sequence[str]) -> dict[str, Shapes]:
    samples = drawn.samples
    return {"ref": samples.ref, **{n: samples.candidates[n] for n in names}}


def _matrix(shapes: Shapes) -> Any:
    return correlations(correlated(shapes)[1].astype(np.float64), shapes.weights)


def _display(sets: Sequence[DrawnSet], fast: str | None, refined: str | None) -> Plate:
    """The first kept shower of the middle set, of every sample."""
    samples = sets[len(sets) // 2].samples
    chosen = {"full simulation": samples.ref}
    chosen |= {n: samples.candidates[n] for n in (fast, refined) if n in samples.candidates}
    if len(chosen) == 1:
        chosen |= dict(list(samples.candidates.items())[:2])
    try:
        return shower_display(chosen)
    except DataError as error:
        return Plate("display", "Single showers", f"Omitted: {error}.")
