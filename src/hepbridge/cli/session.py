"""What the global options chose, and the only two ways in which a command speaks."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hepbridge.core.errors import OutputError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Session"]

_WIDTH = 160  # of tables that go into a file or a pipe


@dataclass(frozen=True)
class Session:
    """The global options. A command answers through `result` and says all else by `note`."""

    quiet: bool = False
    json: bool = False
    debug: bool = False

    def configure(self) -> None:
        """Send log records to standard error and switch progress bars on or off."""
        from hepbridge.core.progress import set_quiet

        set_quiet(self.quiet)
        logging.captureWarnings(True)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter())
        level = logging.DEBUG if self.debug else logging.WARNING if self.quiet else logging.INFO
        for name in ("hepbridge", "py.warnings"):
            logger = logging.getLogger(name)
            logger.handlers = [handler]
            logger.setLevel(level)

    def note(self, words: str) -> None:
        """A remark for a person, on standard error; silent with ``--quiet``."""
        if not self.quiet:
            typer.echo(words, err=True)

    def result(self, record: Mapping[str, Any], words: RenderableType) -> None:
        """The answer, on standard output: ``words``, or with ``--json`` the ``record``.

        Raises OutputError if that cannot be written; it names what the command did write.
        """
        try:
            self._print(record, words)
        except OutputError as error:
            done = record.get("output", record.get("report"))
            raise OutputError(f"{error} (but {done} is complete)" if done else error) from error

    def _print(self, record: Mapping[str, Any], words: RenderableType) -> None:
        if self.json:
            typer.echo(json.dumps(_plain(record), allow_nan=False, ensure_ascii=False))
        elif isinstance(words, str):
            typer.echo(words)
        else:
            from rich.console import Console

            Console(width=None if sys.stdout.isatty() else _WIDTH).print(words)


class _Formatter(logging.Formatter):
    """``warning: text`` for a warning, the bare text for information."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"


def _plain(value: Any) -> Any:
    """JSON: paths as text, NumPy numbers and arrays as numbers, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form")
