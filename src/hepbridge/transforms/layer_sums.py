"""Layer energies of showers as coordinates without constraints, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["LayerSums"]

_LEAST = 1e-6  # of the shower: what the reference layer holds at least


class LayerSums(nn.Module):
    r"""Sums over layers of cells; how cells are brought to given sums.

    With the energies :math:`E_0 \dots E_{L-1}` of the layers, T their sum and r the reference layer,

    .. math:: y_0 = \ln \frac{T}{E_\mathrm{inc}}, \qquad
              y_l = \ln \frac{E_l}{E_r} \quad (l \ne r, \text{ in the order of the beam}),

    with :math:`-\infty` for an empty layer: L numbers that may take any values, so that nothing has to
    be repaired on the way back (additive log-ratios, Aitchison 1982). The reference should be the layer
    that is hit most often and most; it has at least a millionth of the shower.

    Args:
        sizes: cells of each layer; a shower holds its layers one after another.
        reference: r.
    """

    def __init__(self, sizes: Sequence[int], reference: int) -> None:
        super().__init__()
        self.sizes, self.reference = list(sizes), reference
        layers = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(self.sizes))
        self.layers: Tensor
        self.register_buffer("layers", layers, persistent=False)
        self.membership: Tensor
        member = nn.functional.one_hot(layers, len(sizes)).to(torch.float32)
        self.register_buffer("membership", member, persistent=False)

    def sums(self, cells: Tensor) -> Tensor:
        """Energies (N, L) of the layers of cells (N, n)."""
        return cells @ self.membership

    def forward(self, sums: Tensor, incident_energy: Tensor) -> Tensor:
        """Coordinates (N, L) of layer energies (N, L); at least one is positive."""
        total = sums.sum(dim=1, keepdim=True)
        r = self.reference
        least = torch.maximum(sums[:, r : r + 1], _LEAST * total)
        others = torch.cat([sums[:, :r], sums[:, r + 1 :]], dim=1)
        return torch.log(torch.cat([total / incident_energy[:, None], others / least], dim=1))

    def inverse(self, y: Tensor, incident_energy: Tensor) -> Tensor:
        """Layer energies (N, L) of coordinates."""
        r = self.reference
        ratios = torch.exp(y[:, 1:])
        parts = torch.cat([ratios[:, :r], torch.ones_like(y[:, :1]), ratios[:, r:]], dim=1)
        total = incident_energy[:, None] * torch.exp(y[:, :1])
        return parts * (total / parts.sum(dim=1, keepdim=True))

    def fill(self, cells: Tensor, sums: Tensor, rank: Tensor | None, threshold: float) -> Tensor:
        """Cells (N, n) in proportion to ``cells`` that add up to ``sums`` (N, L) in every layer.

        What then is not above ``threshold`` becomes 0 and the others take it over. A layer that would
        stay without a cell but has energy gives it to its cell of the largest ``rank`` (N, n), or
        without a rank loses it.
        """
        scaled = self._scaled(cells, sums)
        kept = torch.where(scaled > threshold, scaled, 0.0)
        if rank is None:
            return self._scaled(kept, sums)
        first = torch.stack([part.amax(dim=1) for part in rank.split(self.sizes, dim=1)], dim=1)
        leads = rank >= first.index_select(1, self.layers)
        empty = (self.sums(kept) <= 0).index_select(1, self.layers)
        return self._scaled(torch.where(empty & leads, 1.0, kept), sums)

    def _scaled(self, cells: Tensor, sums: Tensor) -> Tensor:
        found = self.sums(cells)
        factor = torch.where(found > 0, sums / torch.where(found > 0, found, 1.0), 0.0)
        return cells * factor.index_select(1, self.layers)
