"""Couplings: which target row a source row is trained towards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from hepbridge.core.protocols import Conditions, Pairs
from hepbridge.core.rng import stream

__all__ = [
    "assign",
    "draw_pairs",
    "order_rows",
    "random_images",
    "random_windows",
    "symmetrise",
    "symmetrise_together",
]


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
    condition_weight: float = 0.0,
) -> tuple[Conditions, Tensor, Tensor]:
    r"""A batch: conditions, source and target (n, d) coupled to each other, n = width count.

    Pairs that belong together (``pairs.coupled``) are used as they are. Otherwise source and target
    are symmetry images, coupled by exact optimal assignment inside windows of neighbours; without
    ``scale`` they are left independent given their conditions. The images are drawn independently
    of each other, unless conditions move along with them (``pairs.moves``): then source, target and
    conditions of a row are moved by one and the same element. A source that is noise is drawn anew.

    Windows keep the ordering condition together. The other conditions c, if there are any, enter
    the cost (conditional optimal transport, Chemseddine et al., arXiv:2403.18705),

    .. math:: |x_{0,i} - x_{1,j}|^2 + \beta\, |c_i - c_j|^2,

    and those of the source go with the pair.

    Args:
        order: of `order_rows`.
        width, count: of the windows, see `random_windows`.
        scale: (d,) factors on the coordinates inside the cost, see `assign`.
        condition_weight: :math:`\beta`; infinite: rows stay with their own partners.
    """
    rows = random_windows(order, width, count, rng)
    flat = torch.from_numpy(rows.reshape(-1))
    batch = pairs.rows(flat)
    x0, x1, conditions = batch.source, batch.target, batch.conditions
    if pairs.from_noise:
        x0 = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
    if pairs.coupled:
        return conditions, x0, x1
    (x0, x1), conditions = random_images(batch, (x0, x1), rng)
    others = [value for name, value in conditions.items() if name != pairs.order]
    if scale is None or (others and condition_weight == float("inf")):
        return conditions, x0, x1
    a, b = x0 * scale, x1 * scale
    if others and condition_weight:
        c = torch.cat(others, dim=1) * condition_weight**0.5
        a, b = torch.cat([a, c], dim=1), torch.cat([b, c], dim=1)
    width = rows.shape[1]
    windows = zip(a.split(width), b.split(width), x1.split(width), strict=True)
    x1 = torch.cat([window[assign(u, v)] for u, v, window in windows])
    return conditions, x0, x1


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


def random_images(
    pairs: Pairs, samples: Sequence[Tensor], rng: np.random.Generator
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Random symmetry images of ``samples`` (N, d), and the conditions that they have.

    Independent ones of each sample, unless conditions of ``pairs`` move along with them: then one
    element moves all of a row. Without a symmetry nothing moves.
    """
    if pairs.symmetries is None:
        return list(samples), pairs.conditions
    if pairs.moves:
        return symmetrise_together(pairs, samples, rng)
    return [symmetrise(x, pairs.symmetries, rng) for x in samples], pairs.conditions


def symmetrise_together(
    pairs: Pairs, samples: Sequence[Tensor], rng: np.random.Generator
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Row i of all ``samples`` (N, d) and of the conditions of ``pairs``, moved by one random element.

    Conditions that are not in ``pairs.moves`` are invariant.
    """
    assert pairs.symmetries is not None
    g = torch.from_numpy(rng.integers(0, len(pairs.symmetries), len(pairs)))
    moved = [x.gather(1, pairs.symmetries[g]) for x in samples]
    conditions = {
        name: torch.einsum("nij,nj->ni", pairs.moves[name][g], value)
        if name in pairs.moves
        else value
        for name, value in pairs.conditions.items()
    }
    return moved, conditions
