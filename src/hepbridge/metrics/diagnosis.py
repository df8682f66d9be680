"""The parts of an evaluation beyond distances: coverage, failures, memorisation, with their floors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hepbridge.core.progress import Bar
from hepbridge.data.join import join
from hepbridge.data.showers import Showers
from hepbridge.metrics.classifier_settings import ClassifierSettings
from hepbridge.metrics.classifier_trees import Trees
from hepbridge.metrics.failures import failures
from hepbridge.metrics.memorisation import memorisation
from hepbridge.metrics.prdc import expected_coverage, prdc, prdc_floor, showers_used
from hepbridge.metrics.sets import SampleSet

__all__ = ["STEPS", "coverage_record", "failures_record", "memorisation_record"]

STEPS = 6  # of progress, per sample


def coverage_record(sample: SampleSet, seed: int, bar: Bar) -> dict[str, Any]:
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


def failures_record(
    sample: SampleSet, settings: ClassifierSettings, seed: int, bar: Bar
) -> dict[str, Any]:
    """Per level of input: ``candidates`` -> `failures`, and the ``floor``, the same of ref2."""
    out: dict[str, Any] = {level: {"floor": None, "candidates": {}} for level in Trees.inputs}
    samples = {**({} if sample.ref2 is None else {"": sample.ref2}), **sample.candidates}
    for name, showers in samples.items():
        for level, record in out.items():
            found = failures(
                sample.ref, showers, level=level, settings=settings, seed=seed, explain=bool(name)
            )
            if name:
                record["candidates"][name] = found
            else:
                record["floor"] = {key: found[key] for key in ("auc", "se", "by_energy", "tail")}
        bar.advance(STEPS, "failures")
    return out


def memorisation_record(
    train: Showers, sets: Sequence[SampleSet], described: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """``train`` (as ``described``), ``candidates`` -> `memorisation`, and its ``floor`` from ref2.

    The rows of all sets are taken together, so that every sample has the same incident energies.
    """
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
