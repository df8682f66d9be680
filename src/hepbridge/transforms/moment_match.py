"""Moments of cells given the sums of their shower, matched after a training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["MomentMatch"]

ORDERS = 4
_STEP = 0.5  # of a Newton step: whole ones run away where s moves u by a third of its width
_FAR = 3.5  # coordinates and sums beyond it count as this far: polynomials must not run away
_LARGEST = 0.25  # coefficient: of what is further from the target this is no correction any more
_AT_ONCE = 2**24  # numbers of u that are looked at together


class MomentMatch(nn.Module):
    r"""A correction of normal coordinates u, given sums s and a condition c.

    .. math:: u' = u + \sum_{k=1}^{4} \bigl(A_k^\mathsf{T} f\bigr)\, \mathrm{He}_{k-1}(u), \qquad
              f(s, c) = (1, s, s^2) \otimes (1, c)

    with the Hermite polynomials of probability theory. Near a normal distribution the term k moves
    :math:`\mathbb{E}[\mathrm{He}_k(u) \mid s, c]` by :math:`k!\,A_k^\mathsf{T} f` and no other of these moments,
    so a step that adds their differences from those of a target, divided by k!, is a Newton step. Means
    that depend on s mix the moments, so half of it is taken. Unfitted, u stays as it is.

    Args:
        sums: number of coordinates s.
        groups: of each coordinate u the number of the group that shares its columns of A.

    Source: Cornish & Fisher, Rev. Inst. Int. Stat. 5 (1938) 307 (corrections of normal numbers in Hermite
    polynomials).
    """

    def __init__(self, sums: int, groups: list[int]) -> None:
        super().__init__()
        self.groups = torch.tensor(groups)
        self.target: Tensor
        self.weight: Tensor
        for name in ("target", "weight"):
            zeros = torch.zeros(ORDERS, 2 * (1 + 2 * sums), len(groups))
            self.register_buffer(name, zeros, persistent=name == "weight")
        self._least, self._before = np.inf, torch.zeros_like(self.weight)

    @torch.no_grad()
    def aim(self, u: Tensor, s: Tensor, c: Tensor) -> None:
        """Learn the moments to be reached from rows u (N, cells), s (N, sums), c (N, 1)."""
        self.target = self._moments(u, s, c).to(self.target)
        self._least, self._before = np.inf, torch.zeros_like(self.weight)

    @torch.no_grad()
    def step(self, u: Tensor, s: Tensor, c: Tensor) -> bool:
        """Correct further, by what the moments of the corrected rows u still lack.

        If they lack more than before the last step, that is taken back: False. So it ends for rows that are
        too far from normal.
        """
        lacking = self.target - self._moments(u, s, c)
        size = float(lacking.square().sum())
        if not size < self._least:
            self.weight.copy_(self._before)
            return False
        self._least, self._before = size, self.weight.clone()
        factorial = torch.tensor([1.0, 2.0, 6.0, 24.0])[:, None, None]
        self.weight += (_STEP * lacking / factorial).to(self.weight)
        self.weight.clamp_(-_LARGEST, _LARGEST)
        return True

    def forward(self, u: Tensor, s: Tensor, c: Tensor) -> Tensor:
        """u' (N, cells) of u (N, cells), s (N, sums) and c (N, 1)."""
        w, near = self.weight, u.clamp(-_FAR, _FAR)
        # 1, u, u^2 - 1, u^3 - 3 u by powers of u, and Horner's rule
        powers = torch.cat([w[0] - w[2], w[1] - 3.0 * w[3], w[2], w[3]], dim=1)
        a0, a1, a2, a3 = (self._features(s, c) @ powers).split(u.shape[1], dim=1)
        return u + (near * (near * (near * a3 + a2) + a1) + a0)

    def _moments(self, u: Tensor, s: Tensor, c: Tensor) -> Tensor:
        """Least squares of He_1 ... He_4 (u) on f: (orders, features, cells), means over the groups."""
        f = self._features(s, c).double()
        inverse = torch.linalg.pinv(f.T @ f, hermitian=True) @ f.T
        blocks = []
        for block in u.split(max(1, _AT_ONCE // len(f)), dim=1):
            x = block.double().clamp(-_FAR, _FAR)
            square = x * x
            he = (x, square - 1, x * (square - 3), square * (square - 6) + 3)
            blocks.append(torch.stack([inverse @ h for h in he]))
        found = torch.cat(blocks, dim=2)
        own, where, count = torch.unique(self.groups, return_inverse=True, return_counts=True)
        pooled = found.new_zeros(*found.shape[:2], len(own)).index_add_(2, where, found)
        return (pooled / count)[:, :, where]

    @staticmethod
    def _features(s: Tensor, c: Tensor) -> Tensor:
        s = s.clamp(-_FAR, _FAR)
        powers = torch.cat([torch.ones_like(c), s, s.square()], dim=1)
        return torch.cat([powers, powers * c], dim=1)
