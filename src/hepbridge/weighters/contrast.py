"""What a density ratio is learned from: rows with two weights, numerator and denominator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hepbridge.core.errors import DataError

__all__ = ["Contrast"]


@dataclass(frozen=True)
class Contrast:
    """Rows x (N, d) that stand in the numerator with one weight and in the denominator with another.

    Two samples of different events are rows of which one of the two weights is zero (`between`).
    One sample under two weights (before and after a reweighting) keeps both on every row: where
    they are equal, the loss then says "ratio 1" without any statistical noise.

    Weights are kept in float64, (N,). Those of the numerator may be negative (a subtracted
    background); both totals must be positive. ``conditions``: name -> (N, k).

    Raises DataError for wrong shapes, NaN or infinity, a negative weight in the denominator, or a
    total that is not positive.
    """

    x: Tensor
    numerator: Tensor
    denominator: Tensor
    conditions: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or not len(self.x):
            raise DataError(f"a density ratio needs rows (N, d), got shape {tuple(self.x.shape)}")
        for name, value in {"x": self.x, **self.conditions}.items():
            if len(value) != len(self.x):
                raise DataError(f"{name} has {len(value)} rows, x has {len(self.x)}")
            _finite(name, value)
        for name in ("numerator", "denominator"):
            weights = getattr(self, name).double()
            if weights.shape != (len(self.x),):
                raise DataError(
                    f"weights of the {name}: shape {tuple(weights.shape)}, needed ({len(self.x)},)"
                )
            _finite(f"weights of the {name}", weights)
            if not weights.sum() > 0:
                raise DataError(
                    f"the weights of the {name} of a density ratio add up to {weights.sum():.4g}; "
                    "their total must be positive"
                )
            object.__setattr__(self, name, weights)
        if (self.denominator < 0).any():
            raise DataError(
                f"{int((self.denominator < 0).sum())} weights of the denominator of a density "
                "ratio are negative; only the numerator may have negative weights"
            )

    @classmethod
    def between(
        cls,
        numerator: Tensor,
        denominator: Tensor,
        numerator_weights: Tensor | None = None,
        denominator_weights: Tensor | None = None,
        numerator_conditions: Mapping[str, Tensor] | None = None,
        denominator_conditions: Mapping[str, Tensor] | None = None,
    ) -> Contrast:
        """Two samples (N, d) and (M, d) of different events; weights default to 1."""
        above, below = dict(numerator_conditions or {}), dict(denominator_conditions or {})
        if above.keys() != below.keys():
            raise DataError(
                f"the numerator has the conditions {sorted(above)}, the denominator {sorted(below)}"
            )
        if (
            numerator.ndim != 2
            or denominator.ndim != 2
            or numerator.shape[1:] != denominator.shape[1:]
        ):
            raise DataError(
                f"the samples of a density ratio have the shapes {tuple(numerator.shape)} and "
                f"{tuple(denominator.shape)}; both must be (rows, d) with the same d"
            )
        n, m = len(numerator), len(denominator)
        a = torch.ones(n).double() if numerator_weights is None else numerator_weights.double()
        b = torch.ones(m).double() if denominator_weights is None else denominator_weights.double()
        return cls(
            torch.cat([numerator, denominator]),
            torch.cat([a, torch.zeros(m).double()]),
            torch.cat([torch.zeros(n).double(), b]),
            {name: torch.cat([above[name], below[name]]) for name in above},
        )

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, index: Tensor) -> Contrast:
        """The given rows."""
        return Contrast(
            self.x[index],
            self.numerator[index],
            self.denominator[index],
            {name: value[index] for name, value in self.conditions.items()},
        )


def _finite(name: str, value: Tensor) -> None:
    bad = int((~torch.isfinite(value)).sum())
    if bad:
        raise DataError(f"{bad} values of {name} of a density ratio are NaN or infinite")
