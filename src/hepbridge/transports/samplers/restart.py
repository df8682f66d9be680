"""Restart: now and then back to a high noise level, with much noise at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.transports.samplers.heun import heun_step
from hepbridge.transports.samplers.noise_levels import karras
from hepbridge.transports.samplers.sampler import Denoise, Sampler

__all__ = ["RESTART", "Interval", "restart", "restarting"]


@dataclass(frozen=True)
class Interval:
    """Where to restart: from noise level ``low`` back to ``high``, and down again in ``steps``.

    The published lists [N, K, low, high] count noise levels: ``steps`` is N - 1, ``repeats`` K.

    Raises ConfigError unless 0 < low < high, and steps and repeats are at least 1.
    """

    low: float
    high: float
    steps: int
    repeats: int

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high or self.steps < 1 or self.repeats < 1:
            raise ConfigError(
                "an interval of Restart needs 0 < low < high, steps >= 1 and repeats >= 1; "
                f"got {self}"
            )


def restart(
    denoise: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    noise: Tensor,
    *,
    intervals: Sequence[Interval],
) -> Tensor:
    r"""Heun steps; on arrival at the level nearest to the ``low`` of an interval, ``repeats`` times

    .. math:: x \leftarrow x + \sqrt{\sigma_{high}^2 - \sigma_{low}^2}\, z

    and Heun steps (Karras levels, rho 7) back from ``high`` to that level. The noise forgets earlier
    errors: for normal data of width s by :math:`\sqrt{(s^2 + \sigma_{low}^2) / (s^2 +
    \sigma_{high}^2)}` each time. Mean and covariance are of second order in all steps together.

    Args:
        noise: (sum of repeats, N, d), in the order of use.
        intervals: at least one. In one call the lowest level is above 0.

    Raises ConfigError if the level nearest to a ``low`` is not below ``high``: more levels are
    needed.

    Source: Xu et al., arXiv:2306.14878 (algorithm 2).
    """
    starts = [(_nearest(sigmas, interval), interval) for interval in intervals]
    draws = iter(noise)
    for k, (sigma, then) in enumerate(itertools.pairwise(sigmas)):
        x = heun_step(denoise, x, sigma, then)
        for interval in (interval for at, interval in starts if at == k + 1):
            levels = karras(interval.steps + 1, then, interval.high)[:-1]
            for _ in range(interval.repeats):
                x = x + (interval.high**2 - then**2) ** 0.5 * next(draws)
                for above, below in itertools.pairwise(levels):
                    x = heun_step(denoise, x, above, below)
    return x


def _nearest(sigmas: Sequence[float], interval: Interval) -> int:
    """The place of the level nearest to ``low``: neither the first, which is reached by no step, nor 0."""
    places = [k for k in range(1, len(sigmas)) if 0 < sigmas[k] < interval.high]
    if not places:
        raise ConfigError(
            f"Restart from noise level {interval.low:g} to {interval.high:g}: no level between 0 and "
            f"{interval.high:g} is reached by a step; take more steps, or a higher interval"
        )
    away = [abs(sigmas[k] - interval.low) for k in places]
    return places[away.index(min(away))]


def restarting(intervals: Sequence[Interval]) -> Sampler:
    """The sampler with these intervals: their steps cost two evaluations each, every time."""
    return Sampler(
        partial(restart, intervals=tuple(intervals)),
        order=2,
        nfe=partial(_nfe, again=sum(2 * i.steps * i.repeats for i in intervals)),
        draws=partial(_draws, draws=sum(i.repeats for i in intervals)),
    )


def _nfe(steps: int, *, again: int) -> int:
    return 2 * steps - 1 + again


def _draws(steps: int, *, draws: int) -> int:
    return draws


RESTART = restarting([Interval(low=0.1, high=1.0, steps=5, repeats=2)])
