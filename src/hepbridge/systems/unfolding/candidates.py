"""Draws of measured events, among which a spectrum chooses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.rng import event_uniform
from hepbridge.systems.unfolding.spectrum import Spectrum
from hepbridge.systems.unfolding.unfolder import Unfolder

__all__ = ["Candidates"]


class Candidates:
    r"""Possible truths of N measured events, from which the prior of the day chooses.

    With M draws :math:`x_k \sim p_0(x | y) \propto p(y|x)\, p_0(x)` of each event and another prior
    :math:`p_0 \nu`, the posterior is that of the draws with probabilities

    .. math:: q_k = \nu(x_k) \Big/ \sum_j \nu(x_j) ,

    as M grows (sampling, importance resampling: Rubin 1988). The network is never trained anew.

    Attributes:
        draws: (M, N, columns).
    """

    def __init__(
        self,
        unfolder: Unfolder,
        seen: NDArray[np.float64],
        event_ids: NDArray[np.uint64],
        count: int,
        seed: int,
    ) -> None:
        self.event_ids, self.seed = event_ids, seed
        self.draws = np.stack(
            [unfolder.sample(seen, event_ids, seed=seed, draw=k) for k in range(count)]
        )

    def probabilities(self, spectrum: Spectrum | None) -> NDArray[np.float64]:
        """q (M, N) under the prior that ``spectrum`` gives; equal without one."""
        if spectrum is None:
            return np.full(self.draws.shape[:2], 1.0 / len(self.draws))
        ratio = np.stack([spectrum.weights(draw) for draw in self.draws])
        found: NDArray[np.float64] = ratio / ratio.sum(axis=0)
        return found

    def effective(self, spectrum: Spectrum | None) -> float:
        """The median over the events of :math:`1 / \\sum_k q_k^2`, of M: how many draws still count."""
        return float(np.median(1.0 / np.square(self.probabilities(spectrum)).sum(axis=0)))

    def choose(self, spectrum: Spectrum | None, count: int) -> NDArray[np.float64]:
        """``count`` truths of each event (count, N, columns), drawn with q."""
        if spectrum is None and count <= len(self.draws):
            return self.draws[:count]
        steps = np.cumsum(self.probabilities(spectrum), axis=0)
        uniform = event_uniform(self.seed, "unfold/choose", self.event_ids, count)
        rows = np.arange(steps.shape[1])
        which = [(steps < uniform[:, k] * steps[-1]).sum(axis=0) for k in range(count)]
        return np.stack([self.draws[k.clip(max=len(steps) - 1), rows] for k in which])
