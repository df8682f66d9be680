"""Heun's method, and the same with noise added before every step (EDM)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from hepbridge.transports.samplers.sampler import Denoise, Sampler, one_each

__all__ = ["EDM", "HEUN", "edm", "heun", "heun_step"]

_MOST_CHURN = 2**0.5 - 1.0  # no step adds more noise than there is


def heun_step(denoise: Denoise, x: Tensor, sigma: float, then: float) -> Tensor:
    r"""One step from ``sigma`` to ``then``: the mean of the slopes at its two ends.

    .. math:: d = \frac{x - D(x, \sigma)}{\sigma}, \quad \tilde x = x + (\sigma' - \sigma)\, d, \quad
              d' = \frac{\tilde x - D(\tilde x, \sigma')}{\sigma'}, \quad
              x' = x + (\sigma' - \sigma) \frac{d + d'}{2}

    At :math:`\sigma' = 0` there is no :math:`d'`, and :math:`x' = \tilde x = D`.
    """
    slope = (x - denoise(x, sigma)) / sigma
    ahead = x + (then - sigma) * slope
    if then == 0:
        return ahead
    slope_ahead = (ahead - denoise(ahead, then)) / then
    return x + (then - sigma) * 0.5 * (slope + slope_ahead)


def heun(denoise: Denoise, x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Heun steps of dx / d sigma; second order, two evaluations a step, one in the last.

    Source: Karras et al., arXiv:2206.00364 (algorithm 1).
    """
    for sigma, then in itertools.pairwise(sigmas):
        x = heun_step(denoise, x, sigma, then)
    return x


def edm(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Tensor,
    *,
    churn: float = 10.0,
    lowest: float = 0.05,
    highest: float = 50.0,
    inflation: float = 1.0,
) -> Tensor:
    r"""Heun steps, each after a jump back to a higher noise level.

    .. math:: \hat\sigma = (1 + \gamma)\, \sigma, \qquad
              \hat x = x + \sqrt{\hat\sigma^2 - \sigma^2}\; S_{noise}\, z, \qquad
              \gamma = \min(S_{churn} / n, \sqrt 2 - 1)

    for :math:`S_{tmin} \le \sigma \le S_{tmax}`, else :math:`\gamma = 0`, with n steps; then a Heun
    step from :math:`\hat\sigma` to the next level. The noise corrects earlier errors, and costs
    accuracy in every step. Adding noise is exact, so mean and covariance are of second order, as soon
    as n is beyond 2.4 ``churn``. ``churn=0`` is `heun`, bit for bit.

    Args:
        noise: (steps, N, d).
        churn, lowest, highest, inflation: S_churn, S_tmin, S_tmax, S_noise. Published: churn 30 to
            80; an inflation of up to 1.007 makes up for denoisers that take away too much.

    Source: Karras et al., arXiv:2206.00364 (algorithm 2).
    """
    gamma = min(churn / (len(sigmas) - 1), _MOST_CHURN)
    for k, (sigma, then) in enumerate(itertools.pairwise(sigmas)):
        raised = sigma * (1.0 + gamma) if lowest <= sigma <= highest else sigma
        x = x + (raised**2 - sigma**2) ** 0.5 * inflation * noise[k]
        x = heun_step(denoise, x, raised, then)
    return x


def _nfe(steps: int) -> int:
    return 2 * steps - 1


HEUN = Sampler(heun, order=2, nfe=_nfe)
EDM = Sampler(edm, order=2, nfe=_nfe, draws=one_each)
