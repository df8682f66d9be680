"""Linear layers with a distribution over their weights, learned by variational inference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["VariationalLinear", "divergence", "noisy", "variational_layers"]

# An optimiser moves all parameters alike, but ln sigma has to travel from -4 to 0 where a weight
# moves by a tenth; at the pace of the weights it would still be on its way when the training ends.
_PACE = 10.0


class VariationalLinear(nn.Linear):
    r"""A linear layer with independent normal weights :math:`w_i \sim N(\mu_i, \sigma_i^2)`.

    .. math:: y = W x + b, \qquad
              \mathrm{KL} = \tfrac12 \sum_i \Bigl[ \lambda\,(\mu_i^2 + \sigma_i^2)
              - 1 - \ln(\lambda\,\sigma_i^2) \Bigr]

    with the divergence from the prior :math:`N(0, 1/\lambda)`; the sum is over W and b. The loss of
    N training rows is :math:`\mathbb{E}_w[-\ln p(\mathrm{row}|w)] + \mathrm{KL}/N`. Which weights
    are used is always said, never guessed from the mode of the module:

    - the means, unless something else was asked for;
    - inside `noisy`, which is for training, other weights for every row, by local reparametrisation:
      :math:`y_i \sim N\bigl((\mu x)_i, \sum_j \sigma_{ij}^2 x_j^2\bigr)`, the bias being the weight
      of a constant input 1 (a second matrix product, and less noise in the gradients than from one
      draw for all rows);
    - one draw for all rows from `draw` until `mean`. A draw is no part of the module's state.

    Args:
        dim_in, dim_out: columns of x and of y.
        bias: whether there is one.
        prior_precision: :math:`\lambda`, positive.
        log_sigma: :math:`\ln \sigma` of all weights at the start.
        mask: (dim_out, dim_in), True where there is a connection; default everywhere.

    Shapes: (..., dim_in) -> (..., dim_out). Raises ValueError for a prior that is not positive, or a
    mask of another shape.

    Source: Graves, Practical Variational Inference for Neural Networks (2011); Kingma, Salimans,
    Welling, arXiv:1506.02557 (local reparametrisation).
    """

    mask: Tensor | None
    drawn_weight: Tensor | None
    drawn_bias: Tensor | None

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        *,
        bias: bool = True,
        prior_precision: float = 1.0,
        log_sigma: float = -4.5,
        mask: Tensor | None = None,
    ) -> None:
        super().__init__(dim_in, dim_out, bias)
        if not 0.0 < prior_precision < math.inf:
            raise ValueError(f"a prior has a positive, finite precision, not {prior_precision}")
        if mask is not None and mask.shape != self.weight.shape:
            raise ValueError(
                f"the mask must be {tuple(self.weight.shape)} as the weights, not {tuple(mask.shape)}"
            )
        self.prior_precision, self.start = prior_precision, log_sigma
        self.weight_spread = nn.Parameter(torch.zeros_like(self.weight))
        self.bias_spread = nn.Parameter(torch.zeros_like(self.bias)) if bias else None
        self.register_buffer("mask", None if mask is None else mask.bool())
        self.register_buffer("drawn_weight", None, persistent=False)
        self.register_buffer("drawn_bias", None, persistent=False)
        self.generator: torch.Generator | None = None

    @classmethod
    def like(cls, layer: Any, *, prior_precision: float, log_sigma: float) -> VariationalLinear:
        """In place of a layer with ``weight`` and ``bias``, which become the means; ``mask`` stays."""
        dim_out, dim_in = layer.weight.shape
        out = cls(
            dim_in,
            dim_out,
            bias=layer.bias is not None,
            prior_precision=prior_precision,
            log_sigma=log_sigma,
            mask=getattr(layer, "mask", None),
        )
        with torch.no_grad():
            out.weight.copy_(layer.weight)
            if layer.bias is not None:
                out.bias.copy_(layer.bias)
        return out

    def forward(self, x: Tensor) -> Tensor:
        if self.generator is None and self.drawn_weight is not None:
            return functional.linear(x, self.drawn_weight, self.drawn_bias)
        y = functional.linear(x, self._connected(self.weight), self.bias)
        if self.generator is None:
            return y
        variance = functional.linear(
            x.square(),
            self._connected((2.0 * self.log_sigma).exp()),
            None if self.bias_log_sigma is None else (2.0 * self.bias_log_sigma).exp(),
        )
        # the root of zero has no derivative
        sigma = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        noise = torch.randn(y.shape, generator=self.generator, device=y.device, dtype=y.dtype)
        return y + sigma * noise

    @property
    def log_sigma(self) -> Tensor:
        """ln sigma of the weights (dim_out, dim_in)."""
        return self.start + _PACE * self.weight_spread

    @property
    def bias_log_sigma(self) -> Tensor | None:
        """ln sigma of the biases (dim_out,), if there are any."""
        return None if self.bias_spread is None else self.start + _PACE * self.bias_spread

    def _connected(self, weights: Tensor) -> Tensor:
        return weights if self.mask is None else weights * self.mask

    def kl(self) -> Tensor:
        """KL(posterior | prior) of all connected weights, in nats: a scalar."""
        total = self._connected(self._kl(self.weight, self.log_sigma)).sum()
        if self.bias_log_sigma is not None:
            total = total + self._kl(self.bias, self.bias_log_sigma).sum()
        return total

    def _kl(self, mean: Tensor, log_sigma: Tensor) -> Tensor:
        log_ratio = 2.0 * log_sigma + math.log(self.prior_precision)  # of the two variances
        return 0.5 * (self.prior_precision * mean.square() + log_ratio.exp() - 1.0 - log_ratio)

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """From now on the weights are one draw from the posterior.

        A generator of the CPU draws the same weights for a layer on any device.
        """

        def one(mean: Tensor, log_sigma: Tensor) -> Tensor:
            noise = torch.randn(mean.shape, generator=generator, device=generator.device)
            return mean + log_sigma.exp() * noise.to(mean)

        self.drawn_weight = self._connected(one(self.weight, self.log_sigma))
        if self.bias_log_sigma is not None:
            self.drawn_bias = one(self.bias, self.bias_log_sigma)

    def mean(self) -> None:
        """From now on the weights are their means."""
        self.drawn_weight = self.drawn_bias = None


def variational_layers(module: nn.Module) -> list[VariationalLinear]:
    """The variational layers inside a module, in the order of their declaration."""
    return [layer for layer in module.modules() if isinstance(layer, VariationalLinear)]


def divergence(module: nn.Module) -> Tensor:
    """KL(posterior | prior) of all variational layers of a module, in nats: a scalar."""
    return torch.stack([layer.kl() for layer in variational_layers(module)]).sum()


@contextmanager
def noisy(module: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Inside the block each row sees weights of its own, with noise from the generator."""
    layers = variational_layers(module)
    for layer in layers:
        layer.generator = generator
    try:
        yield
    finally:
        for layer in layers:
            layer.generator = None
