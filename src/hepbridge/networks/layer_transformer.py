"""Transformer whose tokens are groups of columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hepbridge.networks.context import Context

__all__ = ["LayerTransformer", "attention"]


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    r""":math:`\mathrm{softmax}(q k^T / \sqrt d)\, v`, with all tokens seen by each.

    Shapes: q, k, v (..., tokens, d) -> (..., tokens, d).

    Source: Vaswani et al., arXiv:1706.03762 (eq. 1).
    """
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return torch.softmax(scores, dim=-1) @ v


class LayerTransformer(nn.Module):
    r"""A network f(x, t, c) that sees x as a row of layers; the output is zero at the start.

    Each layer, a group of consecutive columns, is a token: a linear map to ``width`` columns plus a
    learned position. Layers of equal size share their linear maps, into the network and out of it.
    Then ``depth`` blocks (adaLN-zero)

    .. math:: h &\leftarrow h + \alpha_1\, A\bigl((1 + \gamma_1)\, n(h) + \beta_1\bigr) \\
              h &\leftarrow h + \alpha_2\, M\bigl((1 + \gamma_2)\, n(h) + \beta_2\bigr)

    with attention A over all layers (several heads), a network M of one hidden layer (GELU), n
    LayerNorm without weights, and all :math:`\alpha, \beta, \gamma` linear in the code e of time and
    conditions (`Context`), zero at the start: a block begins as the identity.

    Args:
        dim_in, dim_out: columns of x and of the output: multiples of the sum of ``layers``. With
            more than one multiple all of one come first, then all of the next; a token holds its
            part of each.
        conditions_dim: columns of c; 0 for none.
        width, depth: columns of a token, and blocks.
        time, embedding, max_frequency: of the code of time and conditions.
        layers: columns of each layer, in their order.
        heads: of the attention; ``width`` must be a multiple.
        expansion: hidden columns of M over ``width``.
        zero_init: start from zero.

    Shapes: x (N, dim_in), t (N,), (N, 1) or a scalar, c (N, conditions_dim) -> (N, dim_out).

    Raises ValueError for sizes that do not fit together.

    Source: Peebles & Xie, arXiv:2212.09748 (DiT); for calorimeters arXiv:2405.09629 (CaloDREAM).
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        conditions_dim: int = 0,
        width: int = 64,
        depth: int = 3,
        *,
        time: bool = True,
        embedding: int = 64,
        max_frequency: float = 16.0,
        layers: Sequence[int],
        heads: int = 4,
        expansion: int = 4,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        self.layers = _checked(layers, dim_in, dim_out)
        if min(width, depth, heads, expansion) < 1 or width % heads:
            raise ValueError(
                "a transformer has width, depth, heads and expansion above 0, and a width that is a "
                f"multiple of heads; not {width}, {depth}, {heads} and {expansion}"
            )
        total = sum(self.layers)
        self.copies_in, self.copies_out = dim_in // total, dim_out // total
        sizes = sorted(set(self.layers))
        self.context = Context(conditions_dim, embedding, time=time, max_frequency=max_frequency)
        self.enter = nn.ModuleDict({str(n): nn.Linear(self.copies_in * n, width) for n in sizes})
        self.position = nn.Parameter(0.02 * torch.randn(len(self.layers), width))
        self.blocks = nn.ModuleList(
            _Block(width, heads, expansion, embedding) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = _from_zero(nn.Linear(embedding, 2 * width))
        self.leave = nn.ModuleDict({str(n): nn.Linear(width, self.copies_out * n) for n in sizes})
        if zero_init:
            for parameter in self.leave.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor | None = None, c: Tensor | None = None) -> Tensor:
        """The output (N, dim_out); ``t`` and ``c`` as the constructor declared them."""
        rows = len(x)
        e = self.context(t, c)
        pieces = x.reshape(rows, self.copies_in, -1).split(self.layers, dim=2)
        tokens = [self.enter[str(p.shape[2])](p.reshape(rows, -1)) for p in pieces]
        h = torch.stack(tokens, dim=1) + self.position
        for block in self.blocks:
            h = block(h, e)
        gamma, beta = self.modulate(e)[:, None].chunk(2, dim=2)
        h = self.norm(h) * (1.0 + gamma) + beta
        out = [
            self.leave[str(n)](token).reshape(rows, self.copies_out, n)
            for n, token in zip(self.layers, h.unbind(1), strict=True)
        ]
        return torch.cat(out, dim=2).reshape(rows, -1)


class _Block(nn.Module):
    """Attention, then a network of one hidden layer, each scaled and shifted by the code e."""

    def __init__(self, width: int, heads: int, expansion: int, embedding: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = _from_zero(nn.Linear(embedding, 6 * width))
        self.project = nn.Linear(width, 3 * width)
        self.gather = nn.Linear(width, width)
        self.hidden = nn.Linear(width, expansion * width)
        self.back = nn.Linear(expansion * width, width)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        alpha, beta, gamma, alpha2, beta2, gamma2 = self.modulate(e)[:, None].chunk(6, dim=2)
        h = h + alpha * self._attend(self.norm(h) * (1.0 + gamma) + beta)
        hidden = nn.functional.gelu(self.hidden(self.norm(h) * (1.0 + gamma2) + beta2))
        return h + alpha2 * self.back(hidden)

    def _attend(self, h: Tensor) -> Tensor:
        rows, tokens, width = h.shape
        parts = self.project(h).reshape(rows, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = attention(q, k, v).transpose(1, 2)
        return self.gather(seen.reshape(rows, tokens, width))


def _from_zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _checked(layers: Sequence[int], dim_in: int, dim_out: int) -> list[int]:
    if (
        isinstance(layers, str)
        or not layers
        or not all(isinstance(n, int) and n > 0 for n in layers)
    ):
        raise ValueError(f"layers are whole numbers above 0, one per layer, not {layers!r}")
    total = sum(layers)
    if dim_in % total or dim_out % total:
        raise ValueError(
            f"{len(layers)} layers of together {total} columns do not fit: {dim_in} columns in and "
            f"{dim_out} out must be multiples of that"
        )
    return list(layers)
