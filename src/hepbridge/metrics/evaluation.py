"""Judge candidates against full simulation: distances with floors, a verdict, classifier tests."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.progress import Bar, progress
from hepbridge.core.rng import stream
from hepbridge.core.units import GEV
from hepbridge.data.showers import Showers
from hepbridge.metrics.advice import GOAL, advise, mean_error
from hepbridge.metrics.classifier import (
    CLASSIFIERS,
    ClassifierSettings,
    above_floor,
    classifier_test,
)
from hepbridge.metrics.diagnosis import (
    STEPS,
    coverage_record,
    failures_record,
    memorisation_record,
)
from hepbridge.metrics.distance import Floats, Pool, bootstrap_counts
from hepbridge.metrics.family import adjusted_p
from hepbridge.metrics.floor import Floor, half_splits
from hepbridge.metrics.observables import OBSERVABLES, Observable, table_rows
from hepbridge.metrics.paper import NOTE, paper_rows
from hepbridge.metrics.sets import SampleSet, check_names, make_sets
from hepbridge.metrics.verdict import Verdict, combine, excess, rows_above

__all__ = ["Evaluation", "evaluate"]

FORMAT_VERSION = 1


@dataclass
class Evaluation:
    """All numbers of one evaluation; `to_dict` is the content of ``metrics.json``.

    Attributes:
        sets: one record per fixed incident energy, or one mixed one: ``label``,
            ``incident_energy_gev``, ``n``, ``floor_n``, ``floor_source``, ``rows``, ``verdict``,
            ``ratio_geometric_mean``, ``classifier``, ``prdc``, ``failures`` (`diagnosis`) and, on
            request, ``paper``. In a row, ``advice`` is that of `hepbridge.metrics.advice`, ``emd``
            and ``sigma`` are mean and scatter of the bootstraps; ``emd_sample`` is the EMD of the
            samples as they are, from which ``ratio``, ``excess`` and ``above_q95`` come: a
            bootstrap adds its own noise, which near the floor is as large as the distance.
            ``p_adjusted`` is corrected for the number of all judged rows (`adjusted_p`).
            ``classifier``: candidate -> classifier -> level -> `classifier_test` with the floor's
            ``floor_auc``, ``floor_se`` and ``floor_curve``, and `above_floor`.
        verdict: per candidate, over all sets that have a floor: `Verdict`, ``p_max``, the smallest
            ``p_adjusted``, and ``p_global`` = min(1, 2 min(p, p_max)): many rows that are a little
            off, or one row that is far off.
        starred: observables that enter a training loss: shown, but not in verdicts and means.
        memorisation: see `diagnosis`; None without the training sample.
        goal: the excess for which ``advice`` counts showers.
    """

    seed: int
    samples: dict[str, dict[str, Any]]
    sets: list[dict[str, Any]]
    verdict: dict[str, dict[str, float]] | None = None
    starred: list[str] = field(default_factory=list)
    memorisation: dict[str, Any] | None = None
    goal: float = GOAL
    command: str = ""
    created: str = ""
    hepbridge: str = ""
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_dict`. Raises DataError for another format or missing entries."""
        found = record.get("format_version")
        if found != FORMAT_VERSION:
            raise DataError(
                f"metrics of format {found!r} cannot be read; this version reads {FORMAT_VERSION}"
            )
        names = {f.name for f in fields(cls)}
        missing = [name for name in ("seed", "samples", "sets") if name not in record]
        if missing:
            raise DataError(f"not a record of an evaluation: {', '.join(missing)} missing")
        return cls(**{name: value for name, value in record.items() if name in names})


