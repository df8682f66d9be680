"""A refiner in a form for a runtime: the same numbers, from fewer operations, all in float32."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from hepbridge.deploy.onnx.flows import draw_plainly
from hepbridge.deploy.onnx.limits import Spans, flags
from hepbridge.networks.mlp import ResidualMLP
from hepbridge.systems.conditioning import ENERGY
from hepbridge.systems.refiner import Refiner
from hepbridge.systems.squirels import Squirels
from hepbridge.transforms.conditional_quantile import ConditionalQuantile
from hepbridge.transforms.lookup import Bilinear
from hepbridge.transforms.shower_coordinates import OUTER_MAX, TINY, ShowerCoordinates
from hepbridge.transports.i2sb import I2SB
from hepbridge.transports.spline_flow import SplineFlow

__all__ = ["Whole", "runtime_form", "simplify"]


class Whole(nn.Module):
    """All that a file holds: cells, incident energy, further conditions and noise in; two outputs.

    Without noise there is no such input.

    Args:
        refiner: of `runtime_form`.
        names: of the further conditions, in the order of the inputs.
        limits: name -> the least and the largest value that counts as inside.

    Returns cells (N, n_cells) and, for each row, whether it lies outside the limits (N,).
    """

    def __init__(self, refiner: Refiner, names: Sequence[str], limits: Spans) -> None:
        super().__init__()
        self.refiner, self.names = refiner, list(names)
        self.limits = {name: (float(a), float(b)) for name, (a, b) in limits.items()}

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        cells, energy, *others = inputs
        noise = others.pop() if self.refiner.noise_dim else cells[:, :0]
        conditions = {ENERGY: energy, **dict(zip(self.names, others, strict=True))}
        return self.refiner.refine(cells, conditions, noise), flags(conditions, self.limits)


def runtime_form(refiner: Refiner) -> Refiner:
    """A copy of a refiner, on the CPU, that gives the same showers up to rounding.

    What differs is how parts are computed:

    - tables: the corners around a point are one gather, cut in halves;
    - coordinates: numerators and denominators of all logarithms are one matrix product;
    - residual networks: a residual is the addend of a product, biases are added once;
    - the logarithm of the energy is one of E / exp(mean), which float32 holds without loss.
    """
    form = copy.deepcopy(refiner).cpu().eval()
    with torch.no_grad():
        _look_up_all(form)
        simplify(form)
    if isinstance(form, Squirels):
        # of this copy alone: a subclass would be another system
        form._encoded = MethodType(_encoded, form)  # type: ignore[method-assign]
    return form


@torch.no_grad()
def simplify(module: nn.Module) -> None:
    """Put other forms in the place of the parts of a module, whose tables have been used before."""
    for part in list(module.modules()):
        if isinstance(part, ConditionalQuantile):
            last = None if part._last is None else part._last[1]
            for kind in (part._forward, part._inverse, last):
                if kind is not None:
                    kind.table = _Corners(kind.table)
        if isinstance(part, I2SB):
            # of this copy alone, too
            part.grid = partial(_given, part.grid())  # type: ignore[method-assign]
        if isinstance(part, SplineFlow):
            draw_plainly(part)
        for name, child in part.named_children():
            if isinstance(child, ResidualMLP) and not _normed(child):
                setattr(part, name, _FoldedMLP(child))
            if isinstance(child, ShowerCoordinates):
                setattr(part, name, _JoinedCoordinates(child))


def _normed(network: ResidualMLP) -> bool:
    """Whether biases cannot be moved, because of a LayerNorm."""
    return not all(isinstance(norm, nn.Identity) for norm in network.norms)


def _look_up_all(form: Refiner) -> None:
    """Refine once, which makes the tables that are used."""
    n = form.geometry.n_cells
    conditions = {ENERGY: torch.full((1,), float(n))}
    conditions |= {name: torch.zeros(1) for name in form.config.named_conditions()}
    form.refine(torch.ones(1, n), conditions, torch.zeros(1, form.noise_dim))


def _given(value: Any) -> Any:
    """What was computed before: numbers that a tracer cannot follow."""
    return value


def _encoded(
    self: Squirels, values: Mapping[str, Tensor], energy: Tensor, mean: Tensor, std: Tensor
) -> dict[str, Tensor]:
    """`Squirels._encoded` with a logarithm near zero, where float32 is fine."""
    unit = torch.exp(-mean.double()).float()
    log_energy = torch.log(energy.float() * unit) * (1 / std.double()).float()
    own = {ENERGY: log_energy[:, None]}
    return own if self.further is None else own | self.further.columns(values)


def _pieces(x: Tensor, size: int | list[int], axis: int = 0) -> tuple[Tensor, ...]:
    out: tuple[Tensor, ...] = torch.split(x, size, axis)
    return out


class _Corners(Bilinear):
    """`Bilinear` with halves in place of single corners."""

    def __init__(self, table: Bilinear) -> None:
        self.__dict__.update(vars(table))
        below, above = self.rows.unbind(1)
        self.below, self.rise = below.contiguous(), above - below

    def row(self, node: Tensor, weight: Tensor) -> Tensor:
        return self.below.index_select(0, node) + weight * self.rise.index_select(0, node)

    def value(self, node: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        low = x.clamp(0, self.columns - 2).int()
        index = self.starts.index_select(0, node) + low + self.corners
        below, above = _pieces(self.flat[index], 2)  # at the node and at the next one
        left, right = _pieces(torch.lerp(below, above, weight), 1)
        return torch.lerp(left, right, x - low).squeeze(0)


class _JoinedCoordinates(ShowerCoordinates):
    r"""`ShowerCoordinates` with all sums from one product.

    With :math:`(E_1 \dots E_n, 1 \mathrm{MeV}) / E_\mathrm{inc}` as one row, the numerators are the cells, the
    rings and the sum, and the denominators 1, ring energies or 1 MeV in that unit: the same numbers are
    divided as in the original, and rounded alike.
    """

    sparse: Tensor
    product: Tensor
    offset: Tensor

    def __init__(self, original: ShowerCoordinates) -> None:
        nn.Module.__init__(self)
        self.n_cells, self.n_outer = original.n_cells, original.n_outer
        self.dim, self.dense = original.dim, original.dense
        n, rings = self.n_cells, original.rings
        member = original.membership[:, : self.n_outer + 2]
        dense = rings < self.dense
        self.register_buffer("rings", rings)
        self.register_buffer("membership", member[:, : self.n_outer + 1].contiguous())
        self.register_buffer("sparse", (~dense).to(member.dtype))
        numerator = torch.zeros(n + 1, self.dim)
        numerator[:n] = torch.cat([torch.eye(n), member[:, 1:]], dim=1)
        denominator, offset = torch.zeros(n + 1, self.dim), torch.ones(self.dim)
        if self.dense:
            same = (rings[:, None] == rings[None, :]) & dense
            denominator[:n, :n] = same.to(member.dtype)
            denominator[n, :n] = self.sparse
            offset[:n] = 0.0
        self.register_buffer("product", torch.cat([numerator, denominator], dim=1))
        self.register_buffer("offset", torch.cat([torch.zeros(self.dim), offset]))

    def forward(self, cells: Tensor, incident_energy: Tensor) -> Tensor:
        energy = incident_energy[:, None]
        row = torch.cat([cells / energy, energy.reciprocal()], dim=1)
        numerator, denominator = _pieces(torch.addmm(self.offset, row, self.product), self.dim, 1)
        return torch.log(numerator / denominator.clamp_min(TINY))

    def inverse(self, y: Tensor, incident_energy: Tensor) -> Tensor:
        sizes = [self.n_cells, self.n_outer, 1]
        shape, outer, total = _pieces(torch.exp(y), sizes, 1)
        energy = incident_energy[:, None]
        sums = shape @ self.membership
        rings = self._rings(sums, outer, total, energy)
        if self.dense:
            squares = (shape * shape) @ self.membership
            slope = (rings - sums) / squares.clamp_min(TINY)
            exponent = slope.index_select(1, self.rings) * (shape * self.sparse)
            shape = shape * torch.exp(exponent.clamp(-1.0, 1.0))
            sums = shape @ self.membership
        scale = (rings / sums.clamp_min(TINY)).index_select(1, self.rings)
        return shape * scale

    def _rings(self, sums: Tensor, outer: Tensor, total: Tensor, energy: Tensor) -> Tensor:
        """Energies of all rings, MeV."""
        if not self.n_outer:
            return total * energy
        outer = torch.where(sums[:, 1:] > 0, outer, 0.0)
        share = outer.sum(dim=1, keepdim=True)
        kept = torch.minimum(share, OUTER_MAX * total)
        outer = outer * (kept / share.clamp_min(TINY))
        return torch.cat([total - kept, outer], dim=1) * energy


class _FoldedMLP(nn.Module):
    r"""`ResidualMLP` with the biases :math:`b_l` of :math:`V_l` added at its entrance.

    With :math:`h'_l = h_l + \sum_{j \ge l} b_j` the residual step is one product with an addend,
    :math:`h'_{l+1} = h'_l + V_l \sigma(\dots)`, and :math:`U_l h_l = U_l h'_l - U_l \sum_{j \ge l} b_j`.
    """

    def __init__(self, network: ResidualMLP) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        own = self.network
        later = torch.zeros_like(own.enter.bias)
        layers: list[Any] = list(zip(own.up, own.down, strict=True))
        for up, down in reversed(layers):
            later = later + down.bias
            up.bias -= up.weight @ later
        entrance: Any = own.enter.bias
        entrance += later
        if own.modulate is not None and own.film:
            bias: Any = own.modulate.bias
            bias[: len(bias) // 2] += 1.0  # 1 + gamma

    def forward(self, x: Tensor, t: Tensor | None = None, c: Tensor | None = None) -> Tensor:
        own = self.network
        gammas, betas = own._modulation(len(x), t, c)
        h: Any = own.enter(x)
        layers: list[Any] = list(zip(own.up, own.down, strict=True))
        for layer, (up, down) in enumerate(layers):
            u = up(h)
            if gammas is not None:
                u = u * gammas[layer]
            if betas is not None:
                u = u + betas[layer]
            h = torch.addmm(h, own.activation(u), down.weight.T)
        out: Tensor = own.leave(own.activation(h))
        return out
