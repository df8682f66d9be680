"""What all samplers have in common: how they are called, and what a call costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.transports.samplers.noise_levels import check_levels

__all__ = ["Denoise", "Sampler", "all_but_last", "one_each"]

Denoise = Callable[[Tensor, float], Tensor]
"""``denoise(x, sigma)``: the estimate of E[x0 | x] (N, d) for x = x0 + sigma eps (N, d)."""


def one_each(steps: int) -> int:
    """Of evaluations or draws: one in every step."""
    return steps


def all_but_last(steps: int) -> int:
    """Of draws: one in every step but the last, which adds no noise."""
    return steps - 1


def _none(steps: int) -> int:
    return 0


@dataclass(frozen=True)
class Sampler:
    r"""A sampler of the zoo: from :math:`x_0 + \sigma_0 \epsilon` to :math:`x_0`, with its costs.

    Args:
        run: the algorithm, ``run(denoise, x, sigmas)``, with ``noise`` behind if it is stochastic.
        order: the error falls as steps to the power of minus this; for stochastic samplers that of
            mean and covariance.
        nfe: calls of ``denoise`` for a number of steps.
        draws: normal numbers per coordinate for a number of steps; 0 if deterministic.
    """

    run: Callable[..., Tensor]
    order: int
    nfe: Callable[[int], int] = one_each
    draws: Callable[[int], int] = _none

    @property
    def stochastic(self) -> bool:
        return self.draws is not _none

    def __call__(
        self, denoise: Denoise, x: Tensor, sigmas: Sequence[float], noise: Tensor | None = None
    ) -> Tensor:
        """The sample (N, d) from ``x`` (N, d), which is at the first of the noise levels.

        ``sigmas``: decreasing to 0, one step between each two (`noise_levels`). ``noise``: standard
        normal numbers (draws(steps), N, d); deterministic samplers need none.

        Raises ConfigError for noise levels that do not decrease to 0, and for noise of another shape.
        """
        check_levels(sigmas)
        if not self.stochastic:
            return self.run(denoise, x, sigmas)
        steps = len(sigmas) - 1
        noise = x.new_empty((0, *x.shape)) if noise is None else noise
        if noise.shape != (self.draws(steps), *x.shape):
            raise ConfigError(
                f"noise of a sampler: {steps} steps need normal numbers of shape "
                f"{(self.draws(steps), *x.shape)}, got {tuple(noise.shape)}"
            )
        return self.run(denoise, x, sigmas, noise)
