"""Covariances of many coordinates, taken out and put back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SecondMoments"]

_NODES = 16
_LEAST = 1500  # rows at a node, at least
_NEVER = 1e30  # an edge that no condition reaches
_DEGREE = 2  # of the smoothing over nodes


class SecondMoments(nn.Module):
    r"""Whiten coordinates v at a condition c.

    .. math:: w = \Sigma(c)^{-1/2} (v - m(c))

    with the symmetric root, which moves least. Mean and covariance are taken at up to 16 quantiles of c,
    smoothed over them by parabolas, and constant between the middles of two.

    Args:
        dim: number of coordinates v.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.edges: Tensor
        self.mean: Tensor
        self.root: Tensor
        self.whitener: Tensor
        self.register_buffer("edges", torch.full((_NODES - 1,), _NEVER))
        self.register_buffer("mean", torch.zeros(_NODES, dim))
        self.register_buffer("root", torch.eye(dim).repeat(_NODES, 1, 1))
        self.register_buffer("whitener", torch.eye(dim).repeat(_NODES, 1, 1))

    @torch.no_grad()
    def fit(self, v: Tensor, c: Tensor, images: Tensor) -> None:
        """Learn from rows v (N, dim) at c (N,); moments are means over symmetries ``images`` (g, dim)."""
        v = v.double()
        windows = torch.argsort(c, stable=True).tensor_split(min(_NODES, max(1, len(c) // _LEAST)))
        at = torch.stack([c[rows].double().mean() for rows in windows])
        found = [_moments(v[rows], images) for rows in windows]
        mean = _smooth(at, torch.stack([m for m, _ in found]))
        covariance = _smooth(at, torch.stack([s.reshape(-1) for _, s in found])).reshape(
            len(at), v.shape[1], v.shape[1]
        )
        values, vectors = torch.linalg.eigh(covariance)
        size = values.clamp_min(1e-3).sqrt()
        self.edges.fill_(_NEVER)
        self.edges[: len(at) - 1] = (at[1:] + at[:-1]) / 2
        for buffer, scale in ((self.root, size), (self.whitener, 1 / size)):
            buffer[: len(at)] = (vectors * scale[:, None]) @ vectors.mT
        self.mean[: len(at)] = mean

    def forward(self, v: Tensor, c: Tensor) -> Tensor:
        """w (N, dim) of v (N, dim) at c (N,)."""
        node = self._node(c)
        return _product(self.whitener.index_select(0, node), v - self.mean.index_select(0, node))

    def inverse(self, w: Tensor, c: Tensor) -> Tensor:
        """v (N, dim)."""
        node = self._node(c)
        return _product(self.root.index_select(0, node), w) + self.mean.index_select(0, node)

    def _node(self, c: Tensor) -> Tensor:
        return (c[:, None] > self.edges).sum(dim=1)


def _product(matrices: Tensor, rows: Tensor) -> Tensor:
    return (matrices * rows[:, None, :]).sum(dim=2)


def _moments(v: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance over all images, correlations shrunk by d / (d + N g)."""
    d = v.shape[1]
    centred = v - v.mean(dim=0)
    covariance = centred.T @ centred / len(v)
    covariance = torch.stack([covariance[image][:, image] for image in images]).mean(dim=0)
    shrunk = covariance * (len(v) * len(images) / (len(v) * len(images) + d))
    shrunk.diagonal().copy_(covariance.diagonal())
    return v.mean(dim=0)[images].mean(dim=0), shrunk


def _smooth(at: Tensor, values: Tensor) -> Tensor:
    """Values (nodes, k) replaced by parabolas in ``at`` (nodes,)."""
    x = (at - at.mean()) / (at.std() if len(at) > 1 else 1.0)
    powers = torch.stack([x**k for k in range(min(_DEGREE + 1, len(at)))], dim=1)
    return powers @ (torch.linalg.pinv(powers) @ values)
