"""Keeps what compiled libraries print away from standard output, which belongs to the answer of a command."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["native_output_kept"]


@contextmanager
def native_output_kept() -> Iterator[Callable[[], str]]:
    """What compiled code prints to standard output meanwhile; the function reads it."""
    sys.stdout.flush()
    with tempfile.TemporaryFile() as file:

        def text() -> str:
            return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(
                "utf-8", "replace"
            )

        kept = os.dup(1)
        try:
            os.dup2(file.fileno(), 1)
            yield text
        finally:
            os.dup2(kept, 1)
            os.close(kept)
