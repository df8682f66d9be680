"""The rows of an evaluation: distances of candidates with their floors, and verdicts over rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.progress import Bar
from hepbridge.core.rng import stream
from hepbridge.metrics.advice import advise
from hepbridge.metrics.distance import Floats, bootstrap_counts
from hepbridge.metrics.family import adjusted_p
from hepbridge.metrics.floor import Floor, half_splits
from hepbridge.metrics.kinds import kind_of
from hepbridge.metrics.sets import SampleSet
from hepbridge.metrics.verdict import Verdict, excess, rows_above

__all__ = [
    "Measured",
    "Row",
    "above",
    "correct",
    "mean_ratio",
    "measure",
    "overall",
    "weighted_mean",
]


@dataclass(frozen=True)
class Measured:
    """One row of one set: the floor and each candidate's distance."""

    name: str
    floor: Floor | None
    cells: dict[str, dict[str, Any]]  # of the record, per candidate
    group: str | None = None


class DistancePool(Protocol):
    """Two samples, and distances between any two weightings of their showers."""

    def distance(self) -> float: ...
    def bootstrap(
        self, second: NDArray[np.int64], first: NDArray[np.int64] | None = None
    ) -> Floats: ...
    def splits(self, chosen: NDArray[np.bool_]) -> Floats: ...


class Row(Protocol):
    """What is compared between two samples: a line of the table.

    ``group`` names many rows of a kind, such as those of single layers.
    """

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def group(self) -> str | None: ...
    def chosen(
        self, samples: Mapping[str, Any], *, mixed: bool, seed: int
    ) -> Mapping[str, NDArray[np.int64] | None]:
        """Name of the sample -> its rows that enter, None for all; in a spectrum the same of all."""

    def entries(self, sample: Any, rows: Any) -> Any:
        """What `pool` wants of a sample."""

    def pool(self, first: Any, second: Any) -> DistancePool: ...
    def scale(self, entries: Any) -> float:
        """The unit of an excess, usually the standard deviation."""

    def error(self, first: Any, second: Any) -> float | None:
        """Standard error of the difference of two means, for `advise`; None without advice."""


def measure(
    sample: SampleSet[Any], seed: int, bootstraps: int, splits: int, goal: float, bar: Bar
) -> tuple[list[dict[str, Any]], list[Measured]]:
    """The records of all rows of a set, and what a verdict needs of them."""
    n = sample.n
    drawn = bootstrap_counts(n, bootstraps, stream(seed, "bootstrap", sample.label))
    halves = half_splits(n, splits, stream(seed, "splits", sample.label), mixed=sample.mixed)
    rows, measured = [], []
    table = kind_of(sample.ref).rows(sample.ref, mixed=sample.mixed)
    step = 7 / len(table)  # the bar counts seven steps per sample, however many rows there are
    for observable in table:
        use = observable.chosen(sample.every(), mixed=sample.mixed, seed=seed)
        reference = observable.entries(sample.ref, use["ref"])
        std = observable.scale(reference)
        floor = second = None
        if sample.ref2 is not None:
            second = observable.entries(sample.ref2, use["ref2"])
            both = observable.pool(reference, second)
            floor = Floor(both.splits(_columns(halves, use["ref"], use["ref2"], n)))
            bar.advance(2 * step, observable.name)
        found: dict[str, dict[str, Any]] = {}
        for name, showers in sample.candidates.items():
            pool = observable.pool(reference, observable.entries(showers, use[name]))
            count = drawn if use[name] is None else drawn[:, use[name]]
            resampled = pool.bootstrap(count, count if sample.mixed else None)
            found[name] = _cell(pool.distance(), resampled, floor, std)
            bar.advance(step, observable.name)
        told = None
        whole = use["ref"] is None or len(use["ref"]) == n
        if floor is not None and whole:  # a capped spectrum gains nothing from more showers
            error = observable.error(reference, second if sample.mixed else None)
            told = None if error is None else advise(floor, n, std, error, goal)
        row = _row(observable, std, floor, found)
        rows.append(row | {"advice": None if told is None else told.to_dict()})
        measured.append(Measured(observable.name, floor, found, observable.group))
    return rows, measured


