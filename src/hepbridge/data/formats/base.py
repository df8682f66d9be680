"""What a file format is: a reader and a writer of showers, streaming, in constant memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError, HepbridgeError
from hepbridge.data.geometry import SQUIRELS, Geometry
from hepbridge.data.showers import UNITS, Showers, dataset_uid, row_ids, to_mev

__all__ = ["Block", "Format", "Reader", "Writer", "agreed", "check_unit", "damaged"]


@dataclass
class Block:
    """Consecutive rows as a file holds them: cells in the file's unit, everything else as it is."""

    cells: NDArray[Any]
    conditions: dict[str, NDArray[Any]] = field(default_factory=dict)
    weights: NDArray[Any] | None = None
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    event_ids: NDArray[Any] | None = None


class Reader(ABC):
    """An open shower file: ``len``, ``read(start, stop)``, and what is known about all rows.

    A format's constructor sets the attributes below and implements `_block`. Every error that a
    damaged file causes is a DataError.

    Attributes:
        path: the file.
        geometry: where the cells are.
        unit: the unit of the cells in the file.
        incident_energy: (N,) float64, MeV.
        meta: provenance.
        manifest: what the writer stored about the job that made the file, or None.
    """

    path: Path
    geometry: Geometry
    unit: str
    incident_energy: NDArray[np.float64]
    meta: dict[str, Any]
    manifest: dict[str, Any] | None = None
    allow_empty_showers: bool = False

    @abstractmethod
    def _block(self, start: int, stop: int) -> Block:
        """The rows start … stop - 1."""

    def __len__(self) -> int:
        return len(self.incident_energy)

    def read(self, start: int = 0, stop: int | None = None) -> Showers:
        """The rows start … stop - 1 (clipped to the file), checked. Raises DataError."""
        start, stop, _ = slice(start, stop).indices(len(self))
        with damaged(self.path):
            block = self._block(start, stop)
        block.cells = to_mev(block.cells, self.unit)
        return self._showers(block, start, stop, self.allow_empty_showers)

    def read_with(self, cells: NDArray[np.float32], start: int) -> Showers:
        """The rows from ``start``, as `read`, with these cells (n, n_cells), MeV, in the place of
        theirs: as finite and positive as those of a file must be, but any may be empty."""
        stop = start + len(cells)
        with damaged(self.path):
            block = self._without_cells(start, stop)
        block.cells = cells
        return self._showers(block, start, stop, True)

    def _without_cells(self, start: int, stop: int) -> Block:
        """As `_block`, but for the cells, which a format may leave out if that is faster."""
        return self._block(start, stop)

    def _showers(self, block: Block, start: int, stop: int, allow_empty_showers: bool) -> Showers:
        ids = block.event_ids
        return Showers.from_arrays(
            block.cells,
            self.incident_energy[start:stop],
            geometry=self.geometry,
            conditions=dict(block.conditions),
            weights=block.weights,
            columns=dict(block.columns),
            meta=self.meta,
            event_ids=row_ids(self.event_uid, start, max(start, stop)) if ids is None else ids,
            where=str(self.path),
            first_row=start,
            allow_empty_showers=allow_empty_showers,
        )

    def blocks(self, size: int) -> Iterator[Showers]:
        """All rows in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.read(start, start + size)

    @cached_property
    def event_uid(self) -> int:
        """The data-set uid of the first row: stored, or made from the energies and 2048 showers."""
        n = len(self)
        with damaged(self.path):
            first = self._block(0, min(n, 1024))
            if first.event_ids is not None:
                return int(first.event_ids[0, 0])
            head = to_mev(first.cells, self.unit)
            tail = to_mev(self._block(max(0, n - 1024), n).cells, self.unit)
        return dataset_uid(self.incident_energy, head, tail)

    @abstractmethod
    def close(self) -> None:
        """Release the file."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Writer(Protocol):
    """A shower file being written: it appears under its name only when its context ends well."""

    def append(self, showers: Showers) -> None:
        """Add rows; all blocks have the same conditions and columns."""
        ...


class _OpenWriter(Protocol):
    def __call__(
        self,
        path: Path,
        *,
        meta: Mapping[str, Any] | None,
        n: int | None,
        manifest: Mapping[str, Any] | None,
        overwrite: bool,
    ) -> AbstractContextManager[Writer]: ...


@dataclass(frozen=True)
class Format:
    """One file format: how it is recognised, read and written."""

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Path], bool]
    reader: Callable[..., Reader]
    writer: _OpenWriter


def check_unit(unit: str, path: Path) -> str:
    """The unit, if it is one."""
    if unit not in UNITS:
        raise DataError(f"{path}: unit {unit!r} is unknown; allowed: {', '.join(UNITS)}")
    return unit


def agreed(asked: Geometry | None, stored: Geometry | None, path: Path) -> Geometry:
    """The geometry asked for, or else the stored one, or else that of the SQuIRELS calorimeter.

    Raises DataError if the file stores another one than is asked for.
    """
    if asked is None:
        return stored or SQUIRELS
    if stored is not None and stored.digest() != asked.digest():
        ours, theirs = stored.to_dict(), asked.to_dict()
        apart = [k for k in {**ours, **theirs} if k != "name" and ours.get(k) != theirs.get(k)]
        raise DataError(
            f"{path}: was written for geometry {stored.name!r} {stored.shape}, but {asked.name!r} "
            f"{asked.shape} is asked for, which differs in {', '.join(apart)}; leave the geometry "
            "out to take the file's"
        )
    return asked


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Whatever a library raises on a damaged file becomes a DataError that says so."""
    try:
        yield
    except HepbridgeError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except PermissionError as error:
        raise DataError(f"{path}: no permission to read this file") from error
    except MemoryError as error:
        raise DataError(
            f"{path}: too large for the memory of this machine; read it in blocks "
            "(open_reader) or load fewer rows"
        ) from error
    except Exception as error:  # a library may raise anything on bytes that make no sense
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise DataError(
            f"{path}: the file is truncated or damaged ({reason}); copy it or make it again"
        ) from error
