"""Layered showers as the published flows see them: u-variables and shares of layers, as logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hepbridge.transforms.layer_sums import LayerSums

__all__ = ["LogitFrame"]

_ROOM = 1.05  # between the largest response of the training and the end of its scale


class LogitFrame(nn.Module):
    r"""Showers to standardised logits of fractions, and back.

    Every cell is first given noise, uniform from 0 to ``noise_mev``, so that none is empty. Then

    .. math:: u_0 = \frac{\sum_l E_l}{s\,E_\mathrm{inc}}, \quad
              u_{l+1} = \frac{E_l}{\sum_{k \ge l} E_k} \ (l < L - 1), \quad
              I_i = \frac{E_i}{E_{l(i)}}, \qquad
              x = \frac{\mathrm{logit}(\alpha + (1 - 2\alpha)\, u) - \mu}{\sigma},

    s a little above the largest response of the training. Back, shares are normalised in each layer,
    what is at or below the threshold becomes 0, and layers are scaled to their energies again. A layer
    in which nothing is above it held only noise, and becomes empty.

    Args:
        sizes: cells of each layer.
        groups: for each cell the number of its mean and width (equal for equal cells).
        alpha: keeps logits finite.
        noise_mev: see above.
        threshold: MeV.

    Source: Krause & Shih, arXiv:2106.05285, eqs. (2.5) to (2.10).
    """

    def __init__(
        self,
        sizes: Sequence[int],
        groups: Sequence[int],
        *,
        alpha: float = 1e-6,
        noise_mev: float = 1e-3,
        threshold: float = 1e-3,
    ) -> None:
        super().__init__()
        self.sums = LayerSums(sizes, 0)
        self.alpha, self.noise_mev, self.threshold = alpha, noise_mev, threshold
        self._groups = torch.tensor(list(groups))
        self.response: Tensor
        self.mean: Tensor
        self.std: Tensor
        width = len(sizes) + len(groups)
        self.register_buffer("response", torch.tensor(1.0))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit(
        self, cells: Tensor, energy: Tensor, condition: Tensor, noise: NDArray[np.float64]
    ) -> None:
        """Learn scale, means and widths from cells (N, n) and incident energies (N,)."""
        noisy = self._noisy(cells, torch.from_numpy(noise.astype(np.float32)))
        self.response.fill_(_ROOM * float((noisy.sum(dim=1) / energy).max()))
        x = self._logits(noisy, energy)
        n_layers = len(self.sums.sizes)
        mean, square = x.mean(dim=0), x.square().mean(dim=0)
        for moment in (mean, square):  # pooled over equal cells
            count = torch.bincount(self._groups).to(x)
            pooled = torch.zeros_like(count).index_add_(0, self._groups, moment[n_layers:]) / count
            moment[n_layers:] = pooled[self._groups]
        self.mean.copy_(mean)
        self.std.copy_((square - mean.square()).clamp_min(1e-6).sqrt())

    def forward(
        self, cells: Tensor, energy: Tensor, condition: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Layers (N, L) and cells (N, n) as standardised logits; ``noise`` (N, L + n) normal."""
        x = (self._logits(self._noisy(cells, noise), energy) - self.mean) / self.std
        n = len(self.sums.sizes)
        return x[:, :n], x[:, n:]

    def inverse(self, layers: Tensor, cells: Tensor, energy: Tensor, condition: Tensor) -> Tensor:
        """Cells (N, n), MeV."""
        x = torch.sigmoid(torch.cat([layers, cells], dim=1) * self.std + self.mean)
        u = ((x - self.alpha) / (1 - 2 * self.alpha)).clamp(0.0, 1.0)
        n = len(self.sums.sizes)
        left = u[:, :1] * self.response * energy[:, None]
        sums = []
        for k in range(1, n):
            sums.append(left * u[:, k : k + 1])
            left = left - sums[-1]
        return self.sums.fill(u[:, n:], torch.cat([*sums, left], dim=1), None, self.threshold)

    def _noisy(self, cells: Tensor, noise: Tensor) -> Tensor:
        uniform = torch.special.ndtr(noise[:, len(self.sums.sizes) :])
        return cells + self.noise_mev * uniform

    def _logits(self, cells: Tensor, energy: Tensor) -> Tensor:
        sums = self.sums.sums(cells)
        below = sums.flip(1).cumsum(dim=1).flip(1)  # of a layer and all behind it
        total = below[:, :1] / (self.response * energy[:, None])
        share = cells / sums.index_select(1, self.sums.layers)
        u = torch.cat([total, sums[:, :-1] / below[:, :-1], share], dim=1)
        return torch.logit(self.alpha + (1 - 2 * self.alpha) * u)
