"""Two flows, one after the other: a few leading coordinates, then the others given them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.transports.flow_matching import FlowMatching

__all__ = ["StagedFlow"]

_ROWS = 4096  # moved at once when the second stage is prepared


class StagedFlow(nn.Module):
    r"""Flow matching in two stages, :math:`x = (u, s) \to (u, s') \to (u', s')`.

    .. math:: s' = \Phi_1(s \mid c), \qquad u' = \Phi_2(u \mid s', c)

    The first stage sees a problem of few dimensions, in which a small network is exact for all
    practical purposes and an assignment inside a window is a good one; the second leaves what the
    first made alone. Use it for coordinates that must be right most, sums of the others for
    example: in one common flow they drown among the many. Both stages are `FlowMatching`; the map is
    deterministic and invertible, triangular like the Knothe–Rosenblatt map.

    The second stage couples source and target rows that differ in s' a little, and takes the target's.
    That is exact where u hardly depends on s in the source, as between the shares of rings and their
    energies; where it does, raise ``carried_weight`` of the second stage (from 1), so that rows are
    assigned to each other by s' first.

    Args:
        dim: coordinates of x; the last ``lead`` of them are s.
        condition_dims: name -> columns, all standardised.
        lead: number of leading coordinates.
        carried: how many of these, the last ones, the first stage keeps as they are.
        first, then: options of the two flows.
    """

    claims = Claims(joint=True, coupling=True, invertible=True, deterministic=True)
    noise_dim = 0

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        lead: int = 1,
        carried: int = 0,
        first: dict[str, Any] | None = None,
        then: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= lead < dim:
            raise ConfigError(f"staged_flow: lead must be from 1 to {dim - 1}, got {lead}")
        self.dim, self.lead = dim, lead
        # None: all leading coordinates are carried, there is nothing to move in the first stage
        self.first = (
            FlowMatching(lead, condition_dims, **{"carried": carried, **(first or {})})
            if lead > carried
            else None
        )
        self.then = FlowMatching(
            dim, condition_dims, **{"carried": lead, "carried_weight": 1.0, **(then or {})}
        )

    @property
    def nfe(self) -> int:
        return self.then.nfe + (self.first.nfe if self.first is not None else 0)

    @property
    def planned_steps(self) -> int:
        first = self.first.planned_steps if self.first is not None else 0
        return first + self.then.planned_steps

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """The phase of the leading coordinates, then that of the others beside the moved ones."""
        if pairs.dim != self.dim:
            raise ConfigError(f"staged flow for {self.dim} coordinates got {pairs.dim}")
        rest = self.dim - self.lead
        symmetries = None  # of the leading coordinates among themselves
        if pairs.symmetries is not None:
            if int(pairs.symmetries[:, :rest].max()) >= rest:
                raise ConfigError("a symmetry exchanges leading coordinates with others")
            symmetries = pairs.symmetries[:, rest:] - rest
        lead = replace(
            pairs,
            source=pairs.source[:, rest:],
            target=pairs.target[:, rest:],
            symmetries=symmetries,
        )
        if self.first is not None:
            for phase in self.first.phases(lead, seed):
                yield replace(phase, name="lead")
        moved = replace(pairs, source=pairs.source.clone())

        def prepare(rng: np.random.Generator) -> None:
            where = next(self.parameters()).device
            with torch.no_grad():
                for start in range(0, len(lead), _ROWS):
                    rows = slice(start, start + _ROWS)
                    part = lead.rows(rows)
                    c = {name: value.to(where) for name, value in part.conditions.items()}
                    moved.source[rows, rest:] = self._lead(part.source.to(where), c).to(
                        pairs.source
                    )

        for phase in self.then.phases(moved, seed):
            yield replace(phase, name="rest", prepare=prepare)

    def _lead(self, s: Tensor, conditions: Conditions) -> Tensor:
        return s if self.first is None else self.first.apply(s, conditions)

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor | None = None) -> Tensor:
        """The image (N, dim) of ``x`` (N, dim); uses no noise."""
        rest = self.dim - self.lead
        lead = self._lead(x[:, rest:], conditions)
        return self.then.apply(torch.cat([x[:, :rest], lead], dim=1), conditions)

    def inverse(self, x: Tensor, conditions: Conditions) -> Tensor:
        """The ``x`` whose image is the given one."""
        rest = self.dim - self.lead
        start = self.then.inverse(x, conditions)
        if self.first is None:
            return start
        return torch.cat([start[:, :rest], self.first.inverse(start[:, rest:], conditions)], dim=1)
