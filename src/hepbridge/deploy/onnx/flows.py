"""Drawing from normalizing flows in a form for a runtime: arithmetic without objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from zuko.flows import ElementWiseTransform, GeneralCouplingTransform, MaskedAutoregressiveTransform
from zuko.transforms import MonotonicAffineTransform

from hepbridge.core.protocols import Conditions
from hepbridge.transports.inverse_flow import InverseFlow
from hepbridge.transports.spline_flow import SplineFlow

__all__ = ["draw_plainly"]

_Inverse = Callable[[Tensor, Tensor], Tensor]  # of (noise, context)
_LOG_SLOPE = math.log(1e-3)  # of the least slope, in splines and affine maps alike


def draw_plainly(flow: SplineFlow) -> None:
    """Let this flow draw by arithmetic alone: objects of zuko cost a tracer twice as many nodes."""
    if isinstance(flow, InverseFlow):
        steps = [_student(part) for part in flow.network.transforms]
    else:
        steps = list(_inverses(flow.network))

    def sample(self: SplineFlow, conditions: Conditions, noise: Tensor) -> Tensor:
        context, x = self._context(conditions, noise), noise
        for step in steps:
            x = step(x, context)
        return x

    # of this copy alone
    flow.sample = MethodType(sample, flow)  # type: ignore[method-assign]


def _inverses(network: nn.Module) -> Iterator[_Inverse]:
    parts: Any = network.transforms
    for part in reversed(list(parts)):
        if isinstance(part, GeneralCouplingTransform):
            yield _coupling(part)
        elif isinstance(part, MaskedAutoregressiveTransform):
            yield _autoregressive(part)
        else:
            assert isinstance(part, ElementWiseTransform)
            yield _alone(part)


def _student(part: Any) -> _Inverse:
    """A map of an inverse flow: it sees the noise and undoes, in one pass."""
    if isinstance(part, ElementWiseTransform):
        return _alone(part)
    return lambda y, context: _undone(part, torch.cat([y, context], dim=1), y)


def _coupling(part: Any) -> _Inverse:
    seen, moved = part.mask.nonzero()[:, 0], (~part.mask).nonzero()[:, 0]
    order = torch.argsort(torch.cat([seen, moved]))

    def inverse(y: Tensor, context: Tensor) -> Tensor:
        kept = y.index_select(1, seen)
        x = _undone(part, torch.cat([kept, context], dim=1), y.index_select(1, moved))
        return torch.cat([kept, x], dim=1).index_select(1, order)

    return inverse


def _autoregressive(part: Any) -> _Inverse:
    def inverse(y: Tensor, context: Tensor) -> Tensor:
        x = torch.zeros_like(y)
        for _ in range(part.passes):
            x = _undone(part, torch.cat([x, context], dim=1), y)
        return x

    return inverse


def _alone(part: Any) -> _Inverse:
    return lambda y, context: _undone(part, context, y)


def _undone(part: Any, seen: Tensor, y: Tensor) -> Tensor:
    """The inverse of the maps of single coordinates, whose numbers a network makes of ``seen``."""
    numbers = part.hyper(seen).unflatten(-1, (-1, part.total))
    single = part.univariate
    if getattr(single, "args", ()):  # of a student: the map that it undoes
        (single,) = single.args
    if single is MonotonicAffineTransform:
        shift, scale = numbers.unbind(-1)
        out: Tensor = (y - shift) * torch.exp(-_squashed(scale, 1.0))
        return out
    return _spline(numbers, y, single.keywords["bound"])


def _spline(numbers: Tensor, y: Tensor, bound: float) -> Tensor:
    """The inverse of `RationalQuadratic`, of numbers (N, d, 3 bins - 1), with one gather."""
    bins = (numbers.shape[-1] + 1) // 3
    shares, slopes = torch.split(numbers, [2 * bins, bins - 1], -1)
    sizes = torch.exp(_squashed(shares.reshape(*y.shape, 2, bins), 2.0))
    sizes = sizes * ((2 * bound) / sizes.sum(dim=-1, keepdim=True))
    starts = sizes @ torch.ones(bins, bins).triu(1) - bound
    end = torch.ones_like(y)[..., None]
    slopes = torch.cat([end, torch.exp(_squashed(slopes, 1.0)), end], dim=-1)
    inner = y.clamp(-bound, bound)
    number = (inner[..., None] >= starts[:, :, 1, 1:]).sum(dim=-1)
    table = torch.cat([starts, sizes, slopes[:, :, None, :-1], slopes[:, :, None, 1:]], dim=2)
    index = number[:, :, None, None].expand(-1, -1, 6, -1)
    left, low, width, height, d0, d1 = table.gather(3, index).squeeze(-1).unbind(2)
    s, up = height / width, inner - low
    bend = (d0 + d1 - 2 * s) * up
    a, b = height * (s - d0) + bend, height * d0 - bend
    c = s * up
    root = (b * b + 4 * a * c).clamp_min(1e-20).sqrt()
    return torch.where(y.abs() < bound, left + width * (2 * c / (b + root)), y)


def _squashed(values: Tensor, factor: float) -> Tensor:
    return values / (1 + values.abs() * (factor / -_LOG_SLOPE))
