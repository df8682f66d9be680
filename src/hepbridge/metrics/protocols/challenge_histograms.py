"""The histograms of the CaloChallenge: what they are of, their bins, and what is read off them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.metrics.distance import Floats
from hepbridge.metrics.protocols.challenge_data import ChallengeData
from hepbridge.metrics.protocols.histograms import (
    Counts,
    chi2,
    expected_separation,
    fill,
    separation,
)
from hepbridge.metrics.protocols.shower_features import FeatureMaker, ShowerFeatures

__all__ = ["GROUPS", "Quantity", "compared", "count", "log_edges", "quantities", "summarised"]

GROUPS = {
    "e_tot": "total energy / incident energy",
    "e_tot_fixed": "the same, at each incident energy",
    "e_layer": "layer energies",
    "voxel": "voxel energies",
    "centre": "centres of energy in η and φ",
    "width": "widths in η and φ",
    "sparsity": "sparsity",
    "radial": "centre and width in r",
}
"""Histograms are summarised by group; the published tables have all but the second and the last."""


@dataclass(frozen=True)
class Quantity:
    """What one histogram is of: ``values(features)`` gives its entries, and which stand for none."""

    name: str
    group: str
    unit: str
    edges: Floats
    values: Callable[[ShowerFeatures], tuple[Floats, NDArray[np.bool_] | None]]


def quantities(data: ChallengeData, ref: ShowerFeatures) -> list[Quantity]:
    """The histograms of a data set but that of the voxels; some edges depend on the reference.

    As the challenge: 100 bins of E_tot / E_inc in 0.5 … 1.5; 49 logarithmic bins of layer energies
    from the threshold to the largest of the reference (``evaluate.py`` has 39, but the published
    noise of Geant4 against Geant4, 0.24 · 10⁻³ for 100,000 showers, is that of 49); 100 bins of centres
    and widths; 19 bins of 1 − sparsity in 0 … 1. Its bins in r are not published: here 100 up to
    the outer radius.
    """
    found = [Quantity("e_tot", "e_tot", "", np.linspace(0.5, 1.5, 101), _response)]
    for energy in data.fixed_energies:
        edges = np.linspace(*data.e_ratio_bins(energy), 21)
        name = f"e_tot at {energy:.0f} MeV"
        found.append(Quantity(name, "e_tot_fixed", "", edges, _response_at(energy)))
    sectored = FeatureMaker(data.geometry).sectored
    for k, number in enumerate(data.layer_ids):
        largest = float(ref.layers["e_layer"][:, k].max())
        edges = log_edges(data.threshold, largest, 50)
        found.append(
            Quantity(f"e_layer {number}", "e_layer", "MeV", edges, _of("e_layer", k, None))
        )
        edges = np.linspace(0.0, 1.0, 20)
        found.append(Quantity(f"sparsity {number}", "sparsity", "", edges, _occupied(k)))
        edges = np.linspace(0.0, data.radius(k), 101)
        for name in ("ec_r", "width_r"):
            found.append(Quantity(f"{name} {number}", "radial", "mm", edges, _of(name, k, k)))
    for column, k in enumerate(sectored):
        number, centre, width = data.layer_ids[k], data.centre_range(k), data.width_range(k)
        for name, group, low, high in (
            ("ec_eta", "centre", -centre, centre),
            ("ec_phi", "centre", -centre, centre),
            ("width_eta", "width", 0.0, width),
            ("width_phi", "width", 0.0, width),
        ):
            edges = np.linspace(low, high, 101)
            found.append(Quantity(f"{name} {number}", group, "mm", edges, _of(name, column, k)))
    return found


def _response(f: ShowerFeatures) -> tuple[Floats, None]:
    return f.e_tot / f.incident_energy, None


def _response_at(energy: float) -> Callable[[ShowerFeatures], tuple[Floats, None]]:
    def values(f: ShowerFeatures) -> tuple[Floats, None]:
        # as the challenge: from this energy up to the next
        rows = (f.incident_energy >= energy) & (f.incident_energy < 2.0 * energy)
        return f.e_tot[rows] / f.incident_energy[rows], None

    return values


def _of(
    name: str, column: int, layer: int | None
) -> Callable[[ShowerFeatures], tuple[Floats, NDArray[np.bool_] | None]]:
    """A column of the features; with ``layer``, it has no value where that layer has no energy."""

    def values(f: ShowerFeatures) -> tuple[Floats, NDArray[np.bool_] | None]:
        empty = None if layer is None else f.layers["e_layer"][:, layer] == 0
        return f.layers[name][:, column], empty

    return values


def _occupied(layer: int) -> Callable[[ShowerFeatures], tuple[Floats, None]]:
    return lambda f: (1.0 - f.layers["sparsity"][:, layer], None)


def count(quantity: Quantity, features: ShowerFeatures) -> Counts:
    """The histogram of a quantity."""
    values, missing = quantity.values(features)
    return fill(values, quantity.edges, missing)


def log_edges(threshold: float, largest: float, edges: int) -> Floats:
    """Logarithmic bins up to the largest value of the reference (a decade, if it is empty)."""
    top = largest if largest > threshold else 10.0 * threshold
    return np.logspace(np.log10(threshold), np.log10(top), edges)


def compared(group: str, ref: Counts, cand: Counts) -> dict[str, Any]:
    """What two histograms of one quantity differ by, as the challenge counts and with everything."""
    chi, ndf = chi2(ref.every, cand.every)
    cells = group == "voxel"  # of one shower: not independent, so nothing is known of their scatter
    return {
        "separation": separation(ref.inside, cand.inside),
        "separation_all": separation(ref.every, cand.every),
        "expected": None if cells else expected_separation(ref.every, cand.every),
        "chi2": None if cells else chi,
        "ndf": None if cells else ndf,
        "counts": cand.every.tolist(),
    }


def summarised(
    group_of: Mapping[str, str], rows: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Means over the histograms of each group, and the histogram that is worst against chance."""
    out = {}
    for group in GROUPS:
        found = {name: rows[name] for name, g in group_of.items() if g == group}
        if not found:
            continue
        record: dict[str, Any] = {
            key: _mean([row[key] for row in found.values()])
            for key in ("separation", "separation_all", "expected")
        }
        ndf = sum(row["ndf"] or 0 for row in found.values())
        record["chi2_ndf"] = (
            sum(row["chi2"] or 0.0 for row in found.values()) / ndf if ndf else None
        )
        # against chance, because a histogram with many bins differs more by chance
        worst = max(found, key=lambda n: (found[n]["separation_all"] or 0.0) - _chance(found[n]))
        out[group] = {**record, "worst": worst}
    return out


def _chance(row: Mapping[str, Any]) -> float:
    return row["expected"] or 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
