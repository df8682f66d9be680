"""Two flows, one after the other: a few leading coordinates, then the others given them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.transports.flow_matching import FlowMatching
from hepbridge.transports.location_scale import LocationScale
from hepbridge.transports.options import known_options

__all__ = ["StagedFlow"]

_ROWS = 4096  # moved at once when the second stage is prepared
_FRAMED = (
    2**16
)  # pairs of a leading and another coordinate; to fit more takes longer than the training


class StagedFlow(nn.Module):
    r"""Flow matching in two stages, :math:`x = (u, s) \to (u, s') \to (u', s')`.

    .. math:: s' = \Phi_1(s \mid c), \qquad u' = \Phi_2(u \mid s', c)

    The first stage sees a problem of few dimensions, in which a small network is exact for all
    practical purposes and an assignment inside a window is a good one; the second leaves what the
    first made alone. Use it for coordinates that must be right most, sums of the others for
    example: in one common flow they drown among the many. Both stages are `FlowMatching`; the map is
    deterministic and invertible, triangular like the Knothe–Rosenblatt map.

    The second stage couples source and target rows that differ in s' a little, and takes the target's.
    That is exact where u does not depend on s', and what u says of s' would be counted twice where it
    does: sums of many coordinates then follow s' too closely. So mean and spread of u given s' are
    taken out before and put back after, on either side its own (`LocationScale`), unless that
    would be more than 65,536 pairs of coordinates: their fit takes longer than the training. Where u depends on
    s' in other ways, raise ``carried_weight`` of the second stage (from 1), so that rows are assigned
    to each other by s' first.

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
        for stage, options in (("first", first), ("then", then)):
            known_options(f"staged_flow: {stage}", FlowMatching, options or {})
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
        columns = sum(condition_dims.values())
        framed = (lead, dim - lead, columns) if lead * (dim - lead) <= _FRAMED else None
        self.before = LocationScale(*framed) if framed else None
        self.after = LocationScale(*framed) if framed else None

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
        moved = replace(pairs, source=pairs.source.clone(), target=pairs.target.clone())

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
                for frame, x, first in (
                    (self.before, moved.source, pairs.source),
                    (self.after, moved.target, pairs.target),
                ):
                    if frame is None:
                        continue
                    images = self._images(first[:, :rest], x[:, rest:], pairs)
                    frame.fit(*images, self._alike(pairs))
                    columns = self._columns(x, pairs.conditions)
                    x[:, :rest] = frame.cpu()(first[:, :rest], x[:, rest:], columns)
                    frame.to(where)

        for phase in self.then.phases(moved, seed):
            module = phase.module
            if self.before is not None and self.after is not None:
                module = _Stage(module, self.before, self.after)
            yield replace(phase, name="rest", module=module, prepare=prepare)

    def _lead(self, s: Tensor, conditions: Conditions) -> Tensor:
        return s if self.first is None else self.first.apply(s, conditions)

    def _columns(self, x: Tensor, conditions: Conditions) -> Tensor:
        """All conditions (N, columns), in the order of their declaration."""
        named = [conditions[name].to(x) for name in self.then.condition_dims]
        return torch.cat(named, dim=1) if named else x.new_zeros(len(x), 0)

    def _images(
        self, u: Tensor, s: Tensor, pairs: Pairs
    ) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
        """All symmetry images of the rows u, some columns at a time, of s, and their conditions."""
        c, symmetries = self._columns(u, pairs.conditions), pairs.symmetries
        if symmetries is None:
            return lambda columns: u[:, columns], s, c
        rest = self.dim - self.lead

        def images(columns: Tensor) -> Tensor:
            return torch.cat([u[:, image[:rest][columns]] for image in symmetries])

        ss = torch.cat([s[:, image[rest:] - rest] for image in symmetries])
        if not pairs.moves:
            return images, ss, c.repeat(len(symmetries), 1)
        columns = []
        for k in range(len(symmetries)):
            moved = {
                name: value @ pairs.moves[name][k].T if name in pairs.moves else value
                for name, value in pairs.conditions.items()
            }
            columns.append(self._columns(u, moved))
        return images, ss, torch.cat(columns)

    def _alike(self, pairs: Pairs) -> Tensor | None:
        """Of every coordinate behind the leading ones (rest,) the first that an image puts in its place.

        Over all images these have the same values beside the same s and c, if nothing else is moved.
        """
        rest, symmetries = self.dim - self.lead, pairs.symmetries
        if symmetries is None or pairs.moves:
            return None
        stay = torch.equal(symmetries[:, rest:], symmetries[:1, rest:].expand(len(symmetries), -1))
        return symmetries[:, :rest].amin(dim=0) if stay else None

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor | None = None) -> Tensor:
        """The image (N, dim) of ``x`` (N, dim); uses no noise."""
        rest = self.dim - self.lead
        s, c = self._lead(x[:, rest:], conditions), self._columns(x, conditions)
        u = x[:, :rest] if self.before is None else self.before(x[:, :rest], s, c)
        u = self.then.apply(torch.cat([u, s], dim=1), conditions)[:, :rest]
        u = u if self.after is None else self.after.inverse(u, s, c)
        return torch.cat([u, s], dim=1)

    def inverse(self, x: Tensor, conditions: Conditions) -> Tensor:
        """The ``x`` whose image is the given one."""
        rest = self.dim - self.lead
        s, c = x[:, rest:], self._columns(x, conditions)
        u = x[:, :rest] if self.after is None else self.after(x[:, :rest], s, c)
        u = self.then.inverse(torch.cat([u, s], dim=1), conditions)[:, :rest]
        u = u if self.before is None else self.before.inverse(u, s, c)
        if self.first is not None:
            s = self.first.inverse(s, conditions)
        return torch.cat([u, s], dim=1)


class _Stage(nn.Module):
    """The second stage in training: its network, and the frames that belong to the same checkpoint."""

    def __init__(self, network: nn.Module, before: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = self.network(*inputs)
        return out
