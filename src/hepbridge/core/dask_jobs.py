"""Pieces of a job on a cluster, through Dask (extra ``dask``): it schedules, watches and retries.

Every worker must see the files under the same names (a shared file system) and have the same
version of hepbridge.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import ExitStack
from typing import Any

from hepbridge.core.errors import ConfigError, HepbridgeError, MissingExtraError
from hepbridge.core.jobs import Piece, in_order
from hepbridge.core.progress import progress

__all__ = ["run_dask", "run_htcondor", "run_slurm"]


def run_dask(
    todo: Iterable[Piece], *, rows: int, workers: int = 1, title: str = ""
) -> Generator[Piece, None, None]:
    """Use the scheduler that Dask's configuration names (``DASK_SCHEDULER_ADDRESS``), else start
    ``workers`` processes on this machine.

    Raises MissingExtraError, ConfigError if there is no such scheduler, and HepbridgeError if a
    piece lost its worker again and again.
    """
    distributed = _library("distributed")
    import dask

    address = dask.config.get("scheduler-address", None)
    with ExitStack() as stack:
        if address is None:
            cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
            )
            stack.enter_context(cluster)
            address = cluster.scheduler_address
        yield from _run(stack, address, todo, rows, workers, title)


def run_slurm(
    todo: Iterable[Piece], *, rows: int, workers: int = 1, title: str = ""
) -> Generator[Piece, None, None]:
    """``workers`` Slurm jobs; their partition, memory and time are those of dask-jobqueue's
    configuration (``~/.config/dask/jobqueue.yaml``)."""
    yield from _queued("SLURMCluster", todo, rows, workers, title)


def run_htcondor(
    todo: Iterable[Piece], *, rows: int, workers: int = 1, title: str = ""
) -> Generator[Piece, None, None]:
    """``workers`` HTCondor jobs, configured as those of `run_slurm`."""
    yield from _queued("HTCondorCluster", todo, rows, workers, title)


def _queued(
    kind: str, todo: Iterable[Piece], rows: int, workers: int, title: str
) -> Generator[Piece, None, None]:
    jobqueue = _library("dask_jobqueue")
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(getattr(jobqueue, kind)())
            cluster.scale(jobs=workers)
        except (ValueError, RuntimeError, OSError) as error:
            raise ConfigError(
                f"dask-jobqueue cannot start a {kind}: {error}; set cores and memory of its jobs in "
                "~/.config/dask/jobqueue.yaml, or write scripts with --submit"
            ) from error
        yield from _run(stack, cluster, todo, rows, workers, title)


def _run(
    stack: ExitStack, where: Any, todo: Iterable[Piece], rows: int, workers: int, title: str
) -> Generator[Piece, None, None]:
    distributed = _library("distributed")
    try:
        client = stack.enter_context(distributed.Client(where))
    except (OSError, ValueError) as error:  # a TimeoutError is an OSError
        raise ConfigError(f"there is no Dask scheduler at {where}: {error}") from error
    bar = stack.enter_context(progress(title, rows))

    def submit(piece: Piece) -> Any:
        return client.submit(piece.make, pure=False)

    try:
        for piece in in_order(submit, todo, max(workers, len(client.ncores()))):
            bar.advance(len(piece.chunk))
            yield piece
    except distributed.scheduler.KilledWorker as error:
        raise HepbridgeError(
            f"Dask gave up a piece whose workers died ({error}); look for memory and time limits, "
            "then run the same command again: finished pieces are kept"
        ) from error


def _library(name: str) -> Any:
    try:
        if name == "distributed":
            import distributed

            return distributed
        import dask_jobqueue

        return dask_jobqueue
    except ImportError as error:
        raise MissingExtraError.of("dask", name, "this executor") from error
