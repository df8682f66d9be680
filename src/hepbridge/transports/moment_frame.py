"""Coordinates made as normal as can be before a network sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from hepbridge.transports.conditional_shape import ConditionalShape
from hepbridge.transports.location_scale import LocationScale
from hepbridge.transports.second_moments import SecondMoments

__all__ = ["MomentFrame"]

_ROWS = 2048  # looked up at once


class MomentFrame(LocationScale):
    """`LocationScale` of others given leading coordinates and conditions; `ConditionalShape` and
    `SecondMoments` of what it leaves.

    Args:
        lead, others, conditions: of `LocationScale`.
        whole: whether shape and covariances are taken out, too.
    """

    def __init__(self, lead: int, others: int, conditions: int, whole: bool) -> None:
        super().__init__(lead, others, conditions)
        self.leads = lead
        self.shape = ConditionalShape(others) if whole else None
        self.second = SecondMoments(others) if whole else None
        self.column: Tensor
        if whole:
            self.register_buffer("column", torch.tensor(0))

    @torch.no_grad()
    def fit_rest(self, u: Tensor, s: Tensor, c: Tensor, column: int, images: Tensor) -> None:
        """After `fit`: learn shape and covariances at the condition in a ``column`` of c, if these are
        taken out. ``images`` (g, others): symmetries of u."""
        if self.shape is None or self.second is None:
            return
        self.column.fill_(column)
        # the leading coordinate that moves a coordinate most
        lead = self.mean[1 : 1 + self.leads].abs().argmax(dim=0)
        v, condition = super().forward(u, s, c), self._ordering(c)
        self.shape.fit(v, s, condition, lead, images.amin(dim=0))
        parts = zip(v.split(_ROWS), s.split(_ROWS), condition.split(_ROWS), strict=True)
        self.second.fit(torch.cat([self.shape(*part) for part in parts]), condition, images)

    def forward(self, u: Tensor, s: Tensor, c: Tensor) -> Tensor:
        v = super().forward(u, s, c)
        if self.shape is None or self.second is None:
            return v
        condition = self._ordering(c)
        return self.second(self.shape(v, s, condition), condition)

    def inverse(self, w: Tensor, s: Tensor, c: Tensor) -> Tensor:
        if self.shape is not None and self.second is not None:
            condition = self._ordering(c)
            w = self.shape.inverse(self.second.inverse(w, condition), s, condition)
        return super().inverse(w, s, c)

    def _ordering(self, c: Tensor) -> Tensor:
        if c.shape[1] == 0:
            return c.new_zeros(len(c))
        return c.index_select(1, self.column.reshape(1))[:, 0]
