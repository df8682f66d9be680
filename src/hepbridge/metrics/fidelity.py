"""Fidelity of a one-to-one map: a refiner should change a shower as little as it must."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from hepbridge.core.errors import DataError
from hepbridge.core.rng import stream
from hepbridge.data.showers import Showers
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.sets import MAX_FIXED

__all__ = ["displacement", "fidelity", "rank_correlation"]

_WINDOW = 100  # showers of neighbouring incident energy within which ranks are taken


def displacement(before: Showers, after: Showers) -> float:
    """Mean over showers of ``√(mean over cells ((after − before) / σ)²)``.

    Cells are fractions of the incident energy, σ their standard deviation in ``before``; cells
    that do not vary there are left out. 1 means: moved by a typical shower-to-shower difference /
    √2 per cell. Raises DataError if the rows are not the same events.
    """
    _check_rows(before, after)
    return _displacement(_fractions(before), _fractions(after))


def rank_correlation(before: Showers, after: Showers) -> float:
    """Spearman correlation of ``e_sum`` before and after, at fixed incident energy.

    In a spectrum it is that of ``e_sum`` / incident energy, averaged over windows of 100 showers of
    neighbouring incident energy. Raises DataError if the rows are not the same events or if
    ``e_sum`` does not vary.
    """
    _check_rows(before, after)
    x, y = before.e_sum / before.incident_energy, after.e_sum / before.incident_energy
    order = np.argsort(before.incident_energy, kind="stable")
    _, counts = np.unique(before.incident_energy, return_counts=True)
    if len(counts) <= MAX_FIXED:
        windows = np.split(order, np.cumsum(counts)[:-1])
    else:
        windows = np.array_split(order, max(1, len(order) // _WINDOW))
    found = [(_spearman(x[w], y[w]), len(w)) for w in windows]
    found = [(r, n) for r, n in found if np.isfinite(r)]
    if not found:
        raise DataError("the energy sum does not vary, so it has no rank correlation")
    return float(np.average([r for r, _ in found], weights=[n for _, n in found]))


def fidelity(before: Showers, after: Showers, *, seed: int = 0) -> dict[str, float]:
    """``displacement``, ``rank_correlation`` and, for scale, ``displacement_shuffled``.

    The last is the displacement if every output is given to another input of neighbouring
    incident energy: what a generator that ignores its input would have.
    """
    order = np.argsort(before.incident_energy, kind="stable")
    shuffled = np.empty_like(order)
    rng = stream(seed, "fidelity")
    for window in np.array_split(order, max(1, len(order) // _WINDOW)):
        mixed = rng.permutation(window)
        shuffled[mixed] = np.roll(mixed, 1)  # one cycle: nobody keeps its own
    return {
        "displacement": displacement(before, after),
        "displacement_shuffled": _displacement(_fractions(before), _fractions(after)[shuffled]),
        "rank_correlation": rank_correlation(before, after),
    }


def _fractions(showers: Showers) -> Floats:
    return showers.cells / showers.incident_energy[:, None]


def _displacement(before: Floats, after: Floats) -> float:
    sigma = before.std(axis=0)
    varies = np.ptp(before, axis=0) > 0
    if not varies.any():
        raise DataError("no cell varies before the map, so there is no unit for a displacement")
    moved = (after[:, varies] - before[:, varies]) / sigma[varies]
    return float(np.sqrt((moved**2).mean(axis=1)).mean())


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _check_rows(before: Showers, after: Showers) -> None:
    if before.cells.shape != after.cells.shape:
        raise DataError(
            f"a one-to-one map keeps the rows: {before.cells.shape} before, "
            f"{after.cells.shape} after"
        )
    wrong = ~np.isclose(before.incident_energy, after.incident_energy, rtol=1e-4, atol=0.0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"{int(wrong.sum())} rows have another incident energy after than before (first: row "
            f"{row}); compare a file with the file it was made from"
        )
