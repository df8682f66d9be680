"""DPM-Solver++ (2M): two denoised values make a straight line, for the path and for the SDE."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor

from hepbridge.transports.samplers.sampler import Denoise, Sampler, all_but_last

__all__ = ["DPMPP_2M", "DPMPP_2M_SDE", "dpmpp_2m", "dpmpp_2m_sde"]


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    r"""Steps of :math:`dx/d\lambda = D - x`, :math:`\lambda = -\ln\sigma`, exact for constant D.

    .. math:: x' = e^{-h} x + (1 - e^{-h})\, \bar D, \qquad
              \bar D = D + \frac{h}{2 h_{before}} (D - D_{before})

    with :math:`h = \lambda' - \lambda`. Second order, one evaluation a step. The first step has no
    :math:`D_{before}`; in the last, to :math:`\sigma = 0`, h is infinite: it is of first order, D
    itself, as the paper recommends (a straight line would be followed to infinity).

    Source: Lu et al., arXiv:2211.01095 (algorithm 2).
    """
    before: Tensor | None = None
    for k, (sigma, then) in enumerate(itertools.pairwise(sigmas)):
        clean = denoise(x, sigma)
        if then == 0:
            return clean
        h = math.log(sigma / then)
        x = then / sigma * x - math.expm1(-h) * _ahead(clean, before, sigmas, k, h)
        before = clean
    return x


def dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Tensor) -> Tensor:
    r"""The same for the reverse SDE, :math:`dx = 2 (D - x)\, d\lambda + \sqrt 2\, \sigma\, dw_\lambda`.

    .. math:: x' = e^{-2h} x + (1 - e^{-2h})\, \bar D + \sigma' \sqrt{1 - e^{-2h}}\, z

    Exact for constant D. Mean and covariance of normal data are of second order: what the noise of a
    step does to D within the step comes in the next one, through the line. The last step is D,
    without noise: ``noise`` is (steps - 1, N, d).

    Source: Lu et al., arXiv:2211.01095 (SDE-DPM-Solver++ (2M)).
    """
    before: Tensor | None = None
    for k, (sigma, then) in enumerate(itertools.pairwise(sigmas)):
        clean = denoise(x, sigma)
        if then == 0:
            return clean
        h = math.log(sigma / then)
        share = -math.expm1(-2.0 * h)
        x = (1.0 - share) * x + share * _ahead(clean, before, sigmas, k, h)
        x = x + then * share**0.5 * noise[k]
        before = clean
    return x


def _ahead(
    clean: Tensor, before: Tensor | None, sigmas: Sequence[float], k: int, h: float
) -> Tensor:
    """D in the middle of a step, on the straight line through the last two."""
    if before is None:
        return clean
    return clean + h / (2.0 * math.log(sigmas[k - 1] / sigmas[k])) * (clean - before)


DPMPP_2M = Sampler(dpmpp_2m, order=2)
DPMPP_2M_SDE = Sampler(dpmpp_2m_sde, order=2, draws=all_but_last)
