"""Convolutional encoder and decoder that keep the size of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hepbridge.networks.embeddings import SinusoidalEmbedding
from hepbridge.networks.encoder_mlp import dense

__all__ = ["ConvNet"]


class ConvNet(nn.Module):
    """Vector field on an image ``v(x, t | conditions)``: four 3x3 convolutions in, four out.

        v = decoder([encoder(x), time code, skip, conditions])

    The time code and the conditions are numbers per image, broadcast to every pixel; the
    conditions enter by name, in alphabetical order. LeakyReLU(0.01) between the layers, none at
    the end of encoder and decoder. ``skip`` is the extra copy of the image that the decoder sees;
    it is ``x`` unless given. The zero padding tells the network where the edges are.

    Args:
        shape: (height, width) of the image; points are its flattened pixels, row-major.
        condition_dims: width of every named condition.
        channels: filters of every hidden convolution.
        layers: convolutions in the encoder, and as many in the decoder.
        time_encoder: hidden widths of the dense network that makes the time code.
        embedding: width of the sinusoidal time embedding.
        bias: whether the convolutions have a bias.
        zero_init: start from ``v = 0``.

    Shapes: x (N, height * width), t (N,) or (1,) in [0, 1], conditions (N, k) each, result as x.

    Source: SQuIRELS, arXiv:2308.12339, section IV; 32 channels, no bias.
    """

    def __init__(
        self,
        shape: Sequence[int],
        condition_dims: Mapping[str, int] | None = None,
        *,
        channels: int = 32,
        layers: int = 4,
        time_encoder: Sequence[int] = (256, 256),
        embedding: int = 128,
        bias: bool = True,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        dims = dict(condition_dims or {})
        self.shape = tuple(shape)
        self.condition_names = sorted(dims)
        self.embed = SinusoidalEmbedding(embedding)
        self.encode_t = dense([embedding, *time_encoder, channels])
        self.encode_x = _convolutions([1] + [channels] * layers, bias)
        width = 2 * channels + 1 + sum(dims.values())
        self.decode = _convolutions([width] + [channels] * (layers - 1) + [1], bias)
        if zero_init:
            for parameter in self.decode[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, x: Tensor, t: Tensor, conditions: Mapping[str, Tensor], skip: Tensor | None = None
    ) -> Tensor:
        # channels_last: about 1.5 times faster on a CPU, and the same numbers.
        image = x.reshape(-1, 1, *self.shape).contiguous(memory_format=torch.channels_last)
        other = image if skip is None else skip.reshape(-1, 1, *self.shape)
        code = self.encode_t(self.embed(t)).expand(len(x), -1)
        flat = torch.cat([code, *(conditions[n] for n in self.condition_names)], 1)
        planes = flat[:, :, None, None].expand(-1, -1, *self.shape)
        return self.decode(torch.cat([self.encode_x(image), other, planes], 1)).reshape(x.shape)


def _convolutions(channels: Sequence[int], bias: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(channels):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=bias), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers[:-1])
