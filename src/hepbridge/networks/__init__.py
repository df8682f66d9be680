"""Neural networks without a word of physics: layers, embeddings, random numbers on the device.

Those of `NETWORKS` can stand for each other: one line here per network. Each is made by

    ``Network(dim_in, dim_out, conditions_dim, width, depth, *, time, embedding, max_frequency, …)``

with options of its own behind, and is a function f(x, t, c) of x (N, dim_in), t (N,), (N, 1) or a
scalar, and c (N, conditions_dim), whose output (N, dim_out) is zero at the start.
"""

from __future__ import annotations

from hepbridge.core.registry import Registry
from hepbridge.networks.embeddings import SinusoidalEmbedding
from hepbridge.networks.mlp import ResidualMLP

__all__ = ["NETWORKS", "ResidualMLP", "SinusoidalEmbedding"]

NETWORKS = Registry(
    "network",
    {
        "mlp": "hepbridge.networks.mlp:ResidualMLP",
        "unet": "hepbridge.networks.cylinder_unet:CylinderUNet",
        "transformer": "hepbridge.networks.layer_transformer:LayerTransformer",
    },
)
