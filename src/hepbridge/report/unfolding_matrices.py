"""Matrices of an unfolding: correlations of the observables, and the migrations of the response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hepbridge.data.tables import Table
from hepbridge.metrics.unfolding.observables import Observable, values_of
from hepbridge.report.histograms import Array
from hepbridge.report.plate import Plate, small_multiples
from hepbridge.report.unfolding import axis_label, label_of, symbol_of

__all__ = ["correlation_plate", "migration_plate"]

_FEWEST = 20  # events of a bin: the fractions of fewer are noise
_STEPS = (0.05, 0.1, 0.2, 0.5, 1.0)  # ends of the colours of differences


def correlation_plate(found: Mapping[str, Any]) -> Plate:
    """The correlation matrix of the truth, and the difference of every sample from it."""
    names, truth = found["names"], np.asarray(found["truth"])
    differences = {
        who: np.asarray(cell["matrix"]) - truth for who, cell in found["candidates"].items()
    }
    largest = max(float(np.abs(d).max()) for d in differences.values())
    end = next((s for s in _STEPS if largest <= s), _STEPS[-1])
    figure, places, _ = small_multiples(
        1 + len(differences),
        panel=(3.5, 3.05),
        around=(0.7, 0.35),
        left=0.6,
        right=0.5,
        bottom=0.42,
        top=0.3,
        wspace=0.36,
        hspace=0.2,
    )
    panels = [("Truth", truth, 1.0)]
    panels += [(f"{who} − truth", d, end) for who, d in differences.items()]
    for k, (title, matrix, top) in enumerate(panels):
        ax = figure.add_subplot(places[k])
        shown = matrix if k else np.where(np.eye(len(names), dtype=bool), np.nan, matrix)
        mesh = ax.imshow(shown, cmap="RdBu_r", vmin=-top, vmax=top, interpolation="nearest")
        ax.set_title(title, fontsize=9.5, loc="left", pad=3)
        _named(ax, names)
        _written(ax, shown, top)
        bar = figure.colorbar(mesh, ax=ax, fraction=0.046, pad=0.03)
        bar.ax.tick_params(labelsize=7.5)
        bar.ax.minorticks_off()
    return Plate(
        "correlations",
        "Correlations",
        "Pearson correlation coefficients of the truth, and by how much those of each sample differ; the "
        "colours of the differences have one scale.",
        "Correlation matrices as maps.",
        figure,
    )


def _named(ax: Axes, names: Sequence[str]) -> None:
    labels = [symbol_of(name) for name in names]
    long = max(len(n) for n in labels if not n.startswith("$")) if _words(labels) else 0
    ax.set_xticks(range(len(names)), labels, rotation=90 if long > 4 else 0)
    ax.set_yticks(range(len(names)), labels)
    ax.tick_params(which="both", length=0, labelsize=8.5)
    ax.minorticks_off()


def _words(labels: Sequence[str]) -> bool:
    return any(not label.startswith("$") for label in labels)


def _written(ax: Axes, matrix: Array, top: float) -> None:
    """The numbers, where there is room for them."""
    if len(matrix) > 10:
        return
    for i, j in np.ndindex(matrix.shape):
        value = float(matrix[i, j])
        if i != j and np.isfinite(value):
            ax.text(
                j,
                i,
                f"{round(value, 2) + 0.0:.2f}".replace("-", "−"),
                ha="center",
                va="center",
                fontsize=7.2,
                color="white" if abs(value) > 0.65 * top else "#1d1f22",
            )


def migration_plate(particle: Table, detector: Table, observables: Sequence[Observable]) -> Plate:
    """For each observable, where the events of a bin at particle level are seen: rows of both tables pair.

    Every column of a map adds up to one with what lies outside the map.
    """
    figure, places, _ = small_multiples(
        len(observables),
        panel=(3.75, 3.1),
        around=(0.3, 0.2),
        left=0.68,
        right=0.6,
        bottom=0.5,
        top=0.15,
        wspace=0.42,
        hspace=0.26,
    )
    weights = np.ones(len(particle)) if particle.weights is None else particle.weights
    for k, observable in enumerate(observables):
        ax = figure.add_subplot(places[k])
        both = particle.is_defined(observable.name) & detector.is_defined(observable.name)
        true, seen = (
            values_of(t[both], observable, level).x
            for t, level in ((particle, "particle level"), (detector, "detector level"))
        )
        edges = _edges(observable, true)
        matrix = _migrations(true, seen, weights[both], edges)
        mesh = ax.pcolormesh(edges, edges, matrix.T, cmap="viridis_r", vmin=0, rasterized=True)
        ax.plot(
            edges[[0, -1]], edges[[0, -1]], color="#b2182b", linewidth=0.8, linestyle=(0, (4, 3))
        )
        ax.set_xlabel(axis_label(observable.name, observable.unit, observable.divisor))
        ax.set_ylabel(f"{symbol_of(observable.name)}, detector level")
        ax.set_aspect("equal")
        bar = figure.colorbar(mesh, ax=ax, fraction=0.046, pad=0.03)
        bar.set_label("Fraction of the bin", fontsize=8)
        bar.ax.tick_params(labelsize=7.5)
        bar.ax.minorticks_off()
    return Plate(
        "migrations",
        "Response",
        "Where the events of each bin at particle level (horizontal) are seen at detector level (vertical), as "
        "a fraction of the bin; dashed: no migration. Pairs of the simulated response that have a value at "
        f"both levels. White: no event; bins with fewer than {_FEWEST} events are left empty.",
        f"Migration matrices of {', '.join(label_of(o.name).lower() for o in observables)}.",
        figure,
    )


def _edges(observable: Observable, values: Array) -> Array:
    """About 30 equal bins over the range of the observable; whole ones for integers."""
    if (values == np.round(values)).all():
        step = max(1, round((observable.high - observable.low) / 30))
        return np.arange(observable.low, observable.high + 1 + step, step) - 0.5
    return np.linspace(observable.low, observable.high, 31)


def _migrations(x: Array, y: Array, weights: Array, edges: Array) -> Array:
    """(from, to): fractions of the events of each bin of x; NaN for none, and in bins of few events."""
    counts = np.histogram2d(x, y, [edges, edges], weights=weights)[0]
    total = np.histogram(x, edges, weights=weights)[0][:, None]
    enough = np.histogram(x, edges)[0][:, None] >= _FEWEST
    out = np.full(counts.shape, np.nan)
    np.divide(counts, total, out=out, where=enough & (counts > 0))
    return out
