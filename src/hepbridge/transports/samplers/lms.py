"""Linear multistep methods (Adams–Bashforth with steps of any size)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from hepbridge.transports.samplers.quadrature import weights
from hepbridge.transports.samplers.sampler import Denoise, Sampler

__all__ = ["LMS2", "LMS3", "LMS4", "lms"]


def lms(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, order: int = 4) -> Tensor:
    r"""The polynomial through the last slopes, integrated exactly.

    .. math:: x' = x + \int_\sigma^{\sigma'} P(s)\, ds, \qquad
              P(\sigma_j) = d_j = \frac{x_j - D(x_j, \sigma_j)}{\sigma_j}, \quad
              j = k, k - 1, \dots, k - q + 1

    with q = ``order``, as soon as there are as many slopes; one evaluation a step. The first step is
    Euler's, so strictly the error is of second order; but at a high ``sigma_max`` the slope is nearly
    constant, and that part of the error is too small to be seen. The last step, to
    :math:`\sigma = 0`, is Euler's, which is D.

    Source: Adams–Bashforth methods, Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations
    I, section III.5 (steps of any size); for diffusion Zhang & Chen, arXiv:2204.13902.
    """
    slopes: list[Tensor] = []  # the newest first
    for k, (sigma, then) in enumerate(itertools.pairwise(sigmas)):
        slopes = [(x - denoise(x, sigma)) / sigma, *slopes][: order if then > 0 else 1]
        step = then - sigma
        points = [(sigmas[k - j] - sigma) / step for j in range(len(slopes))]
        shares = weights(points, [1.0 / (p + 1) for p in range(len(slopes))])
        for share, slope in zip(shares, slopes, strict=True):
            x = x + step * share * slope
    return x


LMS2, LMS3, LMS4 = (Sampler(partial(lms, order=q), order=q) for q in (2, 3, 4))
