"""The transport without a network: each coordinate by its own conditional monotone map."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.transforms.conditional_quantile import ConditionalQuantile

__all__ = ["Quantile"]


class Quantile(nn.Module):
    r"""Coordinate by coordinate :math:`T_i(x \mid c) = F_{1,i}^{-1}(F_{0,i}(x_i \mid c) \mid c)`.

    In one dimension this *is* the optimal transport, the limit of the Schrödinger bridge without
    noise. In more it matches every marginal and keeps the copula (the rank correlations) of the
    source: the baseline that any network has to beat. Coordinates may have an atom at
    :math:`-\infty` (logarithms of energies that may be zero), spread by ``noise``.

    `to_normal` and `from_normal` are its two halves: between them every marginal is N(0, 1) at
    every condition, the natural space for a network.

    Args:
        dim: number of coordinates.
        condition_dims: at most one named condition of one column.
        groups: for each coordinate the number of the table it shares with its equals.
        knots, nodes, degree: of the tables (`ConditionalQuantile`).
    """

    claims = Claims(coupling=True, invertible=True, deterministic=True)
    nfe = 0
    planned_steps = 0

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        groups: list[int] | None = None,
        knots: int = 91,
        nodes: int = 49,
        degree: int = 3,
    ) -> None:
        super().__init__()
        if len(condition_dims) > 1 or any(k != 1 for k in condition_dims.values()):
            raise ConfigError(
                f"the quantile transport takes one scalar condition, got {condition_dims}"
            )
        self.condition = next(iter(condition_dims), None)
        self.noise_dim = dim
        groups = list(range(dim)) if groups is None else groups
        self.source = ConditionalQuantile(groups, knots=knots, nodes=nodes, degree=degree)
        self.target = ConditionalQuantile(groups, knots=knots, nodes=nodes, degree=degree)

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """Learns both sides at once; there is nothing to train."""
        self.fit(self.source, pairs.source, pairs.conditions)
        self.fit(self.target, pairs.target, pairs.conditions)
        yield from ()

    def fit(self, side: ConditionalQuantile, x: Tensor, conditions: Conditions) -> None:
        """Learn the tables of one side; the samples of the two sides may differ in size."""
        c = self._scalar(conditions, x).double().cpu().numpy()
        side.fit(x.double().cpu().numpy(), c)

    def to_normal(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Source coordinates (N, d) to standard normal ones."""
        return self.source(x, self._scalar(conditions, x), noise)

    def from_normal(self, z: Tensor, conditions: Conditions) -> Tensor:
        """Standard normal coordinates (N, d) to target ones."""
        return self.target.inverse(z, self._scalar(conditions, z))

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        return self.from_normal(self.to_normal(x, conditions, noise), conditions)

    def inverse(self, x: Tensor, conditions: Conditions) -> Tensor:
        """Source coordinates of target coordinates ``x`` (N, d); the atom goes to its middle."""
        c = self._scalar(conditions, x)
        return self.source.inverse(self.target(x, c, torch.zeros_like(x)), c)

    def _scalar(self, conditions: Conditions, x: Tensor) -> Tensor:
        if self.condition is None:
            return x.new_zeros(len(x))
        return conditions[self.condition].reshape(-1)
