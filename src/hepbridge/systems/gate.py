"""The gate at the end of a training: does the model beat doing nothing, and the baseline?"""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np

from hepbridge.core.rng import stream
from hepbridge.data.showers import Showers
from hepbridge.metrics.classifier import QUICK, classifier_test
from hepbridge.metrics.compare import compare, distances
from hepbridge.metrics.kinds import Sample, prepared
from hepbridge.systems.inference import refine
from hepbridge.systems.model_file import Model

__all__ = ["gate", "judge", "without_network"]

log = logging.getLogger(__name__)

_NAMES = {"fast": "doing nothing", "quantile": "the quantile baseline (no network)"}
_WHO = {"refined": "REFINER", "generated": "GENERATOR"}
_RESAMPLES = 20


def gate(
    model: Model, baseline: Model | None, fast: Showers, full: Showers, seed: int
) -> dict[str, Any]:
    """Held-out figures of the refiner, of the fast showers, and of the quantile baseline, if any.

    ``distance`` is the geometric mean over the observables of EMD / standard deviation, blind to
    correlations; ``auc`` that of small boosted trees, which sees them, the mean over low- and
    high-level inputs (high-level ones alone where there are too many cells). If the refiner is worse
    than a baseline in either, it is in ``lost``, with a warning, by more than two standard errors (of
    the distances: resampled rows; of the AUCs: the larger of the inputs' errors, added in quadrature),
    and in ``unresolved``, with a plain line, by less.
    """
    others = {"fast": fast}
    if baseline is not None:
        others["quantile"] = refine(baseline, fast, seed=seed)
    refined = [refine(model, fast, seed=seed, member=k) for k in range(len(model.members))]
    return judge(full, refined, others, "refined", seed)


def judge(
    full: Showers, made: list[Showers], others: dict[str, Showers], own: str, seed: int
) -> dict[str, Any]:
    """Held-out figures, as `gate` describes, of what a model ``made`` (by each of its members) and of
    the ``others``; ``own`` is its name among them: refined or generated."""
    candidates = prepared({"full": full, **others, own: made[0]})
    full = candidates.pop("full")
    distance = {name: compare(full, showers, seed=seed) for name, showers in candidates.items()}
    auc, error = {}, {}
    for name, showers in candidates.items():
        found = classifier_test(full, showers, settings=QUICK, seed=seed)
        auc[name] = float(np.mean([level["auc"] for level in found.values()]))
        error[name] = max(level["se"] for level in found.values())
    lost: list[str] = []
    unresolved: list[str] = []
    for name in others:
        if distance[own] > distance[name]:
            clear = _clearly(full, candidates[own], candidates[name], seed)
            (lost if clear else unresolved).append(
                f"{_NAMES[name]} in distance ({distance[own]:.4f} against {distance[name]:.4f})"
            )
        if auc[own] > auc[name]:
            two_errors = 2 * (error[own] ** 2 + error[name] ** 2) ** 0.5
            (lost if auc[own] - auc[name] > two_errors else unresolved).append(
                f"{_NAMES[name]} in classifier AUC ({auc[own]:.3f} against {auc[name]:.3f})"
            )
    if lost:
        log.warning(
            "THE %s LOSES on held-out showers to %s. Train longer or on more showers, or use the baseline.",
            _WHO[own],
            "; to ".join(lost),
        )
    if unresolved:
        log.info(
            "on held-out showers the %s is not resolved from %s: worse, but by less than two "
            "standard errors",
            _WHO[own].lower(),
            "; nor from ".join(unresolved),
        )
    out: dict[str, Any] = {
        "n": len(full),
        "distance": distance,
        "auc": auc,
        "auc_error": error,
        "lost": lost,
        "unresolved": unresolved,
        "observables": {name: distances(full, s, seed=seed) for name, s in candidates.items()},
    }
    if len(made) > 1:
        out["ensemble"] = [distances(full, s, seed=seed) for s in made]
    return out


def without_network(model: Model) -> Model | None:
    """The same model without its network: the quantile baseline with the same tables, if it has any."""
    first = model.members[0]
    if getattr(first, "transport", None) is None:
        return None
    stripped: Any = copy.deepcopy(first)
    stripped.transport = None
    return Model([stripped], model.recipe, model.geometry, model.domain)


def _clearly(full: Sample, made: Sample, other: Sample, seed: int) -> bool:
    """Is the model's distance larger than the other's by two standard errors? Rows resampled."""
    excess = []
    for k in range(_RESAMPLES):
        rows = stream(seed, "gate", k).integers(0, len(full), len(full))
        own, others = (compare(full[rows], showers[rows], seed=k) for showers in (made, other))
        excess.append(own - others)
    return float(np.mean(excess)) > 2 * float(np.std(excess))
