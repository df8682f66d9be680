"""How programs hand conditions and noise to a generator, and what they want back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.data.geometry import Geometry
from hepbridge.deploy.onnx.contract import ROWS, condition_unit, floats, ordering, validity_of
from hepbridge.deploy.onnx.contract import Tensor as Entry
from hepbridge.deploy.onnx.generator_form import generator_form, trained
from hepbridge.deploy.onnx.limits import flags
from hepbridge.systems.conditioning import ENERGY
from hepbridge.systems.generation.model_file import GeneratorModel

__all__ = ["Host", "Named", "refuse_conditions"]

Array = NDArray[np.float32]


class Host(nn.Module, ABC):
    """All that a file for one kind of host holds.

    ``forward`` takes the tensors of `inputs`, and of `drawn` if the host draws no noise, and gives
    those of `outputs`.

    Attributes:
        inputs, outputs: of the file.
        drawn: normal numbers per shower that the graph draws itself; else 0.
        host: which program it is for, in words; empty: any.
        settings: what to tell that program.
    """

    inputs: list[Entry]
    outputs: list[Entry]
    drawn: int = 0
    host: str = ""
    settings: Sequence[str] = ()

    def __init__(self, model: GeneratorModel) -> None:
        super().__init__()
        self.generator = generator_form(model.generator, trained(model.domain))

    @abstractmethod
    def order(self, geometry: Geometry) -> str:
        """The order of the cells in words."""

    @abstractmethod
    def pack(self, conditions: Mapping[str, Array], noise: Array) -> dict[str, Array]:
        """Inputs of the file, as the host makes them of conditions (N,) and noise (N, width)."""

    @abstractmethod
    def unpack(self, made: Mapping[str, Any], energy: Array) -> Array:
        """Cells (N, n_cells), MeV, in our order, of the outputs of the file."""


class Named(Host):
    """Incident energy, further conditions and noise by name, any number of rows; cells and flags."""

    def __init__(self, model: GeneratorModel, rows: int | None) -> None:
        super().__init__(model)
        self.names = model.recipe.model.named_conditions()
        ranges = validity_of(model.domain)
        self.limits = {r.input: (r.flagged_below, r.flagged_above) for r in ranges}
        n: int | str = ROWS if rows is None else rows
        width, cells = model.generator.noise_dim, model.generator.n_cells
        self.inputs = [
            floats(ENERGY, [n], "MeV", "energy of the incident particle"),
            *(floats(k, [n], condition_unit(k), "condition of the shower") for k in self.names),
            floats("noise", [n, width], "1", "independent standard normal numbers"),
        ]
        self.outputs = [
            floats("cells", [n, cells], "MeV", "showers, in the order of cell_order"),
            Entry(
                name="outside_domain", dtype="bool", shape=[n], unit="", meaning="not trained here"
            ),
        ]

    def order(self, geometry: Geometry) -> str:
        return ordering(geometry)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        energy, *others, noise = inputs
        conditions = {ENERGY: energy, **dict(zip(self.names, others, strict=True))}
        return self.generator.generate(conditions, noise), flags(conditions, self.limits)

    def pack(self, conditions: Mapping[str, Array], noise: Array) -> dict[str, Array]:
        return {**{name: conditions[name] for name in (ENERGY, *self.names)}, "noise": noise}

    def unpack(self, made: Mapping[str, Any], energy: Array) -> Array:
        cells: Array = made["cells"]
        return cells


def refuse_conditions(model: GeneratorModel, known: Sequence[str], target: str) -> None:
    """Raise ConfigError if the model works with conditions that the host does not have."""
    names = model.recipe.model.named_conditions()
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"target {target!r} hands in the incident energy"
            f"{' and ' + ' and '.join(known) if known else ''}, and the model works with "
            f"{', '.join(unknown)} too; train one without "
            f"(--set model.conditions=[{', '.join(known)}]), or use --target ort"
        )
