"""Embeddings of time and of continuous conditions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["SinusoidalEmbedding"]


class SinusoidalEmbedding(nn.Module):
    r"""Sines and cosines of a time t in [0, 1], from one half-turn up to ``max_frequency`` turns.

    .. math:: e(t) = [\sin(2\pi f_k t), \cos(2\pi f_k t)]_{k=1..d/2}, \qquad
              f_k = \tfrac12 (2 f_{\max})^{(k-1)/(d/2-1)}

    The lowest frequency is monotone over [0, 1] in its cosine, so that the ends differ; the highest
    resolves steps of about ``1 / max_frequency``. The positional code of Vaswani et al. (2017,
    section 3.5) has wavelengths up to 10^4 *positions*; fed with t in [0, 1] almost all of its
    channels are constant, which is why the frequencies are real turns here.

    Shapes: (N,) or (N, 1) -> (N, dim). ``dim`` must be even and at least 4.
    """

    frequencies: Tensor

    def __init__(self, dim: int, max_frequency: float = 16.0) -> None:
        super().__init__()
        if dim < 4 or dim % 2:
            raise ValueError(f"an embedding has an even number of at least 4 channels, not {dim}")
        exponents = torch.linspace(0.0, 1.0, dim // 2, dtype=torch.float64)
        turns = 0.5 * (2.0 * max_frequency) ** exponents
        self.register_buffer("frequencies", (2.0 * math.pi * turns).float(), persistent=False)
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        angle = t.reshape(-1, 1) * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=1)
