"""A quantile transform for normal coordinates that a map has left not quite normal."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from hepbridge.transforms.conditional_quantile import Z_MAX, ConditionalQuantile
from hepbridge.transforms.quantile_tables import rising

__all__ = ["matched"]


def matched(
    target: ConditionalQuantile, z: NDArray[np.floating], condition: NDArray[np.floating]
) -> ConditionalQuantile:
    r"""The transform whose inverse gives rows of normal space the marginals that ``target`` has learned.

    With :math:`F(\cdot \mid c)` the distribution function of a variable of ``z``, pooled in the groups
    of the target,

    .. math:: y = T^{-1}\bigl(\Phi^{-1}(F(z \mid c)),\, c\bigr)

    is written as one table of the same form: inference costs nothing more. Only marginals change,
    and only by monotone maps; if F is the normal distribution, it is the target itself.

    Args:
        z: (N, k), finite: what a transport makes of many source rows. These are the first k of the
            target's d variables; the others, in groups of their own, keep their tables.
        condition: (N,).
    """
    groups = target.groups.tolist()[: z.shape[1]]
    own = ConditionalQuantile(groups, knots=target.knots, nodes=target.nodes, degree=target.degree)
    own.fit(z, condition)
    made = copy.deepcopy(target)
    low, high = target.range.tolist()
    own_low, own_high = own.range.tolist()
    at = np.interp(
        np.linspace(low, high, target.nodes),
        np.linspace(own_low, own_high, target.nodes),
        np.arange(target.nodes),
    )
    seen = own.table.double().numpy()
    below = np.minimum(at.astype(np.int64), target.nodes - 2)
    share = (at - below)[:, None, None]
    quantiles = (1 - share) * seen[below] + share * seen[below + 1]
    table, atom = target.table.double().numpy(), target.atom.double().numpy()
    knots = np.linspace(-Z_MAX, Z_MAX, target.knots)
    new_table, new_atom = table.copy(), atom.copy()
    for node, group in np.ndindex(target.nodes, own.n_groups):
        p0, q = atom[node, group], quantiles[node, group]
        if p0 == 1:  # never finite
            continue
        new_p0 = float(ndtr(_linear(ndtri(p0), knots, q))) if p0 > 0 else 0.0
        model = ndtri(new_p0 + (1 - new_p0) * ndtr(knots))  # z of the new knots
        level = (ndtr(_linear(model, q, knots)) - p0) / (1 - p0)
        hit = ndtri(np.clip(level, ndtr(-Z_MAX - 1), ndtr(Z_MAX + 0.3)))
        new_table[node, group] = rising(_linear(hit, knots, table[node, group]))
        new_atom[node, group] = new_p0
    made.table.copy_(torch.from_numpy(new_table))
    made.atom.copy_(torch.from_numpy(new_atom))
    made.forget()
    return made


def _linear(
    x: NDArray[np.float64] | float, knots: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Linear interpolation, continued beyond the ends with the slopes of the outer units."""
    x = np.asarray(x, dtype=np.float64)
    out = np.interp(x, knots, values)
    for end, side in ((0, x < knots[0]), (-1, x > knots[-1])):
        inner = np.argmin(np.abs(knots - (knots[end] + (1.0 if end == 0 else -1.0))))
        slope = (values[inner] - values[end]) / (knots[inner] - knots[end])
        out = np.where(side, values[end] + slope * (x - knots[end]), out)
    return out
