"""Euler steps of the path (DDIM), and those with the noise of the posterior (DDPM)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from hepbridge.transports.samplers.sampler import Denoise, Sampler, all_but_last

__all__ = ["DDPM", "EULER", "ddpm", "euler"]


def euler(denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    r"""Euler steps of :math:`dx/d\sigma = (x - D(x, \sigma)) / \sigma`, which is DDIM.

    .. math:: x' = D + \frac{\sigma'}{\sigma} (x - D)

    First order. The last step is :math:`D`. Source: Song et al., arXiv:2010.02502 (eq. 12 with
    :math:`\sigma_t = 0`, in the variable :math:`x / \sqrt{\bar\alpha}`).
    """
    for sigma, then in itertools.pairwise(sigmas):
        clean = denoise(x, sigma)
        x = clean + then / sigma * (x - clean)
    return x


def ddpm(
    denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Tensor, *, eta: float = 1.0
) -> Tensor:
    r"""Draws from :math:`q(x' | x, x_0 = D)`, the ancestral sampler.

    .. math:: x' = D + \sqrt{\sigma'^2 - s^2}\, \frac{x - D}{\sigma} + s z, \qquad
              s = \eta \frac{\sigma'}{\sigma} \sqrt{\sigma^2 - \sigma'^2}

    ``eta`` from 0 (DDIM) to 1 (DDPM). Weakly of first order. The last step is :math:`D`, without
    noise: ``noise`` is (steps - 1, N, d).

    Source: Ho et al., arXiv:2006.11239 (algorithm 2); Song et al., arXiv:2010.02502 (eq. 16).
    """
    for k, (sigma, then) in enumerate(itertools.pairwise(sigmas)):
        clean = denoise(x, sigma)
        spread = eta * then / sigma * (sigma**2 - then**2) ** 0.5
        x = clean + (then**2 - spread**2) ** 0.5 / sigma * (x - clean)
        if then > 0:
            x = x + spread * noise[k]
    return x


EULER = Sampler(euler, order=1)
DDPM = Sampler(ddpm, order=1, draws=all_but_last)
