r"""Lists of noise levels, from ``sigma_max`` down to ``sigma_min`` and then 0.

Each has ``steps`` levels above 0, so one step between each two and one to 0. A level is
:math:`f^{-1}` of equal steps in some :math:`f(\sigma)`:

- `karras`: :math:`\sigma^{1/\rho}`; most levels where data have their structure.
- `lu`: :math:`\lambda = -\ln\sigma`; the same ratio everywhere.
- `variance_preserving`: the time of the variance-preserving diffusion,
  :math:`\sigma^2 = \exp(\beta_d t^2 / 2 + \beta_{min} t) - 1`.
- `cosine`: the angle :math:`\arctan\sigma`, the time of the cosine schedule. Its offset, which keeps
  the first levels from being too small, is replaced by ``sigma_min``.

The defaults 0.002 and 80 are those of Karras et al.; they fit data of unit variance.

Source: Karras et al., arXiv:2206.00364 (eq. 5 and table 1); Lu et al., arXiv:2211.01095; Nichol &
Dhariwal, arXiv:2102.09672 (cosine).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from hepbridge.core.errors import ConfigError
from hepbridge.core.registry import Registry

__all__ = ["LEVELS", "check_levels", "cosine", "karras", "lu", "variance_preserving"]

LEVELS = Registry(
    "schedule of noise levels",
    {
        "karras": f"{__name__}:karras",
        "lu": f"{__name__}:lu",
        "variance_preserving": f"{__name__}:variance_preserving",
        "cosine": f"{__name__}:cosine",
    },
)

_MIN, _MAX = 0.002, 80.0
_BETA_MIN, _BETA_RISE = 0.1, 19.9


def karras(
    steps: int, sigma_min: float = _MIN, sigma_max: float = _MAX, rho: float = 7.0
) -> list[float]:
    """Equal steps in sigma^(1 / rho). Raises ConfigError as `check_levels` does."""
    return _equal(steps, sigma_min, sigma_max, lambda s: s ** (1 / rho), lambda u: u**rho)


def lu(steps: int, sigma_min: float = _MIN, sigma_max: float = _MAX) -> list[float]:
    """Equal steps in -ln sigma. Raises ConfigError as `check_levels` does."""
    return _equal(steps, sigma_min, sigma_max, lambda s: -math.log(s), lambda u: math.exp(-u))


def variance_preserving(
    steps: int, sigma_min: float = _MIN, sigma_max: float = _MAX
) -> list[float]:
    """Equal steps in time, beta = 0.1 to 20. Raises ConfigError as `check_levels` does."""

    def time(sigma: float) -> float:
        root = math.sqrt(_BETA_MIN**2 + 2 * _BETA_RISE * math.log1p(sigma**2))
        return (root - _BETA_MIN) / _BETA_RISE

    def level(t: float) -> float:
        return math.sqrt(math.expm1(0.5 * _BETA_RISE * t**2 + _BETA_MIN * t))

    return _equal(steps, sigma_min, sigma_max, time, level)


def cosine(steps: int, sigma_min: float = _MIN, sigma_max: float = _MAX) -> list[float]:
    """Equal steps in arctan sigma. Raises ConfigError as `check_levels` does."""
    return _equal(steps, sigma_min, sigma_max, math.atan, math.tan)


def check_levels(sigmas: Sequence[float]) -> None:
    """Raise ConfigError unless at least two finite noise levels decrease to 0."""
    falling = all(a > b for a, b in itertools.pairwise(sigmas))
    if len(sigmas) < 2 or not falling or sigmas[-1] != 0 or math.isinf(sigmas[0]):
        shown = ", ".join(f"{s:g}" for s in sigmas[:6]) + (", …" if len(sigmas) > 6 else "")
        raise ConfigError(
            f"noise levels must be finite and decrease to 0 at the end; got [{shown}]"
        )


def _equal(
    steps: int,
    sigma_min: float,
    sigma_max: float,
    to: Callable[[float], float],
    back: Callable[[float], float],
) -> list[float]:
    if steps < 2 or not 0 < sigma_min < sigma_max < math.inf:
        raise ConfigError(
            "noise levels need steps >= 2 and 0 < sigma_min < sigma_max; got "
            f"steps {steps}, sigma_min {sigma_min}, sigma_max {sigma_max}"
        )
    start, end = to(sigma_max), to(sigma_min)
    between = (back(start + (end - start) * k / (steps - 1)) for k in range(1, steps - 1))
    return [sigma_max, *between, sigma_min, 0.0]
