"""Couplings: which target row a source row is trained towards."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hepbridge.core.protocols import Pairs
from hepbridge.core.rng import stream

__all__ = ["assign", "draw_pairs", "order_rows", "random_windows", "symmetrise"]


def order_rows(pairs: Pairs, seed: int) -> NDArray[np.int64]:
    """Rows sorted along the ordering condition; in random order if there is none."""
    if pairs.order is None:
        return stream(seed, "order").permutation(len(pairs))
    return np.argsort(pairs.conditions[pairs.order][:, 0].cpu().numpy(), kind="stable")


def draw_pairs(
    pairs: Pairs,
    order: NDArray[np.int64],
    width: int,
    count: int,
    rng: np.random.Generator,
    scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch: row numbers (n,), source and target (n, d) coupled to each other, n = width count.

    Pairs that belong together (``pairs.coupled``) are used as they are. Otherwise source and target
    are independent symmetry images, coupled by exact optimal assignment inside windows of
    neighbours; without ``scale`` they are left independent given their conditions.

    Args:
        order: of `order_rows`.
        width, count: of the windows, see `random_windows`.
        scale: (d,) factors on the coordinates inside the cost, see `assign`.
    """
    rows = random_windows(order, width, count, rng)
    flat = torch.from_numpy(rows.reshape(-1))
    x0, x1 = pairs.source[flat], pairs.target[flat]
    if pairs.coupled:
        return flat, x0, x1
    if pairs.symmetries is not None:
        x0 = symmetrise(x0, pairs.symmetries, rng)
        x1 = symmetrise(x1, pairs.symmetries, rng)
    if scale is not None:
        windows = zip(x0.split(rows.shape[1]), x1.split(rows.shape[1]), strict=True)
        x1 = torch.cat([b[assign(a, b, scale)] for a, b in windows])
    return flat, x0, x1


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
