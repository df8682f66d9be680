"""Conditions in a graph: inside which range they are, and brought into it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Spans", "clamped", "flags"]

Spans = Mapping[str, tuple[float, float]]
"""Name of a condition -> the least and the largest value."""


def flags(conditions: Mapping[str, Tensor], limits: Spans) -> Tensor:
    """Which rows (N,) have a condition (N,) outside its limits."""
    outside = None
    for name, span in limits.items():
        value = _in_turn(name, conditions[name], span)
        beyond = torch.logical_or(value < span[0], value > span[1])
        outside = beyond if outside is None else torch.logical_or(outside, beyond)
    assert outside is not None
    return outside


def clamped(conditions: Mapping[str, Tensor], spans: Spans) -> dict[str, Tensor]:
    """Conditions (N,) with those beyond their range at its nearest end."""
    inside = {n: _in_turn(n, conditions[n], span).clamp(*span) for n, span in spans.items()}
    return {**conditions, **inside}


def _in_turn(name: str, value: Tensor, span: tuple[float, float]) -> Tensor:
    """An azimuth may be written with any number of turns: it is brought nearest to its range."""
    if name != "phi_rad":
        return value
    first = 0.5 * (span[0] + span[1]) - math.pi
    return value - (2 * math.pi) * torch.floor((value - first) * (0.5 / math.pi))
