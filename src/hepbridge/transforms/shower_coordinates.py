"""Showers as model coordinates: logarithms of energies in units of the incident one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["OUTER_MAX", "TINY", "ShowerCoordinates", "log_energy"]


class ShowerCoordinates(nn.Module):
    r"""Cells to coordinates and back.

    .. math:: y = \ln \frac{1}{E_\mathrm{inc}} \bigl( E_1 \dots E_n,\; R_1 \dots R_r,\; \textstyle\sum_i E_i \bigr),
              \qquad R_k = \sum_{i \in \mathrm{ring}\,k} E_i

    with :math:`-\infty` for what is empty. Ring energies (without the innermost ring, 0) and the sum
    are redundant on purpose: they are what is known best and must be right most, and each gets a
    distribution of its own. On the way back the innermost ring has the sum less the other rings,
    and the cells of a ring are scaled to its energy. So a small error of every cell cannot add up
    to a large one of the core, whose share fluctuates by half a per cent only.

    With ``dense`` given, rings 0 … dense - 1 are those whose cells hold many particles each. Their
    coordinates are shares :math:`\ln(E_i / R_{k(i)})`, which hardly depend on the ring's energy: what
    the cells say and what the sums say is then said once. In the other rings a cell holds a few
    particles or none, whose energies have features that do not scale (511 keV, thresholds): there
    the coordinates are :math:`\ln(E_i / \mathrm{MeV})`. On the way back the cells of such a ring are
    first brought near its energy mostly by those that hold most of it,

    .. math:: E_i \to E_i \exp\Bigl( E_i \frac{R_k - \sum_j E_j}{\sum_j E_j^2} \Bigr),

    the exponent kept within :math:`\pm 1`, and only then scaled: one factor for all would carry many
    small cells across a threshold together, and shift those features.

    Args:
        rings: for every cell the number of its ring, 0 … r; all 0 for none.
        dense: number of dense rings; 0: the coordinates of all cells are :math:`\ln(E_i/E_\mathrm{inc})`.

    Shapes: cells (N, n), incident_energy (N,) in MeV, coordinates (N, n + r + 1).
    """

    def __init__(self, rings: list[int], *, dense: int = 0) -> None:
        super().__init__()
        self.n_cells, self.n_outer = len(rings), max(rings)
        self.dim = self.n_cells + self.n_outer + 1
        self.dense = dense
        self.rings: Tensor
        self.membership: Tensor
        index = torch.tensor(rings)
        # the rings, the sum, and empty columns: a product with few columns is slow, and its last bit
        # depends on the place of the row
        member = torch.nn.functional.one_hot(index, -(-(self.n_outer + 2) // 16) * 16)
        member[:, self.n_outer + 1] = 1
        member = member.to(torch.float32)
        self.register_buffer("rings", index, persistent=False)
        self.register_buffer("membership", member, persistent=False)

    def forward(self, cells: Tensor, incident_energy: Tensor) -> Tensor:
        """Coordinates of cells; not negative, at least one positive."""
        ratio = cells / incident_energy[:, None]
        sums = (ratio @ self.membership)[:, : self.n_outer + 2]
        if self.dense:
            unit = incident_energy[:, None].reciprocal().expand_as(sums).clone()
            unit[:, : self.dense] = sums[:, : self.dense].clamp_min(TINY)
            ratio = ratio / unit.index_select(1, self.rings)
        return torch.log(torch.cat([ratio, sums[:, 1:]], dim=1))

    def inverse(self, y: Tensor, incident_energy: Tensor) -> Tensor:
        """Cells of coordinates; they add up to the sum, and in every ring to the ring."""
        values = torch.exp(y)
        shape = values[:, : self.n_cells]
        outer, total = values[:, self.n_cells : -1], values[:, -1:]
        sums = (shape @ self.membership)[:, : self.n_outer + 1]
        # a ring without hits holds nothing, whatever its coordinate says
        outer = torch.where(sums[:, 1:] > 0, outer, 0.0)
        share = outer.sum(dim=1, keepdim=True)
        kept = torch.minimum(share, OUTER_MAX * total)
        energy = torch.cat([total - kept, outer * (kept / share.clamp_min(TINY))], dim=1)
        energy = energy * incident_energy[:, None]
        if self.dense:
            shape = self._approach(shape, sums, energy)
            sums = (shape @ self.membership)[:, : self.n_outer + 1]
        scale = energy / sums.clamp_min(TINY)
        return shape * scale.index_select(1, self.rings)

    def _approach(self, cells: Tensor, sums: Tensor, energy: Tensor) -> Tensor:
        """Cells of sparse rings brought near the rings' energies, mostly by the largest."""
        squares = (cells.square() @ self.membership)[:, : self.n_outer + 1]
        slope = (energy - sums) / squares.clamp_min(TINY)
        slope[:, : self.dense] = 0.0
        exponent = slope.index_select(1, self.rings).mul_(cells).clamp_(-1.0, 1.0)
        return cells * torch.exp(exponent)


OUTER_MAX = 0.9  # the rings around the core never take more of the sum than this
TINY = 1e-30


def log_energy(incident_energy: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The standardised logarithm (N, 1) of the incident energy, the condition that networks see."""
    return ((torch.log(incident_energy) - mean) / std)[:, None].to(torch.float32)
