"""U-Net on a regular grid whose middle axis may be a circle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from hepbridge.networks.context import Context

__all__ = ["CylinderConv", "CylinderUNet"]

_MOST_CHANNELS = 128


class CylinderConv(nn.Module):
    """Convolution in three dimensions that keeps the grid; the middle axis is padded with itself.

    The kernel has three cells along each axis, one along an axis of one cell. Beyond the two other
    ends, and with ``periodic=False`` all ends, are zeros.

    Args:
        channels_in, channels_out: of the grid.
        shape: cells along the three axes, of the input.
        periodic: whether the middle axis is a circle.
        stride: of every axis; an axis of n cells has ceil(n / stride) afterwards.

    Shapes: (N, channels_in, n_0, n_1, n_2) -> (N, channels_out, n'_0, n'_1, n'_2).
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        shape: Sequence[int],
        *,
        periodic: bool = True,
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        a, b, c = (3 if n > 1 else 1 for n in shape)
        self.wraps = periodic and b > 1
        padding = (a // 2, 0 if self.wraps else b // 2, c // 2)
        self.conv = nn.Conv3d(channels_in, channels_out, (a, b, c), stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        if self.wraps:
            x = torch.cat([x[..., -1:, :], x, x[..., :1, :]], dim=3)
        return self.conv(x)


class CylinderUNet(nn.Module):
    r"""A network f(x, t, c) of residual convolutions on two levels; the output is zero at the start.

    .. math:: h \leftarrow h + V\,\sigma\bigl((1 + \gamma(e))\, U\,\sigma(h) + \beta(e)\bigr)

    with convolutions U, V (`CylinderConv`), SiLU, and :math:`\gamma, \beta` linear in the code e of
    time and conditions (`Context`), one number per channel. ``depth`` such blocks on the grid, as
    many on the coarse one, and as many again on the grid, after the input of the coarse level has
    been joined to its output. The coarse grid has half the cells along every axis but a circle, and
    twice the channels; it is brought back by repeating its cells. Two constant channels, three
    without a circle, say where along the open axes a cell is, from -1 to 1.

    With ``periodic`` a rotation by any number of cells commutes with the network, exactly: the
    circle is never coarsened.

    Args:
        dim_in, dim_out: columns of x and of the output: channels times cells, channel by channel,
            cells row-major.
        conditions_dim: columns of c; 0 for none.
        width: channels, at most 128; 8 to 32 on a CPU.
        depth: residual blocks of each of the three stretches.
        time, embedding, max_frequency: of the code of time and conditions.
        shape: cells along the three axes, for instance (layers, azimuth, radius) with ``periodic``,
            (layers, x, y) without.
        periodic: whether the middle axis is a circle.
        zero_init: start from zero.

    Shapes: x (N, dim_in), t (N,), (N, 1) or a scalar, c (N, conditions_dim) -> (N, dim_out).

    Raises ValueError for sizes that do not fit together.

    Source: Ronneberger et al., arXiv:1505.04597; cylindrical convolutions and constant channels
    after CaloDiffusion, arXiv:2308.03876.
    """

    coordinates: Tensor

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        conditions_dim: int = 0,
        width: int = 16,
        depth: int = 1,
        *,
        time: bool = True,
        embedding: int = 64,
        max_frequency: float = 16.0,
        shape: Sequence[int],
        periodic: bool = True,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        self.shape = _checked(shape, dim_in, dim_out)
        if not 1 <= width <= _MOST_CHANNELS or depth < 1:
            raise ValueError(
                f"a U-Net has 1 to {_MOST_CHANNELS} channels (width) and at least one block (depth), "
                f"not {width} and {depth}"
            )
        open_axes = [0, 2] if periodic else [0, 1, 2]
        a, b, c = (2 if k in open_axes and n > 1 else 1 for k, n in enumerate(self.shape))
        stride = (a, b, c)
        coarse = [-(-n // s) for n, s in zip(self.shape, stride, strict=True)]
        self.stretched = [k for k in range(3) if stride[k] > 1]
        for k in self.stretched:
            self.register_buffer(f"back_{k}", torch.arange(self.shape[k]) // 2, persistent=False)
        places = torch.meshgrid(*(_places(n) for n in self.shape), indexing="ij")
        where = torch.stack([places[k] for k in open_axes])[None]
        self.register_buffer("coordinates", where, persistent=False)

        def convolution(n_in: int, n_out: int) -> CylinderConv:
            return CylinderConv(n_in, n_out, self.shape, periodic=periodic)

        def blocks(channels: int, grid: Sequence[int]) -> nn.ModuleList:
            return nn.ModuleList(_Block(channels, grid, periodic, embedding) for _ in range(depth))

        cells = self.shape[0] * self.shape[1] * self.shape[2]
        self.context = Context(conditions_dim, embedding, time=time, max_frequency=max_frequency)
        self.enter = convolution(dim_in // cells + len(open_axes), width)
        self.down = blocks(width, self.shape)
        self.shrink = CylinderConv(width, 2 * width, self.shape, periodic=periodic, stride=stride)
        self.middle = blocks(2 * width, coarse)
        self.join = nn.Conv3d(3 * width, width, 1)
        self.up = blocks(width, self.shape)
        self.leave = nn.Conv3d(width, dim_out // cells, 1)
        if zero_init:
            for parameter in self.leave.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor | None = None, c: Tensor | None = None) -> Tensor:
        """The output (N, dim_out); ``t`` and ``c`` as the constructor declared them."""
        e = self.context(t, c)
        where = self.coordinates.expand(len(x), -1, -1, -1, -1)
        h = self.enter(torch.cat([x.reshape(len(x), -1, *self.shape), where], dim=1))
        for block in self.down:
            h = block(h, e)
        low = self.shrink(silu(h))
        for block in self.middle:
            low = block(low, e)
        for k in self.stretched:
            low = low.index_select(2 + k, self.get_buffer(f"back_{k}"))
        h = self.join(torch.cat([h, low], dim=1))
        for block in self.up:
            h = block(h, e)
        return self.leave(silu(h)).reshape(len(x), -1)


class _Block(nn.Module):
    """Two convolutions beside the identity, with the code of time and conditions between them."""

    def __init__(self, channels: int, shape: Sequence[int], periodic: bool, embedding: int) -> None:
        super().__init__()
        self.first = CylinderConv(channels, channels, shape, periodic=periodic)
        self.second = CylinderConv(channels, channels, shape, periodic=periodic)
        self.film = nn.Linear(embedding, 2 * channels)
        with torch.no_grad():
            self.film.weight[:channels].zero_()
            self.film.bias[:channels].zero_()

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        gamma, beta = self.film(e)[:, :, None, None, None].chunk(2, dim=1)
        u = self.first(silu(h))
        return h + self.second(silu(u + u * gamma + beta))


def _places(n: int) -> Tensor:
    """The n places of an axis, from -1 to 1; of a single one 0."""
    return torch.linspace(-1.0, 1.0, n) if n > 1 else torch.zeros(1)


def _checked(shape: Sequence[int], dim_in: int, dim_out: int) -> tuple[int, int, int]:
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"the shape of a grid is three whole numbers above 0, not {shape!r}")
    cells = shape[0] * shape[1] * shape[2]
    if dim_in % cells or dim_out % cells:
        raise ValueError(
            f"a grid of shape {tuple(shape)} has {cells} cells; {dim_in} columns in and {dim_out} "
            "out must be multiples of that"
        )
    return shape[0], shape[1], shape[2]
