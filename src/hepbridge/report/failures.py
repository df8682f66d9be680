"""Figures of where a candidate fails: incident energy, inputs of the classifier, single showers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from hepbridge.data.showers import Showers
from hepbridge.report.diagnosis import telling_level
from hepbridge.report.images import draw_image
from hepbridge.report.plate import Plate, new_figure
from hepbridge.report.samples import DrawnSet
from hepbridge.report.style import FLOOR, Style

__all__ = ["KEYS", "failure_plates"]

KEYS = ("auc_by_energy", "importances", "suspects")

_SHOWN = 6  # inputs, and showers


def failure_plates(
    record: Mapping[str, Any],
    sets: Sequence[DrawnSet],
    styles: Mapping[str, Style],
    fast: str | None,
    refined: str | None,
) -> Iterator[Plate]:
    """The plates of `KEYS`, as far as the record has what they show."""
    entries = [entry for entry in record["sets"] if entry.get("failures")]
    if not entries:
        return
    yield _by_energy(entries, styles, fast)
    shown = [name for name in styles if name != fast] or list(styles)
    if any(entry["failures"]["high"]["candidates"][shown[0]]["importances"] for entry in entries):
        yield _importances(entries, styles, shown)
    drawn = {s.label: s for s in sets}
    middle = entries[len(entries) // 2]
    name = refined or shown[-1]
    if isinstance(drawn[middle["label"]].samples.ref, Showers):  # of others there are no images
        yield _suspects(drawn[middle["label"]], middle, name)


def _by_energy(
    entries: Sequence[Mapping[str, Any]], styles: Mapping[str, Style], fast: str | None
) -> Plate:
    """AUC in bins of incident energy, a panel per level."""
    levels = [level for level in ("high", "low") if level in entries[0]["failures"]]
    figure = new_figure(8.6 if len(levels) > 1 else 4.9, 3.5)
    axes = figure.subplots(1, len(levels), sharey=True, squeeze=False)[0]
    high, outside = 0.5, []
    end = max(
        b["high_gev"]
        for e in entries
        for b in e["failures"]["high"]["candidates"][next(iter(styles))]["by_energy"]
    )
    for ax, level in zip(axes, levels, strict=True):
        ax.set_title(f"{level}-level inputs", loc="left", fontsize=10)
        ax.axhline(0.5, color="#3d3d3d", linewidth=0.6, zorder=1)
        found = [entry["failures"][level] for entry in entries]
        floors = [f["floor"] for f in found]
        if all(floors):
            _points(ax, [b for f in floors for b in f["by_energy"]], FLOOR, "floor", 0.0)
        for place, (name, style) in enumerate(styles.items()):
            bins = [b for f in found for b in f["candidates"][name]["by_energy"]]
            _points(ax, bins, style, name, 0.012 * end * (place - (len(styles) - 1) / 2))
            if name != fast or len(styles) == 1:
                high = max(high, *(b["auc"] + b["se"] for b in bins))
        ax.set_xlabel("Incident energy [GeV]")
        ax.set_xlim(0.0, 1.08 * end)
    top = high + 0.1 * (high - 0.42)
    axes[0].set_ylim(0.42, top)
    axes[0].set_ylabel("AUC")
    for name in styles:
        aucs = [
            b["auc"]
            for entry in entries
            for level in levels
            for b in entry["failures"][level]["candidates"][name]["by_energy"]
        ]
        if max(aucs) > top:
            outside.append(f"{name} (AUC {min(aucs):.2f} to {max(aucs):.2f})")
    axes[-1].legend(loc="best")
    figure.subplots_adjust(
        left=0.688 / figure.get_size_inches()[0], right=0.985, top=0.91, bottom=0.15, wspace=0.06
    )
    caption = (
        "AUC of the trees in bins of incident energy, each of the showers that those trees did not "
        "see, with its standard error; dotted: the floor, a second full simulation; points are "
        "shifted sideways for legibility. All bins share one training, so a bin with few showers "
        "is not a bin in which less was learnt."
        + (f" Above the drawn range: {'; '.join(outside)}." if outside else "")
    )
    alt = (
        f"AUC against incident energy for {', '.join(styles)}, {' and '.join(levels)}-level inputs."
    )
    return Plate("auc_by_energy", "At which incident energy", caption, alt, figure)


def _points(
    ax: Axes, bins: Sequence[Mapping[str, float]], style: Style, label: str, shift: float
) -> None:
    x, y, error = (np.array([b[key] for b in bins]) for key in ("mean_gev", "auc", "se"))
    order = np.argsort(x)
    ax.errorbar(
        (x + shift)[order],
        y[order],
        error[order],
        color=style.colour,
        linestyle=style.line,
        linewidth=1.1,
        marker=style.marker or ".",
        markersize=4,
        elinewidth=0.9,
        zorder=style.front,
        label=label,
    )


def _importances(
    entries: Sequence[Mapping[str, Any]], styles: Mapping[str, Style], names: Sequence[str]
) -> Plate:
    """Loss in AUC by shuffled input: a panel per set, a bar per candidate."""
    figure = new_figure(2.1 + 3.0 * len(entries), 0.9 + 0.22 * _SHOWN * (1 + len(names)))
    axes = figure.subplots(1, len(entries), squeeze=False, sharey=True)[0]
    drops = [
        {
            name: {
                i["name"]: i for i in entry["failures"]["high"]["candidates"][name]["importances"]
            }
            for name in names
        }
        for entry in entries
    ]
    largest = {
        key: max(found[name][key]["drop"] for found in drops for name in names)
        for key in drops[0][names[0]]
    }
    inputs = sorted(largest, key=lambda key: -largest[key])[:_SHOWN]
    height = 0.8 / len(names)
    for ax, entry, found in zip(axes, entries, drops, strict=True):
        for place, name in enumerate(names):
            y = np.arange(len(inputs)) + height * (place - (len(names) - 1) / 2)
            chosen = [found[name][key] for key in inputs]
            ax.barh(
                y,
                [i["drop"] for i in chosen],
                height,
                xerr=[i["se"] for i in chosen],
                color=styles[name].colour,
                error_kw={"elinewidth": 0.9, "ecolor": "#3d3d3d"},
                label=name,
            )
        ax.axvline(0.0, color="#3d3d3d", linewidth=0.6)
        ax.set_title(entry["label"], loc="left", fontsize=10)
        ax.set_xlabel("Loss in AUC")
        ax.tick_params(axis="y", which="both", length=0)
    axes[0].set_yticks(range(len(inputs)), labels=inputs)
    axes[0].set_ylim(len(inputs) - 0.45, -0.55)
    axes[-1].legend(loc="lower right")
    width, tall = figure.get_size_inches()
    figure.subplots_adjust(
        left=1.95 / width, right=1 - 0.15 / width, top=1 - 0.3 / tall, bottom=0.5 / tall, wspace=0.1
    )
    caption = (
        "How much AUC the trees lose when one high-level input is shuffled among test showers of "
        "neighbouring incident energy, with its standard error. Inputs that say the same share "
        "their importance."
    )
    alt = f"Bars of the loss in AUC of {', '.join(inputs)} for {', '.join(names)}."
    return Plate("importances", "What gives it away", caption, alt, figure)


def _suspects(drawn: DrawnSet, entry: Mapping[str, Any], name: str) -> Plate:
    """The most suspicious showers, above full simulation of the same rows."""
    level = telling_level(entry, name)
    found = entry["failures"][level]["candidates"][name]
    suspects = found["suspects"][:_SHOWN]
    rows = [s["row"] for s in suspects]
    samples = drawn.samples
    shape = samples.ref.geometry.shape
    lines = {name: samples.candidates[name], "full simulation": samples.ref}
    images = {
        key: s.cells[rows].astype(np.float64).reshape(len(rows), -1, *shape[-2:]).sum(axis=1) / 1e3
        for key, s in lines.items()
    }
    figure = new_figure(0.9 + 2.0 * len(rows), 5.0)
    axes = figure.subplots(2, len(rows), squeeze=False)
    norm = LogNorm(1e-3, max(float(i.max()) for i in images.values()))
    for line, (key, cells) in zip(axes, images.items(), strict=True):
        for ax, suspect, image in zip(line, suspects, cells, strict=True):
            mesh = draw_image(ax, np.where(image > 1e-3, image, np.nan), norm=norm, cmap="viridis")
            ax.set_facecolor("#f4f4f4")
            title = f"row {suspect['row']}, {suspect['incident_energy_gev']:.3g} GeV"
            if key == name:
                why = suspect["why"][0]
                title += f"\nscore {suspect['score']:.2f}\n{why['name']}: {why['z']:+.1f}σ"
            ax.set_title(title, fontsize=7.8)
        line[0].set_ylabel(f"{key}\ny [cells]")
    for ax in axes[-1]:
        ax.set_xlabel("x [cells]")
    figure.subplots_adjust(left=0.07, right=0.91, top=0.86, bottom=0.09, wspace=0.16, hspace=0.28)
    figure.colorbar(mesh, cax=figure.add_axes((0.93, 0.2, 0.012, 0.6))).set_label("GeV / cell")
    tail = found["tail"]
    caption = (
        f"{drawn.label}: the showers of {name} that trees on {level}-level inputs find least like full "
        "simulation, cells above 1 MeV, with their score (probability of being "
        f"{name}) and the input that lies farthest out; below, full simulation in the same rows"
        f"{' (same incident energy, other showers)' if drawn.mixed else ''}. Every sample has a "
        f"most suspicious shower; of {name}, {100 * tail['share']:.1f} ± {100 * tail['se']:.1f} % lie "
        "beyond the score that 1 % of the full simulation exceeds."
    )
    alt = f"The most suspicious showers of {name}, as images with logarithmic colour."
    return Plate("suspects", "The most suspicious showers", caption, alt, figure)
