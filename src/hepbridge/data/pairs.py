"""Pairs of fast and full showers that share their incident energy.

Given the energy the two showers of a pair are independent draws: they share the condition and
nothing else (SQuIRELS: both samples are sorted by incident energy).
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.showers import Showers

__all__ = ["match_by_energy"]

log = logging.getLogger(__name__)

SHOWN = 3  # rows named in an error message


def match_by_energy(
    fast: Showers, full: Showers, *, tolerance: float = 1e-4
) -> tuple[Showers, Showers]:
    """Two samples of equal length whose rows i have equal incident energies.

    Rows that match already stay where they are; if one sample is longer, its surplus at the end
    is left out with a logged warning. Otherwise both samples, then of equal length, are sorted by
    incident energy. ``tolerance`` is the largest relative difference within a pair.

    Raises:
        DataError: the geometries differ, or some energies differ by more than the tolerance; the
            message names the first such rows.
    """
    if fast.geometry.digest() != full.geometry.digest():
        raise DataError(
            f"fast showers have geometry {fast.geometry.name!r} {fast.geometry.shape}, full ones "
            f"{full.geometry.name!r} {full.geometry.shape}; they must be the same detector"
        )
    n = min(len(fast), len(full))
    e_fast, e_full = fast.incident_energy, full.incident_energy
    apart = _apart(e_fast[:n], e_full[:n], tolerance)
    if not apart.any():
        if len(fast) != len(full):
            log.warning(
                "%d fast and %d full showers: the first %d rows of both are pairs, the others "
                "have no partner",
                len(fast),
                len(full),
                n,
            )
        return fast[:n], full[:n]
    rows_fast, rows_full = np.arange(n), np.arange(n)
    if len(fast) == len(full):
        rows_fast = np.argsort(e_fast, kind="stable")
        rows_full = np.argsort(e_full, kind="stable")
        apart = _apart(e_fast[rows_fast], e_full[rows_full], tolerance)
        if not apart.any():
            return fast[rows_fast], full[rows_full]
        how = "also after sorting both by energy"
    else:
        how = f"and {len(fast)} fast and {len(full)} full showers cannot be sorted into pairs"
    first = "; ".join(
        f"fast row {rows_fast[i]}: {e_fast[rows_fast[i]]:.6g} MeV, "
        f"full row {rows_full[i]}: {e_full[rows_full[i]]:.6g} MeV"
        for i in np.flatnonzero(apart)[:SHOWN]
    )
    raise DataError(
        f"the incident energies of {int(apart.sum())} of {n} pairs differ by more than "
        f"{tolerance:g} (relative), {how}. First: {first}. Fast and full showers "
        "must be simulated with the same incident energies"
    )


def _apart(a: NDArray[np.float64], b: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    different: NDArray[np.bool_] = np.abs(a - b) > tolerance * np.maximum(a, b)
    return different
