"""A file of the showers of a beam: in pieces, resumable, complete or not there.

Who makes the showers (a simulation, a generator) is a `Maker`; all else is the same for all.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, DataError, HepbridgeError, OutputError
from hepbridge.core.files import atomic_path, check_output, save_array
from hepbridge.core.jobs import (
    EXECUTORS,
    Chunk,
    Piece,
    Request,
    chunks,
    is_answer,
    new_file,
    parts_folder,
    piece_array,
    pieces,
    together,
    work_to_do,
)
from hepbridge.data import io
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.gun import Gun

__all__ = ["Maker", "Outcome", "checked_number", "checked_output", "write_beam_file"]

log = logging.getLogger(__name__)

PIECE_BYTES = 1 << 26  # of cells in one piece of work, about
SUFFIXES = (".h5", ".hdf5")

Outcome = Literal["made", "complete", "left"]
"""Of a file: made by this call, complete before it, or left to the shards that have its other pieces."""


class Maker(Protocol):
    """Makes showers of a beam, and can be sent to another process.

    A shower depends on its row of the beam and on the maker alone.
    """

    @property
    def name(self) -> str:
        """Who it is, in messages."""
        ...

    @property
    def chunk(self) -> int:
        """Most showers in one piece of work."""
        ...

    @property
    def geometry(self) -> Geometry: ...

    def begin(self, gun: Gun, rows: Chunk) -> None:
        """Say, or refuse, what shall not wait until the rows are made."""
        ...

    def cells(self, beam: Beam) -> NDArray[np.float32]:
        """Cells (N, n_cells), MeV."""
        ...

    def columns(self, beam: Beam) -> dict[str, NDArray[Any]]:
        """What else the file says of each shower."""
        ...


def write_beam_file(
    maker: Maker,
    gun: Gun,
    n: int,
    output: Path,
    request: Request,
    meta: Mapping[str, Any],
    *,
    chunk: int | None = None,
    workers: int = 1,
    executor: str = "local",
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    title: str = "",
) -> Outcome:
    """Make the rows 0 … n - 1 of a beam into a file.

    If a file with the manifest of ``request`` is there, it is complete and nothing is done. An
    interrupted run, even a killed one, goes on where it stopped. Neither the pieces, nor the number
    of workers or shards, nor interruptions change a bit of the file.

    Args:
        meta: attributes of the file.
        shard: (i, N), i from 0: only the i-th Nth part of the pieces; whoever finds all of them
            writes the file.

    Raises:
        ConfigError, DataError, OutputError: as the message says. What the maker raises; finished
            pieces are kept.
    """
    run, (index, count) = EXECUTORS[executor], shard
    if not 0 <= index < count:
        raise ConfigError(f"there is no shard {index} of {count}; the first is 0/{count}")
    if count > 1 and overwrite:
        raise ConfigError(
            "shards cannot overwrite, because none knows which file another one just made; delete "
            "the old output first"
        )
    size = _size(maker, chunk)
    if not work_to_do(output, request, io.read_manifest, overwrite=overwrite):
        return "complete"
    check_output(output, overwrite=overwrite)
    _check_room(n, maker.geometry.n_cells, output)
    todo = chunks(n, size)
    mine = todo[len(todo) * index // count : len(todo) * (index + 1) // count]
    if mine:
        maker.begin(gun, Chunk(mine[0].start, mine[-1].stop))
    with together(output, request, io.read_manifest), ExitStack() as stack:
        folder = stack.enter_context(parts_folder(output, request))
        own = pieces(_Work(maker, gun), mine, folder)
        workers = min(workers, max(1, len(own)))  # one piece is made here, without another process
        try:
            for _ in run(own, rows=sum(map(len, mine)), workers=workers, title=title):
                pass
        except HepbridgeError as error:
            kept = len(list(folder.glob("*.npy")))
            words = (
                f"\n{kept} of {len(todo)} pieces are finished and kept; the same command goes on"
            )
            raise type(error)(f"{error}{words if kept else ''}") from error
        every = pieces(_Work(maker, gun), todo, folder)
        if all(piece.path.exists() for piece in every):
            path = stack.enter_context(new_file(output, folder, overwrite=overwrite))
            _write(maker, gun, every, path, meta, request)
        elif not is_answer(io.read_manifest(output), request):
            stack.pop_all()  # keeps the folder for the other shards
            return "left"
    return "made"


def checked_output(output: str | Path, what: str) -> Path:
    """The path. Raises OutputError, which says ``what`` was to be written, if it is no HDF5 file's."""
    output = Path(output)
    if output.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"cannot write {output}: {what} go into a file that ends in "
            f"{' or '.join(SUFFIXES)}, which holds all that defines them"
        )
    return output


