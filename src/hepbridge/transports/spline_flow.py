"""Conditional normalizing flows: targets drawn from noise, with their density."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import zuko
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Claims, Conditions, Pairs, Phase
from hepbridge.transports.autoregressive import Autoregressive
from hepbridge.transports.couplings import draw_pairs
from hepbridge.transports.options import whole_numbers
from hepbridge.transports.splines import RationalQuadratic

__all__ = ["SplineFlow"]

_KINDS = ("autoregressive", "coupling", "affine")
_ORDERS = ("alternate", "random")


class SplineFlow(nn.Module):
    r"""A flow :math:`z = f_\theta(x; y)` with normal z, conditioned on the source y and on c.

    .. math:: \ln p(x | y, c) = \ln N\bigl(f_\theta(x; y, c); 0, 1\bigr)
              + \ln \Bigl| \frac{\partial f_\theta}{\partial x} \Bigr|, \qquad
              \mathcal{L} = -\mathbb{E} \ln p(x | y, c).

    ``apply`` draws :math:`x = f_\theta^{-1}(z; y, c)` with z = ``noise``. The maps are

    - ``autoregressive``: coordinate i by a rational-quadratic spline that depends on the ones before
      it, in an ``order`` that differs from map to map. Exact in one pass; drawing takes ``dim`` passes
      (`InverseFlow` learns to draw in one).
    - ``coupling``: one half of the coordinates by splines that depend on the other half; random
      halves, each with its complement next. One pass either way, but for the first map (below).
    - ``affine``: as ``coupling`` with affine maps, the cINN (there 12 maps, width 16, depth 4). One
      pass either way.

    Splines live in a box :math:`[-B, B]` and are the identity outside it. Before them comes one
    autoregressive affine map, so the box is of 2 B *conditional* standard deviations: narrow
    posteriors fill it, and what lies beyond it has the tails of a normal distribution with the
    conditional mean and width.

    For generation, ``condition_on_source=False``: the source is neither seen nor part of the
    context, ``apply`` ignores its x, and the density is :math:`p(x | c)`. Before ``coupling`` maps the
    affine map then sees the context alone, so that drawing is one pass too. Masks of autoregressive
    maps grow with dim squared: thousands of coordinates are for ``coupling``.

    It has a density as well (`core.protocols.Density`), for which the source is a condition by the
    name ``source`` (if it is seen): ``log_prob(x, {"source": y, ...})``. With pairs that do not belong
    together p is the distribution given c alone.

    Args:
        dim: coordinates of x.
        condition_dims: name -> columns, all standardised.
        kind: ``"autoregressive"``, ``"coupling"`` or ``"affine"``.
        condition_on_source: False for what does not depend on a source.
        transforms: number of spline (or affine coupling) maps.
        bins, bound: of a spline, the second B (CaloFlow 14, CaloINN 18 to 20).
        order: of the coordinates in autoregressive maps: ``"alternate"``, up and down in turn, or
            ``"random"``, another permutation in each.
        width, depth: hidden columns and layers of the network of each map. Fewer columns than
            coordinates are spread evenly over them: a coordinate then misses the few right before it.
        dropout: share of hidden columns that are left out in training.
        batch_size, train_steps, learning_rate: of the only phase.

    Raises ConfigError for options that are not allowed, ``affine`` or ``coupling`` in one dimension.

    Source: Durkan et al., arXiv:1906.04032 (splines); Bellagente et al., arXiv:2006.06685 (cINN for
    unfolding); Krause & Shih, arXiv:2106.05285 (CaloFlow); maps by the library zuko.
    """

    claims = Claims(joint=True, posterior=True)

    def __init__(
        self,
        dim: int,
        condition_dims: dict[str, int],
        *,
        kind: str = "autoregressive",
        condition_on_source: bool = True,
        transforms: int = 3,
        bins: int = 8,
        bound: float = 5.0,
        order: str = "alternate",
        width: int = 64,
        depth: int = 2,
        dropout: float = 0.0,
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
        if order not in _ORDERS:
            raise ConfigError(
                f"spline_flow: unknown order {order!r}; allowed: {', '.join(_ORDERS)}"
            )
        if not 0.0 < bound < math.inf:
            raise ConfigError(f"spline_flow: bound must be a positive number, got {bound!r}")
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f"spline_flow: dropout must be from 0 to below 1, got {dropout!r}")
        self.dim, self.noise_dim = dim, dim
        self.condition_dims = dict(condition_dims)
        self.structure = {"kind": kind, "condition_on_source": condition_on_source}
        self.structure |= {"transforms": transforms, "bins": bins, "bound": bound, "order": order}
        self.condition_on_source = condition_on_source
        self.source_free = not condition_on_source
        self.claims = Claims(joint=True, posterior=condition_on_source)
        self.batch_size, self.train_steps = batch_size, train_steps
        self.learning_rate = learning_rate
        first = {"affine": 0, "coupling": dim if condition_on_source else 1}
        self.nfe = dim * (1 + transforms) if kind not in first else first[kind] + transforms
        columns = sum(condition_dims.values()) + dim * condition_on_source
        self.network = _maps(
            kind,
            dim,
            max(1, columns),
            transforms,
            bins,
            (width,) * depth,
            bound=bound,
            order=order,
            dropout=dropout,
            alone=not condition_on_source,
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
            return {"x": x, "c": self._context({**named, "source": y}, x)}

        def loss(module: nn.Module, data: dict[str, Tensor]) -> Tensor:
            return -_log_prob(module, data["x"], data["c"]).mean()

        yield Phase("flow", self.network, batch, loss, self.train_steps, self.learning_rate)

    def _context(self, conditions: Conditions, like: Tensor) -> Tensor:
        """What the maps see beside their coordinates: a column of zeros if there is nothing."""
        names = ["source"] * self.condition_on_source + list(self.condition_dims)
        if not names:
            return torch.zeros_like(like[:, :1])
        return torch.cat([conditions[name] for name in names], dim=1)

    # -- application --------------------------------------------------------------------------

    def apply(self, x: Tensor, conditions: Conditions, noise: Tensor) -> Tensor:
        """Draws from p(target | source x, conditions): x, noise and result (N, dim).

        x is ignored if the flow does not see the source.
        """
        return self.sample({**conditions, "source": x}, noise)

    def sample(self, conditions: Conditions, noise: Tensor) -> Tensor:
        """Draws (N, dim) given the conditions, one of them the ``source`` (N, dim) if it is seen."""
        out: Tensor = self.network(self._context(conditions, noise)).inv(noise)
        return out

    def log_prob(self, x: Tensor, conditions: Conditions) -> Tensor:
        """ln p(x | conditions) (N,), one of them the ``source`` (N, dim) if it is seen."""
        return _log_prob(self.network, x, self._context(conditions, x))


def _log_prob(network: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    z, log_det = network(context).call_and_ladj(x)
    return log_det - 0.5 * z.square().sum(dim=1) - 0.5 * x.shape[1] * math.log(2.0 * math.pi)


def _maps(
    kind: str,
    dim: int,
    context: int,
    transforms: int,
    bins: int,
    hidden: tuple[int, ...],
    *,
    bound: float = 5.0,
    order: str = "alternate",
    dropout: float = 0.0,
    alone: bool = False,
) -> zuko.lazy.LazyComposedTransform:
    """The maps from data to noise, as a function of the context.

    ``alone``: the affine map before couplings depends on nothing else.
    """
    spline: dict[str, Any] = {
        "univariate": partial(RationalQuadratic, bound=bound),
        "shapes": [(bins,), (bins,), (bins - 1,)],
    }
    activation: Callable[[], nn.Module] = nn.SiLU
    if dropout:
        activation = partial(_dropping, dropout)
    common: dict[str, Any] = {
        "context": context,
        "hidden_features": hidden,
        "activation": activation,
    }
    maps: list[nn.Module] = []
    if kind != "affine":
        passes = 1 if alone and kind == "coupling" else None
        maps.append(Autoregressive(dim, passes=passes, order=torch.arange(dim), **common))
        common |= spline
    for k in range(transforms):
        if kind == "autoregressive":
            places = torch.arange(dim) if k % 2 else torch.arange(dim).flip(0)
            if order == "random":
                places = _permutation(k, dim)
            maps.append(Autoregressive(dim, passes=None, order=places, **common))
        else:
            # the same random halves for k = 0, 1; 2, 3; ..., in exchanged roles
            half = _permutation(k // 2, dim) % 2 == k % 2
            maps.append(zuko.flows.GeneralCouplingTransform(dim, mask=half, **common))
    return zuko.lazy.LazyComposedTransform(*maps)


def _permutation(key: int, dim: int) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.Philox(key)).permutation(dim))


def _dropping(share: float) -> nn.Module:
    return nn.Sequential(nn.SiLU(), nn.Dropout(share))