def evaluate(
    ref: Showers,
    candidates: Mapping[str, Showers],
    ref2: Showers | None = None,
    *,
    seed: int = 0,
    bootstraps: int = 100,
    splits: int = 200,
    classifiers: Sequence[str] = ("trees",),
    classifier_settings: ClassifierSettings | None = None,
    starred: Sequence[str] = (),
    paper: bool = False,
    train: Showers | None = None,
    goal: float = GOAL,
    paths: Mapping[str, str] | None = None,
    command: str = "",
) -> Evaluation:
    """Compare each candidate with ``ref``, and both with what two full simulations differ by.

    Samples with at most 10 incident energies make one set per energy, others one mixed set whose
    rows must share their incident energies (`hepbridge.metrics.sets`). Distances are EMDs
    in the unit of the observable; ``candidates`` are bootstrapped ``bootstraps`` times against the
    fixed ``ref``; at mixed energies rows are drawn in pairs, ref and candidate together, because
    a candidate with another draw of incident energies would measure the spectrum. Weights of
    showers are used throughout. ``classifiers`` are names of
    `hepbridge.metrics.classifier.CLASSIFIERS` ("trees", "mlp"); () leaves the classifier test out.
    With "trees" among them the record also says where they tell the samples apart (``failures``).
    ``train``, the full simulation that the candidates were trained on, turns the check for
    memorisation on. ``goal``: the excess that the advice on the number of showers is about.

    Raises ConfigError for names that do not exist or are not allowed, DataError for samples that
    cannot be compared.
    """
    check_names(candidates)
    _check_known("classifier", classifiers, CLASSIFIERS)
    _check_known("observable", starred, OBSERVABLES)
    if bootstraps < 2 or splits < 20:
        raise ConfigError(
            f"at least 2 bootstraps and 20 splits are needed, got {bootstraps} and {splits}"
        )
    if not 0 < goal < 10:
        raise ConfigError(
            f"the goal is an excess in standard deviations, 0 < goal < 10, not {goal}"
        )
    settings = classifier_settings or ClassifierSettings()
    sets = make_sets(ref, candidates, ref2, seed=seed)
    records: list[dict[str, Any]] = []
    judged: list[tuple[int, dict[str, Any]]] = []  # rows, and per candidate those above, by set
    family: list[_Measured] = []  # all judged rows of all sets
    with progress("evaluate", sum(_steps(s, classifiers) for s in sets)) as bar:
        for sample in sets:
            rows, measured = _rows(sample, seed, bootstraps, splits, goal, bar)
            judge = [m for m in measured if m.floor is not None and m.name not in starred]
            above = {c: _above(c, judge) for c in candidates} if judge else {}
            if judge:
                judged.append((len(judge), above))
                family += judge
            energy = sample.incident_energy
            record: dict[str, Any] = {
                "label": sample.label,
                "incident_energy_gev": None if energy is None else energy / GEV,
                "n": sample.n,
                "floor_n": None if sample.ref2 is None else sample.n,
                "floor_source": sample.floor_source,
                "rows": rows,
                "verdict": {c: combine([found], len(judge)).to_dict() for c, found in above.items()}
                or None,
                "ratio_geometric_mean": {c: _mean_ratio(c, judge) for c in above} or None,
                "classifier": _classifiers(sample, classifiers, settings, seed, bar),
                "prdc": coverage_record(sample, seed, bar),
            }
            if "trees" in classifiers:
                record["failures"] = failures_record(sample, settings, seed, bar)
            if paper and not sample.mixed:
                found = paper_rows(sample.ref, sample.candidates, bootstraps=bootstraps, seed=seed)
                record["paper"] = {"note": NOTE, "rows": found}
            records.append(record)
    of = sum(rows for rows, _ in judged)
    overall = {
        c: _overall(combine([above[c] for _, above in judged], of), _correct(c, family))
        for c in candidates
        if of
    }
    given = {"ref": ref, **({} if ref2 is None else {"ref2": ref2}), **candidates}
    return Evaluation(
        seed=seed,
        samples={name: _sample(s, (paths or {}).get(name)) for name, s in given.items()},
        sets=records,
        verdict=overall or None,
        starred=list(starred),
        memorisation=None
        if train is None
        else memorisation_record(train, sets, _sample(train, (paths or {}).get("--train")), seed),
        goal=goal,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        hepbridge=_version(),
    )


@dataclass(frozen=True)
class _Measured:
    """One row of one set: the floor and each candidate's distance."""

    name: str
    floor: Floor | None
    cells: dict[str, dict[str, Any]]  # of the record, per candidate


