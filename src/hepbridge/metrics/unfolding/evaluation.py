"""The evaluation of unfolded samples: every distance to the truth beside its floor, as a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.rng import stream
from hepbridge.data.tables import Table
from hepbridge.metrics.classifier_settings import ClassifierSettings
from hepbridge.metrics.distance import wasserstein
from hepbridge.metrics.unfolding.calibration import calibration
from hepbridge.metrics.unfolding.classifier import SETTINGS, auc_row, weighted_auc
from hepbridge.metrics.unfolding.correlation import correlation_distance, weighted_correlations
from hepbridge.metrics.unfolding.distances import (
    EMD_SCALE,
    TRIANGULAR_SCALE,
    distances,
    published_sigmas,
    triangular,
)
from hepbridge.metrics.unfolding.floor import Halves, TruthFloor, measured_floor, only
from hepbridge.metrics.unfolding.observables import (
    Observable,
    checked_weights,
    effective,
    observables_of,
    values_of,
)

__all__ = ["evaluate_posteriors", "evaluate_unfolding"]

Record = dict[str, Any]


def evaluate_unfolding(
    truth: Table,
    candidates: Mapping[str, Table],
    observables: Sequence[str] | None = None,
    *,
    baselines: Mapping[str, Table] | None = None,
    second: Table | None = None,
    bootstraps: int = 100,
    splits: int = 50,
    classifier: ClassifierSettings | None = SETTINGS,
    seed: int = 0,
) -> Record:
    """Compare unfolded samples with the truth, which a closure test or pseudo-data have.

    Args:
        truth: events at particle level, of the phase space that is unfolded to.
        candidates: name -> unfolded events, moved or weighted.
        observables: columns to compare; default: all that are in every sample.
        baselines: name -> samples without any unfolding: the prior, the data at detector level.
        second: more events of the truth, independent of it, for the floor. Without, the floor is that of
            halves of the truth; ``chance`` scales it to the sizes of the samples.
        bootstraps: of the candidates' events. splits: of the floor. classifier: None leaves it out.

    Returns plain values: ``observables``, ``samples``, ``rows`` (for each observable: EMD × 10 and triangular
    discriminator × 1000 to the truth, both with errors and floor, and the fraction of undefined values),
    ``correlation`` and ``classifier``. Distances are those of the defined values.

    Raises ConfigError for names that are given twice or none at all, DataError for samples that lack a
    column, have no values in it, or weights below zero.
    """
    shown = {**(baselines or {}), **candidates}
    if not shown or len(shown) < len(candidates) + len(baselines or {}):
        raise ConfigError("an evaluation needs samples, each with a name of its own")
    if bootstraps < 2:
        raise ConfigError(f"an error needs two bootstraps or more, got {bootstraps}")
    if observables is None:
        observables = [n for n in truth.columns if all(n in t.columns for t in shown.values())]
    chosen = observables_of(truth, observables)
    if not chosen:
        raise ConfigError("there is no observable that all samples have")
    names = [o.name for o in chosen]
    truth = only(truth, names)
    if second is not None:
        second = only(second, names)
    floor = Halves(truth, second, splits, stream(seed, "unfolding floor"))
    return {
        "observables": {o.name: o.to_dict() for o in chosen},
        "candidates": list(candidates),
        "baselines": list(baselines or {}),
        "samples": {who: _listed(who, table) for who, table in {"truth": truth, **shown}.items()}
        | ({} if second is None else {"second": _listed("second", second)}),
        "bootstraps": bootstraps,
        "splits": splits,
        "seed": seed,
        "rows": [_row(o, truth, shown, floor, bootstraps, seed) for o in chosen],
        "correlation": _correlation(names, truth, shown, floor),
        "classifier": _classifier(names, truth, shown, second, floor, classifier, seed),
    }


def evaluate_posteriors(
    truth: Table,
    posteriors: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
) -> Record:
    """Calibration of posteriors of single events: candidate -> observable -> record.

    ``posteriors``: candidate -> observable -> samples (N, K) for the N events of ``truth``, in its unit;
    NaN: undefined. Raises DataError as `hepbridge.metrics.unfolding.calibration.calibration`.
    """
    weights = checked_weights(truth, "the truth")
    return {
        name: {
            column: calibration(
                samples,
                truth.column(column),
                stream(seed, "unfolding ranks", column),
                weights=weights,
            ).to_dict()
            for column, samples in found.items()
        }
        for name, found in posteriors.items()
    }


def _listed(who: str, table: Table) -> Record:
    weights = checked_weights(table, who)
    return {
        "n": len(table),
        "n_effective": effective(weights, len(table)),
        "weighted": weights is not None,
    }


def _row(
    observable: Observable,
    truth: Table,
    shown: Mapping[str, Table],
    halves: Halves,
    bootstraps: int,
    seed: int,
) -> Record:
    """All numbers of one observable."""
    edges = observable.edges
    value = partial(values_of, observable=observable)
    ref = value(truth, who="the truth")

    def rng(purpose: str, who: str) -> np.random.Generator:
        return stream(seed, f"unfolding {purpose}", observable.name, who)

    def size(table: Table) -> float:
        return value(table, who="the truth").effective

    def emd(a: Table, b: Table) -> float:
        u, v = value(a, who="the truth"), value(b, who="the truth")
        return wasserstein(u.x, v.x, u.weights, v.weights)

    def delta(a: Table, b: Table) -> float:
        return triangular(value(a, who="the truth"), value(b, who="the truth"), edges)

    emd_floor = measured_floor(halves.pairs([observable.name]), emd, size, 0.5)
    delta_floor = measured_floor(halves.pairs([observable.name]), delta, size, 1.0)
    cells = {}
    for who, table in shown.items():
        seen = value(table, who=who)
        try:
            found = distances(ref, seen, edges, bootstraps, rng("bootstrap", who))
            sigmas = published_sigmas(ref, seen, edges, rng("trials", who))
        except DataError as error:
            raise DataError(f"{who}, column {observable.name!r}: {error}") from error
        sigma = float(np.hypot(ref.sigma, seen.sigma))
        cells[who] = {
            "emd": {
                **_scaled(found.emd, found.emds, EMD_SCALE),
                **emd_floor.chance(ref.effective, seen.effective, EMD_SCALE),
            },
            "triangular": {
                **_scaled(found.triangular, found.triangulars, TRIANGULAR_SCALE),
                **delta_floor.chance(ref.effective, seen.effective, TRIANGULAR_SCALE),
                **{f"sigma_{k}": TRIANGULAR_SCALE * v for k, v in sigmas.items()},
            },
            "undefined": {
                "value": seen.undefined,
                "sigma": seen.sigma,
                "pull": (seen.undefined - ref.undefined) / sigma if sigma > 0 else None,
            },
            "n_effective": seen.effective,
        }
    return {
        "observable": observable.name,
        "undefined": {"value": ref.undefined, "sigma": ref.sigma},
        "floor": {
            "emd": emd_floor.to_dict(EMD_SCALE),
            "triangular": delta_floor.to_dict(TRIANGULAR_SCALE),
        },
        "candidates": cells,
    }


def _scaled(value: float, resampled: Any, scale: float) -> Record:
    """``value`` of the samples as they are; ``mean`` and ``sigma`` over the bootstraps."""
    return {
        "value": scale * value,
        "mean": scale * float(resampled.mean()),
        "sigma": scale * float(resampled.std()),
    }


def _correlation(
    names: list[str],
    truth: Table,
    shown: Mapping[str, Table],
    halves: Halves,
) -> Record | None:
    """Correlation matrices and their distances to that of the truth; None for one observable."""
    if len(names) < 2:
        return None
    ref = weighted_correlations(truth, names, "the truth")
    found = {who: weighted_correlations(table, names, who) for who, table in shown.items()}
    floors: dict[str, TruthFloor] = {}
    for kind in ("frobenius", "largest"):

        def distance(a: Table, b: Table, kind: str = kind) -> float:
            first, second = (weighted_correlations(t, names) for t in (a, b))
            return correlation_distance(first, second)[kind]

        floors[kind] = measured_floor(halves.pairs(names), distance, _size, 0.5)
    return {
        "names": names,
        "truth": ref.tolist(),
        "floor": {kind: floor.to_dict() for kind, floor in floors.items()},
        "candidates": {
            who: {
                "matrix": matrix.tolist(),
                **{
                    kind: {
                        "value": value,
                        **floors[kind].chance(_size(truth), _size(shown[who])),
                    }
                    for kind, value in correlation_distance(matrix, ref).items()
                },
            }
            for who, matrix in found.items()
        },
    }


def _size(table: Table) -> float:
    return effective(table.weights, len(table))


def _classifier(
    names: list[str],
    truth: Table,
    shown: Mapping[str, Table],
    second: Table | None,
    halves: Halves,
    settings: ClassifierSettings | None,
    seed: int,
) -> Record | None:
    """AUC of every sample against the truth; the floor is the second truth's, or that of two halves."""
    if settings is None:
        return None
    first, other = next(halves.pairs(names)) if second is None else (truth, second)
    floor = weighted_auc(first, other, names, settings=settings, seed=seed)
    return {
        "floor": floor,
        "candidates": {
            who: auc_row(weighted_auc(truth, table, names, settings=settings, seed=seed), floor)
            for who, table in shown.items()
        },
    }
