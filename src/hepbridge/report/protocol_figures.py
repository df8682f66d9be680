"""The figures of a protocol: histograms with their ratios, and separation by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from hepbridge.report.histograms import Binned, ratio
from hepbridge.report.plate import Plate, small_multiples
from hepbridge.report.protocol import NAMES, Record
from hepbridge.report.protocol_places import places_plate
from hepbridge.report.strokes import ratio_points, shade, steps
from hepbridge.report.style import FLOOR, REFERENCE, Style
from hepbridge.report.text import percent

__all__ = ["protocol_plates"]

_WHOLE = ("e_tot", "voxel")  # histograms of the whole shower
_LAYERED = ("e_layer", "sparsity", "centre", "width", "radial")  # one for each layer
_HALF = 0.5  # of the ratio's axis
_LABELS = {  # without unit
    "e_tot": r"$E_\mathrm{tot}\,/\,E_\mathrm{inc}$",
    "voxel": "Voxel energy",
    "e_layer": "Energy",
    "sparsity": "Occupied part of the cells",
}
_PER_LAYER = {  # histogram -> how it is called in words
    "e_layer": "energy",
    "sparsity": "sparsity",
    "ec_eta": "centre in η",
    "ec_phi": "centre in φ",
    "ec_r": "centre in r",
    "width_eta": "width in η",
    "width_phi": "width in φ",
    "width_r": "width in r",
}


def protocol_plates(record: Record, styles: Mapping[str, Style]) -> Iterator[Plate]:
    """The plates in the order of the page."""
    yield _histograms(record, styles)
    if len(_layers(record)) > 1:
        yield _by_layer(record, styles)
    if record["published"]:
        yield places_plate(record, styles)


def _histograms(record: Record, styles: Mapping[str, Style]) -> Plate:
    """The histograms of the whole shower, and of each kind of layer histogram the worst one."""
    described = {h["name"]: h for h in record["histograms"]}
    chosen = [name for name in _WHOLE if name in described]
    chosen += [worst for group in _LAYERED if (worst := _worst(record, group)) is not None]
    figure, places, columns = small_multiples(
        len(chosen),
        panel=(3.6, 3.3),
        around=(0.3, 0.5),
        left=0.62,
        right=0.12,
        bottom=0.5,
        top=0.55,
        wspace=0.24,
        hspace=0.34,
    )
    outside: list[str] = []
    for k, name in enumerate(chosen):
        inner = places[k].subgridspec(2, 1, height_ratios=(3, 1), hspace=0.06)
        axes = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
        outside += _histogram(axes, record, described[name], styles)
        if k % columns == 0:
            axes[0].set_ylabel("Fraction of entries / bin")
            axes[1].set_ylabel("Ratio")
    figure.legend(
        handles=_handles(record, styles),
        loc="upper left",
        ncols=2 + len(styles),
        bbox_to_anchor=(0.5 / figure.get_size_inches()[0], 1.0),
    )
    lost = f" Outside the range of a panel: {'; '.join(outside)}." if outside else ""
    return Plate(
        "protocol_histograms",
        "Histograms",
        "Whole showers, and of every kind of layer histogram the one in which a candidate's "
        "separation is largest. Lower panels: candidate / full simulation with its Poisson error, "
        "the reference's error (grey band) and, dotted, the second full simulation; triangles point "
        "to values outside; bins where the reference is not known to 50 % have no ratio. Errors of "
        f"voxels take them as independent, which they are not.{lost}",
        "Histograms of the protocol with ratio panels.",
        figure,
    )


def _histogram(
    axes: tuple[Axes, Axes], record: Record, described: Record, styles: Mapping[str, Style]
) -> list[str]:
    """One histogram and its ratio; returns what lies outside of it, in words."""
    top, bottom = axes
    edges = np.asarray(described["edges"])
    name, group = described["name"], described["group"]
    ref = _binned(edges, described["counts"])
    shown = {c: _binned(edges, _counts(record, c, name)) for c in styles}
    top.stairs(ref.values, edges, fill=True, color=REFERENCE.fill, zorder=REFERENCE.front)
    steps(top, edges, ref.values, REFERENCE, 1.0)
    one, _, error = ratio(ref, ref)
    shade(bottom, edges, one, error, "#9a9a9a", 0.45)
    bottom.axhline(1.0, color=REFERENCE.colour, linewidth=0.8, zorder=2)
    if record["floor"]:
        second = _binned(edges, record["floor"]["rows"][name]["counts"])
        steps(bottom, edges, ratio(second, ref)[0], FLOOR, 0.9)
    logarithmic = group in ("voxel", "e_layer")
    middles = np.sqrt(edges[1:] * edges[:-1]) if logarithmic else ref.centres
    for candidate, b in shown.items():
        steps(top, edges, b.values, styles[candidate], 1.5)
        value, bar, _ = ratio(b, ref)
        ratio_points(bottom, middles, value, bar, styles[candidate], _HALF)
    filled = [b.values > 0 for b in (ref, *shown.values())]
    used = np.flatnonzero(np.any(filled, axis=0))
    low, high = max(used[0] - 1, 0), min(used[-1] + 2, len(edges) - 1)
    for ax in axes:
        if logarithmic:
            ax.set_xscale("log")
        ax.set_xlim(edges[low], edges[high])
    if group == "voxel":
        top.set_yscale("log")
    bottom.set_ylim(1 - _HALF, 1 + _HALF)
    bottom.set_yticks([1 - _HALF / 2, 1, 1 + _HALF / 2])
    bottom.yaxis.set_minor_locator(NullLocator())
    bottom.set_xlabel(_label(described))
    top.tick_params(labelbottom=False)
    top.set_title(_called(name), fontsize=9.5, loc="left", pad=3)
    return [
        f"{_called(name)}, {who} {percent(part)} {side}"
        for who, b in {"full": ref, **shown}.items()
        for part, side in ((b.below, "below"), (b.above, "above"))
        if part > 0.01 and group != "voxel"
    ]


def _by_layer(record: Record, styles: Mapping[str, Style]) -> Plate:
    """Corrected separation power of every layer's histograms against the layer."""
    layers = _layers(record)
    kinds = [k for k in _PER_LAYER if any(f"{k} {n}" in _first(record) for n in layers)]
    figure, places, columns = small_multiples(
        len(kinds),
        panel=(2.8, 2.2),
        around=(0.5, 0.8),
        most=4,
        left=0.7,
        right=0.12,
        bottom=0.5,
        top=0.58,
        wspace=0.3,
        hspace=0.42,
    )
    for i, kind in enumerate(kinds):
        ax = figure.add_subplot(places[i])
        for name, style in styles.items():
            _separations(ax, record["candidates"][name]["rows"], kind, layers, style)
        if record["floor"]:
            _separations(ax, record["floor"]["rows"], kind, layers, FLOOR)
        chance = [_first(record).get(f"{kind} {n}", {}).get("expected") for n in layers]
        ax.plot(layers, _finite(chance), color="#8a8a8a", linewidth=0.9, zorder=1)
        ax.set_yscale("log")
        ax.set_xlim(layers[0] - 0.5, layers[-1] + 0.5)
        ax.set_title(_PER_LAYER[kind], fontsize=9.5, loc="left", pad=3)
        if i % columns == 0:
            ax.set_ylabel("Separation power")
        if i + columns >= len(kinds):
            ax.set_xlabel("Layer")
    chance_line = Line2D([], [], color="#8a8a8a", linewidth=0.9, label="by chance")
    figure.legend(
        handles=[*_handles(record, styles, reference=False), chance_line],
        loc="upper left",
        ncols=3 + len(styles),
        bbox_to_anchor=(0.55 / figure.get_size_inches()[0], 1.0),
    )
    return Plate(
        "protocol_layers",
        "Separation by layer",
        "Separation power of the histograms of each layer, with bins for what lies outside the "
        "plotted range and for layers without energy. Grey line: what two samples of one truth and "
        "of this size have on average"
        + ("; dotted: the second full simulation." if record["floor"] else "."),
        "Separation power against the layer, for each kind of histogram.",
        figure,
    )


