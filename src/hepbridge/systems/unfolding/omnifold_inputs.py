"""What OmniFold is given, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from hepbridge.core.errors import DataError

__all__ = ["Floats", "Mask", "Simulation", "matrix", "vector"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Simulation:
    """Simulated events: both levels (N, d) and (N, d'), which of the masks (N,) holds for each, weights (N,)."""

    particle: Tensor
    detector: Tensor
    pairs: Mask
    misses: Mask
    fakes: Mask
    weights: Floats

    @classmethod
    def of(
        cls,
        particle: Tensor | NDArray[Any],
        detector: Tensor | NDArray[Any],
        pairs: Mask | None,
        misses: Mask | None,
        fakes: Mask | None,
        weights: ArrayLike | None,
    ) -> Simulation:
        """Checked, with all that is left out filled in: pairs of weight 1. Raises DataError."""
        n = len(particle)
        everything = pairs is None and misses is None and fakes is None
        paired = _mask("pairs", pairs, n, default=everything)
        missed = _mask("misses", misses, n, default=False)
        faked = _mask("fakes", fakes, n, default=False)
        if not paired.any() or (paired & (missed | faked)).any():
            raise DataError(
                f"{paired.sum()} of {n} simulated events are pairs, and "
                f"{(paired & (missed | faked)).sum()} of them are misses or fakes as well; there "
                "must be pairs, and they can be neither"
            )
        w = vector("weights", weights, n)
        if (w < 0).any():
            raise DataError(
                f"{(w < 0).sum()} of {n} simulated events have negative weights; OmniFold needs "
                "a simulation without (only the data may have negative weights)"
            )
        return cls(
            matrix("particle", particle, paired | missed),
            matrix("detector", detector, paired | faked),
            paired,
            missed,
            faked,
            w,
        )


def _mask(name: str, mask: Mask | None, n: int, *, default: bool) -> Mask:
    if mask is None:
        return np.full(n, default)
    out = np.asarray(mask)
    if out.shape != (n,) or out.dtype != np.bool_:
        raise DataError(f"{name} is {out.dtype} {out.shape}; it must be bool ({n},)")
    return out


def vector(name: str, values: ArrayLike | None, n: int) -> Floats:
    """Finite numbers (n,), 1 by default. Raises DataError."""
    out = np.ones(n) if values is None else np.asarray(values, dtype=np.float64)
    if out.shape != (n,) or not np.isfinite(out).all():
        raise DataError(f"{name} must be {n} finite numbers, got shape {out.shape}")
    return out


def matrix(name: str, values: Tensor | NDArray[Any], used: Mask | None = None) -> Tensor:
    """The rows (N, d), float32, finite where used and zero elsewhere. Raises DataError."""
    out = torch.as_tensor(values).float()
    if out.ndim != 2 or (used is not None and len(out) != len(used)):
        expected = "(rows, columns)" if used is None else f"({len(used)}, columns)"
        raise DataError(f"{name} has the shape {tuple(out.shape)}; needed is {expected}")
    rows = torch.ones(len(out), dtype=torch.bool) if used is None else torch.from_numpy(used)
    bad = int((~torch.isfinite(out[rows]).all(dim=1)).sum())
    if bad:
        raise DataError(f"{bad} of {int(rows.sum())} rows of {name} hold NaN or infinity")
    return torch.where(rows[:, None], out, 0.0)
