"""The high-level features of the CaloChallenge: what each layer of a shower is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.cells import PolarCells
from hepbridge.data.geometry import Geometry
from hepbridge.metrics.distance import Floats

__all__ = ["FeatureMaker", "ShowerFeatures"]

_TINY = 1e-16  # added to denominators, as the challenge does: an empty layer is centred, of width 0
PER_LAYER = ("e_layer", "sparsity", "ec_r", "width_r")
PER_SECTORED_LAYER = ("ec_eta", "ec_phi", "width_eta", "width_phi")


@dataclass(frozen=True)
class ShowerFeatures:
    """High-level features of N showers, energies in MeV, lengths in mm.

    Attributes:
        incident_energy: (N,).
        e_tot: (N,) sum of all cells.
        layers: name -> (N, layers). ``e_layer`` (energy), ``sparsity`` (fraction of cells without
            energy), ``ec_r``, ``width_r`` for every layer; ``ec_eta``, ``ec_phi``, ``width_eta``,
            ``width_phi`` for layers with more than one sector. EC is the energy-weighted mean, the
            width √(⟨x²⟩ − ⟨x⟩²), of r, x ("eta") or y ("phi") of the cells' centres.
    """

    incident_energy: Floats
    e_tot: Floats
    layers: dict[str, Floats]

    def table(self) -> Floats:
        """The features that the challenge's high-level classifier, FPD and KPD see (N, columns).

        log₁₀ of the incident energy, layer energies and total (+ 10⁻⁸ MeV), centres and widths in
        dm, sparsities: 2 + 4 (layers + layers with sectors) columns, 362 for data sets 2 and 3.
        """
        columns = [
            np.log10(self.incident_energy)[:, None],
            np.log10(self.layers["e_layer"] + 1e-8),
            *(self.layers[k] / 100.0 for k in PER_SECTORED_LAYER),
            np.log10(self.e_tot + 1e-8)[:, None],
            self.layers["sparsity"],
            *(self.layers[k] / 100.0 for k in ("ec_r", "width_r")),
        ]
        return np.concatenate(columns, axis=1)

    @staticmethod
    def joined(parts: list[ShowerFeatures]) -> ShowerFeatures:
        """The features of all parts, in order."""
        return ShowerFeatures(
            np.concatenate([p.incident_energy for p in parts]),
            np.concatenate([p.e_tot for p in parts]),
            {k: np.concatenate([p.layers[k] for p in parts]) for k in parts[0].layers},
        )


class FeatureMaker:
    """Computes `ShowerFeatures` for layers of rings and sectors (`PolarCells`).

    Raises DataError for layers of another kind.
    """

    def __init__(self, geometry: Geometry) -> None:
        planes = geometry.planes()
        self._starts = geometry.layer_starts
        self._positions: list[Floats] = []  # (cells, 2 or 6): r, r², and with sectors x, x², y, y²
        self.sectored: list[int] = []
        for number, plane in enumerate(planes):
            if not isinstance(plane.cells, PolarCells):
                raise DataError(
                    f"geometry {geometry.name!r}: layer {number} is a grid of x and y; the features "
                    "of the CaloChallenge are defined for rings and sectors"
                )
            r = plane.cells.polar_centres()[0]
            axes = [r]
            if plane.cells.n_phi > 1:
                self.sectored.append(number)
                axes += plane.cells.centres_mm()
            self._positions.append(np.stack([v for x in axes for v in (x, x**2)], axis=1))

    def __call__(self, cells: NDArray[Any], incident_energy: Floats) -> ShowerFeatures:
        """The features of showers (N, n_cells), whose threshold has been applied."""
        columns = [list(self._layer(cells, k)) for k in range(len(self._positions))]
        layers = {
            name: np.stack([c[i] for c in columns], axis=1) for i, name in enumerate(PER_LAYER)
        }
        for i, name in enumerate(PER_SECTORED_LAYER, start=len(PER_LAYER)):
            found = [columns[k][i] for k in self.sectored]
            layers[name] = np.stack(found, axis=1) if found else np.empty((len(cells), 0))
        return ShowerFeatures(incident_energy, layers["e_layer"].sum(axis=1), layers)

    def _layer(self, cells: NDArray[Any], number: int) -> Iterator[Floats]:
        """The features of one layer, in the order of PER_LAYER and PER_SECTORED_LAYER."""
        layer = cells[:, self._starts[number] : self._starts[number + 1]]
        energy = layer.sum(axis=1, dtype=np.float64)
        sums = layer.astype(np.float64) @ self._positions[number] / (energy + _TINY)[:, None]
        centre, square = sums[:, ::2], sums[:, 1::2]
        width = np.sqrt(np.maximum(square - centre**2, 0.0))
        yield energy
        yield 1.0 - (layer > 0).mean(axis=1)
        yield centre[:, 0]
        yield width[:, 0]
        if centre.shape[1] > 1:
            yield from (centre[:, 1], centre[:, 2], width[:, 1], width[:, 2])
