"""Where does a candidate fail? Scores of single showers, what gives them away, and at which energy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError
from hepbridge.core.rng import stream
from hepbridge.core.units import GEV
from hepbridge.metrics.classifier import auc_standard_error
from hepbridge.metrics.classifier_settings import ClassifierSettings
from hepbridge.metrics.classifier_trees import Trees
from hepbridge.metrics.cross_fit import CrossFit
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.kinds import Sample, kind_of, levels_of
from hepbridge.metrics.neighbours import Index

__all__ = ["failures", "failures_of"]

_REPEATS = 3  # cross-validations at most in which inputs are shuffled
_MOST_INPUTS = 64  # beyond, shuffling every single one takes too long
_PER_BIN = 200  # showers per class that a bin of incident energy needs
_BINS = 8
_WINDOW = 50  # rows of neighbouring incident energy within which an input is shuffled
_LOCAL = 500  # reference showers of neighbouring incident energy that a shower is compared with
_TAIL = 0.01


def failures(
    ref: Sample,
    cand: Sample,
    *,
    level: str = "high",
    settings: ClassifierSettings | None = None,
    seed: int = 0,
    top: int = 8,
) -> dict[str, Any]:
    """What boosted trees that tell ``cand`` from ``ref`` have seen.

    The trees are those of the classifier test (`CrossFit`): every shower is scored by trees that saw
    neither it nor a shower of its incident energy; logits are averaged over the seeds.

    - ``auc``, ``se``, and ``by_energy``: the same in bins of incident energy of equal content
      (``low_gev``, ``high_gev``, ``mean_gev``, ``n`` per class), at least 200 showers each; one bin
      at a fixed energy. Scores of different folds are never compared with each other.
    - ``importances``: per input ``name`` and ``drop``, the loss in AUC when the input is shuffled
      among test showers of neighbouring incident energy, with ``se``; largest first. Inputs that
      say the same share their importance: if all are small, the trees may yet see much in their
      sum. Empty for more than 64 inputs.
    - ``suspects``: the ``top`` candidate showers that look least like ``ref``: ``row``,
      ``event_id`` (data-set uid, row), ``incident_energy_gev``, ``score`` (probability of being the
      candidate's) and ``why``: the three inputs that lie farthest out, with ``value`` and ``z`` in
      standard deviations from the mean of the reference showers of neighbouring incident energy.
    - ``tail``: ``share`` of candidate showers beyond the score that 1 % of the reference showers
      exceed, with ``se``: 0.01 without a fault, larger where a few showers are very wrong.

    Every sample has a most suspicious shower: without an AUC or a tail above the floor (the same of
    a second full simulation), the list holds chance fluctuations. Blind to what the inputs of the
    level do not contain, and to everything that trees cannot learn from this many showers.

    Raises ConfigError for an unknown level, DataError as `classifier_test` does.
    """
    levels = levels_of(Trees.inputs, [ref, cand])
    if level not in levels:
        raise ConfigError(f"unknown level {level!r}; available: {', '.join(levels)}")
    settings = settings or ClassifierSettings()
    return failures_of(CrossFit(ref, cand, Trees, level, settings, seed), top=top)


def failures_of(fit: CrossFit, *, top: int = 8, explain: bool = True) -> dict[str, Any]:
    """`failures` of trees that a classifier test has trained already.

    Without ``explain``, as for a floor, ``importances`` and ``suspects`` are empty: all the work.
    """
    found = _Scores(fit)
    names = kind_of(fit.ref).names(fit.ref, fit.level)
    n = len(fit.ref)
    return {
        **found.auc(np.arange(n)),
        "n": n,
        "by_energy": [_bin(fit.ref, rows) | found.auc(rows) for rows in _energy_bins(fit.ref)],
        "importances": found.importances(names) if explain else [],
        "suspects": _suspects(fit, found.logit, names, top) if explain else [],
        "tail": _tail(found.logit),
    }


class _Scores:
    """What cross-fitted trees say of the showers they did not see."""

    def __init__(self, fit: CrossFit) -> None:
        self.fit, self.n = fit, len(fit.ref)
        self.repeats = fit.settings.seeds
        self.folds = [fold for repeat in range(self.repeats) for fold in fit.folds(repeat)]
        self.logit = np.zeros(2 * self.n)
        for fold in self.folds:
            p = np.clip(fold.score, 1e-9, 1 - 1e-9)
            self.logit[fold.test] += np.log(p / (1 - p)) / self.repeats

    def auc(self, rows: Index) -> dict[str, float]:
        """``auc`` of rows (of 0 … n) of both classes, the mean over the folds, and its ``se``."""
        chosen = np.zeros(2 * self.n, dtype=bool)
        chosen[rows] = chosen[rows + self.n] = True
        found = [self._fold_auc(f.test, f.score, chosen[f.test]) for f in self.folds]
        size = np.array([pairs for _, pairs in found])
        auc = float(np.average([auc for auc, _ in found], weights=size))
        effective = self.fit.effective(rows + self.n), self.fit.effective(rows)
        return {"auc": auc, "se": auc_standard_error(auc, *effective)}

    def importances(self, names: list[str]) -> list[dict[str, Any]]:
        every = self.fit.x
        if every.shape[1] > _MOST_INPUTS:
            return []
        from threadpoolctl import threadpool_limits

        energy = np.tile(self.fit.ref.incident_energy, 2)
        repeats = min(self.repeats, _REPEATS)
        folds = self.folds[: repeats * self.fit.settings.folds]
        drops = np.empty((len(folds), every.shape[1]))
        with threadpool_limits(1, user_api="openmp"):
            for i, fold in enumerate(folds):
                rng = stream(self.fit.seed, "failures shuffle", i)
                before, _ = self._fold_auc(fold.test, fold.score)
                shuffled = _shuffled(energy[fold.test], rng)
                x = every[fold.test].copy()
                for j in range(x.shape[1]):
                    kept = x[:, j].copy()
                    x[:, j] = kept[shuffled]
                    drops[i, j] = before - self._fold_auc(fold.test, fold.model.score(x))[0]
                    x[:, j] = kept
        mean = drops.mean(axis=0)
        # repeats test the same showers: only the folds of one are independent
        error = drops.std(axis=0, ddof=1) / np.sqrt(self.fit.settings.folds)
        return [
            {"name": names[j], "drop": float(mean[j]), "se": float(error[j])}
            for j in np.argsort(-mean, kind="stable")
        ]

    def _fold_auc(
        self, test: Index, score: Floats, chosen: NDArray[np.bool_] | slice = slice(None)
    ) -> tuple[float, float]:
        """AUC of the chosen test rows, and the number of pairs that it is made of."""
        from sklearn.metrics import roc_auc_score

        rows = test[chosen]
        label = self.fit.label[rows]
        pairs = float(label.sum() * (~label).sum())
        if not pairs:
            return 0.5, 0.0
        weights = self.fit.weights_of(rows)
        return float(roc_auc_score(label, score[chosen], sample_weight=weights)), pairs


def _shuffled(energy: Floats, rng: np.random.Generator) -> Index:
    """A permutation of rows that moves them only among neighbours in incident energy."""
    order = np.lexsort((rng.random(len(energy)), energy))
    shuffled = np.empty(len(energy), dtype=np.int64)
    for window in np.array_split(order, max(1, len(order) // _WINDOW)):
        shuffled[window] = rng.permutation(window)
    return shuffled


def _energy_bins(ref: Sample) -> list[Index]:
    """Rows in bins of incident energy; rows of one energy are never parted at a fixed one."""
    if np.ptp(ref.incident_energy) <= 1e-4 * ref.incident_energy.max():
        return [np.arange(len(ref))]
    order = np.argsort(ref.incident_energy, kind="stable")
    bins = int(np.clip(len(ref) // _PER_BIN, 1, _BINS))
    return [np.sort(rows) for rows in np.array_split(order, bins)]


def _bin(ref: Sample, rows: Index) -> dict[str, float]:
    energy = ref.incident_energy[rows] / GEV
    return {
        "low_gev": float(energy.min()),
        "high_gev": float(energy.max()),
        "mean_gev": float(energy.mean()),
        "n": len(rows),
    }


def _tail(logit: Floats) -> dict[str, float]:
    """Share of candidate showers above the reference's 99 % quantile of the score."""
    ref, cand = np.split(logit, 2)
    share = float((cand > np.quantile(ref, 1 - _TAIL)).mean())
    # of the share itself, and of the quantile (1 % of the reference showers lie above it)
    error = np.sqrt((share * (1 - share) + _TAIL * (1 - _TAIL)) / len(ref))
    return {"share": share, "se": float(error), "expected": _TAIL}


def _suspects(fit: CrossFit, logit: Floats, names: list[str], top: int) -> list[dict[str, Any]]:
    x, ref, cand = fit.x, fit.ref, fit.cand
    n = len(ref)
    found = []
    for row in np.argsort(-logit[n:], kind="stable")[:top]:
        energy = float(cand.incident_energy[row])
        local = np.argsort(np.abs(ref.incident_energy - energy), kind="stable")[:_LOCAL]
        mean = x[local].mean(axis=0, dtype=np.float64)
        std = x[local].std(axis=0, dtype=np.float64)
        z = np.divide(x[n + row] - mean, std, out=np.zeros(len(mean)), where=std > 0)
        uid, number = (int(part) for part in cand.event_ids[row])
        found.append(
            {
                "row": int(row),
                "event_id": [f"{uid:016x}", number],
                "incident_energy_gev": energy / GEV,
                "score": float(1 / (1 + np.exp(-logit[n + row]))),
                "why": [
                    {"name": names[j], "value": float(x[n + row, j]), "z": float(z[j])}
                    for j in np.argsort(-np.abs(z), kind="stable")[:3]
                ],
            }
        )
    return found
