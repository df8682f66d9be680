"""Refining files: in constant memory, resumable, complete or not there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue

from hepbridge.core.errors import ConfigError, OutputError
from hepbridge.core.jobs import EXECUTORS, Piece
from hepbridge.deploy.refine_job import Options, RefineJob
from hepbridge.deploy.trained import Trained
from hepbridge.systems.inference import TILE

__all__ = ["Done", "refine_file", "refine_files"]


@dataclass
class Done:
    """The outputs of a bulk refinement.

    Attributes:
        made: by this call.
        complete: those that were there.
        left: those of which another shard has pieces that are not there yet.
        refused: those in whose place another file is, with the reason (only if they are collected).
    """

    made: list[Path] = field(default_factory=list)
    complete: list[Path] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)
    refused: dict[Path, str] = field(default_factory=dict)


def refine_file(
    model: str | Path,
    fast: str | Path,
    output: str | Path,
    *,
    seed: int = 0,
    member: int = 0,
    batch: int = 16 * TILE,
    workers: int = 1,
    executor: str = "local",
    strict: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
) -> bool:
    """Refine a file of fast showers into another file.

    All that the input carries (event ids, weights, conditions, the user's columns) is kept. The
    output holds a manifest of the request; if it exists with an equal manifest it is complete and
    nothing is done (returns False). An interrupted run continues where it stopped. Batch size,
    number of workers and interruptions change no bit of the result.

    Raises:
        DataError, ModelFileError, DomainError, OutputError, ConfigError: as the message says.
    """
    options = Options(seed, member, batch, device, strict, overwrite)
    work = {Path(fast): Path(output)}
    return bool(refine_files(model, work, options, workers=workers, executor=executor).made)


def refine_files(
    model: str | Path,
    files: Mapping[Path, Path],
    options: Options | None = None,
    *,
    workers: int = 1,
    executor: str = "local",
    shard: tuple[int, int] = (0, 1),
    collect: bool = False,
) -> Done:
    """Refine many files of fast showers, each into one file, as `refine_file` does.

    All inputs are opened before the first one is refined. Their rows are cut into pieces, of which
    shard i of N makes the i-th Nth part, counted over all files; a file that lies in several shards
    is put together by the shard that comes last, or by a call without shards. Shards need the same
    list of files, and write nothing but what the others would write, too: each may be repeated, run
    at any time, and together with any other.

    Args:
        files: input -> output.
        shard: (i, N), i from 0.
        executor: a name in `EXECUTORS`: who makes the pieces.
        collect: go on if another file is in the place of an output, and say so in `Done.refused`.

    Raises as `refine_file`; at the first failure nothing else is begun, and what is finished is kept.
    """
    options, (index, count) = options or Options(), shard
    run = EXECUTORS[executor]
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, not {workers}")
    if not 0 <= index < count:
        raise ConfigError(f"there is no shard {index} of {count}; the first is 0/{count}")
    if count > 1 and options.overwrite:
        raise ConfigError(
            "shards cannot overwrite, because none knows which file another one just made; delete "
            "the old outputs first"
        )
    outputs = [path.resolve() for path in files.values()]
    if len(set(outputs)) < len(outputs):
        raise ConfigError("two inputs have the same output; give every input another name")
    trained = Trained.of(str(model))
    jobs = [RefineJob(trained, fast, output, options) for fast, output in files.items()]
    _take(jobs, index, count)
    jobs = [job for job in jobs if job.mine]
    done, begun = Done(), dict[Path, RefineJob]()
    with ExitStack() as stack:

        def todo() -> Iterator[Piece]:
            for job in jobs:
                try:
                    needed = job.needed()
                except OutputError as error:
                    if not collect or options.overwrite or not job.output.exists():
                        raise
                    done.refused[job.output] = str(error)
                    continue
                if not needed:
                    done.complete.append(job.output)
                    continue
                mine = job.begin()
                stack.push(job.stack)
                begun[mine[0].path.parent] = job
                yield from mine

        rows = sum(len(chunk) for job in jobs for chunk in job.mine)
        stream = run(todo(), rows=rows, workers=workers, title="refine")
        _beside(stream, lambda made: _write(made, begun, done))
    return done


def _take(jobs: list[RefineJob], index: int, count: int) -> None:
    """Give every job its chunks that belong to the shard: a contiguous part of all chunks."""
    total = sum(len(job.chunks) for job in jobs)
    first, last = (total * k // count for k in (index, index + 1))
    for job in jobs:
        job.mine = job.chunks[max(first, 0) : max(last, 0)]
        first, last = first - len(job.chunks), last - len(job.chunks)


def _write(made: Iterator[Piece], begun: Mapping[Path, RefineJob], done: Done) -> None:
    """Write the outputs, in order, as their pieces come in."""
    for first in made:
        job = begun[first.path.parent]
        mine = chain([first], islice(made, len(job.mine) - 1))
        if len(job.mine) == len(job.chunks):
            job.write(mine)
            for _ in mine:  # those of an output that another process made meanwhile
                pass
        else:
            for _ in mine:
                pass
            if not all(piece.path.exists() for piece in job.pieces):
                job.leave()
                done.left.append(job.output)
                continue
            job.write(iter(job.pieces))
        job.clear()
        done.made.append(job.output)


def _beside(stream: Generator[Piece, None, None], write: Callable[[Iterator[Piece]], None]) -> None:
    """``write(stream)`` in a thread of its own, while this thread makes what comes out of it."""
    feed: SimpleQueue[Piece | bool] = SimpleQueue()

    def handed_over() -> Iterator[Piece]:
        while not isinstance(found := feed.get(), bool):
            yield found
        if not found:
            raise _Broken

    with ThreadPoolExecutor(1) as pool, closing(stream):
        written = pool.submit(write, handed_over())
        whole = False
        try:
            for piece in stream:
                feed.put(piece)
                if written.done():
                    break
            whole = True
        finally:
            feed.put(whole)
    written.result()


class _Broken(Exception):
    """Tells the thread that writes to clear up; why, the other one knows."""
