"""Conditional quantile transform of real values with an atom at minus infinity."""

from __future__ import annotations

from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hepbridge.transforms.lookup import ForwardTable, InverseTable
from hepbridge.transforms.quantile_tables import fit_tables

__all__ = ["Z_MAX", "ConditionalQuantile"]

Z_MAX = 4.5  # knots span so many standard deviations on either side
T = TypeVar("T", ForwardTable, InverseTable)
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
    sends :math:`\Phi(z) < p_0` to :math:`-\infty`; a variable that was never finite always goes there.

    Variables with the same number in ``groups`` are pooled: they share one table (cells that a
    verified symmetry makes equal). :math:`y` is tabulated at equidistant knots of
    :math:`\Phi^{-1}(F)` and equidistant nodes of the condition, linear in between and, in :math:`y`
    against :math:`z`, beyond the last knots. Outside the fitted range of the condition the table of
    the nearest end is used.

    Args:
        groups: for each of the d variables the number of its table, 0 … g - 1.
        knots: number of knots in z (odd).
        nodes: number of nodes in the condition.
        degree: degree of the polynomials in the condition for median and width.
    """

    def __init__(
        self, groups: list[int], *, knots: int = 91, nodes: int = 49, degree: int = 3
    ) -> None:
        super().__init__()
        self.knots, self.nodes, self.degree = knots, nodes, degree
        self.n_groups = max(groups) + 1
        self.groups: Tensor
        self.table: Tensor
        self.atom: Tensor
        self.range: Tensor
        self.register_buffer("groups", torch.tensor(groups, dtype=torch.int64))
        self.register_buffer("table", torch.zeros(nodes, self.n_groups, knots))
        self.register_buffer("atom", torch.zeros(nodes, self.n_groups))
        self.register_buffer("range", torch.tensor([0.0, 1.0]))
        self._forward: ForwardTable | None
        self._inverse: InverseTable | None
        self._last: tuple[int, ForwardTable] | None
        self.forget()

    # -- learning -----------------------------------------------------------------------------

    def fit(self, values: NDArray[np.floating], condition: NDArray[np.floating]) -> None:
        """Learn the tables from ``values`` (N, d), finite or -inf, and ``condition`` (N,).

        Quantiles are taken around each node, in a window that holds at least 1/48 of the rows and
        400, and then smoothed over the nodes by local quadratic regression, so that the noise of
        one window is not that of the table. What is smoothed is one of two:

        - quantiles at fixed levels, after the values were centred and scaled by their median and
          interquartile range, polynomials of the condition: for a distribution that moves and
          scales, which the trend must not widen;
        - levels at fixed values: for features that stay where they are.

        Which, and how widely, is what four-fold cross-validation of the pinball loss finds best
        for each group. The fraction at -inf is smoothed alike, over the width that four-fold
        cross-validation of the Brier score finds best. A sample at one fixed condition gives
        constant tables.

        Raises:
            DataError: if fewer than 50 rows are given.
        """
        table, atom, span = fit_tables(
            np.asarray(values),
            np.asarray(condition, dtype=np.float64).reshape(-1),
            self.groups.cpu().numpy(),
            np.linspace(-Z_MAX, Z_MAX, self.knots),
            nodes=self.nodes,
            degree=self.degree,
        )
        self.table.copy_(torch.from_numpy(table))
        # a variable that is never finite stays so: its fraction remains 1
        atom = np.where(atom < 1.0, np.clip(atom, 0.0, 1.0 - _U_MIN), 1.0)
        self.atom.copy_(torch.from_numpy(atom))
        self.range.copy_(torch.tensor(span))
        self.forget()

    # -- the maps -----------------------------------------------------------------------------

    def forward(self, values: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
        """z (N, d) of ``values`` (N, d) given ``condition`` (N,); ``noise`` (N, d) normal, for the atom.

        Looked up in a `ForwardTable`, which agrees with the formula within 2e-3 root mean square.
        """
        if self._forward is None:
            self._forward = self._tabulate(ForwardTable)
        return self._forward(values, condition, noise)

    def forward_last(self, values: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
        """z (N, k) of the last k variables alone, which share no table with the others."""
        k = values.shape[1]
        if self._last is None or self._last[0] != k:
            first = int(self.groups[-k:].min())
            self._last = k, self._tabulate(ForwardTable, first=first, last=k)
        return self._last[1](values, condition, noise)

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """Values (N, d), finite or -inf, of ``z`` (N, d) given ``condition`` (N,)."""
        if self._inverse is None:
            self._inverse = self._tabulate(InverseTable)
        return self._inverse(z, condition)

    def _tabulate(self, kind: type[T], *, first: int = 0, last: int = 0) -> T:
        """What is computed once from the learned tables (of the groups from ``first``), at the first use."""
        low, high = self.range.tolist()
        with torch.inference_mode(False):
            tables, groups = (
                (self.table[:, first:], self.atom[:, first:]),
                self.groups[-last:] - first,
            )
            return kind(*tables, groups, (low, high), z_max=Z_MAX, u_min=_U_MIN)

    def forget(self) -> None:
        """Drop what was computed from the tables at their first use: they have changed."""
        self._forward, self._inverse, self._last = None, None, None

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self.forget()

    def _apply(self, *args: Any, **options: Any) -> Self:
        self.forget()
        return super()._apply(*args, **options)
