"""Monotone maps, one for each column, that give one sample the marginals of another."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

__all__ = ["QuantileMatch"]

_LEAST = 10  # events beyond the outermost knot on either side


class QuantileMatch(nn.Module):
    r"""Corrects what a learned map has left of its marginals.

    .. math:: z \to F_{target}^{-1}\bigl(F_{made}(z)\bigr)

    column by column, linear between the quantiles of both samples at levels that are equidistant for
    a normal variable; beyond the outermost (ten events on either side) the shift of the end. The ranks of the
    events, and so nearly all of their correlations, stay as they are. Before `fit`: the identity.

    Args:
        columns: how many.
        knots: of each map.
    """

    def __init__(self, columns: int, *, knots: int = 201) -> None:
        super().__init__()
        self.columns, self.knots = columns, knots
        identity = torch.linspace(-4.0, 4.0, knots, dtype=torch.float64).expand(columns, knots)
        self.made: Tensor
        self.target: Tensor
        self.register_buffer("made", identity.clone())
        self.register_buffer("target", identity.clone())

    def fit(self, made: NDArray[np.floating], target: NDArray[np.floating]) -> None:
        """Learn the maps from samples (N, columns) and (M, columns) of at least 100 rows."""
        edge = -ndtri(_LEAST / min(len(made), len(target)))
        levels = ndtr(np.linspace(-edge, edge, self.knots))
        for quantiles, sample in ((self.made, made), (self.target, target)):
            found = np.quantile(np.asarray(sample, np.float64), levels, axis=0).T
            quantiles.copy_(torch.from_numpy(np.maximum.accumulate(found, axis=1)))

    def forward(self, z: Tensor) -> Tensor:
        """z (N, columns) with the marginals of the target."""
        out = np.empty(tuple(z.shape))
        for k in range(self.columns):
            a, b = self.made[k].numpy(), self.target[k].numpy()
            x = z[:, k].double().numpy()
            out[:, k] = np.interp(x, a, b) + np.minimum(x - a[0], 0.0) + np.maximum(x - a[-1], 0.0)
        return torch.from_numpy(out).to(z.dtype)