def _separations(
    ax: Axes, rows: Mapping[str, Record], kind: str, layers: Sequence[int], style: Style
) -> None:
    values = [rows.get(f"{kind} {n}", {}).get("separation_all") for n in layers]
    ax.plot(
        layers,
        _finite(values),
        color=style.colour,
        linestyle=style.line,
        linewidth=1.3,
        zorder=style.front,
    )


def _worst(record: Record, group: str) -> str | None:
    """The histogram of a group in which the separation of a candidate is largest."""
    names = [h["name"] for h in record["histograms"] if h["group"] == group]
    rows = [c["rows"] for c in record["candidates"].values()]
    size = {n: max(r[n]["separation_all"] or 0.0 for r in rows) for n in names}
    return max(size, key=lambda n: size[n]) if size else None


def _counts(record: Record, candidate: str, name: str) -> Sequence[int]:
    counts: Sequence[int] = record["candidates"][candidate]["rows"][name]["counts"]
    return counts


def _binned(edges: Any, counts: Sequence[int]) -> Binned:
    """Fractions of all entries; the counts begin and end with what lies outside."""
    n = np.asarray(counts, dtype=np.float64)
    total = max(n.sum(), 1.0)
    return Binned(edges, n[1:-2] / total, np.sqrt(n[1:-2]) / total, n[0] / total, n[-2] / total)


def _called(name: str) -> str:
    """``ec_eta 3`` -> "Layer 3: centre in η"."""
    kind, _, layer = name.partition(" ")
    return f"Layer {layer}: {_PER_LAYER[kind]}" if layer else f"Showers: {NAMES[kind]}"


def _label(described: Record) -> str:
    kind = described["name"].split()[0]
    label = _LABELS.get(described["group"]) or ("Width" if "width" in kind else "Centre of energy")
    return f"{label} [{described['unit']}]" if described["unit"] else label


def _layers(record: Record) -> list[int]:
    return sorted(
        {int(h["name"].split()[1]) for h in record["histograms"] if h["group"] == "e_layer"}
    )


def _first(record: Record) -> Mapping[str, Record]:
    rows: Mapping[str, Record] = next(iter(record["candidates"].values()))["rows"]
    return rows


def _finite(values: Sequence[float | None]) -> list[float]:
    return [np.nan if v is None or v <= 0 else v for v in values]


def _handles(
    record: Record, styles: Mapping[str, Style], *, reference: bool = True
) -> list[Patch | Line2D]:
    out: list[Patch | Line2D] = []
    if reference:
        out.append(
            Patch(facecolor=REFERENCE.fill, edgecolor=REFERENCE.colour, label="Full simulation")
        )
    out += [
        Line2D([], [], color=s.colour, linestyle=s.line, linewidth=1.5, label=name)
        for name, s in styles.items()
    ]
    if record["floor"]:
        out.append(
            Line2D([], [], color=FLOOR.colour, linestyle=FLOOR.line, label="second full simulation")
        )
    return out
