"""Progress bars (rich), silent with ``--quiet`` or when standard error is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Bar", "progress", "set_quiet"]

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Switch all progress bars of this process off (or on again)."""
    global _quiet
    _quiet = quiet


class Bar:
    """Handle of one running bar; does nothing when bars are off."""

    def __init__(self, bar: object = None, task: object = None) -> None:
        self._bar, self._task = bar, task

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        if self._bar is not None:
            fields = {} if note is None else {"note": note}
            self._bar.update(self._task, advance=amount, **fields)  # type: ignore[attr-defined]


@contextmanager
def progress(title: str, total: float) -> Iterator[Bar]:
    """A bar with title, percentage, remaining time and a note: ``with progress("train", n) as bar``."""
    if _quiet or not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # the remaining time is that of the last 20 minutes: a step may take one of them
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=1200) as bar:
        yield Bar(bar, bar.add_task(title, total=total, note=""))
