"""Exponential moving average of the weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["WeightAverage"]


class WeightAverage:
    r"""The running average of a list of parameters.

    .. math:: \bar w \leftarrow d_n \bar w + (1 - d_n) w, \qquad
              d_n = \min\!\big(d, \tfrac{1 + n}{10 + n}\big)

    after the n-th update (n = 1, 2, …): the early average forgets the initial weights quickly, so
    short trainings are not held back by them.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.updates = 0
        self.average = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.average, self.parameters, 1.0 - decay)

    @torch.no_grad()
    def store(self) -> None:
        """Make the average the parameters."""
        torch._foreach_copy_(self.parameters, self.average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the parameters are the average."""
        live = [p.detach().clone() for p in self.parameters]
        self.store()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, live)
