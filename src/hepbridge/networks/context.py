"""What a network is told besides its input: time and conditions, as one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hepbridge.networks.embeddings import SinusoidalEmbedding

__all__ = ["Context"]


class Context(nn.Module):
    r"""The code :math:`e = \mathrm{SiLU}(E\,[\tau(t), c])` of a time and conditions.

    :math:`\tau` is a `SinusoidalEmbedding`. With neither time nor conditions e is a learned constant.

    Args:
        conditions_dim: columns of c; 0 for none.
        embedding: columns of the time embedding (``time``) and of e.
        time: whether there is a time.
        max_frequency: of the time embedding, in turns.

    Shapes: t (N,), (N, 1) or a scalar, c (N, conditions_dim) -> (N, embedding), or (1, embedding) if
    all rows have the same e. Raises ValueError if one of the two is missing.
    """

    def __init__(
        self,
        conditions_dim: int,
        embedding: int = 64,
        *,
        time: bool = True,
        max_frequency: float = 16.0,
    ) -> None:
        super().__init__()
        self.conditions_dim = conditions_dim
        self.time = SinusoidalEmbedding(embedding, max_frequency) if time else None
        columns = conditions_dim + (embedding if time else 0)
        self.embed = nn.Linear(columns, embedding) if columns else None
        self.constant = None if columns else nn.Parameter(torch.zeros(1, embedding))

    def forward(self, t: Tensor | None, c: Tensor | None) -> Tensor:
        if self.constant is not None:
            return nn.functional.silu(self.constant)
        assert self.embed is not None
        parts = []
        if self.time is not None:
            if t is None:
                raise ValueError("this network needs the time t")
            parts.append(self.time(t.to(self.embed.weight.dtype)))
        if self.conditions_dim:
            if c is None:
                raise ValueError(f"this network needs conditions of {self.conditions_dim} columns")
            parts = [*(code.expand(len(c), -1) for code in parts), c]
        return nn.functional.silu(self.embed(torch.cat(parts, dim=1)))
