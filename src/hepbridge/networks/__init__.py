"""Neural networks without a word of physics: layers, embeddings, random numbers on the device."""

from __future__ import annotations

from hepbridge.networks.embeddings import SinusoidalEmbedding
from hepbridge.networks.mlp import ResidualMLP

__all__ = ["ResidualMLP", "SinusoidalEmbedding"]
