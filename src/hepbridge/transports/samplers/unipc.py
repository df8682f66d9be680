"""UniPC: a multistep predictor whose one evaluation also corrects the step before."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from hepbridge.transports.samplers.quadrature import weights
from hepbridge.transports.samplers.sampler import Denoise, Sampler

__all__ = ["UNIPC2", "UNIPC3", "unipc"]


def unipc(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, order: int = 3) -> Tensor:
    r"""Steps of :math:`dx/d\lambda = D - x`, :math:`\lambda = -\ln\sigma`, with D a polynomial.

    .. math:: x' = e^{-h} x + \int_\lambda^{\lambda'} e^{s - \lambda'} P(s)\, ds

    where P goes through the last p = ``order`` denoised values (UniP, the prediction
    :math:`\tilde x'`), and then through these and :math:`D(\tilde x', \sigma')` (UniC, the correction).
    The same value of D serves the next prediction: one evaluation a step, order p + 1.

    The coefficients solve :math:`R_p(h)\, a_p B(h) = \phi_p(h)` of the paper exactly, so its B(h)
    drops out. The first steps have fewer values and lower order; at a high ``sigma_max``, where D is
    nearly constant, that does not show. In the last, to :math:`\sigma = 0`, h is infinite: it is D.

    Source: Zhao et al., arXiv:2302.04867 (algorithms 1 and 2, multistep, data prediction).
    """
    known: list[tuple[float, Tensor]] = []  # noise level and D, the newest first
    predicted = x
    for k, (sigma, then) in enumerate(itertools.pairwise(sigmas)):
        clean = denoise(predicted, sigma)
        if known:
            x = _advance(x, sigmas[k - 1], sigma, [(sigma, clean), *known])
        known = [(sigma, clean), *known][:order]
        predicted = clean if then == 0 else _advance(x, sigma, then, known)
    return predicted


def _advance(x: Tensor, sigma: float, then: float, known: list[tuple[float, Tensor]]) -> Tensor:
    """x at ``then`` for a D that is the polynomial in lambda through the known values."""
    h = math.log(sigma / then)
    moments = [-math.expm1(-h)]  # of h exp(-h (1 - u)) on [0, 1], by parts
    for p in range(1, len(known)):
        moments.append(1.0 - p / h * moments[-1])
    shares = weights([math.log(sigma / s) / h for s, _ in known], moments)
    x = then / sigma * x
    for share, (_, clean) in zip(shares, known, strict=True):
        x = x + share * clean
    return x


UNIPC2, UNIPC3 = (Sampler(partial(unipc, order=p), order=p + 1) for p in (2, 3))
