"""The rows of an evaluation of any calorimeter: what is compared between two samples of `Shapes`.

Energies in GeV (over the incident energy, where that is mixed), lengths in mm. Single numbers of a
shower (`Value`), distributions within showers (`Profile`, `Spectrum`), and how layers or cells vary
together (`Correlation`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.units import GEV
from hepbridge.metrics.advice import mean_error
from hepbridge.metrics.distance import Entries, Floats, Pool
from hepbridge.metrics.shapes.correlation import CorrelationPool
from hepbridge.metrics.shapes.profile_distance import BinnedEnergy, ProfilePool
from hepbridge.metrics.shapes.shapes import Shapes

__all__ = [
    "CORRELATED_CELLS",
    "Correlation",
    "Profile",
    "Spectrum",
    "Value",
    "correlated",
    "shape_rows",
]

Index = NDArray[np.int64]

CORRELATED_CELLS = 200
"""Calorimeters with at most so many cells have the correlations of cells, others those of layers."""
_CORRELATED_SHOWERS = 20_000


@dataclass(frozen=True)
class Value:
    """One number per shower. Showers without the quantity (NaN) have no entry.

    Blind to how it depends on anything else than the incident energy.
    """

    name: str
    unit: str
    title: str
    function: Callable[[Shapes], Floats]
    group: str | None = None

    def chosen(self, samples: Mapping[str, Shapes], *, mixed: bool, seed: int) -> dict[str, None]:
        return dict.fromkeys(samples)

    def entries(self, shapes: Shapes, rows: None = None) -> Entries:
        values = self.function(shapes)
        there = np.isfinite(values)
        if there.all():
            return Entries(values, None, None, len(shapes), shapes.weights)
        if not there.any():
            raise DataError(f"no shower has energy, so {self.name!r} has no distribution")
        owner = np.flatnonzero(there)
        return Entries(values[there], owner, None, len(shapes), shapes.weights)

    def pool(self, first: Entries, second: Entries) -> Pool:
        return Pool(first, second)

    def scale(self, entries: Entries) -> float:
        return entries.std()

    def error(self, first: Entries, second: Entries | None) -> float:
        return mean_error(first, second)


@dataclass(frozen=True)
class Profile:
    """Energy by place: the distribution of the energy of all showers along one direction.

    ``function`` gives places (bins,) and energies (n, bins). Blind to correlations between the bins,
    and to what cancels between showers.
    """

    name: str
    unit: str
    title: str
    function: Callable[[Shapes], tuple[Floats, Floats]]
    group = None

    def chosen(self, samples: Mapping[str, Shapes], *, mixed: bool, seed: int) -> dict[str, None]:
        return dict.fromkeys(samples)

    def entries(self, shapes: Shapes, rows: None = None) -> BinnedEnergy:
        return BinnedEnergy(*self.function(shapes), shapes.weights)

    def pool(self, first: BinnedEnergy, second: BinnedEnergy) -> ProfilePool:
        return ProfilePool(first, second)

    def scale(self, entries: BinnedEnergy) -> float:
        return entries.std()

    def error(self, first: BinnedEnergy, second: BinnedEnergy | None) -> float:
        return mean_error(first.means(), None if second is None else second.means())


class Spectrum:
    """log10(E / MeV) of the cells above the threshold, of the whole showers that were kept.

    In a spectrum of incident energies only rows that all samples kept count, so that these
    showers have the same energies. Blind to where in the shower a cell is, and to how many cells there
    are (``hits`` is not).
    """

    name, unit, group = "e_spec_log", "dex", None
    title = "log10 of the cell energies / MeV"

    def chosen(self, samples: Mapping[str, Shapes], *, mixed: bool, seed: int) -> dict[str, Index]:
        rows = {name: s.kept_rows for name, s in samples.items()}
        if not mixed:
            return rows
        first, *others = rows.values()
        for more in others:
            first = np.intersect1d(first, more)
        return dict.fromkeys(samples, first)

    def entries(self, shapes: Shapes, rows: Index) -> Entries:
        """Of the kept showers ``rows``; shower k of the entries is ``rows[k]``."""
        kept = shapes.kept[np.searchsorted(shapes.kept_rows, rows)]
        seen = kept.energy > shapes.threshold_mev
        if not seen.any():
            raise DataError(
                f"no cell lies above {shapes.threshold_mev} MeV, so {self.name!r} has no "
                "distribution; check the unit of the cell energies, or lower the threshold"
            )
        weights = None if shapes.weights is None else shapes.weights[rows]
        return Entries(np.log10(kept.energy[seen]), kept.owner[seen], None, len(rows), weights)

    def pool(self, first: Entries, second: Entries) -> Pool:
        return Pool(first, second)

    def scale(self, entries: Entries) -> float:
        return entries.std()

    def error(self, first: Entries, second: Entries | None) -> float:
        return mean_error(first, second)


Vectors = tuple[Floats, Floats | None]
"""(n, d) of the showers, and their weights."""


class Correlation:
    """Root mean square difference of the correlation coefficients (`CorrelationPool`).

    Of the energies of layers, in calorimeters of at most 200 cells of those of cells, over
    the incident energy; of at most the first 20,000 showers. ``scale`` is 1: an excess is one of
    coefficients.
    """

    name, unit, group = "correlation", "", None
    title = "Correlations of layers or cells"

    def chosen(
        self, samples: Mapping[str, Shapes], *, mixed: bool, seed: int
    ) -> dict[str, Index | None]:
        n = min(len(s) for s in samples.values())
        rows = np.arange(_CORRELATED_SHOWERS) if n > _CORRELATED_SHOWERS else None
        return dict.fromkeys(samples, rows)

    def entries(self, shapes: Shapes, rows: Index | None) -> Vectors:
        use = slice(None) if rows is None else slice(len(rows))
        weights = None if shapes.weights is None else shapes.weights[use]
        return correlated(shapes)[1][use], weights

    def pool(self, first: Vectors, second: Vectors) -> CorrelationPool:
        return CorrelationPool(first[0], second[0], (first[1], second[1]))

    def scale(self, entries: Vectors) -> float:
        return 1.0

    def error(self, first: Vectors, second: Vectors | None) -> None:
        """There is no advice on the number of showers."""


def correlated(shapes: Shapes) -> tuple[str, Floats]:
    """What the correlations are of ("cells" or "layers"), and (n, d) over the incident energy."""
    energy = shapes.incident_energy[:, None]
    if shapes.cells is not None and shapes.cells.shape[1] <= CORRELATED_CELLS:
        return "cells", shapes.cells / energy
    return "layers", shapes.layers / energy


def shape_rows(
    shapes: Shapes, *, mixed: bool
) -> tuple[Value | Profile | Spectrum | Correlation, ...]:
    """The rows for a sample.

    At mixed incident energies ``e_ratio`` stands for ``e_sum``, and the largest cell and the energies
    of layers are divided by the incident energy: the highest energies would drown all others. What
    one layer cannot have (depths, energies of layers) is left out for one layer. ``group`` names rows
    of layers, of which there may be many.
    """
    deep = shapes.layout.n_layers > 1
    z_unit, unit = shapes.layout.z_unit, "" if mixed else "GeV"
    rows: list[Value | Profile | Spectrum | Correlation] = [
        Value("e_ratio", "", "Energy sum / incident energy", _e_ratio)
        if mixed
        else Value("e_sum", unit, "Energy sum", _e_sum),
        Value("e_max", unit, "Largest cell", _largest(mixed)),
        Value("hits", "cells", "Cells above the threshold", _value("n_hit")),
        Spectrum(),
    ]
    if deep:
        rows.append(Profile("profile_z", z_unit, "Energy profile in depth", _layers))
    rows.append(Profile("profile_r", "mm", "Energy profile in radius", _rings))
    for kind, title in (("centre", "Centre of energy"), ("width", "Width")):
        for axis in ("x", "y", "z") if deep else ("x", "y"):
            name, length = f"{kind}_{axis}", z_unit if axis == "z" else "mm"
            along = "depth" if axis == "z" else axis
            rows.append(Value(name, length, f"{title} in {along}", _value(name)))
    if deep:
        for k in range(shapes.layout.n_layers):
            title = f"Energy of layer {k}"
            rows.append(Value(f"e_layer_{k}", unit, title, _layer(k, mixed), "e_layer"))
        for k in range(shapes.layout.n_layers):
            title = f"Cells above the threshold in layer {k}"
            rows.append(Value(f"hits_layer_{k}", "cells", title, _layer_hits(k), "hits_layer"))
    if deep or correlated(shapes)[0] == "cells":
        rows.append(Correlation())
    return tuple(rows)


def _value(name: str) -> Callable[[Shapes], Floats]:
    return lambda shapes: shapes.values[name]


def _e_sum(shapes: Shapes) -> Floats:
    return shapes.e_sum / GEV


def _largest(mixed: bool) -> Callable[[Shapes], Floats]:
    return lambda shapes: shapes.values["e_max"] / _unit(shapes, mixed)


def _unit(shapes: Shapes, mixed: bool) -> Floats | float:
    return shapes.incident_energy if mixed else GEV


def _e_ratio(shapes: Shapes) -> Floats:
    return shapes.e_sum / shapes.incident_energy


def _layers(shapes: Shapes) -> tuple[Floats, Floats]:
    return shapes.layout.depths, shapes.layers


def _rings(shapes: Shapes) -> tuple[Floats, Floats]:
    return shapes.layout.radii, shapes.rings


def _layer(k: int, mixed: bool) -> Callable[[Shapes], Floats]:
    return lambda shapes: shapes.layers[:, k] / _unit(shapes, mixed)


def _layer_hits(k: int) -> Callable[[Shapes], Floats]:
    return lambda shapes: shapes.hits[:, k]
