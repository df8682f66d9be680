"""Checks of options that many transports have: a wrong one is a sentence, not a traceback later."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hepbridge.core.errors import ConfigError

__all__ = ["MOST", "known_options", "positive_weights", "some_carried", "whole_numbers"]

MOST = 10_000_000  # of anything countable: beyond it is a typing error or a hostile file


def known_options(what: str, method: Callable[..., Any], options: Mapping[str, object]) -> None:
    """Raise ConfigError unless all options are keywords of ``method``; ``what`` names it."""
    keywords = inspect.signature(method).parameters.values()
    if any(keyword.kind is keyword.VAR_KEYWORD for keyword in keywords):
        return
    allowed = [keyword.name for keyword in keywords if keyword.kind is keyword.KEYWORD_ONLY]
    for name in options:
        if name not in allowed:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ConfigError(
                f"{what} has no option {name!r}{hint} Allowed: {', '.join(allowed) or 'none'}"
            )


def whole_numbers(
    method: str, values: Mapping[str, object], *, least: int = 1, most: int = MOST
) -> None:
    """Raise ConfigError unless all values are whole numbers from ``least`` to ``most``."""
    for name, value in values.items():
        if not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(
                f"{method}: {name} must be a whole number from {least} to {most}, got {value!r}"
            )


def some_carried(method: str, carried: int, dim: int) -> None:
    """Raise ConfigError unless at least one of ``dim`` coordinates is not carried."""
    if not 0 <= carried < dim:
        raise ConfigError(f"{method}: carried must be from 0 to {dim - 1}, got {carried}")


def positive_weights(method: str, weights: Sequence[float] | None, count: int) -> list[float]:
    """The weights, default 1 each. Raises ConfigError unless they are ``count`` positive numbers."""
    out = [1.0] * count if weights is None else list(weights)
    if len(out) != count or min(out) <= 0:
        raise ConfigError(f"{method}: weights must be {count} positive numbers, got {out}")
    return out
