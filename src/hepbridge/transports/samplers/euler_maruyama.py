"""The reverse stochastic differential equation, by Euler–Maruyama."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from hepbridge.transports.samplers.sampler import Denoise, Sampler, all_but_last

__all__ = ["EULER_MARUYAMA", "euler_maruyama"]


def euler_maruyama(denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Tensor) -> Tensor:
    r"""Steps of the reverse of :math:`dx = d w_{\sigma^2}`, noise whose variance is the clock.

    .. math:: x' = x + (\sigma^2 - \sigma'^2)\, \nabla \ln p + \sqrt{\sigma^2 - \sigma'^2}\, z, \qquad
              \nabla \ln p = \frac{D - x}{\sigma^2}

    Weakly of first order. The last step is :math:`D`, without noise, which would stay in the sample:
    ``noise`` is (steps - 1, N, d).

    Source: Song et al., arXiv:2011.13456 (algorithm 2, predictor).
    """
    for k, (sigma, then) in enumerate(itertools.pairwise(sigmas)):
        score = (denoise(x, sigma) - x) / sigma**2
        x = x + (sigma**2 - then**2) * score
        if then > 0:
            x = x + (sigma**2 - then**2) ** 0.5 * noise[k]
    return x


EULER_MARUYAMA = Sampler(euler_maruyama, order=1, draws=all_but_last)
