"""Couplings: which target row a source row is trained towards."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["assign", "random_windows", "symmetrise"]


def random_windows(
    order: NDArray[np.int64], width: int, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Row numbers (count, width): windows of neighbours in a sorted ``order``, each shuffled.

    Rows of one window have nearly the same condition, so within it every source row may be coupled
    to every target row without mixing conditions (the exact-window form of conditional optimal
    transport, arXiv:2503.10636). Windows wrap at the ends by reflection, so that end rows are drawn
    as often as the others.
    """
    n = len(order)
    width = min(width, n)
    start = np.clip(rng.integers(-width // 2, n - width // 2, size=count), 0, n - width)
    rows = start[:, None] + np.argsort(rng.random((count, width)), axis=1)
    return order[rows]


def assign(source: Tensor, target: Tensor, scale: Tensor | None = None) -> Tensor:
    """Permutation p that minimises sum_i |source_i - target_p(i)|^2 (exact optimal assignment).

    Args:
        source, target: (n, d).
        scale: (d,) factors on the coordinates inside the cost, default 1.
    """
    if scale is not None:
        source, target = source * scale, target * scale
    cost = torch.cdist(source.double(), target.double()).square()
    _, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.from_numpy(columns).to(source.device)


def symmetrise(x: Tensor, permutations: Tensor, rng: np.random.Generator) -> Tensor:
    """Each row (N, d) moved by a random element of the group ``permutations`` (g, d)."""
    g = torch.from_numpy(rng.integers(0, len(permutations), len(x)))
    return x.gather(1, permutations[g.to(permutations.device)])
