"""The observables of the SQuIRELS table: what is compared between two samples of showers.

An `Observable` turns showers into `Entries`, in GeV where it is an energy. Definitions follow
Diefenbacher et al. (SQuIRELS), with the corrections that `docs` lists: weighted profiles, a
cell spectrum in logarithms, spectra from whole showers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.rng import stream
from hepbridge.core.units import GEV
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.metrics.advice import mean_error
from hepbridge.metrics.distance import Entries, Floats, Pool

__all__ = [
    "HIT_THRESHOLD",
    "OBSERVABLES",
    "SPECTRUM_CELLS",
    "SPECTRUM_CUT",
    "Observable",
    "table_rows",
]

HIT_THRESHOLD = 1.0  # MeV: a hit is a cell strictly above
SPECTRUM_CUT = 0.1  # MeV: cells below count as 0 in the spectrum
SPECTRUM_CELLS = 100_000  # the linear spectrum is made of whole showers up to this many cells


# positions, the shower of each (None: one each), what each counts (None: 1), as in `Entries`
Points = tuple[NDArray[np.floating], NDArray[np.int64] | None, Floats | None]


@dataclass(frozen=True)
class Observable:
    """A quantity with a distribution over a sample.

    ``entries(showers)`` gives its points; ``unit`` is theirs. With ``max_cells`` only that many
    cells, in whole showers drawn with the evaluation's seed (`rows`), enter the distance.
    """

    name: str
    unit: str
    title: str
    function: Callable[[Showers], Points]
    max_cells: int | None = None
    group = None

    def chosen(
        self, samples: Mapping[str, Showers], *, mixed: bool, seed: int
    ) -> dict[str, NDArray[np.int64]]:
        """Name of the sample -> its rows that enter the distance."""
        first = next(iter(samples.values()))
        return dict.fromkeys(samples, self.rows(len(first), first.geometry, seed))

    def pool(self, first: Entries, second: Entries) -> Pool:
        """Distances of two samples."""
        return Pool(first, second)

    def scale(self, entries: Entries) -> float:
        """Standard deviation: the unit of an excess."""
        return entries.std()

    def error(self, first: Entries, second: Entries | None) -> float:
        """See `hepbridge.metrics.advice.mean_error`."""
        return mean_error(first, second)

    def entries(self, showers: Showers, rows: NDArray[np.int64] | None = None) -> Entries:
        """The distribution of the observable in a sample, or in some rows of it.

        Raises DataError where no shower has any point (a spectrum without a cell above the cut).
        """
        if rows is not None:
            showers = showers[rows]
        values, owner, mass = self.function(showers)
        if not len(values):
            raise DataError(
                f"no cell lies above {SPECTRUM_CUT} MeV, so {self.name!r} has no distribution; "
                "check the unit of the cell energies"
            )
        return Entries(values, owner, mass, len(showers), showers.weights)

    def rows(self, n: int, geometry: Geometry, seed: int) -> NDArray[np.int64]:
        """The rows, of n, that enter the distance: all, or drawn up to ``max_cells`` cells."""
        keep = n if self.max_cells is None else -(-self.max_cells // geometry.n_cells)
        if keep >= n:
            return np.arange(n)
        drawn = stream(seed, "observable rows", self.name, n).choice(n, keep, replace=False)
        return np.sort(drawn)


def _e_sum(showers: Showers) -> Points:
    return showers.e_sum / GEV, None, None


def _e_ratio(showers: Showers) -> Points:
    return showers.e_sum / showers.incident_energy, None, None


def _e_max(showers: Showers) -> Points:
    return showers.cells.max(axis=1).astype(np.float64) / GEV, None, None


def _n_hit(showers: Showers) -> Points:
    return (showers.cells > HIT_THRESHOLD).sum(axis=1).astype(np.float64), None, None


def _e_spec(showers: Showers) -> Points:
    cells = np.where(showers.cells < SPECTRUM_CUT, np.float32(0), showers.cells) / np.float32(GEV)
    return cells.reshape(-1), np.repeat(np.arange(len(cells)), cells.shape[1]), None


def _e_spec_log(showers: Showers) -> Points:
    row, cell = np.nonzero(showers.cells > SPECTRUM_CUT)
    return np.log10(showers.cells[row, cell]), row, None


def _profile(axis: str) -> Callable[[Showers], Points]:
    def profile(showers: Showers) -> Points:
        geometry = showers.geometry
        along = geometry.axes.index(axis) + 1
        grid = showers.cells.reshape(-1, *geometry.shape)
        other = tuple(k for k in range(1, grid.ndim) if k != along)
        energy = grid.sum(axis=other, dtype=np.float64)  # (n, cells along the axis)
        n, length = energy.shape
        return (
            np.tile(np.arange(length) + 0.5, n),
            np.repeat(np.arange(n), length),
            energy.reshape(-1),
        )

    return profile


OBSERVABLES: dict[str, Observable] = {
    o.name: o
    for o in (
        Observable("e_sum", "GeV", "Energy sum", _e_sum),
        Observable("e_ratio", "", "Energy sum / incident energy", _e_ratio),
        Observable("e_max", "GeV", "Largest cell", _e_max),
        Observable("n_hit", "cells", "Cells above 1 MeV", _n_hit),
        Observable("e_spec", "GeV", "Cell energies", _e_spec, SPECTRUM_CELLS),
        Observable("e_spec_log", "dex", "log10 of the cell energies / MeV", _e_spec_log),
        Observable("profile_x", "cell widths", "Energy profile along x", _profile("x")),
        Observable("profile_y", "cell widths", "Energy profile along y", _profile("y")),
    )
}


def table_rows(*, mixed: bool) -> tuple[Observable, ...]:
    """The seven rows of a table; at mixed incident energies ``e_ratio`` stands for ``e_sum``."""
    left_out = "e_sum" if mixed else "e_ratio"
    return tuple(o for o in OBSERVABLES.values() if o.name != left_out)
