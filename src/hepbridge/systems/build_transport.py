"""The transport of a system: a registered one, with the options that follow from the coordinates."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from hepbridge.core.errors import ConfigError
from hepbridge.transports import TRANSPORTS
from hepbridge.transports.options import known_options

__all__ = ["build_transport"]


def build_transport(
    name: str,
    options: dict[str, Any],
    n_cells: int,
    dim: int,
    condition_dims: dict[str, int],
    sum_weight: float,
) -> nn.Module:
    """A transport between coordinates of showers: ``n_cells`` cells, then their sums.

    Its options ``lead``, ``carried`` and ``weights``, if it has them, are those of the coordinates
    unless given: the sums lead, the last of them is carried, the others weigh ``sum_weight``.

    Raises ConfigError for options that it does not have or allow.
    """
    options = _with_defaults(name, options, n_cells, dim, sum_weight)
    try:
        built: nn.Module = TRANSPORTS[name](dim, condition_dims, **options)
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise ConfigError(f"model.options for transport {name!r}: {error}") from error
    return built


def _with_defaults(
    name: str, options: dict[str, Any], n_cells: int, dim: int, sum_weight: float
) -> dict[str, Any]:
    """The options of a transport, and those that follow from the coordinates, if it has them."""
    known = inspect.signature(TRANSPORTS[name]).parameters
    sums = dim - n_cells
    defaults: dict[str, Any] = {
        "lead": sums,
        "carried": 1,
        "weights": [1.0] * n_cells + [sum_weight] * (sums - 1),
    }
    known_options(f"transport {name!r}", TRANSPORTS[name], options)
    out: dict[str, Any] = {key: value for key, value in defaults.items() if key in known} | options
    if "teacher" in known:
        teacher = out.get("teacher", known["teacher"].default)
        own = out.get("teacher_options") or {}
        out["teacher_options"] = _with_defaults(teacher, own, n_cells, dim, sum_weight)
    return out
