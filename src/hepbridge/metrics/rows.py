"""The rows of an evaluation: distances of candidates with their floors, and verdicts over rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hepbridge.core.progress import Bar
from hepbridge.core.rng import stream
from hepbridge.metrics.advice import advise, mean_error
from hepbridge.metrics.distance import Floats, Pool, bootstrap_counts
from hepbridge.metrics.family import adjusted_p
from hepbridge.metrics.floor import Floor, half_splits
from hepbridge.metrics.observables import Observable, table_rows
from hepbridge.metrics.sets import SampleSet
from hepbridge.metrics.verdict import Verdict, excess, rows_above

__all__ = ["Measured", "above", "correct", "mean_ratio", "measure", "overall"]


@dataclass(frozen=True)
class Measured:
    """One row of one set: the floor and each candidate's distance."""

    name: str
    floor: Floor | None
    cells: dict[str, dict[str, Any]]  # of the record, per candidate


def measure(
    sample: SampleSet, seed: int, bootstraps: int, splits: int, goal: float, bar: Bar
) -> tuple[list[dict[str, Any]], list[Measured]]:
    """The records of all rows of a set, and what a verdict needs of them."""
    n = sample.n
    drawn = bootstrap_counts(n, bootstraps, stream(seed, "bootstrap", sample.label))
    halves = half_splits(n, splits, stream(seed, "splits", sample.label), mixed=sample.mixed)
    rows, measured = [], []
    for observable in table_rows(mixed=sample.mixed):
        use = observable.rows(n, sample.ref.geometry, seed)
        reference = observable.entries(sample.ref[use])
        std = reference.std()
        floor = second = None
        if sample.ref2 is not None:
            second = observable.entries(sample.ref2[use])
            both = Pool(reference, second)
            floor = Floor(both.splits(halves[:, np.concatenate([use, n + use])]))
            bar.advance(2, observable.name)
        found: dict[str, dict[str, Any]] = {}
        for name, showers in sample.candidates.items():
            pool = Pool(reference, observable.entries(showers[use]))
            count = drawn[:, use]
            resampled = pool.bootstrap(count, count if sample.mixed else None)
            found[name] = _cell(pool.distance(), resampled, floor, std)
            bar.advance(1, observable.name)
        told = None
        if floor is not None and len(use) == n:  # a capped spectrum gains nothing from more showers
            error = mean_error(reference, second if sample.mixed else None)
            told = advise(floor, n, std, error, goal)
        row = _row(observable, std, floor, found)
        rows.append(row | {"advice": None if told is None else told.to_dict()})
        measured.append(Measured(observable.name, floor, found))
    return rows, measured


def _row(
    observable: Observable, std: float, floor: Floor | None, found: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    return {
        "observable": observable.name,
        "unit": observable.unit,
        "std_ref": std,
        "floor": None if floor is None else floor.to_dict(),
        "candidates": found,
    }


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
    """Geometric mean of the floor ratios; None if there is none."""
    ratios = [
        row.cells[candidate]["emd_sample"] / row.floor.mean
        for row in rows
        if row.floor and row.floor.mean > 0
    ]
    if not ratios:
        return None
    return float(np.exp(np.log(ratios).mean())) if min(ratios) > 0 else 0.0
