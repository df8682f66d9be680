"""What classifiers and neighbourhoods see of the shape of a shower of any calorimeter."""

from __future__ import annotations

import numpy as np

from hepbridge.metrics.classifier_inputs import Features
from hepbridge.metrics.distance import Floats
from hepbridge.metrics.shapes.shapes import SHAPES, Shapes

__all__ = ["coordinates", "shape_features", "shape_names"]

_NAMES = {
    "e_sum": "energy sum / incident energy",
    "e_max": "largest cell / incident energy",
    "n_hit": "cells above the threshold",
    "centre_x": "centre in x",
    "centre_y": "centre in y",
    "centre_z": "centre in depth",
    "width_x": "width in x",
    "width_y": "width in y",
    "width_z": "width in depth",
}


def shape_features(shapes: Shapes) -> Features:
    """The numbers of `SHAPES` and the energy of every layer, (n, 9 + layers).

    Energies over the incident energy, lengths as they are; what a shower without energy does not have
    (centre, width) is 0.
    """
    energy = shapes.incident_energy[:, None]
    return np.concatenate([_summary(shapes), shapes.layers / energy], axis=1, dtype=np.float32)


def shape_names(shapes: Shapes, level: str) -> list[str]:
    """What the columns of `shape_features` are (level "high"), or those of the cells ("low")."""
    if level == "low":
        cells = 0 if shapes.cells is None else shapes.cells.shape[1]
        return [f"cell {k}" for k in range(cells)] + ["log incident energy"]
    layers = [f"energy of layer {k}" for k in range(shapes.layout.n_layers)]
    return [_NAMES[name] for name in SHAPES] + layers


def coordinates(shapes: Shapes) -> Floats:
    """The numbers of `SHAPES` and log incident energy, (n, 10): balls in more are all empty."""
    energy = np.log(shapes.incident_energy)[:, None]
    return np.concatenate([_summary(shapes), energy], axis=1)


def _summary(shapes: Shapes) -> Floats:
    columns = [
        shapes.values[name] / (shapes.incident_energy if name in ("e_sum", "e_max") else 1.0)
        for name in SHAPES
    ]
    summary: Floats = np.nan_to_num(np.stack(columns, axis=1))
    return summary
