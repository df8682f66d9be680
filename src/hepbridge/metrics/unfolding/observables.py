"""The observables of a comparison: what is compared of a column of events, and over which range."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.tables import Table
from hepbridge.metrics.distance import Floats

__all__ = [
    "PUBLISHED",
    "RADIUS",
    "Observable",
    "Values",
    "checked_weights",
    "effective",
    "observables_of",
    "values_of",
]

RADIUS = 0.4  # of the jets of the published samples
EDGES = 30  # of the histograms of the triangular discriminator: 29 bins


@dataclass(frozen=True)
class Observable:
    """A column as it is compared: divided by ``divisor``, in ``edges`` equal steps over its range.

    The ranges of the six jet observables are those of SBUnfold (arXiv:2308.12351). Its widths are divided
    by R = 0.4, and so are ours here. Its τ21 is tau2 over the width; ours is tau2 / tau1, in the same range.
    """

    name: str
    low: float
    high: float
    unit: str = "1"
    divisor: float = 1.0

    @property
    def edges(self) -> Floats:
        return np.linspace(self.low, self.high, EDGES)

    def to_dict(self) -> dict[str, float | str]:
        return {
            "unit": self.unit,
            "low": self.low,
            "high": self.high,
            "divisor": self.divisor,
        }


PUBLISHED = {
    o.name: o
    for o in (
        Observable("mass", 1.0, 60.0, "GeV"),
        Observable("width", 0.0, 0.6, divisor=RADIUS),
        Observable("multiplicity", 4.0, 60.0),
        Observable("ln_rho", -14.0, -2.0),
        Observable("z_g", 0.05, 0.55),
        Observable("tau21", 0.1, 1.1),
    )
}


@dataclass(frozen=True)
class Values:
    """What a sample has of an observable: the events in which it is defined.

    Attributes:
        x: (m,) values. weights: (m,), or None: 1.
        undefined: fraction of the events (of their weight) without a value. sigma: its standard error.
    """

    x: Floats
    weights: Floats | None
    undefined: float
    sigma: float

    @property
    def effective(self) -> float:
        """Effective number of events, (Σw)² / Σw²."""
        return effective(self.weights, len(self.x))


def effective(weights: Floats | None, n: int) -> float:
    """Effective number of n events, (Σw)² / Σw²."""
    return float(n) if weights is None else float(weights.sum() ** 2 / (weights @ weights))


def observables_of(truth: Table, names: Iterable[str] | None = None) -> list[Observable]:
    """The observables of these columns (default: all).

    The published range for those of `PUBLISHED`, else from the 0.1 % to the 99.9 % quantile of the truth.
    Raises DataError for a column that is not there, has no values or is constant.
    """
    found = []
    for name in truth.columns if names is None else names:
        column = truth.column(name)
        if name in PUBLISHED and truth.units[name] == PUBLISHED[name].unit:
            found.append(PUBLISHED[name])
            continue
        seen = column[truth.is_defined(name)]
        low, high = np.quantile(seen, [0.001, 0.999]) if len(seen) else (np.nan, np.nan)
        if not high > low:
            raise DataError(
                f"column {name!r} of the truth has no two different values and cannot be compared; "
                "leave it out of the observables"
            )
        found.append(Observable(name, float(low), float(high), truth.units[name]))
    return found


def values_of(table: Table, observable: Observable, who: str) -> Values:
    """The observable of a sample named ``who``.

    Raises DataError if it has no such column, no value in it, or weights that are negative or all zero.
    """
    if observable.name not in table.columns:
        raise DataError(f"{who}: has no column {observable.name!r}; {_has(table)}")
    column = table.column(observable.name, observable.unit) / observable.divisor
    there = table.is_defined(observable.name)
    weights = checked_weights(table, who)
    if not there.any() or (weights is not None and not weights[there].sum() > 0):
        raise DataError(f"{who}: column {observable.name!r} has no value in any event")
    w = np.ones(len(table)) if weights is None else weights
    missing = float(w[~there].sum() / w.sum())
    spread = w @ (w * (~there - missing) ** 2)
    return Values(
        column[there],
        None if weights is None else weights[there],
        missing,
        float(np.sqrt(spread) / w.sum()),
    )


def checked_weights(table: Table, who: str) -> Floats | None:
    """The weights of a sample. Raises DataError for negative ones, or if all are zero."""
    weights: NDArray[np.float64] | None = table.weights
    if weights is not None and (weights.min() < 0 or not weights.sum() > 0):
        raise DataError(f"{who}: weights must not be negative, nor all of them zero")
    return weights


def _has(table: Table) -> str:
    return f"it has: {', '.join(table.columns)}"
