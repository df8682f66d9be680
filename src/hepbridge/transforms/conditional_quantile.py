"""Conditional quantile transform of real values with an atom at minus infinity."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hepbridge.transforms.quantile_tables import fit_tables

__all__ = ["ConditionalQuantile"]

_Z_MAX = 4.5  # knots span +-_Z_MAX standard deviations
_U_MIN = 1e-6  # probabilities are kept this far from 0 and 1


class ConditionalQuantile(nn.Module):
    r"""Maps each variable to a standard normal given a real condition, and back.

    Values are real or :math:`-\infty`: the logarithm of an energy that may be exactly zero. With
    :math:`p_0(c) = P(y = -\infty \mid c)` and the distribution function :math:`F(\cdot \mid c)` of the
    finite values,

    .. math:: z = \Phi^{-1}\bigl(p_0 U\bigr) \text{ if } y = -\infty, \qquad
              z = \Phi^{-1}\bigl(p_0 + (1 - p_0)\, F(y \mid c)\bigr) \text{ otherwise},

    with :math:`U` uniform: the atom is spread over its share of the probability (randomised
    probability integral transform), so that :math:`z` is N(0, 1) at every :math:`c`. The inverse
    sends :math:`\Phi(z) < p_0` to :math:`-\infty`.

    Variables with the same number in ``groups`` are pooled: they share one table (cells that a
    verified symmetry makes equal). :math:`y` is tabulated at equidistant knots of
    :math:`\Phi^{-1}(F)` and equidistant nodes of the condition, linear in between and, in :math:`y`
    against :math:`z`, beyond the last knots. Outside the fitted range of the condition the table of
    the nearest end is used.

    Args:
        groups: for each of the d variables the number of its table, 0 … g - 1.
        knots: number of knots in z (odd).
        nodes: number of nodes in the condition.
        degree: degree of the polynomials in the condition for atom fraction, median and width.
    """

    def __init__(
        self, groups: list[int], *, knots: int = 91, nodes: int = 49, degree: int = 4
    ) -> None:
        super().__init__()
        self.knots, self.nodes, self.degree = knots, nodes, degree
        self.n_groups = max(groups) + 1
        self.groups: Tensor
        self.table: Tensor
        self.atom: Tensor
        self.range: Tensor
        self.register_buffer("groups", torch.tensor(groups, dtype=torch.int64))
        members, places = _pad_groups(groups)
        self.members: Tensor
        self.places: Tensor
        self.register_buffer("members", members, persistent=False)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("table", torch.zeros(nodes, self.n_groups, knots))
        self.register_buffer("atom", torch.zeros(nodes, self.n_groups))
        self.register_buffer("range", torch.tensor([0.0, 1.0]))

    @property
    def _step(self) -> float:
        return 2 * _Z_MAX / (self.knots - 1)

    # -- learning -----------------------------------------------------------------------------

    def fit(self, values: NDArray[np.floating], condition: NDArray[np.floating]) -> None:
        """Learn the tables from ``values`` (N, d), finite or -inf, and ``condition`` (N,).

        The finite values are centred and scaled by their median and interquartile range, smooth
        polynomials of the condition; the quantiles of what is left are taken around each node, in
        a window that holds at least 1/48 of the rows and 400, and then smoothed over the nodes by
        local quadratic regression. So the trend with the condition cannot widen a distribution, and
        the noise of one window is not that of the table. A sample at one fixed condition gives
        constant tables.

        Raises:
            DataError: if a group has no finite value at all, or fewer than 50 rows are given.
        """
        table, atom, span = fit_tables(
            np.asarray(values),
            np.asarray(condition, dtype=np.float64).reshape(-1),
            self.groups.cpu().numpy(),
            np.linspace(-_Z_MAX, _Z_MAX, self.knots),
            nodes=self.nodes,
            degree=self.degree,
        )
        self.table.copy_(torch.from_numpy(table))
        self.atom.copy_(torch.from_numpy(np.clip(atom, 0.0, 1.0 - _U_MIN)))
        self.range.copy_(torch.tensor(span))

    # -- the maps -----------------------------------------------------------------------------

    def forward(self, values: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
        """z (N, d) of ``values`` (N, d) given ``condition`` (N,); ``noise`` (N, d) normal, for the atom."""
        node, weight = self._locate(condition)
        # one table per row and group; the members of a group are searched in it together
        table = torch.lerp(self.table[node], self.table[node + 1], weight[:, :, None])
        grouped = values[:, self.members].contiguous()
        upper = torch.searchsorted(table, grouped, right=True).clamp(1, self.knots - 1)
        left, right = table.gather(2, upper - 1), table.gather(2, upper)
        position = (upper - 1) + (grouped - left) / (right - left).clamp_min(1e-30)
        z_hit = (position * self._step - _Z_MAX).flatten(1)[:, self.places]
        p0 = self._atom(node, weight)
        u_hit = p0 + (1 - p0) * torch.special.ndtr(z_hit)
        u = torch.where(values > -torch.inf, u_hit, p0 * torch.special.ndtr(noise))
        return torch.special.ndtri(u.clamp(_U_MIN, 1 - _U_MIN))

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """Values (N, d), finite or -inf, of ``z`` (N, d) given ``condition`` (N,)."""
        node, weight = self._locate(condition)
        p0 = self._atom(node, weight)
        share = (torch.special.ndtr(z) - p0) / (1 - p0)
        z_hit = torch.special.ndtri(share.clamp(_U_MIN, 1 - _U_MIN))
        position = (z_hit + _Z_MAX) / self._step
        low = position.long().clamp(0, self.knots - 2)
        left, right = self._knot(node, weight, low), self._knot(node, weight, low + 1)
        y = torch.lerp(left, right, position - low)
        return torch.where(share > 0, y, -torch.inf)

    def _locate(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.range
        position = ((condition - low) / (high - low)).clamp(0, 1) * (self.nodes - 1)
        node = position.long().clamp(max=self.nodes - 2)
        return node, (position - node)[:, None]

    def _atom(self, node: Tensor, weight: Tensor) -> Tensor:
        return torch.lerp(self.atom[node], self.atom[node + 1], weight)[:, self.groups]

    def _knot(self, node: Tensor, weight: Tensor, knot: Tensor) -> Tensor:
        """The table at (condition, variable, knot), linear between the two nodes of the condition."""
        flat = self.table.view(-1)
        size = self.n_groups * self.knots
        index = node[:, None] * size + self.groups * self.knots + knot
        return torch.lerp(flat[index], flat[index + size], weight)


def _pad_groups(groups: list[int]) -> tuple[Tensor, Tensor]:
    """Members (g, m) of every group, padded by repetition, and where variable d stands in it, flat."""
    lists = [[d for d, g in enumerate(groups) if g == group] for group in range(max(groups) + 1)]
    width = max(map(len, lists))
    members = torch.tensor([(m * width)[:width] for m in lists])
    places = torch.tensor([g * width + lists[g].index(d) for d, g in enumerate(groups)])
    return members, places
