"""Marginals of many coordinates given the leading one that each goes with, made normal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ConditionalShape"]

_WINDOWS = 6  # of the condition
_LEAST = 2000  # rows of a window, at least
_NODES = 9  # of the leading coordinate
_REACH = 2.4  # its outermost nodes
_SHARE = 0.2  # of the rows of a window that are taken together around a node
_LEVELS = 41
_DEEPEST = 2.6  # the outermost levels, in standard deviations: one number in 200 lies beyond
_NEVER = 1e30  # an edge that no condition reaches


class ConditionalShape(nn.Module):
    r"""Monotone maps of coordinates v to :math:`N(0, 1)`, given leading coordinates s and a condition c.

    .. math:: w_j = T_j(v_j \mid s_{k(j)}, c)

    piecewise linear between quantiles of :math:`v_j` at 41 levels, in up to six windows of c and around
    nine values of the leading coordinate that it goes with, smoothed over these by parabolas and linear
    between them. Beyond the outermost levels the map continues with slope 1.

    Args:
        others: number of coordinates v.
    """

    def __init__(self, others: int) -> None:
        super().__init__()
        self.edges: Tensor
        self.lead: Tensor
        self.quantiles: Tensor
        normal = torch.linspace(-_DEEPEST, _DEEPEST, _LEVELS)
        self.register_buffer("edges", torch.full((_WINDOWS - 1,), _NEVER))
        self.register_buffer("lead", torch.zeros(others, dtype=torch.int64))
        self.register_buffer("quantiles", normal.repeat(_WINDOWS * _NODES, others, 1))

    @torch.no_grad()
    def fit(self, v: Tensor, s: Tensor, c: Tensor, lead: Tensor, alike: Tensor) -> None:
        """Learn from rows v (N, others), s (N, leading), c (N,).

        Args:
            lead: (others,) number of the column of s that a coordinate goes with.
            alike: (others,) of every coordinate the first of those with the same distribution.
        """
        self.lead.copy_(lead)
        self.edges.fill_(_NEVER)
        windows = torch.argsort(c, stable=True).tensor_split(
            min(_WINDOWS, max(1, len(c) // _LEAST))
        )
        for k, rows in enumerate(windows[1:]):
            self.edges[k] = c[rows[0]]
        level = torch.special.ndtr(torch.linspace(-_DEEPEST, _DEEPEST, _LEVELS).double())
        nodes = torch.linspace(-_REACH, _REACH, _NODES)
        powers = torch.stack([nodes.double() ** k for k in range(3)], dim=1)
        smoother = powers @ torch.linalg.pinv(powers)
        for k, rows in enumerate(windows):
            nearest = [
                [(s[rows, j] - node).abs().argsort(stable=True) for node in nodes]
                for j in range(s.shape[1])
            ]
            count = max(1, round(_SHARE * len(rows)))
            for first in alike.unique():
                columns = torch.nonzero(alike == first).reshape(-1)
                values = v[rows][:, columns].double()
                near = nearest[int(lead[first])]
                found = torch.stack(
                    [torch.quantile(values[some[:count]].reshape(-1), level) for some in near]
                )
                table = (smoother @ found).sort(dim=1).values
                # two equal knots have no slope
                table = table + 1e-4 * torch.arange(_LEVELS)
                at = slice(k * _NODES, (k + 1) * _NODES)
                self.quantiles[at, columns] = table[:, None].to(self.quantiles)

    def forward(self, v: Tensor, s: Tensor, c: Tensor) -> Tensor:
        """w (N, others) of v (N, others)."""
        knots = self._knots(s, c)
        low = (v[:, :, None] > knots).sum(dim=2).sub(1).clamp(0, _LEVELS - 2)
        left, right = self._ends(knots, low)
        step = 2 * _DEEPEST / (_LEVELS - 1)
        inner = step * (low + (v - left) / (right - left)) - _DEEPEST
        first, last = knots[:, :, 0], knots[:, :, -1]
        return torch.where(
            v < first, v - first - _DEEPEST, torch.where(v > last, v - last + _DEEPEST, inner)
        )

    def inverse(self, w: Tensor, s: Tensor, c: Tensor) -> Tensor:
        """v (N, others) of w (N, others)."""
        knots = self._knots(s, c)
        place = (w.clamp(-_DEEPEST, _DEEPEST) + _DEEPEST) * ((_LEVELS - 1) / (2 * _DEEPEST))
        low = place.long().clamp(0, _LEVELS - 2)
        left, right = self._ends(knots, low)
        return torch.lerp(left, right, place - low) + w - w.clamp(-_DEEPEST, _DEEPEST)

    def _knots(self, s: Tensor, c: Tensor) -> Tensor:
        """Quantiles (N, others, levels) at s and c."""
        window = (c[:, None] > self.edges).sum(dim=1) * _NODES
        place = s.index_select(1, self.lead).clamp(-_REACH, _REACH).add(_REACH)
        place = place * ((_NODES - 1) / (2 * _REACH))
        node = place.long().clamp(0, _NODES - 2)
        count = len(self.lead)
        flat = self.quantiles.reshape(-1, _LEVELS)
        row = (window[:, None] + node) * count + torch.arange(count, device=s.device)
        low, high = (
            flat.index_select(0, (row + shift).reshape(-1)).reshape(-1, count, _LEVELS)
            for shift in (0, count)
        )
        return torch.lerp(low, high, (place - node)[:, :, None])

    @staticmethod
    def _ends(knots: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        pair = torch.stack([low, low + 1], dim=2)
        left, right = knots.gather(2, pair).unbind(2)
        return left, right