def _rows(
    sample: SampleSet, seed: int, bootstraps: int, splits: int, goal: float, bar: Bar
) -> tuple[list[dict[str, Any]], list[_Measured]]:
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
        measured.append(_Measured(observable.name, floor, found))
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


def _above(candidate: str, rows: Sequence[_Measured]) -> tuple[int, Any]:
    floors = [row.floor for row in rows if row.floor is not None]
    return rows_above([row.cells[candidate]["emd_sample"] for row in rows], floors)


def _correct(candidate: str, family: Sequence[_Measured]) -> float:
    """Write ``p_adjusted`` into the candidate's cells; the smallest of them."""
    floors = [row.floor for row in family if row.floor is not None]
    cells = [row.cells[candidate] for row in family]
    adjusted = adjusted_p([cell["emd_sample"] for cell in cells], floors)
    for cell, p in zip(cells, adjusted, strict=True):
        cell["p_adjusted"] = float(p)
    return float(adjusted.min())


def _overall(verdict: Verdict, p_max: float) -> dict[str, float]:
    """The verdict over all rows: their number above the floor, and the largest, as two tests."""
    p_global = min(1.0, 2.0 * min(verdict.p, p_max))
    return verdict.to_dict() | {"p_max": p_max, "p_global": p_global}


def _mean_ratio(candidate: str, rows: Sequence[_Measured]) -> float | None:
    """Geometric mean of the floor ratios; None if there is none."""
    ratios = [
        row.cells[candidate]["emd_sample"] / row.floor.mean
        for row in rows
        if row.floor and row.floor.mean > 0
    ]
    if not ratios:
        return None
    return float(np.exp(np.log(ratios).mean())) if min(ratios) > 0 else 0.0


def _classifiers(
    sample: SampleSet, names: Sequence[str], settings: ClassifierSettings, seed: int, bar: Bar
) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {c: {} for c in sample.candidates}
    for name in names:
        floor = None
        if sample.ref2 is not None:
            floor = classifier_test(sample.ref, sample.ref2, name, settings=settings, seed=seed)
            bar.advance(20, f"classifier {name}")
        for candidate, showers in sample.candidates.items():
            found = classifier_test(sample.ref, showers, name, settings=settings, seed=seed)
            for level, result in found.items():
                result.update(_beside(result, None if floor is None else floor[level]))
            out[candidate][name] = found
            bar.advance(20, f"classifier {name}")
    return out


def _beside(result: Mapping[str, Any], floor: Mapping[str, Any] | None) -> dict[str, Any]:
    """The floor of a classifier test, and how far the candidate lies above it."""
    if floor is None:
        missing = ("floor_auc", "floor_se", "floor_curve", "excess", "excess_upper95")
        return dict.fromkeys(missing)
    return {
        "floor_auc": floor["auc"],
        "floor_se": floor["se"],
        "floor_curve": floor["curve"],
        **above_floor(result["auc"], result["se"], floor["auc"], floor["se"]),
    }


def _steps(sample: SampleSet, classifiers: Sequence[str]) -> int:
    floor, candidates = int(sample.ref2 is not None), len(sample.candidates)
    each = 20 * len(classifiers) + STEPS * (1 + ("trees" in classifiers))
    return 7 * (2 * floor + candidates) + each * (floor + candidates)


def _sample(showers: Showers, path: str | None) -> dict[str, Any]:
    meta = {str(key): _plain(value) for key, value in showers.meta.items()}
    uid = f"{int(showers.event_ids[0, 0]):016x}"
    return {"path": path, "n": len(showers), "meta": meta, "uid": uid}


def _plain(value: Any) -> Any:
    """A JSON value: numbers, strings and lists stay, NaN becomes null, the rest text."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _check_known(kind: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise ConfigError(f"unknown {kind} {name!r}{hint} available: {', '.join(known)}")


def _version() -> str:
    try:
        return version("hepbridge")
    except PackageNotFoundError:
        return "unknown"
