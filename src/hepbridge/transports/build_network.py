"""The network inside a method, by its name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from hepbridge.core.errors import ConfigError
from hepbridge.networks import NETWORKS
from hepbridge.transports.options import known_options

__all__ = ["build_network"]


def build_network(
    method: str,
    name: str,
    options: Mapping[str, Any] | None,
    dim_in: int,
    dim_out: int,
    conditions_dim: int,
    width: int,
    depth: int,
    *,
    time: bool = True,
    **defaults: Any,
) -> nn.Module:
    """A network of `NETWORKS` with the options of its own that the user gives.

    Args:
        method: the transport, for messages.
        name: of the network; ``options``: its own, and those of ``defaults``, which they replace.
        dim_in, dim_out, conditions_dim, width, depth, time: of every network.
        defaults: of the method, for instance ``embedding`` and ``max_frequency``.

    Raises ConfigError for an unknown network, and for options that it does not have, needs and does
    not get, or does not allow.
    """
    network, chosen = NETWORKS[name], dict(options or {})
    what = f"{method}: network {name!r}"
    known_options(what, network, chosen)
    if "time" in chosen:
        raise ConfigError(f"{what}: whether it has a time is for the method to say; leave it out")
    keywords = inspect.signature(network).parameters.values()
    needed = [k.name for k in keywords if k.kind is k.KEYWORD_ONLY and k.default is k.empty]
    missing = [key for key in needed if key not in chosen]
    if missing:
        raise ConfigError(f"{what} needs network_options: {', '.join(missing)}")
    try:
        built: nn.Module = network(
            dim_in, dim_out, conditions_dim, width, depth, time=time, **(defaults | chosen)
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {error}") from error
    return built
