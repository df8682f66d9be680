"""Long work in pieces: fixed chunks of rows, finished pieces kept, any number of workers.

A job cuts its rows into chunks, computes each into a file of a parts folder (atomically), and a
restart computes only what is missing. A chunk's content depends on the request and its rows alone,
so the order of work, the number of workers and restarts cannot change the result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hepbridge.core.errors import HepbridgeError, OutputError
from hepbridge.core.progress import progress
from hepbridge.core.registry import Registry

__all__ = [
    "EXECUTORS",
    "Chunk",
    "Executor",
    "Request",
    "chunks",
    "cores",
    "parts_folder",
    "run_chunks",
    "work_to_do",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What was asked for: the command, digests of its inputs, its options. Two equal requests
    make equal files."""

    fields: dict[str, Any]

    def digest(self) -> str:
        text = json.dumps(self.fields, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Chunk:
    """Rows ``start`` to ``stop`` (exclusive)."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def chunks(n: int, size: int) -> list[Chunk]:
    """All rows in order, in chunks of ``size``; the last may be shorter.

    >>> chunks(5, 2)
    [Chunk(start=0, stop=2), Chunk(start=2, stop=4), Chunk(start=4, stop=5)]
    """
    return [Chunk(start, min(start + size, n)) for start in range(0, n, size)]


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def work_to_do(
    output: Path,
    request: Request,
    manifest: Callable[[Path], dict[str, Any] | None],
    *,
    overwrite: bool,
) -> bool:
    """False if ``output`` holds the answer to this very request already.

    Raises OutputError if another file stands there and ``overwrite`` is not set.
    """
    if not output.exists() or overwrite:
        return True
    try:
        found = manifest(output)
    except HepbridgeError:
        found = None
    if found == request.fields:
        log.info("%s is complete already (same request); nothing to do", output)
        return False
    what = "of another request" if found else "that this command did not make"
    raise OutputError(
        f"{output} exists already and is a file {what}; choose another name or pass --overwrite "
        "(overwrite=True in Python)"
    )


@contextmanager
def parts_folder(output: Path, request: Request) -> Iterator[Path]:
    """The folder of finished pieces, named by the request; removed when the block succeeds."""
    folder = output.with_name(f".{output.name}.{request.digest()}.parts")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write beside {output}: {error.strerror or error}") from error
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            folder.rmdir()  # goes if nothing was finished
        raise
    shutil.rmtree(folder, ignore_errors=True)


def run_chunks(
    work: Callable[[Chunk, Path], None],
    todo: list[Chunk],
    folder: Path,
    *,
    workers: int = 1,
    title: str = "",
    suffix: str = ".npy",
) -> list[Path]:
    """Run ``work(chunk, path)`` for every chunk whose file is not in ``folder`` yet.

    ``work`` must write ``path`` atomically; with several workers it is pickled and runs in spawned
    processes. Returns the files in the order of the chunks.
    """
    paths = [folder / f"{c.start:012d}-{c.stop:012d}{suffix}" for c in todo]
    missing = [(c, p) for c, p in zip(todo, paths, strict=True) if not p.exists()]
    with progress(title, sum(map(len, todo))) as bar:
        bar.advance(sum(len(c) for c in todo) - sum(len(c) for c, _ in missing))
        if workers <= 1 or len(missing) <= 1:
            for chunk, path in missing:
                work(chunk, path)
                bar.advance(len(chunk))
            return paths
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            min(workers, len(missing)), mp_context=context, initializer=_end_with_parent
        ) as pool:
            futures = {pool.submit(work, c, p): c for c, p in missing}
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.advance(len(futures[future]))
            except BrokenProcessPool as error:
                raise HepbridgeError(
                    "a worker process died (killed, or out of memory); run the same command again: "
                    "finished pieces are kept"
                ) from error
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return paths


def _end_with_parent() -> None:
    """End this worker when the process that started it is gone, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


class Executor(Protocol):
    """Runs the chunks of a job somewhere: as `run_chunks`, whose promises hold for all."""

    def __call__(
        self,
        work: Callable[[Chunk, Path], None],
        todo: list[Chunk],
        folder: Path,
        *,
        workers: int = 1,
        title: str = "",
        suffix: str = ".npy",
    ) -> list[Path]: ...


EXECUTORS = Registry("executor", {"local": "hepbridge.core.jobs:run_chunks"})
