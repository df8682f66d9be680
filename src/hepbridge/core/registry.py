"""Named methods, imported only when used: a name costs one line, a listing costs no import of torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from hepbridge.core.errors import ConfigError

__all__ = ["Registry"]


class Registry:
    """Maps a name to ``"module:attribute"``.

    >>> reg = Registry("number", {"pi": "math:pi"})
    >>> reg["pi"]
    3.141592653589793
    >>> reg["po"]
    Traceback (most recent call last):
        ...
    hepbridge.core.errors.ConfigError: unknown number 'po'; did you mean 'pi'? Available: pi
    """

    def __init__(self, kind: str, entries: dict[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            near = difflib.get_close_matches(name, self._entries, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ConfigError(
                f"unknown {self.kind} {name!r}{hint} Available: {', '.join(self._entries)}"
            )
        module, _, attribute = self._entries[name].partition(":")
        return getattr(import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def register(self, name: str, target: str) -> None:
        """Add a method from outside the package (a plugin): ``target`` is ``"module:attribute"``."""
        if name in self._entries:
            raise ConfigError(
                f"{self.kind} {name!r} is registered already as {self._entries[name]}"
            )
        self._entries[name] = target
