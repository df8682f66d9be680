"""Named conditions as the columns that a network sees."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from hepbridge.core.protocols import Conditions

__all__ = ["joined"]


def joined(conditions: Conditions, names: Iterable[str]) -> Tensor | None:
    """The columns (N, k) of the named conditions, one after another; None if there are none."""
    named = [conditions[name] for name in names]
    return torch.cat(named, dim=1) if named else None
