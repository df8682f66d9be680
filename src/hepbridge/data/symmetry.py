"""Does a declared symmetry hold? A test on the data, before anything relies on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

from hepbridge.core.errors import DataError
from hepbridge.data.showers import Showers

__all__ = ["SymmetryCheck", "verify"]

SHOWERS_PER_CONTRAST = 10
MIN_HIT_SHARE = 0.05  # a cell that is nearly always empty has no normal mean
EMPTY_CORRELATION = 1e-8


@dataclass(frozen=True)
class SymmetryCheck:
    """Result of `verify`: ``holds`` is ``p_value >= alpha``; ``message`` says it in words."""

    symmetry: str
    p_value: float
    holds: bool
    message: str
    n_contrasts: int


def verify(showers: Showers, *, alpha: float = 1e-4) -> SymmetryCheck:
    """Hotelling's test that symmetry-equivalent cells have equal means.

    With ``h = sqrt(cell / e_sum)`` per shower and ``d`` the vector of the k contrasts
    ``h_cell - mean of h over the cell's orbit`` (all cells but one of each orbit):
    ``T² = n d̄ᵀ S⁻¹ d̄`` and ``T² (n - k) / (k (n - 1)) ~ F(k, n - k)``, S the covariance of d.

    The shower is the unit, so the correlation of cells within a shower is accounted for. Dividing
    by the energy sum, itself symmetric, removes the spread of incident energies; the square root
    tames the tails of far cells (an invariant distribution has equal means of any function of a
    cell). Orbits enter from the most energetic one down, as long as there are ten showers per
    contrast and the orbit's cells are hit in at least 5 % of the showers. Weights are not used.

    Raises DataError if there are too few showers for even one orbit.
    Source: Hotelling, Ann. Math. Stat. 2 (1931) 360.
    """
    geometry, n = showers.geometry, len(showers)
    if geometry.symmetry == "none":
        return SymmetryCheck("none", 1.0, True, "no symmetry is declared", 0)
    fractions = showers.cells / np.maximum(showers.e_sum, 1e-12)[:, None]
    orbits = _orbits_by_energy(geometry.orbits(), fractions)
    chosen, k = [], 0
    for cells in orbits:
        if (k + len(cells) - 1) * SHOWERS_PER_CONTRAST > n:
            break
        chosen.append(cells)
        k += len(cells) - 1
    if not k:
        needed = SHOWERS_PER_CONTRAST * (len(orbits[0]) - 1) if orbits else 1
        raise DataError(
            f"{n} showers are too few to verify the symmetry {geometry.symmetry!r} of geometry "
            f"{geometry.name!r}; at least {needed} "
            "are needed (or declare symmetry 'none')"
        )
    h = {int(c): np.sqrt(fractions[:, c]) for cells in chosen for c in cells}
    labels, columns = [], []
    for cells in chosen:
        mean = np.mean([h[int(c)] for c in cells], axis=0)
        labels += [int(c) for c in cells[:-1]]
        columns += [h[int(c)] - mean for c in cells[:-1]]
    p_value, worst, pull = _hotelling(np.stack(columns, axis=1))
    holds = p_value >= alpha
    if holds:
        message = f"the symmetry {geometry.symmetry} holds in {n} showers (p = {p_value:.2g})"
    else:
        message = (
            f"the symmetry {geometry.symmetry} that geometry {geometry.name!r} declares does not "
            f"hold in these {n} showers (p = {p_value:.2g}; cell {labels[worst]} differs from the "
            f"cells equivalent to it by {pull:+.1f} standard errors): use a geometry with symmetry "
            "'none', or showers of a beam on the axis"
        )
    return SymmetryCheck(geometry.symmetry, p_value, holds, message, len(labels))


def _orbits_by_energy(
    orbit_of: NDArray[np.int64], fractions: NDArray[np.float64]
) -> list[NDArray[np.int64]]:
    """Cells of each orbit that can be tested, the most energetic orbit first."""
    mean, hit = fractions.mean(axis=0), (fractions > 0).mean(axis=0)
    members = [np.flatnonzero(orbit_of == o) for o in range(int(orbit_of.max()) + 1)]
    usable = [c for c in members if len(c) > 1 and hit[c].mean() >= MIN_HIT_SHARE]
    return sorted(usable, key=lambda c: -float(mean[c].mean()))


def _hotelling(d: NDArray[np.float64]) -> tuple[float, int, float]:
    """(p-value, the contrast with the largest pull, its pull) of the hypothesis of zero mean."""
    n = len(d)
    scale = d.std(axis=0, ddof=1)
    scale[scale == 0] = 1.0
    pulls = np.sqrt(n) * d.mean(axis=0) / scale
    values, vectors = np.linalg.eigh(np.cov(d / scale, rowvar=False).reshape(len(scale), -1))
    real = values > EMPTY_CORRELATION * values[-1]
    k = int(real.sum())
    worst = int(np.argmax(np.abs(pulls)))
    if values[-1] <= 0:
        return 1.0, worst, 0.0
    t2 = float(np.sum((vectors[:, real].T @ pulls) ** 2 / values[real]))
    return float(fdtrc(k, n - k, t2 * (n - k) / (k * (n - 1)))), worst, float(pulls[worst])
