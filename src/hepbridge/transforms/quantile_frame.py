"""Layered showers in normal space: every layer energy and every cell by its own quantile tables."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hepbridge.transforms.conditional_quantile import ConditionalQuantile
from hepbridge.transforms.layer_sums import LayerSums
from hepbridge.transforms.marginals import matched

__all__ = ["QuantileFrame"]


class QuantileFrame(nn.Module):
    r"""Showers to N(0, 1) in every coordinate, and back.

    Coordinates are those of the layer energies (`LayerSums`) and :math:`\ln (E_i / \mathrm{MeV})` of
    each cell, or with ``shares`` :math:`\ln(E_i / E_{l(i)})`, :math:`-\infty` for an empty one. Each
    goes through a `ConditionalQuantile` given the incident energy, zeros spread over their
    probability. What is left for a network is how they go together. On the way back cells are scaled to
    the layer energies exactly.

    Args:
        sizes: cells of each layer.
        groups: for each cell the number of its table (cells that a symmetry makes equal share one).
        reference: of `LayerSums`.
        shares: cells as shares of their layer.
        threshold: MeV; cells at or below become 0.
        knots, nodes, degree: of the tables.
        match: whether the cells' marginals are corrected after a training (`finish`).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        groups: Sequence[int],
        *,
        reference: int,
        shares: bool = False,
        threshold: float = 0.0,
        knots: int = 91,
        nodes: int = 49,
        degree: int = 3,
        match: bool = False,
    ) -> None:
        super().__init__()
        self.sums = LayerSums(sizes, reference)
        self.shares, self.threshold = shares, threshold
        tables = {"knots": knots, "nodes": nodes, "degree": degree}
        self.of_layers = ConditionalQuantile(list(range(len(sizes))), **tables)
        self.of_cells = ConditionalQuantile(list(groups), **tables)
        self.matched = copy.deepcopy(self.of_cells) if match else None

    def fit(
        self, cells: Tensor, energy: Tensor, condition: Tensor, noise: NDArray[np.float64]
    ) -> None:
        """Learn the tables from cells (N, n), incident energies (N,) and the condition (N,) of them."""
        layers, of_cells = self._coordinates(cells, energy)
        c = condition.numpy()
        self.of_layers.fit(layers.numpy(), c)
        self.of_cells.fit(of_cells.numpy(), c)
        self.start_matching()

    def start_matching(self) -> None:
        """Forget a correction of the cells' tables."""
        if self.matched is not None:
            self.matched.load_state_dict(self.of_cells.state_dict())

    def finish(self, made: Tensor, condition: Tensor) -> None:
        """Correct the tables of the cells for ``made`` (N, n), what a network draws in normal space."""
        if self.matched is not None:
            self.matched = matched(self.of_cells, made.numpy(), condition.numpy())

    def forward(
        self, cells: Tensor, energy: Tensor, condition: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Layers (N, L) and cells (N, n) in normal space; ``noise`` (N, L + n) normal, for what is empty."""
        layers, of_cells = self._coordinates(cells, energy)
        n = layers.shape[1]
        return (
            self.of_layers(layers, condition, noise[:, :n]),
            self.of_cells(of_cells, condition, noise[:, n:]),
        )

    def inverse(self, layers: Tensor, cells: Tensor, energy: Tensor, condition: Tensor) -> Tensor:
        """Cells (N, n), MeV, of layers (N, L) and cells (N, n) in normal space."""
        sums = self.sums.inverse(self.of_layers.inverse(layers, condition), energy)
        tables = self.of_cells if self.matched is None else self.matched
        values = torch.exp(tables.inverse(cells, condition))
        return self.sums.fill(values, sums, cells, self.threshold)

    def _coordinates(self, cells: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
        sums = self.sums.sums(cells)
        unit: Tensor | float = 1.0
        if self.shares:
            unit = torch.where(sums > 0, sums, 1.0).index_select(1, self.sums.layers)
        return self.sums(sums, energy), torch.log(cells / unit)
