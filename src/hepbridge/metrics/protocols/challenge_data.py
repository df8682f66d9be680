"""The data sets of the CaloChallenge: their cells, thresholds and plotted ranges.

Geometry: the binning files of github.com/CaloChallenge/homepage (``code/binning_dataset_*.xml``).
Thresholds, sizes and splits: its ``evaluate.py``; arXiv:2410.21611.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hepbridge.core.errors import ConfigError
from hepbridge.data.binning_xml import Binning
from hepbridge.data.cells import CellLayer, PolarCells
from hepbridge.data.geometry import Geometry

__all__ = ["DATASETS", "ChallengeData", "challenge_data", "of_binning"]

_INNER = "0 5 10 30 50 100 200 400 600"
_BACK = "0 50 100 200 400 600"
_PHOTONS = {  # layer: (edges of the rings in mm, number of sectors)
    0: (_INNER, 1),
    1: ("0 2 4 6 8 10 12 15 20 30 40 50 70 90 120 150 200", 10),
    2: ("0 2 5 10 15 20 25 30 40 50 60 80 100 130 160 200 250 300 350 400", 10),
    3: (_BACK, 1),
    12: ("0 100 200 400 1000 2000", 1),
}
_PIONS = {
    0: (_INNER, 1),
    1: ("0 1 4 7 10 15 30 50 90 150 200", 10),
    2: ("0 5 10 20 30 50 80 130 200 300 400", 10),
    3: (_BACK, 1),
    12: ("0 10 20 30 50 80 100 130 160 200 250 300 350 400 1000 2000", 10),
    13: ("0 10 20 30 50 80 100 130 160 200 250 300 350 400 600 1000 2000", 10),
    14: ("0 50 100 150 200 250 300 400 600 1000 2000", 1),
}
_RINGS_2 = " ".join(f"{4.65 * k:.15g}" for k in range(10))
_RINGS_3 = " ".join(f"{2.325 * k:.15g}" for k in range(19))
_READOUT = 0.5e-3 / 0.033  # MeV: 0.5 keV of visible energy / sampling fraction


@dataclass(frozen=True)
class ChallengeData:
    """One data set.

    Attributes:
        name: "1-photons", "1-pions", "2", "3", or the name of a binning file.
        particle: photon, pion, electron, …
        geometry: the cells; their depth is not known.
        layer_ids: the number of each layer in the binning file.
        threshold: MeV; cells below count as empty.
        split: parts of a sample to train a classifier on, to choose and calibrate it, to test it.
        n: showers of the reference that published numbers are for, if there are any.
        fixed_energies: incident energies (MeV) at which E_tot is also looked at one by one.
    """

    name: str
    particle: str
    geometry: Geometry
    layer_ids: tuple[int, ...]
    threshold: float
    split: tuple[float, float, float] = (0.6, 0.2, 0.2)
    n: int | None = None
    fixed_energies: tuple[float, ...] = ()

    def centre_range(self, layer: int) -> float:
        """Largest |centre of energy| (mm) of the histograms of a layer, 0 the first."""
        return self._range(layer, 30.0, 100.0, 500.0)

    def width_range(self, layer: int) -> float:
        """Largest width (mm) of the histograms of a layer."""
        return self._range(layer, 30.0, 100.0, 400.0)

    def radius(self, layer: int) -> float:
        """Outer radius (mm) of a layer."""
        cells = self.geometry.planes()[layer].cells
        return cells.radius_mm if isinstance(cells, PolarCells) else 0.0

    def e_ratio_bins(self, energy: float) -> tuple[float, float]:
        """Range of E_tot / E_inc at one incident energy (20 bins)."""
        narrow = self.particle == "photon" and energy > 2.0**11
        return (0.9, 1.1) if narrow else (0.4, 1.4)

    def _range(self, layer: int, small: float, normal: float, tile: float) -> float:
        if self.name in ("2", "3"):
            return small
        if self.name in ("1-photons", "1-pions"):
            return tile if self.layer_ids[layer] in (12, 13) else normal
        return self.radius(layer)


def _layers(name: str, rings: dict[int, tuple[str, int]]) -> Geometry:
    cells = [
        PolarCells(r_mm=tuple(float(r) for r in edges.split()), n_phi=n)
        for edges, n in rings.values()
    ]
    return Geometry.of_layers(name, [CellLayer(c) for c in cells], "Dn")


def _made(name: str) -> ChallengeData:
    energies = tuple(2.0**k for k in range(8, 23))
    if name == "1-photons":
        geometry, ids = _layers("calochallenge-1-photons", _PHOTONS), tuple(_PHOTONS)
        split = (80 / 121, 20 / 121, 21 / 121)
        return ChallengeData(name, "photon", geometry, ids, 1.0, split, 121_000, energies)
    if name == "1-pions":
        geometry, ids = _layers("calochallenge-1-pions", _PIONS), tuple(_PIONS)
        split = (80 / 120.8, 20 / 120.8, 20.8 / 120.8)
        return ChallengeData(name, "pion", geometry, ids, 1.0, split, 120_800, energies)
    edges, sectors = (_RINGS_2, 16) if name == "2" else (_RINGS_3, 50)
    geometry = _layers(f"calochallenge-{name}", dict.fromkeys(range(45), (edges, sectors)))
    return ChallengeData(name, "electron", geometry, tuple(range(45)), _READOUT, n=100_000)


DATASETS = ("1-photons", "1-pions", "2", "3")


def challenge_data(name: str) -> ChallengeData:
    """The data set of a name in `DATASETS`. Raises ConfigError for another."""
    if name not in DATASETS:
        raise ConfigError(
            f"unknown data set {name!r}; the CaloChallenge has {', '.join(DATASETS)}. For other "
            "cells give a binning file instead"
        )
    return _made(name)


def of_binning(binning: Binning, threshold: float) -> ChallengeData:
    """A detector of one's own, from its binning file.

    Histograms of centres and widths reach to the outer radius of a layer. Raises ConfigError for a
    threshold (MeV) that is not positive: spectra are binned in its logarithm.
    """
    if not (np.isfinite(threshold) and threshold > 0):
        raise ConfigError(f"the threshold of a cell must be a positive energy, not {threshold} MeV")
    return ChallengeData(
        binning.geometry.name, binning.particle, binning.geometry, binning.layer_ids, threshold
    )
