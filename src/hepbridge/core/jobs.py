"""Long work in pieces: fixed chunks of rows, finished pieces kept, any number of workers.

A job cuts its rows into chunks, computes each into a file of a parts folder (atomically), and a
restart computes only what is missing. A chunk's content depends on the request and its rows alone,
so the order of work, the number of workers and restarts cannot change the result. There are no
locks, which a killed process would leave behind: where two processes do the same work, an atomic
rename decides, and both are content with the file of either.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, HepbridgeError, OutputError
from hepbridge.core.files import adopt, check_ordinary
from hepbridge.core.registry import Registry

__all__ = [
    "EXECUTORS",
    "RESULT",
    "Chunk",
    "Executor",
    "Future",
    "Piece",
    "Request",
    "chunks",
    "cores",
    "in_order",
    "is_answer",
    "new_file",
    "parts_folder",
    "piece_array",
    "pieces",
    "together",
    "work_to_do",
]

log = logging.getLogger(__name__)

RESULT = "result"  # what a manifest says of the file itself, beside the request
_MOST = 1_000_000  # pieces of one job: memory and a folder hold no more of them
_AHEAD = 4  # pieces for each worker that are handed out before the first one is back


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


@dataclass(frozen=True)
class Piece:
    """A chunk, the work that computes it, and the file which that work writes atomically."""

    work: Callable[[Chunk, Path], None]
    chunk: Chunk
    path: Path

    def make(self) -> None:
        """Compute the chunk, unless its file is there."""
        if not self.path.exists():
            self.work(self.chunk, self.path)


def chunks(n: int, size: int) -> list[Chunk]:
    """All rows in order, in chunks of ``size``; the last may be shorter. Raises ConfigError if they
    would be more than a million.

    >>> chunks(5, 2)
    [Chunk(start=0, stop=2), Chunk(start=2, stop=4), Chunk(start=4, stop=5)]
    """
    if (count := -(-n // size)) > _MOST:
        raise ConfigError(
            f"{n:,} rows are {count:,} pieces of work of {size:,} rows, and at most {_MOST:,} are "
            "allowed; ask for fewer rows, in several files with other seeds, or for larger pieces"
        )
    return [Chunk(start, min(start + size, n)) for start in range(0, n, size)]


def pieces(
    work: Callable[[Chunk, Path], None], todo: Iterable[Chunk], folder: Path, suffix: str = ".npy"
) -> list[Piece]:
    """The chunks with their files in a folder, which are named by their rows."""
    return [Piece(work, c, folder / f"{c.start:012d}-{c.stop:012d}{suffix}") for c in todo]


def piece_array(piece: Piece, columns: int, *, mapped: bool = False) -> NDArray[np.float32]:
    """The array (rows, columns) of float32 that a piece holds; ``mapped``: read as it is used.

    Raises OutputError if its file is gone, or is another thing: then it is removed.
    """
    try:
        found: NDArray[np.float32] = np.load(
            piece.path, mmap_mode="r" if mapped else None, allow_pickle=False
        )
        if found.shape != (len(piece.chunk), columns) or found.dtype != np.float32:
            raise ValueError(f"{found.dtype} of shape {found.shape}")
        return found
    except FileNotFoundError as error:
        raise OutputError(f"{piece.path} was removed; run the command again") from error
    except (ValueError, EOFError) as error:
        piece.path.unlink(missing_ok=True)
        raise OutputError(
            f"{piece.path} is damaged ({error}) and was removed; run the command again"
        ) from error


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_answer(found: Mapping[str, Any] | None, request: Request) -> bool:
    """Whether a manifest is that of this request."""
    return found is not None and {k: found[k] for k in found if k != RESULT} == request.fields


def work_to_do(
    output: Path,
    request: Request,
    manifest: Callable[[Path], dict[str, Any] | None],
    *,
    overwrite: bool,
) -> bool:
    """False if ``output`` holds the answer to this very request already.

    Raises OutputError if another file stands there and ``overwrite`` is not set, or no file at all.
    """
    check_ordinary(output)
    if not output.exists() or overwrite:
        return True
    try:
        found = manifest(output)
    except HepbridgeError:
        found = None
    if is_answer(found, request):
        log.info("%s is complete already (same request); nothing to do", output)
        shutil.rmtree(_parts(output, request), ignore_errors=True)  # of a run that came too late
        return False
    what = "that this command did not make"
    if found:
        names = sorted({*found, *request.fields} - {RESULT})
        other = [name for name in names if found.get(name) != request.fields.get(name)]
        what = f"of another request (other: {', '.join(other)})"
    raise OutputError(
        f"{output} exists already and is a file {what}; choose another name or pass --overwrite "
        "(overwrite=True in Python)"
    )


@contextmanager
def parts_folder(output: Path, request: Request) -> Iterator[Path]:
    """The folder of finished pieces, named by the request; removed when the block succeeds."""
    folder = _parts(output, request)
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


def _parts(output: Path, request: Request) -> Path:
    return output.with_name(f".{output.name}.{request.digest()}.parts")


@contextmanager
def new_file(output: Path, folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """A path in the parts folder; what is written there becomes the output when the block ends.

    So whatever a killed process left half-written goes with that folder.
    """
    temporary = folder / f"{secrets.token_hex(4)}{output.suffix}"
    try:
        yield temporary
        try:
            adopt(temporary, output, overwrite=overwrite)
        except FileNotFoundError as error:
            raise OutputError(
                f"cannot write {output}: the folder {folder} was removed; run the command again"
            ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def together(
    output: Path, request: Request, manifest: Callable[[Path], dict[str, Any] | None]
) -> Iterator[None]:
    """A block that fails because another process made the same output, and cleared up, succeeds."""
    try:
        yield
    except OSError:  # an OutputError is one, too
        if not is_answer(manifest(output), request):
            raise
        log.info("%s was made by another process in the meantime", output)


class Executor(Protocol):
    """Makes the pieces of a job somewhere, and yields them in order, each once its file is there.

    ``todo`` is read as work is handed out, not at once; ``rows`` is the number of all its rows. At
    the first failure no more work is handed out; finished pieces are kept.
    """

    def __call__(
        self, todo: Iterable[Piece], *, rows: int, workers: int = 1, title: str = ""
    ) -> Generator[Piece, None, None]: ...


EXECUTORS = Registry(
    "executor",
    {
        "local": "hepbridge.core.local_jobs:run_local",
        "dask": "hepbridge.core.dask_jobs:run_dask",
        "slurm": "hepbridge.core.dask_jobs:run_slurm",
        "htcondor": "hepbridge.core.dask_jobs:run_htcondor",
    },
)


class Future(Protocol):
    """What `submit` of an executor gives back."""

    def result(self) -> object: ...


def in_order(
    submit: Callable[[Piece], Future], todo: Iterable[Piece], workers: int
) -> Generator[Piece, None, None]:
    """Submit pieces a few ahead of those waited for; yield them in order."""
    running: deque[tuple[Piece, Future | None]] = deque()

    def oldest() -> Piece:
        piece, future = running.popleft()
        if future is not None:
            future.result()
        return piece

    for piece in todo:
        running.append((piece, None if piece.path.exists() else submit(piece)))
        if len(running) >= _AHEAD * workers:
            yield oldest()
    while running:
        yield oldest()
