"""Conditional normalizing flows: targets drawn from noise, given the source, with their density."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import zuko
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.transports.couplings import draw_pairs
from hepbridge.transports.options import whole_numbers

__all__ = ["SplineFlow"]

_KINDS = ("autoregressive", "coupling", "affine")
_BOX = 5.0  # of the splines; outside it they are the identity


class SplineFlow(nn.Module):
    r"""A flow :math:`z = f_\theta(x; y)` with normal z, conditioned on the source y and on c.

    .. math:: \ln p(x | y, c) = \ln N\bigl(f_\theta(x; y, c); 0, 1\bigr)
              + \ln \Bigl| \frac{\partial f_\theta}{\partial x} \Bigr|, \qquad
              \mathcal{L} = -\mathbb{E} \ln p(x | y, c).

    ``apply`` draws :math:`x = f_\theta^{-1}(z; y, c)` with z = ``noise``. The maps are

    - ``autoregressive``: coordinate i by a rational-quadratic spline that depends on the ones before
      it, up and down in turn. Exact in one pass; drawing takes ``dim`` passes.
    - ``coupling``: one half of the coordinates by splines that depend on the other half; random
      halves, each with its complement next. One pass either way.
    - ``affine``: as ``coupling`` with affine maps, the cINN (there 12 maps, width 16, depth 4).

    Splines live in a box :math:`[-5, 5]` and are the identity outside it. Before them comes one
    autoregressive affine map, so the box is of ten *conditional* standard deviations: narrow
    posteriors fill it, and what lies beyond it has the tails of a normal distribution with the
    conditional mean and width.

    It has a density as well (`core.protocols.Density`), for which the source is a condition by the
    name ``source``: ``log_prob(x, {"source": y, ...})``. With pairs that do not belong together p is
    the distribution given c alone.

    Args:
        dim: coordinates of x.
        condition_dims: name -> columns, all standardised.
        kind: ``"autoregressive"``, ``"coupling"`` or ``"affine"``.
        transforms: number of spline (or affine coupling) maps.
        bins: of a spline.
        width, depth: hidden columns and layers of the network of each map.
        batch_size, train_steps, learning_rate: of the only phase.

    Raises ConfigError for options that are not allowed, ``affine`` or ``coupling`` in one dimension.

    Source: Durkan et al., arXiv:1906.04032 (splines); Bellagente et al., arXiv:2006.06685 (cINN for
    unfolding); maps by the library zuko.
    """

    claims = Claims(joint=True, posterior=True)

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        kind: str = "autoregressive",
        transforms: int = 3,
        bins: int = 8,
        width: int = 64,
        depth: int = 2,
        batch_size: int = 512,
        train_steps: int = 8000,
        learning_rate: float = 1e-3,
    ) -> None:
        super().__init__()
        counts = {"transforms": transforms, "width": width, "depth": depth}
        counts |= {"batch_size": batch_size, "train_steps": train_steps}
        whole_numbers("spline_flow", counts)
        whole_numbers("spline_flow", {"bins": bins}, least=2, most=1000)
        if kind not in _KINDS:
            raise ConfigError(f"spline_flow: unknown kind {kind!r}; allowed: {', '.join(_KINDS)}")
        if kind != "autoregressive" and dim < 2:
            raise ConfigError(
                f"spline_flow: kind {kind!r} couples two halves of the coordinates and there is "
                "only one coordinate; set kind: autoregressive"
            )
        self.dim, self.noise_dim = dim, dim
        self.condition_dims = dict(condition_dims)
        self.batch_size, self.train_steps = batch_size, train_steps
        self.learning_rate = learning_rate
        self.nfe = 1 + transforms if kind != "autoregressive" else dim * (1 + transforms)
        self.network = _maps(
            kind, dim, dim + sum(condition_dims.values()), transforms, bins, (width,) * depth
        )

    @property
    def planned_steps(self) -> int:
        return self.train_steps

    # -- training -----------------------------------------------------------------------------

    def phases(self, pairs: Pairs, seed: int) -> Iterator[Phase]:
        """One phase of maximum likelihood."""
        if pairs.dim != self.dim:
            raise ConfigError(f"spline_flow for {self.dim} coordinates got {pairs.dim}")
        rows = np.arange(len(pairs))

        def batch(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
            named, y, x = draw_pairs(pairs, rows, 1, self.batch_size, rng, None)
            return {"x": x, "c": self._context({**named, "source": y})}

        def loss(module: nn.Module, data: dict[str, Tensor]) -> Tensor:
            return -_log_prob(module, data["x"], data["c"]).mean()

        yield Phase("flow", self.network, batch, loss, self.train_steps, self.learning_rate)

    def _context(self, conditions: Conditions) -> Tensor:
        return torch.cat([conditions[name] for name in ("source", *self.condition_dims)], dim=1)

    # -- application --------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Draws from p(target | source x, conditions): x, noise and result (N, dim)."""
        return self.sample({**conditions, "source": x}, noise)

    def sample(self, conditions: Conditions, noise: Tensor) -> Tensor:
        """Draws (N, dim) given the conditions, one of them the ``source`` (N, dim)."""
        out: Tensor = self.network(self._context(conditions)).inv(noise)
        return out

    def log_prob(self, x: Tensor, conditions: Conditions) -> Tensor:
        """ln p(x | conditions) (N,), one of them the ``source`` (N, dim)."""
        return _log_prob(self.network, x, self._context(conditions))


def _log_prob(network: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    z, log_det = network(context).call_and_ladj(x)
    return log_det - 0.5 * z.square().sum(dim=1) - 0.5 * x.shape[1] * math.log(2.0 * math.pi)


def _maps(
    kind: str, dim: int, context: int, transforms: int, bins: int, hidden: tuple[int, ...]
) -> nn.Module:
    """The maps from data to noise, as a function of the context."""
    spline: dict[str, Any] = {
        "univariate": partial(zuko.transforms.MonotonicRQSTransform, bound=_BOX),
        "shapes": [(bins,), (bins,), (bins - 1,)],
    }
    common: dict[str, Any] = {"context": context, "hidden_features": hidden, "activation": nn.SiLU}
    maps: list[nn.Module] = []
    if kind != "affine":
        maps.append(zuko.flows.MaskedAutoregressiveTransform(dim, **common))
        common |= spline
    for k in range(transforms):
        if kind == "autoregressive":
            order = torch.arange(dim) if k % 2 else torch.arange(dim).flip(0)
            maps.append(zuko.flows.MaskedAutoregressiveTransform(dim, order=order, **common))
        else:
            # the same random halves for k = 0, 1; 2, 3; ..., in exchanged roles
            places = torch.from_numpy(
                np.random.Generator(np.random.Philox(k // 2)).permutation(dim)
            )
            maps.append(
                zuko.flows.GeneralCouplingTransform(dim, mask=places % 2 == k % 2, **common)
            )
    return zuko.lazy.LazyComposedTransform(*maps)
