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
from hepbridge.core.progress import progress
from hepbridge.core.units import GEV
from hepbridge.data.points import PointShowers
from hepbridge.data.showers import Showers
from hepbridge.metrics.advice import GOAL
from hepbridge.metrics.classifier import ClassifierSettings
from hepbridge.metrics.cross_fit import CLASSIFIERS
from hepbridge.metrics.diagnosis import (
    STEPS,
    classifier_records,
    coverage_record,
    memorisation_record,
)
from hepbridge.metrics.kinds import Sample, kind_of, prepared
from hepbridge.metrics.paper import NOTE, paper_rows
from hepbridge.metrics.rows import Measured, above, correct, mean_ratio, measure, overall
from hepbridge.metrics.sets import SampleSet, check_names, make_sets
from hepbridge.metrics.shapes.rows import correlated
from hepbridge.metrics.shapes.shapes import THRESHOLD_MEV, Shapes
from hepbridge.metrics.verdict import combine

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
        layout: of `Shapes`: ``name``, ``depths`` with ``z_unit`` of the layers, ``r_edges_mm`` of the
            rings, ``threshold_mev`` of a hit, and what the ``correlations`` are of.
    """

    seed: int
    samples: dict[str, dict[str, Any]]
    sets: list[dict[str, Any]]
    verdict: dict[str, dict[str, float]] | None = None
    starred: list[str] = field(default_factory=list)
    memorisation: dict[str, Any] | None = None
    goal: float = GOAL
    layout: dict[str, Any] | None = None
    command: str = ""
    created: str = ""
    hepbridge: str = ""
    format_version: int = FORMAT_VERSION

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values; without ``layout`` where there is none."""
        return {k: v for k, v in asdict(self).items() if k != "layout" or v is not None}

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
    ref: Showers | PointShowers | Shapes,
    candidates: Mapping[str, Showers | PointShowers | Shapes],
    ref2: Showers | PointShowers | Shapes | None = None,
    *,
    seed: int = 0,
    bootstraps: int = 100,
    splits: int = 200,
    classifiers: Sequence[str] = ("trees",),
    classifier_settings: ClassifierSettings | None = None,
    starred: Sequence[str] = (),
    paper: bool = False,
    train: Showers | PointShowers | Shapes | None = None,
    threshold_mev: float = THRESHOLD_MEV,
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

    Showers of one plane of cells in x and y have the table of SQuIRELS
    (`hepbridge.metrics.observables`). Those of any other calorimeter, points, and `Shapes` that were
    made of files block by block, have that of `hepbridge.metrics.shapes.rows`; there, hits are cells
    strictly above ``threshold_mev``.

    Raises ConfigError for names that do not exist or are not allowed, DataError for samples that
    cannot be compared.
    """
    check_names(candidates)
    _check_known("classifier", classifiers, CLASSIFIERS)
    if bootstraps < 2 or splits < 20:
        raise ConfigError(
            f"at least 2 bootstraps and 20 splits are needed, got {bootstraps} and {splits}"
        )
    if not 0 < goal < 10:
        raise ConfigError(
            f"the goal is an excess in standard deviations, 0 < goal < 10, not {goal}"
        )
    settings = classifier_settings or ClassifierSettings()
    given = {"ref": ref, **({} if ref2 is None else {"ref2": ref2}), **candidates}
    given |= {} if train is None else {_TRAIN: train}
    samples = prepared(given, threshold_mev=threshold_mev)
    sets = make_sets(
        samples["ref"], {name: samples[name] for name in candidates}, samples.get("ref2"), seed=seed
    )
    _check_known("observable", starred, _observables(sets))
    if paper and isinstance(samples["ref"], Shapes):
        raise ConfigError("the conventions of the SQuIRELS paper are for one plane of x-y cells")
    records: list[dict[str, Any]] = []
    judged: list[tuple[int, dict[str, Any]]] = []  # rows, and per candidate those above, by set
    family: list[Measured] = []  # all judged rows of all sets
    with progress("evaluate", sum(_steps(s, classifiers) for s in sets)) as bar:
        for sample in sets:
            rows, measured = measure(sample, seed, bootstraps, splits, goal, bar)
            judge = [m for m in measured if m.floor is not None and m.name not in starred]
            higher = {c: above(c, judge) for c in candidates} if judge else {}
            if judge:
                judged.append((len(judge), higher))
                family += judge
            energy = sample.incident_energy
            told_apart, where = classifier_records(sample, classifiers, settings, seed, bar)
            record: dict[str, Any] = {
                "label": sample.label,
                "incident_energy_gev": None if energy is None else energy / GEV,
                "n": sample.n,
                "floor_n": None if sample.ref2 is None else sample.n,
                "floor_source": sample.floor_source,
                "rows": rows,
                "verdict": {
                    c: combine([found], len(judge)).to_dict() for c, found in higher.items()
                }
                or None,
                "ratio_geometric_mean": {c: mean_ratio(c, judge) for c in higher} or None,
                "classifier": told_apart,
                "prdc": coverage_record(sample, seed, bar),
            }
            if where:
                record["failures"] = where
            if paper and not sample.mixed:
                found = paper_rows(sample.ref, sample.candidates, bootstraps=bootstraps, seed=seed)
                record["paper"] = {"note": NOTE, "rows": found}
            records.append(record)
    of = sum(rows for rows, _ in judged)
    verdict = {
        c: overall(combine([higher[c] for _, higher in judged], of), correct(c, family))
        for c in candidates
        if of
    }
    taught = samples.pop(_TRAIN, None)
    return Evaluation(
        seed=seed,
        samples={name: _sample(s, (paths or {}).get(name)) for name, s in samples.items()},
        sets=records,
        verdict=verdict or None,
        starred=list(starred),
        memorisation=None
        if taught is None
        else memorisation_record(taught, sets, _sample(taught, (paths or {}).get(_TRAIN)), seed),
        goal=goal,
        layout=_layout(samples["ref"]),
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        hepbridge=_version(),
    )


_TRAIN = "--train"  # no name of a candidate


def _observables(sets: Sequence[SampleSet[Any]]) -> list[str]:
    """Names of all rows, those of mixed and of fixed incident energies."""
    ref = sets[0].ref
    rows = (r.name for mixed in (False, True) for r in kind_of(ref).rows(ref, mixed=mixed))
    return list(dict.fromkeys(rows))


def _steps(sample: SampleSet[Any], classifiers: Sequence[str]) -> int:
    floor, candidates = int(sample.ref2 is not None), len(sample.candidates)
    each = 20 * len(classifiers) + STEPS
    return 7 * (2 * floor + candidates) + each * (floor + candidates)


def _sample(showers: Sample, path: str | None) -> dict[str, Any]:
    meta = {str(key): _plain(value) for key, value in showers.meta.items()}
    uid = f"{int(showers.event_ids[0, 0]):016x}"
    return {"path": path, "n": len(showers), "meta": meta, "uid": uid}


def _layout(ref: Sample) -> dict[str, Any] | None:
    if not isinstance(ref, Shapes):
        return None
    return {
        "name": ref.layout.name,
        "depths": ref.layout.depths.tolist(),
        "z_unit": ref.layout.z_unit,
        "r_edges_mm": ref.layout.r_edges.tolist(),
        "threshold_mev": ref.threshold_mev,
        "correlations": correlated(ref)[0],
    }


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
