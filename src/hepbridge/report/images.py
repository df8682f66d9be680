"""Figures of cells: the average shower, and a few single ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from hepbridge.core.rng import stream
from hepbridge.data.showers import Showers
from hepbridge.report.histograms import Array
from hepbridge.report.plate import Plate, new_figure
from hepbridge.report.samples import DrawnSet, same_events

__all__ = ["average_images", "draw_image", "event_displays"]


def _mean_map(showers: Showers) -> Array:
    """Mean energy per cell in GeV, summed over all but the last two axes of the geometry."""
    w = np.ones(len(showers)) if showers.weights is None else showers.weights
    mean = (w @ showers.cells.astype(np.float64)) / w.sum() / 1000.0
    shape = showers.geometry.shape
    return np.asarray(mean.reshape(-1, *shape[-2:]).sum(axis=0))


def average_images(sets: Sequence[DrawnSet], names: Sequence[str], refined: str | None) -> Plate:
    """Rows: sets. Columns: mean of the reference and of the refined showers, then every ratio."""
    means = [name for name in names if name == refined]
    size = {"shower": 1 + len(means), "ratio": len(names)}
    width = 0.75 + 2.1 * (size["shower"] + size["ratio"]) + 2 * 0.95
    height = 0.75 + 2.0 * len(sets)
    figure = new_figure(width, height)
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


def event_displays(
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
    figure = new_figure(0.9 + 2.2 * len(rows), 0.5 + 2.3 * len(lines))
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
    size = " by ".join(map(str, shape[-2:]))
    alt = f"Single showers of {', '.join(lines)} as {size} images with logarithmic colour."
    return Plate("event_displays", "Single showers", caption, alt, figure)


def draw_image(ax: Axes, image: Array, **how: Any) -> Any:
    """A map of the last two axes of the geometry: the first (x) to the right, the second up."""
    nx, ny = image.shape
    mesh = ax.imshow(image.T, origin="lower", extent=(0, nx, 0, ny), interpolation="nearest", **how)
    ax.tick_params(which="both", length=0, labelsize=7.5)
    ax.minorticks_off()
    ax.set_xticks([0, nx // 2, nx])
    ax.set_yticks([0, ny // 2, ny])
    return mesh
