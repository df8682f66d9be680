"""Pieces of a job on this machine: in this process, or in several that it starts and ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from types import FrameType

from hepbridge.core.errors import HepbridgeError
from hepbridge.core.jobs import Future, Piece, in_order
from hepbridge.core.progress import progress

__all__ = ["run_local"]


def run_local(
    todo: Iterable[Piece], *, rows: int, workers: int = 1, title: str = ""
) -> Generator[Piece, None, None]:
    """The executor of this machine: this process, or several spawned ones.

    Workers do not hear Ctrl-C, which a terminal sends to all of them: this process ends them.

    Raises HepbridgeError if one of them dies.
    """
    with progress(title, rows) as bar:
        if workers <= 1:
            for piece in todo:
                piece.make()
                bar.advance(len(piece.chunk))
                yield piece
            return
        context = multiprocessing.get_context("spawn")
        others = set(multiprocessing.active_children())
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:

            def submit(piece: Piece) -> Future:
                with _no_interrupts():  # it may start a worker
                    return pool.submit(_make, piece)

            try:
                for piece in in_order(submit, todo, workers):
                    bar.advance(len(piece.chunk))
                    yield piece
            except BrokenProcessPool as error:
                raise HepbridgeError(
                    "a worker process died (killed, or out of memory); run the same command again: "
                    "finished pieces are kept"
                ) from error
            except HepbridgeError:  # of one piece: those that are begun are finished
                pool.shutdown(cancel_futures=True)
                raise
            except BaseException:
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()
                pool.shutdown(cancel_futures=True)
                raise


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Signals that end this process come after the block; processes that start in it never see a
    Ctrl-C.

    A blocked signal is what a new process inherits; but here another thread may take it, and Python
    then interrupts the main thread all the same, in the midst of telling a worker what to do.
    """
    came: list[int] = []
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            stack.callback(_raise_first, came)
            for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
                number = getattr(signal, name, None)
                if number is not None and callable(signal.getsignal(number)):
                    before = signal.signal(number, lambda number, frame: came.append(number))
                    stack.callback(signal.signal, number, before)
        if hasattr(signal, "pthread_sigmask"):  # not on Windows
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, blocked)
        yield


def _raise_first(came: list[int]) -> None:
    if came:
        signal.raise_signal(came[0])


_worker = {"makes": False, "ends": False}  # state of a worker process


def _make(piece: Piece) -> None:
    """`Piece.make` in a worker, which ends without a word if it was told to."""
    try:
        _worker["makes"] = True
        piece.make()
        _worker["makes"] = False
    except BaseException:
        _worker["makes"] = False
        if not _worker["ends"]:  # libraries may make another error of the SystemExit of _stop
            raise
    if _worker["ends"]:  # the pool would take an error for an answer, and go on
        os._exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    """End a worker, temporary files of its piece removed: a second signal must not cut that."""
    signal.signal(number, signal.SIG_IGN)
    _worker["ends"] = True
    if not _worker["makes"]:
        os._exit(1)  # it waits, or imports: nothing to remove, and nobody to catch an error
    sys.exit(1)


def _start_worker() -> None:
    """Leave Ctrl-C to the process that started this worker, and end when that is gone, even killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _stop)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()
