"""Tables that are looked up, not searched: bilinear in a scalar condition and in a coordinate."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

__all__ = ["ForwardTable", "InverseTable"]

_FINER = 384  # intervals of the condition in a forward table, at least, unless it became too large
_LARGEST = 2**26  # numbers of a forward table: 256 MB
_AT_ONCE = 16  # groups that are tabulated together
_BUCKETS = 512  # intervals of the value
_MISSES = 128  # intervals of the noise that fills the atom
_NOISE_MAX = 5.0
_Z_FAR = 5.0  # beyond it erf is rounded to +-1 in float32


class Bilinear:
    """A table (nodes, g, m), linear between equidistant nodes of a condition and between columns.

    Args:
        table: (nodes, g, m).
        rows: (nodes, k) what else depends on the condition alone.
        group: which of the g rows each of the d variables has (d,).
        span: the condition at the first and the last node; outside, the nearest end is used.
    """

    def __init__(
        self, table: Tensor, rows: Tensor, group: Tensor, span: tuple[float, float]
    ) -> None:
        nodes, groups, self.columns = table.shape
        size = groups * self.columns
        self.low, self.last = span[0], nodes - 1
        self.per_unit = self.last / (span[1] - span[0])
        # the end itself belongs to the last interval, not to the node behind it
        self.end = float(np.nextafter(np.float32(self.last), np.float32(0)))
        self.flat = table.reshape(-1)
        self.rows = torch.stack([rows[:-1], rows[1:]], dim=1)
        starts = torch.arange(nodes, device=table.device)[:, None] * size + group * self.columns
        corners = torch.tensor([0, 1, size, size + 1], device=table.device)
        self.starts, self.corners = starts.int(), corners.int()[:, None, None]

    def locate(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """The node (N,) below each ``condition`` (N,) and the weight (N, 1) of the next one."""
        position = ((condition - self.low) * self.per_unit).clamp_(0, self.end)
        node = position.int()
        return node, (position - node)[:, None]

    def row(self, node: Tensor, weight: Tensor) -> Tensor:
        """The rows (N, k) at node + weight."""
        below, above = self.rows.index_select(0, node).unbind(1)
        return torch.lerp(below, above, weight)

    def value(self, node: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """The table at every (node + weight, variable, x), x (N, d) in units of its columns.

        Beyond the first and the last column it is continued linearly.
        """
        low = x.int().clamp_(0, self.columns - 2)
        index = self.starts.index_select(0, node).add_(low) + self.corners
        below, above = self.flat.index_select(0, index.view(-1)).view(2, 2, *x.shape).unbind(0)
        left, right = torch.lerp(below, above, weight).unbind(0)
        return torch.lerp(left, right, x - low)


class ForwardTable:
    r"""The map of values with an atom at :math:`-\infty` to N(0, 1), tabulated.

    The exact map needs, for each value, a search in a table of its own (quantiles interpolated to
    its condition). Here the condition is cut so finely that the map itself may be interpolated
    between two nodes :math:`k, k + 1`, at equal

    .. math:: v = \frac{y - y_\mathrm{min}(c)}{y_\mathrm{max}(c) - y_\mathrm{min}(c)},
              \qquad z(v, c) = (1 - w)\, z_k(v) + w\, z_{k+1}(v),

    which is found by arithmetic alone. It stays increasing in y at every c. Columns 0 … 128 hold
    :math:`\Phi^{-1}(p_0 \Phi(n))` for noise n from -5 to 5, the columns behind them z(v) at
    equidistant v from 0 to 1. Tables of many groups are cut less finely, so that they fit into 256 MB.

    Args:
        table: y (nodes, g, knots) at equidistant knots of z from -z_max to z_max.
        atom: :math:`p_0` (nodes, g).
        group: table of each of the d variables (d,).
        span: the condition at the first and the last node.
        z_max: z of the last knot.
        u_min: probabilities are kept this far from 0 and 1.
    """

    def __init__(
        self,
        table: Tensor,
        atom: Tensor,
        group: Tensor,
        span: tuple[float, float],
        *,
        z_max: float,
        u_min: float,
    ) -> None:
        old, groups, columns = len(table), table.shape[1], _MISSES + _BUCKETS + 2
        most = _LARGEST // ((old - 1) * groups * columns)
        finer = max(1, min(-(-_FINER // (old - 1)), most))
        at = np.arange((old - 1) * finer + 1) / finer
        below = np.minimum(at.astype(int), old - 2)
        share = at - below
        v, noise = (
            np.linspace(0, 1, _BUCKETS + 1),
            np.linspace(-_NOISE_MAX, _NOISE_MAX, _MISSES + 1),
        )

        def refined(x: NDArray[np.float64]) -> NDArray[np.float64]:
            w = share.reshape(-1, *[1] * (x.ndim - 1))
            return (1 - w) * x[below] + w * x[below + 1]

        z_table = torch.empty(len(at), groups, columns, dtype=table.dtype)
        low, width = np.empty((2, len(at), groups))
        for start in range(0, groups, _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            y, z = _extended(table[:, some].cpu().double().numpy(), z_max, -float(ndtri(u_min)))
            y, p0 = refined(y), refined(atom[:, some].cpu().double().numpy())[:, :, None]
            low[:, some], width[:, some] = y[:, :, 0], np.maximum(y[:, :, -1] - y[:, :, 0], 1e-30)
            scaled = (y - low[:, some, None]) / width[:, some, None]
            hit = np.stack([[np.interp(v, knots, z) for knots in node] for node in scaled])
            u = np.concatenate([p0 * ndtr(noise), p0 + (1 - p0) * ndtr(hit)], axis=2)
            z_table[:, some] = torch.from_numpy(ndtri(np.clip(u, u_min, 1 - u_min)))
        of = group.cpu().numpy()
        rows = np.concatenate([low[:, of], width[:, of] / _BUCKETS], axis=1)
        self.table = Bilinear(z_table.to(table), torch.from_numpy(rows).to(table), group, span)

    def __call__(self, values: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
        """z (N, d) of ``values`` (N, d); see `ConditionalQuantile.forward`."""
        node, weight = self.table.locate(condition)
        least, step = self.table.row(node, weight).chunk(2, dim=1)
        hit = (values - least).div_(step).clamp_(0, _BUCKETS).add_(_MISSES + 1)
        miss = (noise * (_MISSES / (2 * _NOISE_MAX))).add_(_MISSES / 2).clamp_(0, _MISSES)
        return self.table.value(node, weight, torch.where(values > -torch.inf, hit, miss))


class InverseTable:
    r"""The way back: values of N(0, 1), by the formula of `ConditionalQuantile`.

    .. math:: z_\mathrm{hit} = \sqrt 2\, \mathrm{erf}^{-1}\Bigl(\frac{\mathrm{erf}(z / \sqrt 2) - p_0}{1 - p_0}\Bigr)

    is :math:`\Phi^{-1}((\Phi(z) - p_0) / (1 - p_0))` written with functions that cost a fifth. Variables
    without an atom skip it: in float32 it rounds z to 2e-4 at z = 4.

    Args: as for `ForwardTable`.
    """

    def __init__(
        self,
        table: Tensor,
        atom: Tensor,
        group: Tensor,
        span: tuple[float, float],
        *,
        z_max: float,
        u_min: float,
    ) -> None:
        self.table = Bilinear(table, atom.index_select(1, group), group, span)
        self.per_root = 2**0.5 * (table.shape[2] - 1) / (2 * z_max)
        self.middle = (table.shape[2] - 1) / 2
        self.most = 1 - 2 * u_min
        self.far = -float(ndtri(u_min))

    def __call__(self, z: Tensor, condition: Tensor) -> Tensor:
        """Values (N, d), finite or -inf, of ``z`` (N, d)."""
        node, weight = self.table.locate(condition)
        p0 = self.table.row(node, weight)
        e = torch.erf(z.clamp(-_Z_FAR, _Z_FAR).mul_(0.5**0.5)).sub_(p0).div_(1 - p0)
        root = torch.erfinv(e.clamp(-self.most, self.most))
        root = torch.where(p0 > 0, root, z.clamp(-self.far, self.far).mul_(0.5**0.5))
        x = root.mul_(self.per_root).add_(self.middle)
        return torch.where(e > -1, self.table.value(node, weight, x), -torch.inf)


def _extended(
    y: NDArray[np.float64], z_max: float, reach: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The table continued linearly to +-``reach`` in z, and z of its knots."""
    knots = y.shape[2]
    step = 2 * z_max / (knots - 1)
    more = np.arange(1, math.ceil(max(reach - z_max, 0.0) / step) + 1)
    first, last = y[:, :, 1:2] - y[:, :, :1], y[:, :, -1:] - y[:, :, -2:-1]
    y = np.concatenate([y[:, :, :1] - first * more[::-1], y, y[:, :, -1:] + last * more], axis=2)
    return y, (np.arange(y.shape[2]) - (y.shape[2] - 1) / 2) * step
