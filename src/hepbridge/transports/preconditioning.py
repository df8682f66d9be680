"""How a denoiser is made of a network, and what its errors weigh at each noise level."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

__all__ = ["GAMMA", "WEIGHTINGS", "Scalings", "scalings"]

_Number = TypeVar("_Number", float, Tensor)


class Scalings(NamedTuple, Generic[_Number]):
    """The four numbers of a noise level, by name."""

    c_skip: _Number
    c_out: _Number
    c_in: _Number
    c_noise: _Number


def scalings(sigma: _Number, sigma_data: float) -> Scalings[_Number]:
    r"""What makes a denoiser of a network F, for data of standard deviation :math:`\sigma_d`.

    .. math:: D(x, \sigma) = c_{skip}\, x + c_{out}\, F(c_{in}\, x,\, c_{noise}), \qquad
              c_{skip} = \frac{\sigma_d^2}{\sigma^2 + \sigma_d^2}, \quad
              c_{out} = \frac{\sigma \sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}, \quad
              c_{in} = \frac{1}{\sqrt{\sigma^2 + \sigma_d^2}}, \quad
              c_{noise} = \tfrac14 \ln \sigma

    Input and target of F then have unit variance at every noise level, and errors of F are amplified
    as little as possible.

    Args:
        sigma: above 0, a number or a tensor.

    Source: Karras et al., arXiv:2206.00364 (eq. 7 and table 1).
    """
    total = sigma**2 + sigma_data**2
    log = sigma.log() if isinstance(sigma, Tensor) else math.log(sigma)
    return Scalings(sigma_data**2 / total, sigma * sigma_data / total**0.5, total**-0.5, 0.25 * log)


def _snr(sigma: Tensor, sigma_data: float) -> Tensor:
    return (sigma_data / sigma) ** 2


def _edm(sigma: Tensor, sigma_data: float, gamma: float) -> Tensor:
    return sigma.new_ones(sigma.shape)


def _min_snr(sigma: Tensor, sigma_data: float, gamma: float) -> Tensor:
    snr = _snr(sigma, sigma_data)
    return snr.clamp_max(gamma) / (1.0 + snr)


def _soft_min_snr(sigma: Tensor, sigma_data: float, gamma: float) -> Tensor:
    snr = _snr(sigma, sigma_data)
    return snr * gamma / (snr + gamma) / (1.0 + snr)


def _jiang(sigma: Tensor, sigma_data: float, gamma: float) -> Tensor:
    return sigma * sigma_data / (sigma**2 + sigma_data**2) ** 2


WEIGHTINGS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "edm": _edm,
    "min_snr": _min_snr,
    "soft_min_snr": _soft_min_snr,
    "jiang": _jiang,
}
r"""name -> w(sigma, sigma_data, gamma), the weight of the squared error of *the network*, F.

The squared error of the denoiser then weighs :math:`\lambda = w / c_{out}^2 = w\,(1 + s) /
\sigma_d^2`, with the signal-to-noise ratio :math:`s = \sigma_d^2 / \sigma^2`:

- ``edm``: w = 1, :math:`\lambda \sigma_d^2 = 1 + s`. Karras et al., arXiv:2206.00364.
- ``min_snr``: :math:`\lambda \sigma_d^2 = \min(s, \gamma)`. Hang et al., arXiv:2303.09556.
- ``soft_min_snr``: :math:`\lambda \sigma_d^2 = s \gamma / (s + \gamma)`. Crowson et al.,
  arXiv:2401.11605; with :math:`\gamma = 1` :math:`w = (\sigma \sigma_d)^2 / (\sigma^2 + \sigma_d^2)^2`.
- ``jiang``: :math:`w = \sigma \sigma_d / (\sigma^2 + \sigma_d^2)^2`, as printed for showers by Jiang et
  al. (arXiv:2401.13162, with the exponent of their :math:`\sigma_c` taken as 2).
"""

GAMMA = {"min_snr": 5.0, "soft_min_snr": 1.0}
"""The published gamma of the weightings that have one, in units in which data have unit variance."""
