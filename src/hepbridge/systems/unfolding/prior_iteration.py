"""Taking the spectrum of the simulation out of what event-by-event unfolding gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hepbridge.core.protocols import Phase
from hepbridge.core.rng import event_uniform
from hepbridge.systems.unfolding.response import Response
from hepbridge.systems.unfolding.spectrum import Spectrum
from hepbridge.systems.unfolding.unfolder import Unfolder
from hepbridge.weighters.contrast import Contrast

__all__ = ["Candidates", "iterate"]

_MOST_ROWS = 300_000  # of the unfolded side of a classifier
_MOST_DRAWS = 4  # of an event there: more copies of the same events would spoil its early stopping


class Candidates:
    r"""Possible truths of N measured events, from which the prior of the day chooses.

    With M draws :math:`x_k \sim p_0(x | y) \propto p(y|x)\, p_0(x)` of each event and another prior
    :math:`p_0 \nu`, the posterior is that of the draws with probabilities

    .. math:: q_k = \nu(x_k) \Big/ \sum_j \nu(x_j) ,

    as M grows (sampling, importance resampling: Rubin 1988). The network is never trained anew.

    Attributes:
        draws: (M, N, columns).
        weights: (N,) of the events.
    """

    def __init__(
        self,
        unfolder: Unfolder,
        seen: NDArray[np.float64],
        event_ids: NDArray[np.uint64],
        weights: NDArray[np.float64],
        count: int,
        seed: int,
    ) -> None:
        self.event_ids, self.weights, self.seed = event_ids, weights, seed
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


def iterate(
    response: Response,
    candidates: Candidates,
    purity: NDArray[np.float64],
    iterations: int,
    unfolder: Unfolder,
    spectrum: Spectrum,
    seed: int,
    history: list[dict[str, Any]],
) -> Iterator[Phase]:
    r"""Learn the spectrum at particle level, step by step, as iterated Bayesian unfolding does.

    .. math:: p_{n+1}(x) = \int \hat p(y)\, \pi(y)\, p_n(x | y)\, dy, \qquad
              p_n(x | y) \propto p(y | x)\, p_n(x), \qquad p_n = p_0 \nu_n

    (D'Agostini 1995; Richardson 1972, Lucy 1974), each :math:`\nu_n` a classifier of the unfolded
    events against the pairs of the response. Where it stands still, the unfolded events fold to
    the data whatever :math:`p_0` was; statistical noise grows on the way, so few iterations are
    best where data are few. Generative unfolding with iterations: Backes et al., arXiv:2212.08674.

    Yields the phases of ``spectrum``; records in ``history`` what each iteration did.
    """
    pairs = response[response.pairs]
    prior = unfolder.true.features(pairs.true)
    own = torch.from_numpy(pairs.weights)
    n = len(candidates.weights)
    count = max(1, min(len(candidates.draws), _MOST_DRAWS, _MOST_ROWS // n))
    for k in range(iterations):
        now = spectrum if k else None
        chosen = candidates.choose(now, count)
        weights = torch.from_numpy(np.tile(candidates.weights * purity, count))
        rows = unfolder.true.features(chosen.reshape(-1, chosen.shape[-1]))
        for phase in spectrum.phases(Contrast.between(rows, prior, weights, own), seed + k):
            phase.name = f"iteration {k + 1}/{phase.name}"
            yield phase
        ratio = spectrum.weights(pairs.true)
        history.append(
            {
                "iteration": k + 1,
                "effective_candidates": candidates.effective(spectrum),
                "effective_fraction": _effective_fraction(ratio * pairs.weights),
            }
        )


def _effective_fraction(weights: NDArray[np.float64]) -> float:
    return float(weights.sum() ** 2 / np.square(weights).sum() / len(weights))
