"""Conditional diffusion: targets drawn from noise, given the source."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.networks.mlp import ResidualMLP
from hepbridge.transports.contexts import joined
from hepbridge.transports.couplings import draw_pairs
from hepbridge.transports.multistep import follow
from hepbridge.transports.options import whole_numbers
from hepbridge.transports.samplers import SAMPLERS
from hepbridge.transports.samplers.noise_levels import LEVELS
from hepbridge.transports.samplers.sampler import Sampler

__all__ = ["Diffusion"]

_MOST_STEPS = 1000
_OWN = ("multistep", "ddim")  # samplers in equal steps of time; all others are in `SAMPLERS`
_Number = TypeVar("_Number", float, Tensor)
_LEAST_ANGLE = math.atan(math.exp(-10.0))  # where the logarithm of signal over noise is 20
_WHOLE_ANGLE = 0.5 * math.pi - 2.0 * _LEAST_ANGLE


class Diffusion(nn.Module):
    r"""Diffusion with velocity prediction, from normal noise to the targets of a source.

    At the angle :math:`\varphi(t)`, which rises linearly from :math:`\arctan e^{-10}` at t = 0 to
    :math:`\arctan e^{10}` at t = 1 (a signal-to-noise ratio from :math:`e^{20}` to
    :math:`e^{-20}`), with :math:`\alpha = \cos\varphi`, :math:`\sigma = \sin\varphi`,

    .. math:: x_t = \alpha\, x_1 + \sigma\, \epsilon, \qquad
              v = \alpha\, \epsilon - \sigma\, x_1, \qquad
              \mathcal{L} = \mathbb{E}\, | v_\theta(x_t, t, x_0, c) - v |^2,

    so that :math:`\alpha x_t - \sigma v_\theta` estimates the target :math:`x_1`. Sampling goes from
    ``noise`` at t = 1 to t = 0 in equal steps, without further noise, so the output is a function of
    source, conditions and noise, and can be distilled (`Distilled`):

    - ``ddim``: the sampler of the paper, :math:`x_{t'} = \alpha' \hat x_1 + \sigma' \hat\epsilon`
      with :math:`\hat\epsilon = \sigma x_t + \alpha v_\theta`. First order: 1000 steps there.
    - ``multistep``: the same with the change of :math:`\hat x_1` taken from the step before
      (`multistep.follow`), of second order: of use from ten steps on.
    - any sampler of `SAMPLERS`, from a noise level :math:`\sigma_{EDM}` of 80 to 0.002 and 0, by
      :math:`\sigma_{EDM} = \tan\varphi` and :math:`x_{EDM} = x_t / \alpha`, which is exact. The
      stochastic ones take more columns of noise, and cannot be distilled.

    Targets should be of unit variance and zero mean, roughly. The source enters only as a condition:
    with pairs that belong together the output follows p(target | source), else p(target | c). Without
    ``condition_on_source`` it does not enter at all, and the output follows p(target | c).

    Args:
        dim: coordinates of x.
        condition_dims: name -> columns, all standardised.
        sampler: ``"multistep"``, ``"ddim"``, or a name of `SAMPLERS`.
        levels: how the noise levels of a sampler of `SAMPLERS` are spaced, a name of `LEVELS`, default
            ``"karras"``; the other two have their own.
        steps: at application, 2 to 1000; ``nfe`` is that, or what the sampler says.
        batch_size, train_steps, learning_rate: of the only phase.
        width, depth: of the residual network.
        condition_on_source: whether the network sees the source.

    Raises ConfigError for options that are not allowed.

    Source: Salimans & Ho, arXiv:2202.00512 (velocity, schedule); as a baseline of unfolding in
    Diefenbacher et al., arXiv:2308.12351, after Mikuni et al., arXiv:2304.01266 (FPCD).
    """

    claims = Claims(joint=True, posterior=True)

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        sampler: str = "multistep",
        levels: str | None = None,
        steps: int = 20,
        batch_size: int = 512,
        train_steps: int = 10000,
        learning_rate: float = 1e-3,
        width: int = 128,
        depth: int = 4,
        condition_on_source: bool = True,
    ) -> None:
        super().__init__()
        counts = {"batch_size": batch_size, "train_steps": train_steps}
        whole_numbers("diffusion", counts | {"width": width, "depth": depth})
        whole_numbers("diffusion", {"steps": steps}, least=2, most=_MOST_STEPS)
        if sampler not in (*_OWN, *SAMPLERS):
            allowed = ", ".join((*_OWN, *SAMPLERS))
            raise ConfigError(f"diffusion: unknown sampler {sampler!r}; allowed: {allowed}")
        if levels is not None and sampler in _OWN:
            raise ConfigError(
                f"diffusion: sampler {sampler!r} has its own noise levels; leave out levels: "
                f"{levels}, or choose one of {', '.join(SAMPLERS)}"
            )
        self._zoo: Sampler | None = None if sampler in _OWN else SAMPLERS[sampler]
        self._sigmas: list[float] = LEVELS[levels or "karras"](steps) if self._zoo else []
        self.dim = dim
        self.noise_dim = dim * (1 + self._zoo.draws(steps)) if self._zoo else dim
        self.condition_dims = dict(condition_dims)
        self.sampler, self.steps = sampler, steps
        self.source_free = not condition_on_source
        if self.source_free:
            self.claims = replace(type(self).claims, posterior=False)
        self.batch_size, self.train_steps = batch_size, train_steps
        self.learning_rate = learning_rate
        self.network = ResidualMLP(
            dim if self.source_free else 2 * dim,
            dim,
            sum(condition_dims.values()),
            width,
            depth,
            max_frequency=4.0,
            embedding=32,
        )

    @property
    def nfe(self) -> int:
        return self._zoo.nfe(self.steps) if self._zoo else self.steps

    @property
    def planned_steps(self) -> int:
        return self.train_steps

    @staticmethod
    def angle(t: _Number) -> _Number:
        """The angle at time t in [0, 1], between signal (0) and noise (pi/2)."""
        return _LEAST_ANGLE + _WHOLE_ANGLE * t

    def velocity(self, x: Tensor, t: Tensor, source: Tensor, c: Tensor | None) -> Tensor:
        """The network's v (N, dim) of x (N, dim) at t, a scalar or (N, 1)."""
        out: Tensor = self.network(self._seen(x, source), t, c)
        return out

    def _seen(self, x: Tensor, source: Tensor) -> Tensor:
        """What the network sees of both: (N, dim) or (N, 2 dim)."""
        return x if self.source_free else torch.cat([x, source], dim=1)

    def denoised(self, x: Tensor, sigma: Tensor, source: Tensor, c: Tensor | None) -> Tensor:
        """The estimate (N, dim) of E[target | x] for x (N, dim) = target + sigma times noise, in context
        c (N, k); sigma (N, 1) or (1, 1)."""
        angle, first, last = sigma.atan(), self.angle(0.0), self.angle(1.0)
        w = angle.cos() * x
        v = self.velocity(w, (angle - first) / (last - first), source, c)
        return angle.cos() * w - angle.sin() * v

    # -- training -----------------------------------------------------------------------------

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """One phase of regression on the velocity, at random times."""
        if pairs.dim != self.dim:
            raise ConfigError(f"diffusion for {self.dim} coordinates got {pairs.dim}")
        rows = np.arange(len(pairs))

        def batch(step: int, rng: np.random.Generator) -> dict[str, Tensor | None]:
            named, x0, x1 = draw_pairs(pairs, rows, 1, self.batch_size, rng, None)
            t = torch.from_numpy(rng.random((len(x1), 1), dtype=np.float32))
            noise = torch.from_numpy(rng.standard_normal(x1.shape, dtype=np.float32))
            alpha, sigma = self.angle(t).cos(), self.angle(t).sin()
            return {
                "x": self._seen(alpha * x1 + sigma * noise, x0),
                "t": t,
                "c": self._context(named),
                "v": alpha * noise - sigma * x1,
            }

        def loss(module: nn.Module, data: dict[str, Tensor]) -> Tensor:
            return (module(data["x"], data["t"], data["c"]) - data["v"]).square().mean()

        yield Phase("diffusion", self.network, batch, loss, self.train_steps, self.learning_rate)

    def _context(self, conditions: Conditions) -> Tensor | None:
        return joined(conditions, self.condition_dims)

    # -- application --------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Draws from p(target | source x, conditions).

        x and result (N, dim); noise (N, noise_dim), its first dim columns the start.
        """
        context = self._context(conditions)
        if self._zoo:
            return self._by_noise_level(self._zoo, x, context, noise)
        times = [1.0 - k / self.steps for k in range(self.steps + 1)]
        angles = [self.angle(t) for t in times]

        def end(w: Tensor, k: int) -> Tensor:
            return self._end(w, times[k], angles[k], x, context)

        risen = [0.5 * math.pi - angle for angle in angles]
        return follow(noise, risen, end, order=1 if self.sampler == "ddim" else 2)

    def _by_noise_level(
        self, sampler: Sampler, source: Tensor, context: Tensor | None, noise: Tensor
    ) -> Tensor:
        """In x = w / cos(angle), which is x1 + tan(angle) epsilon."""

        def denoise(x: Tensor, sigma: float) -> Tensor:
            angle = math.atan(sigma)
            t = (angle - _LEAST_ANGLE) / _WHOLE_ANGLE
            return self._end(math.cos(angle) * x, t, angle, source, context)

        first, *rest = noise.reshape(len(source), -1, self.dim).unbind(dim=1)
        start = first / math.cos(math.atan(self._sigmas[0]))
        return sampler(denoise, start, self._sigmas, torch.stack(rest) if rest else None)

    def _end(
        self, w: Tensor, t: float, angle: float, source: Tensor, context: Tensor | None
    ) -> Tensor:
        """The network's estimate of the target, from w at time t."""
        at = torch.full((1,), t, dtype=w.dtype, device=w.device)
        return math.cos(angle) * w - math.sin(angle) * self.velocity(w, at, source, context)
