"""Standard output that fails with one message, and signals that end with one."""

from __future__ import annotations

import io
import signal
import sys
from types import FrameType
from typing import Any

from hepbridge.core.errors import OutputError

__all__ = ["guard_output", "interrupt_on_sigterm"]


class _Output(io.FileIO):
    """The file below standard output: after its first failure it swallows everything.

    So the failure is reported once, not again by what else is printed or when Python exits.
    """

    failed = False

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        if self.failed:
            return len(view)
        try:
            return super().write(view) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            self.failed = True
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"cannot write to standard output: {reason}") from error


def guard_output() -> None:
    """Make a failure to write to standard output (a full disk) an OutputError."""
    old = sys.stdout
    buffer = getattr(old, "buffer", None)
    if not isinstance(getattr(buffer, "raw", buffer), io.FileIO):
        return  # a console of Windows, or no file at all
    old.flush()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(old.fileno(), "w", closefd=False)),
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=old.isatty(),
    )


def interrupt_on_sigterm() -> None:
    """Let SIGTERM, and SIGUSR1 which batch systems send before a limit, end a command as Ctrl-C does:
    temporary files go, and one line says so."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):  # SIGUSR1 does not exist on Windows
            signal.signal(getattr(signal, name), interrupt)
