"""A normalizing flow with a posterior over its weights: how far its density can be trusted."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import zuko
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs, Phase
from hepbridge.core.rng import stream
from hepbridge.networks.variational import VariationalLinear, divergence, noisy, variational_layers
from hepbridge.transports.options import known_options
from hepbridge.transports.spline_flow import SplineFlow

__all__ = ["BayesianFlow"]

_LAYERS = ("last", "all")


class BayesianFlow(SplineFlow):
    r"""A `SplineFlow` whose weights follow :math:`q(w) = \prod_i N(w_i; \mu_i, \sigma_i^2)`.

    .. math:: \mathcal{L} = -\mathbb{E}_{w \sim q}\,\mathbb{E} \ln p_w(x | y, c)
              + \frac{1}{N}\,\mathrm{KL}\bigl(q(w)\,|\,N(0, 1/\lambda)\bigr)

    with the N rows of the training set (images under symmetries are no further rows): up to a factor
    N the variational bound on the evidence. ``apply``, ``sample`` and ``log_prob`` use the means
    :math:`\mu`. `drawn` gives flows with weights drawn from q; a histogram filled by each of, say,
    20 of them has in every bin a mean and the standard deviation that the finite training set leaves.

    That is an estimate of the *statistical* uncertainty only: a flow that cannot follow the data does
    not know it. Weights are taken as independent of each other; where many do the same work (wide
    networks, splines) the uncertainty comes out too large. With ``variational: last`` only those of
    the last layer of each network have one. Biases have one as well, which the papers leave out:
    without it the place and the width of a distribution would have next to none.

    Args:
        dim, condition_dims: as for `SplineFlow`.
        kind: of the maps; masks of autoregressive ones are kept.
        variational: ``last`` layer of each network, or ``all`` of them.
        prior_precision: :math:`\lambda`; large values hold the weights near zero.
        log_sigma: :math:`\ln \sigma` of all weights at the start.
        flow: all other options of `SplineFlow`.

    Raises ConfigError for options that are not allowed.

    Source: Bellagente et al., arXiv:2104.04543; Butter et al., arXiv:2110.13632; Ernst et al.,
    arXiv:2312.09290 (showers; there :math:`\lambda` = 1 to 500, :math:`\ln \sigma` = -4.5).
    """

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        kind: str = "coupling",
        variational: str = "last",
        prior_precision: float = 1.0,
        log_sigma: float = -4.5,
        **flow: Any,
    ) -> None:
        known_options("bayesian_flow", SplineFlow, flow)
        super().__init__(dim, condition_dims, kind=kind, **flow)
        if variational not in _LAYERS:
            raise ConfigError(
                f"bayesian_flow: unknown variational {variational!r}; allowed: {', '.join(_LAYERS)}"
            )
        if not 0.0 < prior_precision < math.inf:
            raise ConfigError(
                f"bayesian_flow: prior_precision must be positive, got {prior_precision!r}"
            )
        if not -20.0 <= log_sigma <= 2.0:
            raise ConfigError(f"bayesian_flow: log_sigma must be from -20 to 2, got {log_sigma!r}")
        for module in self.network.modules():
            if isinstance(module, zuko.nn.MLP | zuko.nn.MaskedMLP):
                places = [i for i, layer in enumerate(module) if hasattr(layer, "weight")]
                for i in places if variational == "all" else places[-1:]:
                    module[i] = VariationalLinear.like(
                        module[i], prior_precision=prior_precision, log_sigma=log_sigma
                    )

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """The phase of `SplineFlow`, with noise on the weights and the divergence in the loss."""
        for phase in super().phases(pairs, seed):
            yield replace(
                phase, batch=_keyed(phase.batch), loss=_bound(phase.loss, rows=len(pairs))
            )

    def drawn(self, seed: int, k: int) -> BayesianFlow:
        """A copy with the weights of draw ``k`` = 0, 1, ... from the posterior.

        The copy is for ``apply``, ``sample`` and ``log_prob``; its state is that of the posterior.
        """
        key = stream(seed, "posterior", k).bit_generator.random_raw()
        generator = torch.Generator().manual_seed(key)
        out = copy.deepcopy(self)
        for layer in variational_layers(out.network):
            layer.draw(generator)
        return out


def _keyed(
    batch: Callable[[int, np.random.Generator], Any],
) -> Callable[[int, np.random.Generator], Any]:
    """The batches with a seed for the noise of the weights, which is drawn where the network is."""

    def keyed(step: int, rng: np.random.Generator) -> dict[str, Any]:
        return {**batch(step, rng), "seed": int(rng.integers(2**63))}

    return keyed


def _bound(
    loss: Callable[[nn.Module, Any], Tensor], rows: int
) -> Callable[[nn.Module, Any], Tensor]:
    def bound(module: nn.Module, data: dict[str, Any]) -> Tensor:
        device = next(module.parameters()).device
        with noisy(module, torch.Generator(device).manual_seed(data["seed"])):
            fit = loss(module, data)
        return fit + divergence(module) / rows

    return bound
