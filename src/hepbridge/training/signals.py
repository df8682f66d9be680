"""Ask a training to end: the signal is noted, the loop finishes its step and saves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["StopRequest", "stop_on_signals"]

_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")  # batch systems send the first or the last


class StopRequest:
    """``name`` of the signal that arrived, or None."""

    name: str | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Inside the block SIGTERM, SIGINT and SIGUSR1 only leave a note; a second one acts as usual.

    Outside the main thread signals cannot be caught and the request stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        request.name = signal.Signals(number).name
        signal.signal(number, previous[number])

    for name in _NAMES:
        if hasattr(signal, name):  # SIGUSR1 does not exist on Windows
            number = getattr(signal, name)
            previous[number] = signal.signal(number, note) or signal.SIG_DFL
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
