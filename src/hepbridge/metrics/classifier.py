"""The classifier test: can a classifier tell a candidate from full simulation? AUC 0.5 = it cannot.

Equal class sizes, cross-validated so that every shower is tested once per seed by a classifier that
saw neither it nor a shower of the same incident energy. An AUC is read beside its standard error,
the floor (the same recipe on two full simulations) and the learning curve: a classifier trained on
few showers flatters the candidate.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hepbridge.metrics.classifier_settings import QUICK, ClassifierSettings, MLPSettings
from hepbridge.metrics.cross_fit import CLASSIFIERS, Classifier, CrossFit
from hepbridge.metrics.kinds import Sample, levels_of
from hepbridge.metrics.verdict import Z95

__all__ = [
    "CLASSIFIERS",
    "QUICK",
    "Classifier",
    "ClassifierSettings",
    "MLPSettings",
    "above_floor",
    "auc_standard_error",
    "classifier_test",
    "tested",
]


def auc_standard_error(auc: float, n_positive: float, n_negative: float) -> float:
    """Standard error of an AUC from the size of the test sample (Hanley & McNeil 1982, eq. 1).

    0.0065 at AUC 0.5 with 4,000 + 4,000 showers.
    """
    a = max(auc, 1.0 - auc)
    q1, q2 = a / (2.0 - a), 2.0 * a * a / (1.0 + a)
    variance = a * (1 - a) + (n_positive - 1) * (q1 - a * a) + (n_negative - 1) * (q2 - a * a)
    return float(np.sqrt(max(variance, 0.0) / (n_positive * n_negative)))


def above_floor(auc: float, se: float, floor_auc: float, floor_se: float) -> dict[str, float]:
    """``excess`` = AUC − floor AUC and ``excess_upper95``, its one-sided 95 % upper limit.

    ``upper95 = excess + 1.645 √(se² + floor_se²)``. The two AUCs share the reference, which
    correlates them; taken as independent, the limit is on the safe side.
    """
    excess = auc - floor_auc
    return {"excess": excess, "excess_upper95": excess + Z95 * float(np.hypot(se, floor_se))}


def classifier_test(
    ref: Sample,
    cand: Sample,
    name: str = "trees",
    *,
    settings: ClassifierSettings | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """AUC of telling ``cand`` from ``ref`` with a classifier of `CLASSIFIERS`, per level of input.

    Each level ("low", "high") holds ``auc`` (mean over folds and seeds), ``se`` (Hanley–McNeil for
    the test size, plus the scatter of the seeds / √seeds), ``n`` per class, ``train_n`` per class,
    and ``curve``: n, auc and se at smaller training sets and at the whole one. Row i of both
    samples, and rows that share an incident energy in a spectrum, stay in the same fold. Shower
    weights are used in training and testing; n in ``se`` is then the effective number.

    Raises ConfigError for an unknown classifier, DataError for samples of unequal size or smaller
    than twice the number of folds, or with fewer incident energies than folds.
    """
    settings = settings or ClassifierSettings()
    make: type[Classifier] = CLASSIFIERS[name]
    return {
        level: tested(CrossFit(ref, cand, make, level, settings, seed))
        for level in levels_of(make.inputs, [ref, cand])
    }


def tested(fit: CrossFit) -> dict[str, Any]:
    """What `classifier_test` gives of one level."""
    settings = fit.settings
    full = _auc(fit, range(settings.seeds), 1.0)
    curve = [_auc(fit, range(1), fraction) for fraction in settings.curve]
    return {
        "auc": full["auc"],
        "se": full["se"],
        "n": len(fit.groups),
        "train_n": full["n"],
        "curve": [*sorted(curve, key=lambda point: point["n"]), full],
    }


def _auc(fit: CrossFit, repeats: range, fraction: float) -> dict[str, Any]:
    """Mean AUC and its standard error with a fraction of each training set."""
    from sklearn.metrics import roc_auc_score

    values, n = [], 0
    for repeat in repeats:
        folds = fit.folds(repeat, fraction)
        aucs = [
            roc_auc_score(fit.label[f.test], f.score, sample_weight=fit.weights_of(f.test))
            for f in folds
        ]
        values.append(float(np.mean(aucs)))
        n = n or int(np.mean([f.train_n for f in folds]))
    auc = float(np.mean(values))
    rows = np.arange(len(fit.groups))
    test = auc_standard_error(auc, fit.effective(rows), fit.effective(rows + len(rows)))
    spread = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"n": n, "auc": auc, "se": float(np.hypot(test, spread))}
