"""Fully connected network with one encoder each for the point, the time and the conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hepbridge.networks.embeddings import SinusoidalEmbedding

__all__ = ["EncoderMLP", "dense"]


def dense(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers ``sizes[0] -> sizes[1] -> …`` with LeakyReLU(0.01) between, none at the end."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers[:-1])


class EncoderMLP(nn.Module):
    """Vector field ``v(x, t | conditions)`` from three encoders and a decoder.

        v = decoder([encoder_x(x), encoder_t(sin, cos of t), encoder_c(conditions), skip])

    The conditions enter by name, in alphabetical order, whatever the order of the mapping.
    ``skip`` is the extra copy of the point that the decoder sees; it is ``x`` unless given.

    Args:
        dim: dimension d of the point.
        condition_dims: width of every named condition; without any there is no third encoder.
        encoder: layer widths of each encoder; the last is the width of what is concatenated.
        decoder: hidden layer widths of the decoder.
        embedding: width of the sinusoidal time embedding.
        zero_init: start from ``v = 0``, so that the untrained field moves nothing.

    Shapes: x (N, d), t (N,) or (1,) in [0, 1], conditions (N, k) each, result (N, d).

    Source: SQuIRELS-E, arXiv:2308.12339, section IV; encoders (256, 256, 128), decoder (256, 256).
    """

    def __init__(
        self,
        dim: int,
        condition_dims: Mapping[str, int] | None = None,
        *,
        encoder: Sequence[int] = (256, 256, 128),
        decoder: Sequence[int] = (256, 256),
        embedding: int = 128,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        dims = dict(condition_dims or {})
        self.condition_names = sorted(dims)
        self.embed = SinusoidalEmbedding(embedding)
        self.encode_x = dense([dim, *encoder])
        self.encode_t = dense([embedding, *encoder])
        self.encode_c = dense([sum(dims.values()), *encoder]) if dims else None
        width = encoder[-1] * (3 if dims else 2) + dim
        self.decode = dense([width, *decoder, dim])
        if zero_init:
            for parameter in self.decode[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, t: Tensor, conditions: Mapping[str, Tensor], skip: Tensor | None = None
    ) -> Tensor:
        code = self.encode_t(self.embed(t))
        parts = [self.encode_x(x), code.expand(len(x), -1)]
        if self.encode_c is not None:
            parts.append(self.encode_c(torch.cat([conditions[n] for n in self.condition_names], 1)))
        return self.decode(torch.cat([*parts, x if skip is None else skip], 1))
