"""The figures of a report: Figures 1 to 5 of the SQuIRELS paper for these data, and images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from hepbridge.core.rng import stream
from hepbridge.data.showers import Showers
from hepbridge.report.histograms import Array
from hepbridge.report.panels import PANELS, draw_histogram, draw_image, draw_scatter
from hepbridge.report.samples import DrawnSet, same_events
from hepbridge.report.style import Style
from hepbridge.report.text import name_of

__all__ = ["Plate", "draw_all"]

_COLUMN_IN, _ROW_IN = 3.75, 4.1
_RATIO_CAPTION = (
    "Lower panels: candidate / full simulation with the candidate's uncertainty (bars), the "
    "reference's own uncertainty (grey band) and, dotted, the second full simulation where there "
    "is one. Triangles point to values outside the panel; bins where the reference is not known to "
    "50 % have no ratio."
)
_PER_SHOWER = "Uncertainties are Poisson (sum of squared weights for weighted showers)."


@dataclass(frozen=True)
class Plate:
    """A figure with its words. ``figure`` is None for one that these data do not allow."""

    key: str
    title: str
    caption: str
    alt: str = ""
    figure: Figure | None = None


def draw_all(
    sets: Sequence[DrawnSet], styles: dict[str, Style], fast: str | None, refined: str | None
) -> Iterator[Plate]:
    """Every plate in the order of the paper, made one at a time so that memory stays small."""
    fixed = [s for s in sets if not s.mixed]
    main = {n: styles[n] for n in styles if n in (fast, refined)}
    if fixed:
        yield _grid(
            "fig1_energy_sum", "Figure 1: energy sum", ["e_sum"], fixed, main, [_PER_SHOWER]
        )
    else:
        yield Plate(
            "fig1_energy_sum",
            "Figure 1: energy sum",
            "Omitted: these samples have no fixed incident energy (see Figure 2).",
        )
    yield from _figure2(sets, main, fast, refined)
    yield _grid(
        "fig3_sum_and_spectrum",
        "Figure 3: energy sum and cell spectrum",
        ["e_sum", "e_spec"],
        sets,
        styles,
        [
            _PER_SHOWER,
            "Spectrum: mean number of cells per shower; dashed line: the threshold of 1 MeV below "
            "which a readout would not see a cell; uncertainties from the scatter between showers, "
            "because the cells of one shower are not independent; the EMD is that of the logarithm "
            "of the cell energy.",
        ],
    )
    yield _grid(
        "fig4_hits_and_maximum",
        "Figure 4: number of cells above 1 MeV and largest cell",
        ["n_hit", "e_max"],
        sets,
        styles,
        [_PER_SHOWER],
    )
    yield _grid(
        "fig5_profiles",
        "Figure 5: transverse profiles",
        ["profile_x", "profile_y"],
        sets,
        styles,
        [
            "Fraction of the sample's energy per column of cells; uncertainties from the scatter "
            "between showers."
        ],
    )
    yield _average_images(sets, list(styles), refined)
    yield _displays(sets, fast, refined)


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _histogram_axes(figure: Figure, rows: int, columns: int) -> list[list[tuple[Axes, Axes]]]:
    """A grid of (panel, ratio panel) with margins fixed in inches, so that labels always fit."""
    width, height = figure.get_size_inches()
    outer = figure.add_gridspec(
        rows,
        columns,
        left=0.72 / width,
        right=1 - 0.22 / width,
        bottom=0.52 / height,
        top=1 - 0.32 / height,
        wspace=0.19,
        hspace=0.2 if rows > 1 else 0.0,
    )
    grid = []
    for i in range(rows):
        line = []
        for j in range(columns):
            inner = outer[i, j].subgridspec(2, 1, height_ratios=(3.0, 1.0), hspace=0.05)
            line.append((figure.add_subplot(inner[0]), figure.add_subplot(inner[1])))
        grid.append(line)
    return grid


def _grid(
    key: str,
    title: str,
    names: Sequence[str],
    sets: Sequence[DrawnSet],
    styles: dict[str, Style],
    notes: Sequence[str],
) -> Plate:
    """Observables down, sets across."""
    figure = _new_figure(0.9 + _COLUMN_IN * len(sets), 0.6 + _ROW_IN * len(names))
    grid = _histogram_axes(figure, len(names), len(sets))
    outside = []
    for line, name in zip(grid, names, strict=True):
        for axes, drawn in zip(line, sets, strict=True):
            panel = PANELS["e_ratio" if drawn.mixed and name == "e_sum" else name]
            lost = draw_histogram(axes, panel, drawn, styles)
            if lost:
                outside.append(f"{name_of(panel.row)}, {drawn.label}: {lost}")
        line[0][0].set_ylabel(panel.y_label)
        line[0][1].set_ylabel("Ratio to full")
        for ax in (line[0][0], line[0][1]):
            ax.yaxis.set_label_coords(-0.135, 0.5)
    for axes, drawn in zip(grid[0], sets, strict=True):
        axes[0].set_title(drawn.title, loc="left")
    caption = " ".join(
        [_counts(sets), *notes, _RATIO_CAPTION, _bands(sets, styles), _lost(outside)]
    )
    alt = (
        f"{title}: histograms of full simulation and {', '.join(styles)} at "
        f"{', '.join(s.label for s in sets)}, each with a ratio panel; "
        "the distances are in the table."
    )
    return Plate(key, title, " ".join(caption.split()), alt, figure)


def _counts(sets: Sequence[DrawnSet]) -> str:
    return "Showers per sample: " + ", ".join(f"{s.label} {s.samples.n:,}" for s in sets) + "."


def _bands(sets: Sequence[DrawnSet], styles: dict[str, Style]) -> str:
    sizes = {n: len(members) for s in sets for n, members in s.bands.items() if n in styles}
    if not sizes:
        return ""
    words = ", ".join(f"{n} ({size})" for n, size in sizes.items())
    return f"Shaded: mean and standard deviation over an ensemble of trainings: {words}."


def _lost(outside: Sequence[str]) -> str:
    if not outside:
        return "Nothing lies outside the drawn ranges."
    return (
        "Outside the drawn range (counted in the normalisation and in the EMD): "
        + "; ".join(outside)
        + "."
    )


def _figure2(
    sets: Sequence[DrawnSet], styles: dict[str, Style], fast: str | None, refined: str | None
) -> Iterator[Plate]:
    """e_sum / E_inc over the whole range, and input against output energy sums."""
    title = "Figure 2: response over the whole range, and energy sum before and after"
    mixed = [s for s in sets if s.mixed]
    if mixed:
        yield _grid("fig2_response", title, ["e_sum"], mixed[:1], styles, [_PER_SHOWER])
    pairs = []
    for s in sets:
        before, after = (
            s.samples.candidates.get(fast or ""),
            s.samples.candidates.get(refined or ""),
        )
        if before is not None and after is not None and same_events(before, after):
            pairs.append((s, before, after))
    missing = (
        ""
        if mixed
        else "The response over the whole range is omitted: there is no mixed-energy sample. "
    )
    if not pairs or fast is None or refined is None:  # no pair has a nameless member
        why = "the fast and the refined sample do not hold the same events"
        yield Plate("fig2_before_after", title, f"{missing}Before against after is omitted: {why}.")
        return
    figure = _new_figure(0.3 + 4.1 * len(pairs), 3.9)
    axes = figure.subplots(1, len(pairs), squeeze=False)[0]
    words = []
    for ax, (drawn, before, after) in zip(axes, pairs, strict=True):
        rho = draw_scatter(ax, before, after, (fast, refined), mixed=drawn.mixed)
        ax.set_title(drawn.title, loc="left")
        words.append(f"{drawn.label} {rho:.3f}")
    for ax in axes[1:]:
        ax.set_ylabel("")
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=0.75 / width,
        right=1 - 0.7 / width,
        bottom=0.55 / height,
        top=1 - 0.3 / height,
        wspace=0.38,
    )
    caption = (
        f"{missing}Energy sum of each shower before ({fast}) and after ({refined}) refinement; "
        "dashed: no change. Rank correlation at fixed incident energy: "
        f"{', '.join(words)}. A refiner should move a shower as little as it must: 1 keeps the "
        "order of the showers, 0 forgets the input."
    )
    alt = f"Energy sum before against after refinement; rank correlation {', '.join(words)}."
    yield Plate("fig2_before_after", title, caption, alt, figure)


def _mean_map(showers: Showers) -> Array:
    """Mean energy per cell in GeV, summed over all but the last two axes of the geometry."""
    w = np.ones(len(showers)) if showers.weights is None else showers.weights
    mean = (w @ showers.cells.astype(np.float64)) / w.sum() / 1000.0
    shape = showers.geometry.shape
    return np.asarray(mean.reshape(-1, *shape[-2:]).sum(axis=0))


def _average_images(sets: Sequence[DrawnSet], names: Sequence[str], refined: str | None) -> Plate:
    """Rows: sets. Columns: mean of the reference and of the refined showers, then every ratio."""
    means = [name for name in names if name == refined]
    size = {"shower": 1 + len(means), "ratio": len(names)}
    width = 0.75 + 2.1 * (size["shower"] + size["ratio"]) + 2 * 0.95
    height = 0.75 + 2.0 * len(sets)
    figure = _new_figure(width, height)
    widths = [1.0] * size["shower"] + [0.06, 0.24] + [1.0] * size["ratio"] + [0.06]
    grid = figure.add_gridspec(
        len(sets),
        len(widths),
        width_ratios=widths,
        left=0.75 / width,
        right=1 - 0.65 / width,
        bottom=0.45 / height,
        top=1 - 0.3 / height,
        wspace=0.13,
        hspace=0.1,
    )
    maps = [{name: _mean_map(s) for name, s in d.samples.candidates.items()} for d in sets]
    refs = [_mean_map(d.samples.ref) for d in sets]
    norm = LogNorm(min(float(r[r > 0].min()) for r in refs), max(float(r.max()) for r in refs))
    for i, (drawn, ref, mean) in enumerate(zip(sets, refs, maps, strict=True)):
        columns: list[tuple[str, Array, bool]] = [("full simulation", ref, False)]
        columns += [(name, mean[name], False) for name in means]
        with np.errstate(divide="ignore", invalid="ignore"):
            columns += [(f"{name} / full", mean[name] / ref, True) for name in names]
        for j, (head, image, is_ratio) in enumerate(columns):
            ax = figure.add_subplot(grid[i, j + 2 * is_ratio])
            if is_ratio:
                quotients = draw_image(ax, image, norm=LogNorm(0.5, 2.0), cmap="RdBu_r")
            else:
                energies = draw_image(ax, image, norm=norm, cmap="viridis")
            if i == 0:
                ax.set_title(head, fontsize=10)
            if j == 0:
                ax.set_ylabel(f"{drawn.label}\ny [cells]")
            ax.tick_params(labelbottom=i == len(sets) - 1, labelleft=j == 0)
            if i == len(sets) - 1:
                ax.set_xlabel("x [cells]")
    figure.colorbar(energies, cax=figure.add_subplot(grid[:, size["shower"]])).set_label(
        "GeV / cell"
    )
    bar = figure.colorbar(quotients, cax=figure.add_subplot(grid[:, -1]), extend="both")
    bar.set_ticks([0.5, 0.7, 1.0, 1.4, 2.0], labels=["0.5", "0.7", "1", "1.4", "2"])
    bar.minorticks_off()
    bar.set_label("ratio to full")
    caption = (
        "Mean energy per cell (logarithmic colour), and the ratio of each candidate's mean to "
        "that of the full simulation; the colours of the ratio end at 0.5 and 2."
    )
    alt = f"Maps of the mean energy per cell, and of the ratio of {', '.join(names)} to full."
    return Plate("average_shower", "Average shower", caption, alt, figure)


def _displays(
    sets: Sequence[DrawnSet], fast: str | None, refined: str | None, events: int = 5
) -> Plate:
    """A few showers of the middle set, chosen at random with a fixed seed: never hand-picked."""
    samples = sets[len(sets) // 2].samples
    lines = {"full simulation": samples.ref}
    lines |= {
        n: samples.candidates[n]
        for n in (fast, refined)
        if n is not None and n in samples.candidates
    }
    n = min(len(s) for s in lines.values())
    rows = np.sort(stream(0, "report event displays").choice(n, size=min(events, n), replace=False))
    figure = _new_figure(0.9 + 2.2 * len(rows), 0.5 + 2.3 * len(lines))
    axes = figure.subplots(len(lines), len(rows), squeeze=False)
    shape = samples.ref.geometry.shape
    images = {
        name: s.cells[rows].astype(np.float64).reshape(len(rows), -1, *shape[-2:]).sum(axis=1)
        / 1000.0
        for name, s in lines.items()
    }
    norm = LogNorm(1e-3, max(float(i.max()) for i in images.values()))
    for line, (name, s) in zip(axes, lines.items(), strict=True):
        for ax, row, image in zip(line, rows, images[name], strict=True):
            mesh = draw_image(ax, np.where(image > 1e-3, image, np.nan), norm=norm, cmap="viridis")
            ax.set_facecolor("#f4f4f4")
            energy = s.cells[row].sum(dtype=np.float64) / 1000.0
            ax.set_title(
                f"row {row}: {energy:.2f} GeV, {int((s.cells[row] > 1.0).sum())} cells",
                fontsize=7.8,
            )
        line[0].set_ylabel(f"{name}\ny [cells]")
    for ax in axes[-1]:
        ax.set_xlabel("x [cells]")
    figure.subplots_adjust(left=0.07, right=0.91, top=0.95, bottom=0.07, wspace=0.16, hspace=0.2)
    figure.colorbar(mesh, cax=figure.add_axes((0.93, 0.2, 0.012, 0.6))).set_label("GeV / cell")
    same = fast in lines and refined in lines and same_events(lines[str(fast)], lines[str(refined)])
    caption = (
        f"{samples.label}: {len(rows)} rows drawn at random (seed 0), cells above 1 MeV; "
        "above each its energy sum and number of cells. Full simulation and fast simulation "
        "share only the incident energy"
        + (f"; {refined} is the shower of {fast} above it, refined." if same else ".")
    )
    alt = f"Single showers of {', '.join(lines)} as 10 by 10 images with logarithmic colour."
    return Plate("event_displays", "Single showers", caption, alt, figure)