def checked_number(n: int | None, gun: Gun) -> int:
    """The number of showers; None: as many as the gun's file of energies has. Raises ConfigError."""
    size = gun.energies.size
    if n is None and size is None:
        raise ConfigError("the number of showers is missing: pass --n, or energies file:E.h5")
    n = size if n is None else n
    if not isinstance(n, int | np.integer):
        raise ConfigError(f"the number of showers must be a whole number, not {n!r}")
    n = int(n)
    if n < 1:
        raise ConfigError(f"the number of showers must be at least 1, not {n}")
    if size is not None and n > size:
        raise ConfigError(f"{n} showers are asked for, but the file has {size} energies")
    return n


@dataclass(frozen=True)
class _Work:
    """One piece, as a task that can be sent to another process."""

    maker: Maker
    gun: Gun

    def __call__(self, chunk: Chunk, path: Path) -> None:
        cells = self.maker.cells(self.gun.beam(chunk.start, chunk.stop))
        wanted = (len(chunk), self.maker.geometry.n_cells)
        if cells.shape != wanted:
            raise DataError(
                f"{self.maker.name} returned cells of shape {cells.shape}, not {wanted}"
            )
        with atomic_path(path, overwrite=True) as temporary:
            save_array(temporary, cells.astype(np.float32, copy=False))


def _write(
    maker: Maker,
    gun: Gun,
    made: list[Piece],
    path: Path,
    meta: Mapping[str, Any],
    request: Request,
) -> None:
    empty, n, width = 0, made[-1].chunk.stop, maker.geometry.n_cells
    with io.open_writer(path, like=meta, n=n, manifest=request.fields) as writer:
        for block in chunks(n, _size(maker, None)):
            # not piece by piece: the bits of a compressed file depend on the blocks it is written in
            inside = [
                piece_array(piece, width, mapped=True)[
                    max(block.start - piece.chunk.start, 0) : block.stop - piece.chunk.start
                ]
                for piece in made
                if piece.chunk.start < block.stop and block.start < piece.chunk.stop
            ]
            showers = _showers(maker, gun, block, np.concatenate(inside))
            empty += int((showers.e_sum == 0).sum())
            writer.append(showers)
    if empty:
        log.warning(
            "%d of %d showers left no energy in any cell; such a file is read with "
            "allow_empty_showers=True only",
            empty,
            n,
        )


def _showers(maker: Maker, gun: Gun, chunk: Chunk, cells: NDArray[np.float32]) -> Showers:
    """What the file says about some rows."""
    beam = gun.beam(chunk.start, chunk.stop)
    conditions = beam.conditions(gun.conditions)
    return Showers.from_arrays(
        cells,
        conditions.pop("incident_energy"),
        geometry=maker.geometry,
        conditions=dict(conditions),
        columns=dict(maker.columns(beam)),
        event_ids=beam.event_ids,
        where=maker.name,
        first_row=chunk.start,
        allow_empty_showers=True,
    )


def _check_room(n: int, n_cells: int, output: Path) -> None:
    """Raise OutputError if the pieces would not fit on the disk even if it were empty."""
    needed, whole = 4 * n * n_cells, shutil.disk_usage(output.parent).total
    if needed > whole:
        raise OutputError(
            f"{n:,} showers of {n_cells:,} cells take {needed / 1e9:,.0f} GB while they are made, and "
            f"the disk of {output} has {whole / 1e9:,.0f} GB in all; ask for fewer showers"
        )


def _size(maker: Maker, chunk: int | None) -> int:
    """Showers in one piece."""
    if chunk is None:
        return max(1, min(maker.chunk, PIECE_BYTES // (4 * maker.geometry.n_cells)))
    if chunk < 1:
        raise ConfigError(f"chunk must be at least 1, not {chunk}")
    return chunk
