"""Generators for the Geant4 example Par04, in the place of its variational autoencoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.data.cells import PolarCells
from hepbridge.data.geometry import Geometry
from hepbridge.deploy.onnx.contract import floats
from hepbridge.deploy.onnx.hosts import Array, Host, refuse_conditions
from hepbridge.systems.conditioning import ENERGY
from hepbridge.systems.generation.model_file import GeneratorModel

__all__ = ["Par04"]

_MOST_MEV = 1_024_000.0  # in units of this energy, and of a right angle, are the conditions
_LEAST_MEV = 1e-3  # below, the share of a cell is that of a particle of this energy
_EVEN = 1e-4  # relative: cells of a mesh are of equal size to this


class Par04(Host):
    r"""One vector in, shares of the incident energy out.

    Par04 hands in, as a float32 tensor (1, L + 4),

    .. math:: (z_0, \dots, z_{L-1},\; E_\mathrm{kin} / 1024\,\mathrm{GeV},\; \theta / 90°,\; 0,\; 1)

    with normal numbers of Geant4's engine, and multiplies what it gets, (1, n) shares, with the
    energy. Its cell order is r, phi, z with z fastest: index = (r · n_phi + phi) · n_z + z, phi from
    -pi. Its trigger lets every energy pass, so that conditions are clamped in the graph.

    Raises ConfigError for a geometry that is no cylinder of equal cells, and for a model with
    conditions besides energy and polar angle.

    Source: Geant4 11.4, examples/extended/parameterisations/Par04 (Par04InferenceSetup,
    Par04OnnxInference).
    """

    places: Tensor
    host = "Geant4 example Par04 (model type VAE), Par04OnnxInference"

    def __init__(self, model: GeneratorModel, file: str) -> None:
        refuse_conditions(model, ["theta_rad"], "par04")
        mesh = _mesh(model.geometry)
        super().__init__(model)
        self.width, n = model.generator.noise_dim, model.generator.n_cells
        z, phi, r = model.geometry.shape
        places = np.arange(n).reshape(z, phi, r).transpose(2, 1, 0).reshape(-1)
        self.register_buffer("places", torch.from_numpy(places.copy()))
        self.inputs = [
            floats(
                "input", [1, self.width + 4], "1",
                f"{self.width} normal numbers, kinetic energy / 1024 GeV, polar angle / 90 deg, 0, 1",
            )
        ]  # fmt: skip
        self.outputs = [
            floats("cells", [1, n], "incident energy", "shares, in the order of cell_order")
        ]
        inference = "/Par04/inference/"
        self.settings = [
            f"{inference}setSizeLatentVector {self.width}",
            f"{inference}setSizeConditionVector 4",
            f"{inference}setModelPathName {file}",
            f"{inference}setModelType VAE",
            f"{inference}setInferenceLibrary ONNX",
            *(f"{inference}{command}" for command in mesh),
        ]

    def order(self, geometry: Geometry) -> str:
        z, phi, r = geometry.shape
        return (
            f"row-major over (r {r} x phi {phi} x z {z}): the last axis runs fastest; "
            "phi from -pi, z from the front"
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        (vector,) = inputs
        noise, energy, angle, _ = torch.split(vector, [self.width, 1, 1, 2], 1)
        conditions = {
            ENERGY: (energy * _MOST_MEV).clamp_min(_LEAST_MEV).squeeze(1),
            "theta_rad": (angle * (0.5 * math.pi)).squeeze(1),
        }
        cells = self.generator.generate(conditions, noise)
        return ((cells / conditions[ENERGY][:, None]).index_select(1, self.places),)

    def pack(self, conditions: Mapping[str, Array], noise: Array) -> dict[str, Array]:
        energy = conditions[ENERGY] / np.float32(_MOST_MEV)
        theta = conditions.get("theta_rad", np.zeros_like(energy)) / np.float32(0.5 * math.pi)
        geometry = np.tile([0.0, 1.0], (len(energy), 1))
        return {"input": np.column_stack([noise, energy, theta, geometry]).astype(np.float32)}

    def unpack(self, made: Mapping[str, Any], energy: Array) -> Array:
        cells: Array = np.empty_like(made["cells"])
        cells[:, self.places.numpy()] = made["cells"] * energy[:, None]
        return cells


def _mesh(geometry: Geometry) -> list[str]:
    """The commands that say which cells Par04 fills. Raises ConfigError if they are no such mesh."""
    why = _unlike(geometry)
    if why:
        raise ConfigError(
            f"target 'par04' needs a cylinder of equal cells (axes z, phi, r): geometry "
            f"{geometry.name!r} {why}; train on showers of a mesh of Par04 (CaloChallenge datasets 2 "
            "and 3 are), or use --target ort"
        )
    z, phi, r = geometry.shape
    cells = geometry.layers[0].cells
    assert isinstance(cells, PolarCells)
    commands = [f"setSizeOfRhoCells {cells.radius_mm / r:.6g} mm"]
    if depth := geometry.layers[0].z_mm:
        commands.append(f"setSizeOfZCells {depth[1] - depth[0]:.6g} mm")
    return [*commands, f"setNbOfRhoCells {r}", f"setNbOfPhiCells {phi}", f"setNbOfZCells {z}"]


def _unlike(geometry: Geometry) -> str:
    """Why this is no mesh of Par04; empty if it is one."""
    if geometry.axes != ("z", "phi", "r"):
        return f"has the axes {', '.join(geometry.axes)}"
    cells = geometry.layers[0].cells
    assert isinstance(cells, PolarCells)
    rings = np.diff(cells.r_mm)
    if np.ptp(rings) > _EVEN * rings.mean():
        return f"has rings of {rings.min():.6g} to {rings.max():.6g} mm"
    depths = [layer.z_mm for layer in geometry.layers if layer.z_mm]
    edges = np.unique(np.round(np.ravel(depths), 9))
    if depths and (
        len(edges) != len(depths) + 1 or np.ptp(np.diff(edges)) > _EVEN * np.diff(edges).mean()
    ):
        return "has layers of unequal thickness, or with room between them"
    return ""
