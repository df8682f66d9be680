"""What a few coordinates say of the mean and the spread of all others, taken out and put back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["LocationScale"]

_FAR = 3.5  # leading coordinates beyond it count as this far: a parabola must not run away
_WIDEST = 2.0  # |ln sigma^2| at most
_ROUNDS = 8  # of Fisher scoring
_AT_ONCE = 2**24  # numbers of u that are fitted together


class LocationScale(nn.Module):
    r"""Standardise coordinates u, given others s and a condition c.

    .. math:: v = \frac{u - B^\mathsf{T} f}{\sigma}, \quad \ln \sigma^2 = G^\mathsf{T} f, \qquad
              f(s, c) = (1, s, s^2) \otimes (1, c)

    B and G maximise the Gaussian likelihood; where u is not Gaussian, mean and variance of v still do
    not depend on s to this order.

    Args:
        lead: number of coordinates s.
        others: number of coordinates u.
        conditions: number of columns of c.

    Source: log-linear models of the variance, Harvey, Econometrica 44 (1976) 461.
    """

    def __init__(self, lead: int, others: int, conditions: int) -> None:
        super().__init__()
        features = (1 + 2 * lead) * (1 + conditions)
        self.mean: Tensor
        self.log_variance: Tensor
        self.register_buffer("mean", torch.zeros(features, others))
        self.register_buffer("log_variance", torch.zeros(features, others))

    @torch.no_grad()
    def fit(
        self, u: Callable[[Tensor], Tensor], s: Tensor, c: Tensor, alike: Tensor | None = None
    ) -> None:
        """Learn B and G from rows s (N, lead), c (N, conditions) and u (N, others).

        Args:
            u: gives the columns of some numbers (k,): all images of all showers together may not fit
                into the memory.
            alike: (others,) of every column the number of one that has the same values in other rows
                of equal s and c, so that one fit serves for both; default: none.
        """
        f = self._features(s, c).double()
        inverse = torch.linalg.pinv(f.T @ f, hermitian=True) @ f.T
        every = torch.arange(self.mean.shape[1]) if alike is None else alike
        own, where = torch.unique(every, return_inverse=True)
        found = []
        for block in own.split(max(1, _AT_ONCE // len(f))):
            some = u(block).double()
            mean = inverse @ some
            variance = torch.zeros_like(mean)
            for _ in range(_ROUNDS):
                weighted = (some - f @ mean).square() * torch.exp(-self._clamp(f @ variance))
                variance += inverse @ (weighted - 1.0)
            found.append((mean, variance))
        for buffer, parts in zip(
            (self.mean, self.log_variance), zip(*found, strict=True), strict=True
        ):
            buffer.copy_(torch.cat(parts, dim=1)[:, where])

    def forward(self, u: Tensor, s: Tensor, c: Tensor) -> Tensor:
        """v (N, others)."""
        f = self._features(s, c)
        return (u - f @ self.mean) * torch.exp(-0.5 * self._clamp(f @ self.log_variance))

    def inverse(self, v: Tensor, s: Tensor, c: Tensor) -> Tensor:
        """u (N, others)."""
        f = self._features(s, c)
        return v * torch.exp(0.5 * self._clamp(f @ self.log_variance)) + f @ self.mean

    @staticmethod
    def _clamp(log_variance: Tensor) -> Tensor:
        return log_variance.clamp(-_WIDEST, _WIDEST)

    @staticmethod
    def _features(s: Tensor, c: Tensor) -> Tensor:
        s = s.clamp(-_FAR, _FAR)
        powers = torch.cat([torch.ones_like(s[:, :1]), s, s.square()], dim=1)
        return torch.cat([powers, *(powers * c[:, k : k + 1] for k in range(c.shape[1]))], dim=1)
