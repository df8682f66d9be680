"""The figures of a report: Figures 1 to 5 of the SQuIRELS paper for these data, and images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hepbridge.metrics.kinds import Sample
from hepbridge.report.images import average_images, event_displays
from hepbridge.report.panels import PANELS, Panel, draw_histogram, histograms
from hepbridge.report.plate import Plate, grid_of, new_figure
from hepbridge.report.samples import DrawnSet, same_events
from hepbridge.report.scatter import draw_scatter
from hepbridge.report.style import Style
from hepbridge.report.text import name_of

__all__ = ["PER_SHOWER", "draw_all", "histogram_grid"]

_COLUMN_IN, _ROW_IN = 3.75, 4.1
_GAP, _WIDE_GAP = 0.19, 0.3  # between columns, in widths; the wider has labels in it
_RATIO_CAPTION = (
    "Lower panels: candidate / full simulation with the candidate's uncertainty (bars), the "
    "reference's own uncertainty (grey band) and, dotted, the second full simulation where there "
    "is one. Triangles point to values outside the panel; bins where the reference is not known to "
    "50 % have no ratio. All panels of a figure share the axis of the ratio."
)
PER_SHOWER = "Uncertainties are Poisson (sum of squared weights for weighted showers)."


def draw_all(
    sets: Sequence[DrawnSet], styles: dict[str, Style], fast: str | None, refined: str | None
) -> Iterator[Plate]:
    """Every plate in the order of the paper, made one at a time so that memory stays small."""
    fixed = [s for s in sets if not s.mixed]
    main = {n: styles[n] for n in styles if n in (fast, refined)}
    if fixed:
        yield histogram_grid(
            "fig1_energy_sum", "Figure 1: energy sum", ["e_sum"], fixed, main, [PER_SHOWER]
        )
    else:
        yield Plate(
            "fig1_energy_sum",
            "Figure 1: energy sum",
            "Omitted: these samples have no fixed incident energy (see Figure 2a).",
        )
    yield from _figure2(sets, main, fast, refined)
    yield histogram_grid(
        "fig3_sum_and_spectrum",
        "Figure 3: energy sum and cell spectrum",
        ["e_sum", "e_spec"],
        sets,
        styles,
        [
            PER_SHOWER,
            "Spectrum: mean number of cells per shower; cells below 0.1 MeV and empty ones "
            "are not drawn; dashed line: the threshold of 1 MeV below "
            "which a readout would not see a cell; uncertainties from the scatter between showers, "
            "because the cells of one shower are not independent; the EMD is that of the logarithm "
            "of the cell energy.",
        ],
    )
    yield histogram_grid(
        "fig4_hits_and_maximum",
        "Figure 4: number of cells above 1 MeV and largest cell",
        ["n_hit", "e_max"],
        sets,
        styles,
        [PER_SHOWER],
    )
    yield histogram_grid(
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
    yield average_images(sets, list(styles), refined)
    yield event_displays(sets, fast, refined)


def _histogram_axes(
    figure: Figure, rows: int, columns: int, gap: float
) -> list[list[tuple[Axes, Axes]]]:
    """A grid of (panel, ratio panel) with margins fixed in inches, so that labels always fit."""
    outer = grid_of(
        figure,
        rows,
        columns,
        left=0.72,
        right=0.22,
        bottom=0.52,
        top=0.32,
        wspace=gap,
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


def histogram_grid(
    key: str,
    title: str,
    names: Sequence[str],
    sets: Sequence[DrawnSet],
    styles: dict[str, Style],
    notes: Sequence[str],
    known: Mapping[str, Panel] = PANELS,
    *,
    wide: bool = False,
) -> Plate:
    """Observables (``known`` by name) down, sets across; with ``wide``, for one set, observables across."""
    columns, rows = (len(names), 1) if wide else (len(sets), len(names))
    gap = _WIDE_GAP if wide else _GAP
    figure = new_figure(0.9 + _COLUMN_IN * columns * (1 + (gap - _GAP)), 0.6 + _ROW_IN * rows)
    grid = _histogram_axes(figure, rows, columns, gap)
    if wide:
        grid = [[axes] for axes in grid[0]]
    outside = []
    panels = [
        [known["e_ratio" if drawn.mixed and name == "e_sum" else name] for drawn in sets]
        for name in names
    ]
    found = [
        [histograms(p, drawn, styles) for p, drawn in zip(line, sets, strict=True)]
        for line in panels
    ]
    half = max(h.ratio_range() for line in found for h in line)
    for line, across, binned in zip(grid, panels, found, strict=True):
        for axes, panel, drawn, h in zip(line, across, sets, binned, strict=True):
            lost = draw_histogram(axes, panel, h, drawn, styles, half)
            if lost:
                outside.append(f"{name_of(panel.row)}, {drawn.label}: {lost}")
        line[0][0].set_ylabel(panel.y_label)
        line[0][1].set_ylabel("Ratio to full")
        for ax in (line[0][0], line[0][1]):
            ax.yaxis.set_label_coords(-0.135, 0.5)
    for axes, drawn in zip(grid[0], sets, strict=True):
        axes[0].set_title(drawn.title, loc="left")
    caption = " ".join(
        [
            _counts(sets),
            *notes,
            _same_sums(sets, list(styles)) if "e_sum" in names else "",
            _RATIO_CAPTION,
            _bands(sets, styles),
            _lost(outside),
        ]
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


def _same_sums(sets: Sequence[DrawnSet], names: Sequence[str]) -> str:
    """Candidates made from the same showers with the same map of the energy sum."""
    pairs = [
        f"{a} and {b}"
        for a, b in combinations(names, 2)
        if all(_equal_sums(s.samples.candidates, a, b) for s in sets)
    ]
    return f"Equal energy sums, shower by shower: {'; '.join(pairs)}." if pairs else ""


def _equal_sums(candidates: dict[str, Sample], *names: str) -> bool:
    """True if both have the same events with the same energy sums, up to the rounding of cells."""
    if not all(name in candidates for name in names):
        return False
    a, b = (candidates[name] for name in names)
    return same_events(a, b) and np.allclose(a.e_sum, b.e_sum, rtol=1e-5)


def _lost(outside: Sequence[str]) -> str:
    if not outside:
        return "Less than 1 % of each sample lies outside the drawn ranges."
    return (
        "More than 1 % outside the drawn range (counted in the normalisation and in the EMD): "
        + "; ".join(outside)
        + "."
    )


def _figure2(
    sets: Sequence[DrawnSet], styles: dict[str, Style], fast: str | None, refined: str | None
) -> Iterator[Plate]:
    """e_sum / E_inc over the whole range, and input against output energy sums."""
    mixed = [s for s in sets if s.mixed]
    if mixed:
        title = "Figure 2a: response over the whole range"
        yield histogram_grid("fig2_response", title, ["e_sum"], mixed[:1], styles, [PER_SHOWER])
    title = "Figure 2b: energy sum before and after"
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
    figure = new_figure(0.3 + 4.1 * len(pairs), 3.9)
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
        f"{missing}Energy sum of each shower before ({fast}) and after ({refined}) refinement, at "
        "mixed incident energies divided by the incident energy; dashed: no change. Rank "
        "correlation at fixed incident energy: "
        f"{', '.join(words)}. A refiner should move a shower as little as it must: 1 keeps the "
        "order of the showers, 0 forgets the input."
    )
    alt = f"Energy sum before against after refinement; rank correlation {', '.join(words)}."
    yield Plate("fig2_before_after", title, caption, alt, figure)
