"""Generators for DDML, the fast simulation of key4hep, as its adapter for grids calls them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.data.cells import XYCells
from hepbridge.data.geometry import Geometry
from hepbridge.deploy.onnx.contract import floats, ordering
from hepbridge.deploy.onnx.hosts import Array, Host, refuse_conditions
from hepbridge.systems.conditioning import ENERGY
from hepbridge.systems.generation.model_file import GeneratorModel

__all__ = ["DdmlGrid"]

_MEV = 1e3  # of a GeV
_TINY = 1e-12


class DdmlGrid(Host):
    r"""Energy and direction in, a grid in GeV out; the noise is drawn in the graph.

    `L2LFlowsModel` of DDML hands in one float32 tensor (1, 4): kinetic energy in GeV, and
    :math:`(-d_x, -d_y, d_z)` of the local direction, which is the direction in the frame of the grid,
    whose x and y it turns back on the way out. It reads n_z · n_x · n_y energies in GeV, y fastest,
    and keeps those above 10 keV. It hands in no noise: each call draws new numbers, which Geant4's
    seed does not repeat. They are the second output, which DDML does not read.

    Raises ConfigError for a geometry without equal grids of x and y in all layers, and for a model
    with conditions besides energy and direction.

    Source: key4hep/DDML, src/L2LFlowsModel.cc and src/ONNXInference.cc.
    """

    host = "DDML (key4hep), model adapter L2LFlowsModel with ONNXInference"

    def __init__(self, model: GeneratorModel) -> None:
        refuse_conditions(model, ["theta_rad", "phi_rad"], "ddml-grid")
        cells = _grid(model.geometry)
        super().__init__(model)
        n = model.generator.n_cells
        self.drawn = model.generator.noise_dim
        self.inputs = [
            floats("input", [1, 4], "GeV, 1, 1, 1", "kinetic energy and direction (-dx, -dy, dz)")
        ]
        self.outputs = [
            floats("cells", [1, n], "GeV", "a shower, in the order of cell_order"),
            floats("noise", [1, self.drawn], "1", "the normal numbers that it was made of"),
        ]
        nx, ny = cells.n
        self.settings = [
            f"number of cells in x, y and z: {nx}, {ny}, {n // (nx * ny)}",
            f"CellSizeX = {cells.pitch_mm[0]:.6g}",
            f"CellSizeY = {cells.pitch_mm[1]:.6g}",
            "Factor = 1",
            "GridShiftX = 0",
            "GridShiftY = 0",
            "RandomShift = False",
        ]

    def order(self, geometry: Geometry) -> str:
        return ordering(geometry)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        vector, noise = inputs
        energy, x, y, z = vector.unbind(1)
        across = (x * x + y * y).sqrt()
        conditions = {
            ENERGY: (energy * _MEV).clamp_min(1e-3),
            "theta_rad": _angle(z, across),
            "phi_rad": _angle(x, y),
        }
        return self.generator.generate(conditions, noise) / _MEV, noise

    def pack(self, conditions: Mapping[str, Array], noise: Array) -> dict[str, Array]:
        energy = conditions[ENERGY] / np.float32(_MEV)
        theta, phi = (
            conditions.get(name, np.zeros_like(energy)) for name in ("theta_rad", "phi_rad")
        )
        x, y = np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)
        return {"input": np.column_stack([energy, x, y, np.cos(theta)]).astype(np.float32)}

    def unpack(self, made: Mapping[str, Any], energy: Array) -> Array:
        cells: Array = made["cells"] * np.float32(_MEV)
        return cells


def _angle(x: Tensor, y: Tensor) -> Tensor:
    """The angle of (x, y) from the x axis, from -pi to pi: an arctangent of halves, as ONNX has no other."""
    half = 2 * torch.atan(y / ((x * x + y * y).sqrt() + x.abs()).clamp_min(_TINY))
    return torch.where(x < 0, torch.where(y < 0, -math.pi, math.pi) - half, half)


def _grid(geometry: Geometry) -> XYCells:
    """The cells of every layer. Raises ConfigError if they are not all the same grid."""
    cells = geometry.planes()[0].cells
    if geometry.axes not in (("x", "y"), ("z", "x", "y")) or not isinstance(cells, XYCells):
        raise ConfigError(
            f"target 'ddml-grid' needs the same grid of x and y in all layers: geometry "
            f"{geometry.name!r} has the axes {', '.join(geometry.axes)}; use --target ort"
        )
    return cells
