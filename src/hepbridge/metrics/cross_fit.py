"""Cross-fitted classifiers: every shower is scored by one that saw neither it nor its like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.registry import Registry
from hepbridge.core.rng import stream
from hepbridge.metrics.classifier_inputs import Features
from hepbridge.metrics.classifier_settings import ClassifierSettings
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.kinds import Sample

__all__ = ["CLASSIFIERS", "Classifier", "CrossFit", "Fold"]


class Classifier(Protocol):
    """Learns to tell two classes of rows apart; made anew for every fold of every seed."""

    inputs: ClassVar[Mapping[str, Callable[[Any], Features]]]
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


@dataclass(frozen=True)
class Fold:
    """A trained classifier, what it trained on, and what it says of the rows that it did not see."""

    model: Classifier
    train_n: int  # per class
    test: NDArray[np.int64]  # rows of `CrossFit.x`
    score: Floats


class CrossFit:
    """Two samples of equal size, and classifiers that tell ``cand`` from ``ref``, fold by fold.

    Row i of both samples, and rows that share an incident energy in a spectrum, stay in the same
    fold. What was trained on whole training sets is kept, so that whoever asks next has it.

    Attributes:
        x: (2n, features), the rows of ``ref``, then those of ``cand``.
        label: (2n,), True: candidate.
        weights: (2n,), mean 1 in each class; None, not ones: scikit-learn is faster.
        groups: (n,) of row i of both samples.

    Raises DataError for samples of unequal size or smaller than twice the number of folds, or with
    fewer incident energies than that.
    """

    def __init__(
        self,
        ref: Sample,
        cand: Sample,
        make: type[Classifier],
        level: str,
        settings: ClassifierSettings,
        seed: int,
    ) -> None:
        _check_equal(ref, cand, settings.folds)
        self.ref, self.cand, self.level = ref, cand, level
        self.settings, self.seed, self._make = settings, seed, make
        inputs = make.inputs[level]
        self.x = np.concatenate([inputs(ref), inputs(cand)])
        self.label = np.arange(2 * len(ref)) >= len(ref)
        weighted = ref.weights is not None or cand.weights is not None
        self.weights = np.concatenate([_weights(ref), _weights(cand)]) if weighted else None
        self.groups = row_groups(ref)
        self._kept: dict[int, list[Fold]] = {}

    def folds(self, repeat: int, fraction: float = 1.0) -> list[Fold]:
        """The folds of one division of the rows, trained on a fraction of each training set."""
        if fraction != 1.0:
            return self._trained(repeat, fraction)
        if repeat not in self._kept:
            self._kept[repeat] = self._trained(repeat, fraction)
        return self._kept[repeat]

    def weights_of(self, rows: NDArray[np.int64]) -> Floats | None:
        """Weights of rows of ``x``; None if all are 1."""
        return None if self.weights is None else self.weights[rows]

    def effective(self, rows: NDArray[np.int64]) -> float:
        """Effective number of rows of ``x``, (sum w)^2 / sum w^2."""
        weights = self.weights_of(rows)
        return float(len(rows) if weights is None else weights.sum() ** 2 / (weights @ weights))

    def _trained(self, repeat: int, fraction: float) -> list[Fold]:
        from threadpoolctl import threadpool_limits

        n = len(self.groups)
        rng = stream(self.seed, "classifier folds", repeat)
        number = rng.permutation(self.groups.max() + 1) % self.settings.folds
        fold = number[self.groups]  # (n,), the same for both classes
        out = []
        for k in range(self.settings.folds):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            train = rng.permutation(train)[: max(1, round(fraction * len(train)))]
            groups = np.tile(self.groups[train], 2)
            train, test = np.concatenate([train, train + n]), np.concatenate([test, test + n])
            model = self._make(self.settings, int(rng.integers(2**31)))
            # one thread: these samples are small, and threads that wait for a busy core cost
            # far more than they gain
            with threadpool_limits(1, user_api="openmp"):
                model.fit(self.x[train], self.label[train], self.weights_of(train), groups)
                score = model.score(self.x[test])
            out.append(Fold(model, len(train) // 2, test, score))
        return out


def row_groups(showers: Sample) -> NDArray[np.int64]:
    """Number (n,) of the group of each row: its incident energy; at one fixed energy, the row."""
    values, index = np.unique(showers.incident_energy, return_inverse=True)
    return np.arange(len(showers)) if len(values) == 1 else index


def _weights(showers: Sample) -> Floats:
    if showers.weights is None:
        return np.ones(len(showers))
    weights: Floats = showers.weights / showers.weights.mean()
    return weights


def _check_equal(ref: Sample, cand: Sample, folds: int) -> None:
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
