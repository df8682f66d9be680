"""Diffusion with preconditioning (EDM): targets drawn from noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.transports.build_network import build_network
from hepbridge.transports.contexts import joined
from hepbridge.transports.couplings import draw_pairs
from hepbridge.transports.options import whole_numbers
from hepbridge.transports.preconditioning import GAMMA, WEIGHTINGS, scalings
from hepbridge.transports.samplers import SAMPLERS
from hepbridge.transports.samplers.noise_levels import LEVELS
from hepbridge.transports.samplers.sampler import Sampler

__all__ = ["EDM"]

_MOST_STEPS = 1000


class EDM(nn.Module):
    r"""A denoiser, from targets with normal noise to their mean, and samplers that follow it.

    .. math:: D(x, \sigma) = c_{skip}\, x + c_{out}\, F_\theta(c_{in}\, x,\, c_{noise},\, c), \qquad
              \mathcal{L} = \mathbb{E}\, w(\sigma)\, \Bigl| F_\theta(c_{in}\, y, c_{noise}, c)
                            - \frac{x_1 - c_{skip}\, y}{c_{out}} \Bigr|^2,

    with :math:`y = x_1 + \sigma \epsilon`, :math:`\ln\sigma \sim N(P_{mean}, P_{std}^2)`, the numbers c
    of `scalings` and a weight w of `WEIGHTINGS`. Sampling goes from :math:`\sigma_{max}` times the
    first columns of the noise, through ``steps`` noise levels, to 0. A deterministic sampler takes
    one noise number per coordinate and can be distilled (`Distilled`); the stochastic ones take more.

    The output follows p(target | c), whatever the source; with ``condition_on_source``, and pairs that
    belong together, p(target | source, c).

    Args:
        dim: coordinates of x.
        condition_dims: name -> columns, all standardised.
        sigma_data: standard deviation of the targets.
        p_mean, p_std: of the logarithm of the noise level in training. Published are -1.2 and 1.2 for
            a ``sigma_data`` of 0.5, which is -0.5 for 1.
        weighting, gamma: a name of `WEIGHTINGS`, and its gamma if it has one, default as published.
        sampler, levels: names of `SAMPLERS` and `LEVELS`. For normal targets the default makes widths
            that are 1 % too large, with 25 evaluations; ``heun`` with ``karras`` and 18 steps, the
            choice of the paper for small images, 4 to 9 % with 35.
        steps, sigma_min, sigma_max: at application, 2 to 1000 noise levels, from the highest down.
        batch_size, train_steps, learning_rate: of the only phase.
        width, depth: of the network.
        network, network_options: a name of `NETWORKS`, and options of its own.
        condition_on_source: whether the network sees the source.

    Raises ConfigError for options that are not allowed.

    Source: Karras et al., arXiv:2206.00364; for showers CaloDiffusion, arXiv:2308.03876.
    """

    claims = Claims(joint=True)

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        sigma_data: float = 1.0,
        p_mean: float = -0.5,
        p_std: float = 1.2,
        weighting: str = "edm",
        gamma: float | None = None,
        sampler: str = "dpmpp_2m",
        levels: str = "lu",
        steps: int = 25,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        batch_size: int = 256,
        train_steps: int = 10000,
        learning_rate: float = 1e-3,
        width: int = 256,
        depth: int = 4,
        network: str = "mlp",
        network_options: dict[str, Any] | None = None,
        condition_on_source: bool = False,
    ) -> None:
        super().__init__()
        counts = {"batch_size": batch_size, "train_steps": train_steps}
        whole_numbers("edm", counts | {"width": width, "depth": depth})
        whole_numbers("edm", {"steps": steps}, least=2, most=_MOST_STEPS)
        if weighting not in WEIGHTINGS:
            allowed = ", ".join(WEIGHTINGS)
            raise ConfigError(f"edm: unknown weighting {weighting!r}; allowed: {allowed}")
        if gamma is not None and weighting not in GAMMA:
            raise ConfigError(
                f"edm: weighting {weighting!r} has no gamma; leave out gamma: {gamma}, or choose one "
                f"of {', '.join(GAMMA)}"
            )
        self.weighting, self.gamma = (
            weighting,
            GAMMA.get(weighting, 0.0) if gamma is None else gamma,
        )
        positive = {"sigma_data": sigma_data, "p_std": p_std}
        for name, value in (positive if gamma is None else positive | {"gamma": gamma}).items():
            if not 0.0 < value < math.inf:
                raise ConfigError(f"edm: {name} must be a finite number above 0, got {value!r}")
        self.sigma_data, self.p_mean, self.p_std = sigma_data, p_mean, p_std
        self._sampler: Sampler = SAMPLERS[sampler]
        self._sigmas: list[float] = LEVELS[levels](steps, sigma_min, sigma_max)
        self.dim, self.steps = dim, steps
        self.noise_dim = dim * (1 + self._sampler.draws(steps))
        self.condition_dims = dict(condition_dims)
        self.batch_size, self.train_steps = batch_size, train_steps
        self.learning_rate = learning_rate
        self.source_free = not condition_on_source
        if condition_on_source:
            self.claims = replace(type(self).claims, posterior=True)
        self.network = build_network(
            "edm",
            network,
            network_options,
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
        return self._sampler.nfe(self.steps)

    @property
    def planned_steps(self) -> int:
        return self.train_steps

    # -- training -----------------------------------------------------------------------------

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """One phase of regression, at random noise levels."""
        if pairs.dim != self.dim:
            raise ConfigError(f"edm for {self.dim} coordinates got {pairs.dim}")
        rows = np.arange(len(pairs))

        def batch(step: int, rng: np.random.Generator) -> dict[str, Tensor | None]:
            named, x0, x1 = draw_pairs(pairs, rows, 1, self.batch_size, rng, None)
            drawn = torch.from_numpy(rng.standard_normal((len(x1), 1), dtype=np.float32))
            noise = torch.from_numpy(rng.standard_normal(x1.shape, dtype=np.float32))
            sigma = (self.p_mean + self.p_std * drawn).exp()
            scale = scalings(sigma, self.sigma_data)
            x = x1 + sigma * noise
            return {
                "x": self._seen(scale.c_in * x, x0),
                "t": scale.c_noise,
                "c": self._context(named),
                "target": (x1 - scale.c_skip * x) / scale.c_out,
                "weight": WEIGHTINGS[self.weighting](sigma, self.sigma_data, self.gamma),
            }

        def loss(module: nn.Module, data: dict[str, Tensor]) -> Tensor:
            error = module(data["x"], data["t"], data["c"]) - data["target"]
            return (data["weight"] * error.square()).mean()

        yield Phase("edm", self.network, batch, loss, self.train_steps, self.learning_rate)

    def _context(self, conditions: Conditions) -> Tensor | None:
        return joined(conditions, self.condition_dims)

    def _seen(self, x: Tensor, source: Tensor) -> Tensor:
        """What the network sees of both: (N, dim) or (N, 2 dim)."""
        return x if self.source_free else torch.cat([x, source], dim=1)

    # -- application --------------------------------------------------------------------------

    def denoise(
        self, x: Tensor, sigma: float, conditions: Conditions, source: Tensor | None = None
    ) -> Tensor:
        """The estimate (N, dim) of E[target | x] for x (N, dim) = target + sigma times noise.

        ``source`` (N, dim) with ``condition_on_source``.
        """
        return self._denoise(x, sigma, x if source is None else source, self._context(conditions))

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Draws (N, dim); noise (N, noise_dim), its first dim columns the start.

        The source x (N, dim) counts with ``condition_on_source`` only.
        """
        context = self._context(conditions)

        def denoise(y: Tensor, sigma: float) -> Tensor:
            return self._denoise(y, sigma, x, context)

        first, *rest = noise.reshape(len(x), -1, self.dim).unbind(dim=1)
        start = self._sigmas[0] * first
        return self._sampler(denoise, start, self._sigmas, torch.stack(rest) if rest else None)

    def denoised(self, x: Tensor, sigma: Tensor, source: Tensor, c: Tensor | None) -> Tensor:
        """As `denoise`, in context c (N, k), at levels sigma (N, 1) or (1, 1) that differ by row."""
        scale = scalings(sigma, self.sigma_data)
        return scale.c_skip * x + scale.c_out * self.network(
            self._seen(scale.c_in * x, source), scale.c_noise, c
        )

    def _denoise(self, x: Tensor, sigma: float, source: Tensor, context: Tensor | None) -> Tensor:
        scale = scalings(sigma, self.sigma_data)
        at = torch.full((1,), scale.c_noise, dtype=x.dtype, device=x.device)
        return scale.c_skip * x + scale.c_out * self.network(
            self._seen(scale.c_in * x, source), at, context
        )
