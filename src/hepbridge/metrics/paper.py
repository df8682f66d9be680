"""Table I of the SQuIRELS paper, with its conventions: only for comparison with that table.

They differ from `hepbridge.metrics.evaluate` in four ways, all of which make numbers look better or
say less: the "geant4" column is the reference against bootstraps of *itself*, not an independent
sample; profile rows are distances to the *uniform* profile, because the reference's weights were
never passed; ``e_spec`` is the first 100,000 cells in file order; and what is resampled is
the entry (a cell, a bin of a profile), not the shower. Paper values come from other data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hepbridge.core.errors import DataError
from hepbridge.core.rng import stream
from hepbridge.data.showers import Showers
from hepbridge.metrics.distance import Entries, Floats, Pool, bootstrap_counts
from hepbridge.metrics.observables import OBSERVABLES

__all__ = ["NOTE", "TABLE_I", "paper_rows"]

_ROWS = ("e_sum", "e_spec", "n_hit", "e_max", "profile_x", "profile_y")
_SLICE = 100_000  # both arrays are cut to their first 100,000 entries
_BLOCK = 10  # resamplings of 100,000 entries in memory together

NOTE = (
    "Conventions of the SQuIRELS paper's Table I: 'geant4' is the reference against its own "
    "bootstraps (lower than a true floor), profile rows are distances to a uniform profile, "
    "e_spec holds the first 100,000 cells, entries (not showers) are resampled."
)

# EMDs printed in the paper's Table I (GeV energies, from the authors' own simulation):
# observable -> incident energy in GeV -> column -> value.
TABLE_I: dict[str, dict[int, dict[str, float]]] = {
    observable: {
        energy: dict(zip(("geant4", "gflash", "squirels"), values, strict=True))
        for energy, values in by_energy.items()
    }
    for observable, by_energy in {
        "e_sum": {
            20: (0.0003, 0.1184, 0.0061),
            50: (0.0009, 0.2599, 0.0147),
            80: (0.0016, 0.3906, 0.0288),
        },
        "e_spec": {20: (0.002, 0.018, 0.003), 50: (0.006, 0.034, 0.007), 80: (0.009, 0.051, 0.011)},
        "n_hit": {20: (0.015, 11.37, 1.32), 50: (0.015, 11.84, 0.085), 80: (0.013, 11.06, 1.45)},
        "e_max": {
            20: (0.0014, 0.3379, 0.0490),
            50: (0.0021, 0.4342, 0.083),
            80: (0.0027, 0.4757, 0.106),
        },
    }.items()
}


def paper_rows(
    ref: Showers, candidates: Mapping[str, Showers], *, bootstraps: int = 100, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows ``{"observable", "unit", "geant4": {"emd", "sigma"}, "candidates": {name: …}}``.

    ``emd`` is the mean, ``sigma`` the standard deviation over the bootstraps of the second sample;
    the reference is never resampled. Raises DataError at mixed incident energies.
    """
    if np.ptp(ref.incident_energy) > 0:
        raise DataError(
            "Table I of the paper is made at fixed incident energies; this sample is mixed"
        )
    rows = []
    for name in _ROWS:
        reference = _entries(name, ref)
        target = _uniform(reference) if name.startswith("profile") else reference
        columns = {
            column: _bootstrapped(target, _entries(name, sample), bootstraps, (seed, name, column))
            for column, sample in {"geant4": ref, **candidates}.items()
        }
        geant4 = columns.pop("geant4")
        unit = OBSERVABLES[name].unit
        rows.append({"observable": name, "unit": unit, "geant4": geant4, "candidates": columns})
    return rows


def _entries(name: str, showers: Showers) -> Entries:
    """The first 100,000 entries, each its own unit of resampling."""
    found = OBSERVABLES[name].entries(showers[:_SLICE])
    values = found.values[:_SLICE]
    mass = None if found.mass is None else found.mass[:_SLICE]
    return Entries(values, None, mass, len(values))


def _uniform(entries: Entries) -> Entries:
    return Entries(entries.values, None, None, entries.n)


def _bootstrapped(
    first: Entries, second: Entries, bootstraps: int, key: tuple[int, str, str]
) -> dict[str, float]:
    pool, rng = Pool(first, second), stream(key[0], "paper bootstrap", *key[1:])
    found: list[Floats] = []
    for start in range(0, bootstraps, _BLOCK):
        counts = bootstrap_counts(second.n, min(_BLOCK, bootstraps - start), rng)
        found.append(pool.bootstrap(counts))
    values = np.concatenate(found)
    return {"emd": float(values.mean()), "sigma": float(values.std(ddof=1))}
