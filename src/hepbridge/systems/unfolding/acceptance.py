"""What the detector misses, and what it makes up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hepbridge.core.protocols import Phase
from hepbridge.systems.unfolding.response import Response
from hepbridge.transforms.event_frame import EventFrame
from hepbridge.weighters.contrast import Contrast
from hepbridge.weighters.density_ratio import DensityRatio

__all__ = ["Acceptance", "Share"]

LEAST = 100  # events of either kind, or the share is taken as the same everywhere


class Share(nn.Module):
    r"""The part of the events at a point that are of the first of two kinds.

    .. math:: s(x) = \frac{N_a\, p_a(x)}{N_a\, p_a(x) + N_b\, p_b(x)}
                   = \frac{1}{1 + (N_b / N_a) / r(x)}, \qquad r = p_a / p_b

    with the `DensityRatio` r of both kinds. With fewer than 100 events of a kind the ratio is 1.

    Args:
        dim: columns of x; ``options`` of the `DensityRatio`.
    """

    def __init__(self, dim: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.ratio = DensityRatio(dim, **options)
        self.odds: Tensor
        self.varies: Tensor
        self.register_buffer("odds", torch.zeros((), dtype=torch.float64))
        self.register_buffer("varies", torch.zeros((), dtype=torch.bool))

    def phases(
        self, first: Tensor, other: Tensor, weights: tuple[Tensor, Tensor], seed: int, name: str
    ) -> Iterator[Phase]:
        """What to learn from the events (N, dim), (M, dim) of both kinds and their weights."""
        totals = [float(w.sum()) for w in weights]
        self.odds.fill_(totals[1] / totals[0])
        self.varies.fill_(min(len(first), len(other)) >= LEAST)
        if not self.varies:
            return
        for phase in self.ratio.phases(Contrast.between(first, other, *weights), seed):
            phase.name = f"{name}/{phase.name}"
            yield phase

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """The share (N,), float64, of the first kind at x (N, dim)."""
        if not self.odds:
            return torch.ones(len(x), dtype=torch.float64)
        ratio = self.ratio.weights(x).double().cpu() if self.varies else torch.ones(len(x)).double()
        return 1.0 / (1.0 + self.odds.cpu() / ratio)


class Acceptance(nn.Module):
    r"""Efficiency at particle level, purity at detector level.

    .. math:: \varepsilon(x) = P(\text{pair} \mid x \text{ passes}), \qquad
              \pi(y) = P(\text{pair} \mid y \text{ passes})

    A measured event that passes with y and is unfolded to x counts :math:`\pi(y) / \varepsilon(x)`
    events at particle level. The efficiency is one of the detector; the purity depends on the
    spectrum that is simulated, too. Both are those of the response.

    Args:
        true, seen: columns of the classifiers' inputs at both levels.
        options: of the `DensityRatio`s.
    """

    def __init__(self, true: int, seen: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.efficient = Share(true, options)
        self.pure = Share(seen, options)

    def phases(
        self, response: Response, true: EventFrame, seen: EventFrame, seed: int
    ) -> Iterator[Phase]:
        """What to learn, if the response has misses or fakes."""
        for share, frame, values, others, name in (
            (self.efficient, true, response.true, response.misses, "efficiency"),
            (self.pure, seen, response.seen, response.fakes, "purity"),
        ):
            if others.any():
                kinds = response.pairs, others
                x = [frame.features(values[rows]) for rows in kinds]
                w = [torch.from_numpy(response.weights[rows]).clamp_min(0.0) for rows in kinds]
                yield from share.phases(x[0], x[1], (w[0], w[1]), seed, name)
