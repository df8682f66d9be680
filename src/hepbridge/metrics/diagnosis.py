"""The parts of an evaluation beyond distances, with their floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hepbridge.core.progress import Bar
from hepbridge.metrics.classifier import ClassifierSettings, above_floor, tested
from hepbridge.metrics.cross_fit import CLASSIFIERS, Classifier, CrossFit
from hepbridge.metrics.failures import failures_of
from hepbridge.metrics.kinds import Sample, kind_of, levels_of
from hepbridge.metrics.memorisation import memorisation
from hepbridge.metrics.prdc import expected_coverage, prdc, prdc_floor, showers_used
from hepbridge.metrics.sets import SampleSet

__all__ = ["STEPS", "classifier_records", "coverage_record", "memorisation_record"]

STEPS = 6  # of progress, per sample


def coverage_record(sample: SampleSet[Any], seed: int, bar: Bar) -> dict[str, Any]:
    """``n``, ``expected_coverage``, the ``floor`` (None without ref2) and the ``candidates``."""
    floor = None
    if sample.ref2 is not None:
        floor = prdc_floor(sample.ref, sample.ref2, seed=seed, mixed=sample.mixed)
        bar.advance(STEPS, "coverage")
    found = {}
    for name, showers in sample.candidates.items():
        found[name] = prdc(sample.ref, showers, seed=seed)
        bar.advance(STEPS, "coverage")
    n = showers_used(sample.n)
    return {
        "n": n,
        "expected_coverage": expected_coverage(n, n),
        "floor": floor,
        "candidates": found,
    }


def classifier_records(
    sample: SampleSet[Any],
    names: Sequence[str],
    settings: ClassifierSettings,
    seed: int,
    bar: Bar,
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The records ``classifier``, and ``failures``: level -> ``floor``, ``candidates`` -> `failures`.

    The latter explains the trees of the former, and is empty without them.
    """
    out: dict[str, dict[str, Any]] = {c: {n: {} for n in names} for c in sample.candidates}
    where: dict[str, Any] = {}
    for name in names:
        make: type[Classifier] = CLASSIFIERS[name]
        for level in levels_of(make.inputs, sample.every().values()):
            explained: dict[str, Any] = {"floor": None, "candidates": {}}
            floor = None
            if sample.ref2 is not None:
                fit = CrossFit(sample.ref, sample.ref2, make, level, settings, seed)
                floor = tested(fit)
                if name == "trees":
                    explained["floor"] = _failures(fit, floor=True)
                bar.advance(10, f"classifier {name}")
            for candidate, showers in sample.candidates.items():
                fit = CrossFit(sample.ref, showers, make, level, settings, seed)
                result = tested(fit)
                out[candidate][name][level] = result | _beside(result, floor)
                if name == "trees":
                    explained["candidates"][candidate] = _failures(fit, floor=False)
                bar.advance(10, f"classifier {name}")
            if name == "trees":
                where[level] = explained
    return out, where


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


def _failures(fit: CrossFit, *, floor: bool) -> dict[str, Any]:
    """`failures` of a candidate; of the floor the AUC, at all energies, and the tail."""
    found = failures_of(fit, explain=not floor)
    return {key: found[key] for key in ("auc", "se", "by_energy", "tail")} if floor else found


def memorisation_record(
    train: Sample, sets: Sequence[SampleSet[Any]], described: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """``train`` (as ``described``), ``candidates`` -> `memorisation`, and its ``floor`` from ref2.

    The rows of all sets are taken together, so that every sample has the same incident energies.
    """
    join = kind_of(train).join
    ref = join([s.ref for s in sets])
    seconds = [s.ref2 for s in sets if s.ref2 is not None]
    floor = memorisation(train, ref, join(seconds), seed=seed) if seconds else None
    return {
        "train": dict(described),
        "floor": floor,
        "candidates": {
            name: memorisation(train, ref, join([s.candidates[name] for s in sets]), seed=seed)
            for name in sets[0].candidates
        },
    }
