"""Steps along the deterministic path from noise to data, of first and of second order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

__all__ = ["follow"]


def follow(
    w: Tensor, angles: Sequence[float], end: Callable[[Tensor, int], Tensor], order: int
) -> Tensor:
    r"""Follow :math:`w = \sin\theta\, x_1 + \cos\theta\, \epsilon` from noise towards data.

    With an estimate :math:`D(w, \theta)` of :math:`\mathbb{E}[x_1 | w]` the path with the right
    distribution at every angle obeys :math:`d(w / \cos\theta) = D\, d\tan\theta`. With D constant
    over a step (``order`` 1, the step of DDIM),

    .. math:: w' = \frac{\cos\theta'}{\cos\theta}\, w + \frac{\sin(\theta' - \theta)}{\cos\theta}\, D,

    and with D linear in :math:`\theta`, along the slope :math:`\delta` from the step before
    (``order`` 2), there is added

    .. math:: \delta\, \bigl[(\theta' - \theta) \sin\theta'
              + \cos\theta' \ln(\cos\theta' / \cos\theta)\bigr].

    This is DPM-Solver++ (2M) with the slope in the angle in place of :math:`\ln\tan\theta`: D is
    smooth in the angle up to both ends, where the logarithm is infinite. The first step has no slope
    yet, and the last, in which D comes to its end, none any more.

    Args:
        w: (N, d), at the first of the angles.
        angles: rising, in [0, pi/2]; one step between each two.
        end: D of w before step k (the second argument); called once a step.
        order: 1 or 2.

    Source: Song et al., arXiv:2010.02502 (DDIM); Lu et al., arXiv:2211.01095 (algorithm 2).
    """
    before: Tensor | None = None
    for k in range(len(angles) - 1):
        theta, then = angles[k], angles[k + 1]
        now = end(w, k)
        shrink = math.cos(then) / math.cos(theta)
        w = shrink * w + math.sin(then - theta) / math.cos(theta) * now
        if order == 2 and before is not None and k < len(angles) - 2:
            bend = (then - theta) * math.sin(then) + math.cos(then) * math.log(shrink)
            w = w + bend / (theta - angles[k - 1]) * (now - before)
        before = now
    return w
