"""Samples one after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hepbridge.core.errors import DataError
from hepbridge.data.showers import Showers

__all__ = ["join"]


def join(parts: Sequence[Showers], names: Sequence[str] | None = None) -> Showers:
    """The showers of all parts, in order, each with its own event ids.

    Raises DataError if the parts do not describe the same detector and the same conditions.
    Columns that not every part has are dropped; provenance is that which all parts agree on.
    """
    if not parts:
        raise DataError("no samples to join")
    first = parts[0]
    names = [f"sample {k}" for k in range(len(parts))] if names is None else names
    if len(parts) == 1:
        return first
    for part, name in zip(parts[1:], names[1:], strict=True):
        if part.geometry.digest() != first.geometry.digest():
            raise DataError(
                f"{names[0]} and {name} cannot be joined: their geometries differ "
                f"({first.geometry.name!r} and {part.geometry.name!r})"
            )
        if set(part.conditions) != set(first.conditions):
            raise DataError(
                f"{names[0]} and {name} cannot be joined: their conditions differ "
                f"({', '.join(first.conditions)} and {', '.join(part.conditions)})"
            )
    shared = [k for k in first.columns if all(k in part.columns for part in parts)]
    weighted = any(part.weights is not None for part in parts)
    return Showers(
        cells=np.concatenate([part.cells for part in parts]),
        conditions={
            k: np.concatenate([part.conditions[k] for part in parts]) for k in first.conditions
        },
        geometry=first.geometry,
        event_ids=np.concatenate([part.event_ids for part in parts]),
        weights=np.concatenate([np.ones(len(p)) if p.weights is None else p.weights for p in parts])
        if weighted
        else None,
        columns={k: np.concatenate([part.columns[k] for part in parts]) for k in shared},
        meta={
            k: v
            for k, v in first.meta.items()
            if all(str(part.meta.get(k)) == str(v) for part in parts)
        },
    )
