"""Masked autoregressive maps of hundreds of coordinates, with an inverse that does no work twice."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import zuko
from torch import Tensor, nn
from torch.distributions import Transform

__all__ = ["Autoregressive"]


class Autoregressive(zuko.flows.MaskedAutoregressiveTransform):
    """Coordinate i is moved by what those at lower places in the ``order`` and the context say.

    zuko's, with two differences. Where a network has fewer hidden columns than coordinates, zuko gives
    them all to the first ones; here they are spread over all. And the inverse, coordinate by coordinate,
    computes of each pass only what is new: the parameters of one coordinate instead of all.

    One coordinate has none before it: it is then zuko's map that depends on the context alone.

    Args:
        features: coordinates.
        context: columns of the context, at least one.
        passes: 1 for a map that depends on the context alone, otherwise None.
        order: (features,), the place of each coordinate.
        options: of `zuko.flows.MaskedAutoregressiveTransform`.
    """

    def __init__(
        self, features: int, context: int, passes: int | None, order: Tensor, **options: Any
    ) -> None:
        super().__init__(features, context, passes, order, **options)
        if passes is None and features > min(options["hidden_features"]):
            self._spread(order, context)

    def _spread(self, places: Tensor, context: int) -> None:
        """A hidden column of degree m sees coordinates at places below m, and columns up to m."""
        layers = [layer for layer in self.hyper if isinstance(layer, zuko.nn.MaskedLinear)]
        before = torch.cat([places + 1, torch.zeros(context, dtype=places.dtype)])
        for layer in layers[:-1]:
            after = torch.linspace(0, len(places) - 1, len(layer.mask)).long()
            layer.mask.copy_(after[:, None] >= before)
            before = after
        layers[-1].mask.copy_(places.repeat_interleave(self.total)[:, None] >= before)

    def forward(self, c: Tensor | None = None) -> Transform:
        """The map, given the context (N, context)."""
        return _OneByOne(self, c)


class _OneByOne(zuko.transforms.AutoregressiveTransform):
    def __init__(self, made: Autoregressive, context: Tensor | None) -> None:
        super().__init__(partial(made.meta, context), made.passes)
        self.made, self.context = made, context

    def _inverse(self, y: Tensor) -> Tensor:
        made, context, dim = self.made, self.context, y.shape[-1]
        first, *hidden, last = made.hyper
        plain = type(first) is type(last) is zuko.nn.MaskedLinear  # not with noise on its weights
        if made.passes < dim or context is None or y.ndim != 2 or not plain:
            out: Tensor = super()._inverse(y)
            return out
        weight = (first.mask * first.weight).T
        heads = (last.mask * last.weight).unflatten(0, (dim, made.total))
        biases = last.bias.unflatten(0, (dim, made.total))
        before = first.bias + context @ weight[dim:]
        columns: list[Tensor] = [y[:, 0]] * dim
        for i in made.order.argsort().tolist():
            seen = before
            for layer in hidden:
                seen = layer(seen)
            phi = nn.functional.linear(seen, heads[i], biases[i])
            columns[i] = made.univariate(*zuko.utils.unpack(phi, made.shapes))._inverse(y[:, i])
            before = before + columns[i][:, None] * weight[i]
        return torch.stack(columns, dim=1)
