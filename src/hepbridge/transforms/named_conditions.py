"""Named conditions of showers as columns that networks can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError

__all__ = ["VECTORS", "NamedConditions"]

VECTORS = {"direction": ("theta_rad", "phi_rad"), "position": ("x_mm", "y_mm")}
"""Vectors of the (x, y) plane, and the conditions that they are made of."""


class NamedConditions(nn.Module):
    r"""Incident angles, impact points and any other scalars, standardised.

    =============  =============================================================================
    ``direction``  :math:`(\sin\theta\cos\varphi, \sin\theta\sin\varphi)`: an azimuth is periodic,
                   and none where :math:`\theta = 0`; 2 columns
    ``position``   :math:`(x, y)`; 2 columns
    other names    the number itself; 1 column
    =============  =============================================================================

    A component of a vector that is not among ``names`` is 0. Both columns of a vector have the same
    unit (the root mean square of their standard deviations), and the centre is one that the used
    symmetries leave where it is: so they act on the columns by the same matrices as on the plane.

    Args:
        names: conditions besides the incident energy, e.g. ``theta_rad``, ``phi_rad``, ``x_mm``,
            ``y_mm``.

    Raises ConfigError for an azimuth without a polar angle.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        if "phi_rad" in names and "theta_rad" not in names:
            raise ConfigError("condition phi_rad is no direction without theta_rad; name both")
        self.names = tuple(names)
        self.dims: dict[str, int] = {}
        for name in self.names:
            vector = next((v for v, parts in VECTORS.items() if name in parts), None)
            self.dims[vector or name] = 2 if vector else 1
        columns = sum(self.dims.values())
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(columns, dtype=torch.float64))

    def fit(self, values: Mapping[str, NDArray[np.float64]], matrices: NDArray[np.float64]) -> None:
        """Learn centre and unit from the conditions (N,); ``matrices`` (g, 2, 2): used symmetries."""
        raw = self.plain(
            {name: torch.from_numpy(np.ascontiguousarray(values[name])) for name in self.names}
        )
        means, scales = [], []
        for name, x in raw.items():
            mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
            if name in VECTORS:
                mean = torch.from_numpy(matrices).mean(dim=0) @ mean
                std = std.square().mean().sqrt().expand(2)
            means.append(mean)
            scales.append(torch.where(std > 0, std, 1.0))
        self.mean.copy_(torch.cat(means))
        self.scale.copy_(torch.cat(scales))

    def forward(self, conditions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Columns (N, k) float32 by the name of the vector or scalar, from conditions (N,)."""
        raw = self.plain({name: conditions[name].double() for name in self.names})
        joined = (torch.cat(list(raw.values()), dim=1) - self.mean) / self.scale
        parts = joined.to(torch.float32).split(list(self.dims.values()), dim=1)
        return dict(zip(self.dims, parts, strict=True))

    def plain(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The columns (N, k) before they are standardised, on which symmetries act by matrices."""
        nothing = torch.zeros_like(next(iter(values.values())))
        out = {}
        for name in self.dims:
            if name in VECTORS:
                a, b = (values.get(part, nothing) for part in VECTORS[name])
                if name == "direction":
                    a, b = torch.sin(a) * torch.cos(b), torch.sin(a) * torch.sin(b)
                out[name] = torch.stack([a, b], dim=1)
            else:
                out[name] = values[name][:, None]
        return out
