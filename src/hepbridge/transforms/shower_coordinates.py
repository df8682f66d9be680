"""Showers as model coordinates: logarithms of energies in units of the incident one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ShowerCoordinates", "log_energy"]


class ShowerCoordinates(nn.Module):
    r"""Cells to coordinates and back.

    .. math:: y = \ln \frac{1}{E_\mathrm{inc}} \bigl( E_1 \dots E_n,\; R_1 \dots R_r,\; \textstyle\sum_i E_i \bigr),
              \qquad R_k = \sum_{i \in \mathrm{ring}\,k} E_i

    with :math:`-\infty` for what is empty. Ring energies (without the innermost ring, 0) and the sum
    are redundant on purpose: they are what is known best and must be right most, and each gets a
    distribution of its own. On the way back the innermost ring has the sum less the other rings,
    and the cells of a ring are scaled to its energy. So a small error of every cell cannot add up
    to a large one of the core, whose share fluctuates by half a per cent only.

    Args:
        rings: for every cell the number of its ring, 0 … r; all 0 for none.

    Shapes: cells (N, n), incident_energy (N,) in the same unit, coordinates (N, n + r + 1).
    """

    def __init__(self, rings: list[int]) -> None:
        super().__init__()
        self.n_cells, self.n_outer = len(rings), max(rings)
        self.dim = self.n_cells + self.n_outer + 1
        self.rings: Tensor
        self.membership: Tensor
        index = torch.tensor(rings)
        member = torch.nn.functional.one_hot(index).to(torch.float32)
        self.register_buffer("rings", index, persistent=False)
        self.register_buffer("membership", member, persistent=False)

    def forward(self, cells: Tensor, incident_energy: Tensor) -> Tensor:
        """Coordinates of cells; not negative, at least one positive."""
        ratio = cells / incident_energy[:, None]
        outer = (ratio @ self.membership)[:, 1:]
        return torch.log(torch.cat([ratio, outer, ratio.sum(dim=1, keepdim=True)], dim=1))

    def inverse(self, y: Tensor, incident_energy: Tensor) -> Tensor:
        """Cells of coordinates; they add up to the sum, and in every ring to the ring."""
        values = torch.exp(y)
        shape = values[:, : self.n_cells]
        outer, total = values[:, self.n_cells : -1], values[:, -1:]
        sums = shape @ self.membership
        # a ring without hits holds nothing, whatever its coordinate says
        outer = torch.where(sums[:, 1:] > 0, outer, 0.0)
        share = outer.sum(dim=1, keepdim=True)
        outer = outer * (_OUTER_MAX * total / share.clamp_min(_TINY)).clamp_max(1.0)
        energy = torch.cat([total - outer.sum(dim=1, keepdim=True), outer], dim=1)
        scale = energy * incident_energy[:, None] / sums.clamp_min(_TINY)
        return shape * scale[:, self.rings]


_OUTER_MAX = 0.9  # the rings around the core never take more of the sum than this
_TINY = 1e-30


def log_energy(incident_energy: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The standardised logarithm (N, 1) of the incident energy, the condition that networks see."""
    return ((torch.log(incident_energy) - mean) / std)[:, None].to(torch.float32)