def _columns(
    halves: NDArray[np.bool_],
    first: NDArray[np.int64] | None,
    second: NDArray[np.int64] | None,
    n: int,
) -> NDArray[np.bool_]:
    """The columns of the showers that enter, those of the first sample before the others."""
    if first is None or second is None:
        return halves
    return halves[:, np.concatenate([first, n + second])]


def _row(
    observable: Row, std: float, floor: Floor | None, found: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    row = {
        "observable": observable.name,
        "unit": observable.unit,
        "std_ref": std,
        "floor": None if floor is None else floor.to_dict(),
        "candidates": found,
    }
    return row if observable.group is None else row | {"group": observable.group}


def _cell(distance: float, resampled: Floats, floor: Floor | None, std: float) -> dict[str, Any]:
    over = None if floor is None else excess(distance, resampled, floor, std)
    return {
        "emd": float(resampled.mean()),
        "sigma": float(resampled.std(ddof=1)),
        "emd_sample": distance,
        "ratio": distance / floor.mean if floor is not None and floor.mean > 0 else None,
        "excess": None if over is None else over.value,
        "excess_upper95": None if over is None else over.upper95,
        "above_q95": None if floor is None else bool(distance > floor.q95),
        "p_adjusted": None,  # known when all rows are
    }


def above(candidate: str, rows: Sequence[Measured]) -> tuple[int, Any]:
    """How many rows lie above the 95 % quantile of their floors, and how many of the splits do."""
    floors = [row.floor for row in rows if row.floor is not None]
    return rows_above([row.cells[candidate]["emd_sample"] for row in rows], floors)


def correct(candidate: str, family: Sequence[Measured]) -> float:
    """Write ``p_adjusted`` into the candidate's cells; the smallest of them."""
    floors = [row.floor for row in family if row.floor is not None]
    cells = [row.cells[candidate] for row in family]
    adjusted = adjusted_p([cell["emd_sample"] for cell in cells], floors)
    for cell, p in zip(cells, adjusted, strict=True):
        cell["p_adjusted"] = float(p)
    return float(adjusted.min())


def overall(verdict: Verdict, p_max: float) -> dict[str, float]:
    """The verdict over all rows: their number above the floor, and the largest, as two tests."""
    p_global = min(1.0, 2.0 * min(verdict.p, p_max))
    return verdict.to_dict() | {"p_max": p_max, "p_global": p_global}


def mean_ratio(candidate: str, rows: Sequence[Measured]) -> float | None:
    """Geometric mean of the floor ratios; None if there is none.

    All rows of a group count as much as one other row: forty-five layers shall not drown the rest.
    """
    ratios = [
        (row.cells[candidate]["emd_sample"] / row.floor.mean, row.group)
        for row in rows
        if row.floor and row.floor.mean > 0
    ]
    return weighted_mean(ratios)


def weighted_mean(ratios: Sequence[tuple[float, str | None]]) -> float | None:
    """Geometric mean of (ratio, group), a group weighing as much as one row; None of nothing.

    0 if a row of its own is 0. In a group, rows at 0 are left out unless all are: numbers of hits in a
    layer that is always full, or always empty, agree exactly, and would decide the mean.
    """
    above = {group for ratio, group in ratios if ratio > 0}
    ratios = [(ratio, group) for ratio, group in ratios if ratio > 0 or group not in above - {None}]
    if not ratios:
        return None
    if min(ratio for ratio, _ in ratios) <= 0:
        return 0.0
    size = Counter(group for _, group in ratios)
    weight = [1.0 if group is None else 1.0 / size[group] for _, group in ratios]
    return float(np.exp(np.average(np.log([ratio for ratio, _ in ratios]), weights=weight)))
