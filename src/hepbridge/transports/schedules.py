"""Step sizes of discretised diffusions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError

__all__ = ["gamma_schedule"]


def gamma_schedule(
    kind: str, steps: int, gamma: float, gamma_min: float | None = None
) -> NDArray[np.float64]:
    """Step sizes gamma_1 … gamma_K (K = ``steps``) of a chain with noise variance 2 gamma_k each.

    ``flat``: all equal ``gamma``, as in SQuIRELS. ``triangular``: up from ``gamma_min`` (by default
    gamma / 10) at both ends to ``gamma`` in the middle, as in De Bortoli et al.: small steps where
    the distributions have their finest structure, and little noise in the last step, which
    sampling leaves out.

    Raises ConfigError for an unknown kind, less than one step, or sizes that are not positive.
    """
    low = gamma / 10 if gamma_min is None else gamma_min
    if steps < 1 or gamma <= 0 or low <= 0:
        raise ConfigError(
            f"a gamma schedule needs steps >= 1 and positive sizes; got steps {steps}, "
            f"gamma {gamma}, gamma_min {low}"
        )
    if kind == "flat":
        return np.full(steps, float(gamma))
    if kind == "triangular":
        rise = np.linspace(low, gamma, (steps + 1) // 2)
        return np.concatenate([rise, rise[: steps // 2][::-1]])
    raise ConfigError(f"unknown gamma schedule {kind!r}; allowed: flat, triangular")
