"""The classifier test: can a classifier tell a candidate from full simulation? AUC 0.5 = it cannot.

Equal class sizes, cross-validated so that every shower is tested once per seed by a classifier that
saw neither it nor a shower of the same incident energy. An AUC is read beside its standard error,
the floor (the same recipe on two full simulations) and the learning curve: a classifier trained on
few showers flatters the candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.registry import Registry
from hepbridge.core.rng import stream
from hepbridge.data.showers import Showers
from hepbridge.metrics.classifier_inputs import Features
from hepbridge.metrics.classifier_settings import QUICK, ClassifierSettings, MLPSettings
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.verdict import Z95

__all__ = [
    "CLASSIFIERS",
    "QUICK",
    "Classifier",
    "ClassifierSettings",
    "MLPSettings",
    "above_floor",
    "auc_standard_error",
    "check_equal",
    "classifier_test",
    "row_groups",
]


class Classifier(Protocol):
    """Learns to tell two classes of rows apart; made anew for every fold of every seed."""

    inputs: ClassVar[Mapping[str, Callable[[Showers], Features]]]
    """Level ("low", "high") -> what the classifier sees of showers, (N, features)."""

    def __init__(self, settings: ClassifierSettings, seed: int) -> None: ...

    def fit(
        self,
        x: Features,
        label: NDArray[np.bool_],
        weights: Floats | None,
        groups: NDArray[np.int64],
    ) -> None:
        """Train on rows ``x`` of class ``label`` (True: candidate). ``weights`` None: all are 1.

        Rows of one group share an incident energy or a row number: a classifier that holds out
        showers of its own keeps a group together.
        """

    def score(self, x: Features) -> Floats:
        """A number (N,) per row, the larger the more like the candidate."""


CLASSIFIERS = Registry(
    "classifier",
    {
        "trees": "hepbridge.metrics.classifier_trees:Trees",
        "mlp": "hepbridge.metrics.classifier_mlp:MLP",
    },
)


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
    ref: Showers,
    cand: Showers,
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
    check_equal(ref, cand, settings.folds)
    groups = row_groups(ref)
    weighted = ref.weights is not None or cand.weights is not None
    weights = np.concatenate([_weights(ref), _weights(cand)]) if weighted else None
    out = {}
    for level, inputs in make.inputs.items():
        x = np.concatenate([inputs(ref), inputs(cand)])
        run = _Run(make, settings, x, weights, groups, seed)
        full = run.auc(range(settings.seeds), 1.0)
        curve = [run.auc(range(1), fraction) for fraction in settings.curve]
        out[level] = {
            "auc": full["auc"],
            "se": full["se"],
            "n": len(ref),
            "train_n": full["n"],
            "curve": [*sorted(curve, key=lambda point: point["n"]), full],
        }
    return out


@dataclass(frozen=True)
class _Run:
    make: type[Classifier]
    settings: ClassifierSettings
    x: Features  # (2n, features): ref, then cand
    weights: Floats | None  # (2n,), mean 1 in each class; None, not ones: scikit-learn is faster
    groups: NDArray[np.int64]  # (n,) group of row i of both samples
    seed: int

    def auc(self, seeds: range, fraction: float) -> dict[str, Any]:
        """Mean AUC and its standard error with a fraction of each training set."""
        n = len(self.groups)
        results = [self._cross_validated(s, fraction) for s in seeds]
        values = np.array([auc for auc, _ in results])
        auc = float(values.mean())
        weights = np.ones(2 * n) if self.weights is None else self.weights
        test = auc_standard_error(auc, _effective(weights[:n]), _effective(weights[n:]))
        spread = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        return {"n": results[0][1], "auc": auc, "se": float(np.hypot(test, spread))}

    def _cross_validated(self, seed: int, fraction: float) -> tuple[float, int]:
        from sklearn.metrics import roc_auc_score
        from threadpoolctl import threadpool_limits

        n = len(self.groups)
        rng = stream(self.seed, "classifier folds", seed)
        number = rng.permutation(self.groups.max() + 1) % self.settings.folds
        fold = number[self.groups]  # (n,), the same for both classes
        label = np.arange(2 * n) >= n
        aucs, sizes = [], []
        for k in range(self.settings.folds):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            train = rng.permutation(train)[: max(1, round(fraction * len(train)))]
            groups = np.tile(self.groups[train], 2)
            train, test = np.concatenate([train, train + n]), np.concatenate([test, test + n])
            model = self.make(self.settings, int(rng.integers(2**31)))
            # one thread: these samples are small, and threads that wait for a busy core cost
            # far more than they gain
            with threadpool_limits(1, user_api="openmp"):
                model.fit(self.x[train], label[train], self._weights_of(train), groups)
                score = model.score(self.x[test])
            aucs.append(roc_auc_score(label[test], score, sample_weight=self._weights_of(test)))
            sizes.append(len(train) // 2)
        return float(np.mean(aucs)), int(np.mean(sizes))

    def _weights_of(self, rows: NDArray[np.int64]) -> Floats | None:
        return None if self.weights is None else self.weights[rows]


def _weights(showers: Showers) -> Floats:
    if showers.weights is None:
        return np.ones(len(showers))
    weights: Floats = showers.weights / showers.weights.mean()
    return weights


def _effective(weights: Floats) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())


def check_equal(ref: Showers, cand: Showers, folds: int) -> None:
    """Raise DataError unless both samples have equal size and can be cut into so many folds."""
    if len(ref) != len(cand) or len(ref) < 2 * folds:
        raise DataError(
            f"a classifier test needs two samples of equal size, at least {2 * folds}; "
            f"got {len(ref)} and {len(cand)}"
        )
    energies = row_groups(ref).max() + 1
    if energies < 2 * folds:
        raise DataError(
            f"showers of equal incident energy are tested together, but {energies} energies "
            f"cannot be cut into {folds} folds; use fewer folds, or one energy at a time"
        )


def row_groups(showers: Showers) -> NDArray[np.int64]:
    """Number (n,) of the group of each row: its incident energy; at one fixed energy, the row."""
    values, index = np.unique(showers.incident_energy, return_inverse=True)
    return np.arange(len(showers)) if len(values) == 1 else index
