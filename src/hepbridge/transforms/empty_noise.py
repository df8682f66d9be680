"""Noise for empty cells that knows the sums of its shower."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["EmptyNoise"]

_FAR = 3.5  # sums beyond it count as this far
_LEAST = 100  # empty cells of a group; with fewer its noise stays as it is
_RIDGE = 1e-3


class EmptyNoise(nn.Module):
    r"""The normal number that places an empty cell below its threshold, given the sums s.

    .. math:: n' = A^\mathsf{T} f + b\, n, \qquad f(s, c) = (1, s) \otimes (1, c), \quad n \sim N(0, 1),

    in place of n itself (`ConditionalQuantile` makes :math:`\Phi^{-1}(p_0 \Phi(n'))` of it). An empty cell of
    a ring with much energy then lies nearer to its threshold, as a cell that is not empty lies higher:
    normal coordinates go together with the sums over their whole range, not above a step only.

    Args:
        sums: number of coordinates s.
        groups: of each cell the number of the group that shares its column of A.
    """

    def __init__(self, sums: int, groups: list[int]) -> None:
        super().__init__()
        self.groups = torch.tensor(groups)
        self.weight: Tensor
        self.spread: Tensor
        self.register_buffer("weight", torch.zeros(2 * (1 + sums), len(groups)))
        self.register_buffer("spread", torch.ones(len(groups)))

    @torch.no_grad()
    def fit(self, noise: Tensor, empty: Tensor, s: Tensor, c: Tensor) -> None:
        """Least squares of ``noise`` (N, cells) where ``empty`` (N, cells), on s (N, sums), c (N, 1)."""
        f = self._features(s, c).double()
        for group in self.groups.unique():
            columns = torch.nonzero(self.groups == group).reshape(-1)
            row, column = torch.nonzero(empty[:, columns], as_tuple=True)
            if len(row) < _LEAST:
                continue
            x, y = f[row], noise[:, columns].double()[row, column]
            gram = x.T @ x + _RIDGE * len(row) * torch.eye(x.shape[1], dtype=x.dtype)
            a = torch.linalg.solve(gram, x.T @ y)
            self.weight[:, columns] = a[:, None].to(self.weight)
            self.spread[columns] = (y - x @ a).std().to(self.spread)

    def forward(self, noise: Tensor, s: Tensor, c: Tensor) -> Tensor:
        """n' (N, cells) of noise (N, cells), s (N, sums) and c (N, 1)."""
        return noise * self.spread + self._features(s, c) @ self.weight

    @staticmethod
    def _features(s: Tensor, c: Tensor) -> Tensor:
        f = torch.cat([torch.ones_like(c), s.clamp(-_FAR, _FAR)], dim=1)
        return torch.cat([f, f * c], dim=1)
