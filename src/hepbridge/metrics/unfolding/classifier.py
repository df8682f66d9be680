"""Can a classifier tell an unfolded sample from the truth, in all observables together?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hepbridge.core.errors import DataError
from hepbridge.core.rng import stream
from hepbridge.data.tables import Table
from hepbridge.metrics.classifier import auc_standard_error
from hepbridge.metrics.classifier_settings import ClassifierSettings
from hepbridge.metrics.classifier_trees import Trees
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.unfolding.observables import checked_weights, effective

__all__ = ["SETTINGS", "auc_row", "weighted_auc"]

SETTINGS = ClassifierSettings(seeds=1, folds=3, curve=(), trees=100)
_MOST = 50_000  # events of a sample: more would take minutes


def weighted_auc(
    truth: Table,
    candidate: Table,
    names: Sequence[str],
    *,
    settings: ClassifierSettings = SETTINGS,
    seed: int = 0,
    most: int = _MOST,
) -> dict[str, float]:
    """AUC of gradient-boosted trees that tell ``candidate`` from ``truth``; 0.5: they cannot.

    Cross-fitted: every event is scored by trees that saw neither it nor one with its event id. Weights of
    both samples are used in training and testing; undefined values are seen as such. At most ``most`` events
    of each sample, chosen at random. Returns ``auc``, ``se`` (Hanley–McNeil with effective numbers of
    events, and the scatter of the seeds), ``n`` and ``n_effective`` of the smaller sample.

    Raises DataError for samples smaller than twice the number of folds, columns that are missing, and
    weights that are negative or all zero.
    """
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits

    samples = []
    for who, table in (("the truth", truth), ("the candidate", candidate)):
        checked_weights(table, who)
        if len(table) > most:
            rows = stream(seed, "unfolding classifier sample", who).permutation(len(table))[:most]
            table = table[np.sort(rows)]
        if len(table) < 2 * settings.folds:
            raise DataError(
                f"{who} has {len(table)} events; a classifier test needs {2 * settings.folds}"
            )
        samples.append(table)
    x = np.concatenate([np.stack([t.column(n) for n in names], axis=1) for t in samples])
    label = np.arange(len(x)) >= len(samples[0])
    weights = [_mean_one(t) for t in samples]
    weight = np.concatenate(weights)
    ids = np.concatenate([t.event_ids for t in samples])
    _, group = np.unique(ids, axis=0, return_inverse=True)
    group = group.reshape(-1)
    sizes = [effective(w, len(w)) for w in weights]
    found = []
    for repeat in range(settings.seeds):
        rng = stream(seed, "unfolding classifier folds", repeat)
        fold = (rng.permutation(int(group.max()) + 1) % settings.folds)[group]
        aucs = []
        for k in range(settings.folds):
            train, test = fold != k, fold == k
            if min(label[test].sum(), (~label[test]).sum()) == 0:
                raise DataError("too few events with different ids for a classifier test")
            model = Trees(settings, int(rng.integers(2**31)))
            with threadpool_limits(1, user_api="openmp"):
                model.fit(x[train], label[train], weight[train], group[train])
                score = model.score(x[test])
            aucs.append(roc_auc_score(label[test], score, sample_weight=weight[test]))
        found.append(float(np.mean(aucs)))
    auc = float(np.mean(found))
    scatter = np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else 0.0
    se = float(np.hypot(auc_standard_error(auc, *sizes), scatter))
    return {
        "auc": auc,
        "se": se,
        "n": float(min(len(t) for t in samples)),
        "n_effective": float(min(sizes)),
    }


def _mean_one(table: Table) -> Floats:
    if table.weights is None:
        return np.ones(len(table))
    scaled: Floats = table.weights / table.weights.mean()
    return scaled


def auc_row(found: dict[str, Any], floor: dict[str, Any] | None) -> dict[str, Any]:
    """An AUC beside its floor: ``excess`` and its standard error, the two taken as independent."""
    if floor is None:
        return {**found, "excess": None, "excess_se": None}
    return {
        **found,
        "excess": found["auc"] - floor["auc"],
        "excess_se": float(np.hypot(found["se"], floor["se"])),
    }
