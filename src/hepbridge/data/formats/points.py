"""HDF5 files of point clouds: ragged, padded, and the layout of the CMS HGCal challenge.

- ragged: ``points`` (M, 4) = (x, y, z, energy), ``offsets`` (N + 1,), ``incident_energies`` (N, 1);
- padded: ``events`` (N, points, 4) or (N, 4, points), padded with energy 0, ``energy`` (N, 1);
- CMS HGCal challenge: ``showers`` (N, layers, cells) in GeV and ``gen_info`` (N, 3) = (incident
  energy in GeV, eta, phi); where the cells are says a `CellMap`.

In the first two the attribute ``units`` ("MeV", the default, or "GeV") is that of the hits and of
the incident energies, ``incident_units`` that of the latter if it is another one, and ``columns``
the order of the columns, such as ``"x z y energy"``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.files import atomic_path
from hepbridge.data.cell_map import CellMap
from hepbridge.data.formats.attributes import plain
from hepbridge.data.formats.base import check_unit, damaged
from hepbridge.data.formats.hdf5 import check_declared, open_hdf5, passes
from hepbridge.data.points import PointShowers, check_offsets
from hepbridge.data.showers import UNITS, row_ids

__all__ = ["PointReader", "is_points", "load_points", "open_points", "save_points"]

COLUMNS = ("x", "y", "z", "energy")
_BLOCK_BYTES = 1 << 26


def is_points(path: str | Path) -> bool:
    """Does the file have one of the layouts of this module?"""
    return passes(path, lambda file: _reader_of(file) is not None)


def open_points(path: str | Path, *, cells: CellMap | None = None) -> PointReader:
    """An open file for reading in blocks; ``cells``: where those of the CMS HGCal challenge are.

    Raises DataError for a file without one of the layouts, datasets whose rows or columns do not
    fit, and a file of the challenge without ``cells``. Reading raises it as `PointShowers.from_hits`
    does, and for energy in a cell that does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    with damaged(path):
        file = open_hdf5(path)
        try:
            reader = _reader_of(file)
            if reader is None:
                raise DataError(
                    f"{path}: holds no point clouds; the file has {', '.join(file) or 'nothing'}. "
                    "Allowed: points, offsets and incident_energies; events and energy; or showers "
                    "(N, layers, cells) and gen_info"
                )
            return reader(path, file, cells)
        except BaseException:
            file.close()
            raise


def load_points(path: str | Path, *, cells: CellMap | None = None) -> PointShowers:
    """All showers of a file. Raises DataError as `open_points` does."""
    with open_points(path, cells=cells) as reader:
        return PointShowers.joined(list(reader.blocks()))


def save_points(showers: PointShowers, path: str | Path, *, overwrite: bool = False) -> None:
    """Write the ragged layout, MeV. Raises OutputError if the file exists (unless ``overwrite``)."""
    with (
        atomic_path(Path(path), overwrite=overwrite) as temporary,
        h5py.File(temporary, "w") as file,
    ):
        hits = np.stack([showers.x_mm, showers.y_mm, showers.z_mm, showers.energy], axis=1)
        file.create_dataset("points", data=hits, chunks=True, compression=4, shuffle=True)
        file["offsets"] = showers.offsets
        file["incident_energies"] = showers.incident_energy[:, None]
        file["event_id"] = showers.event_ids
        if showers.weights is not None:
            file["weights"] = showers.weights
        for name, value in showers.meta.items():
            if isinstance(value, str | int | float):
                file.attrs[name] = value
        file.attrs["units"] = "MeV"


class PointReader(ABC):
    """An open file: ``len``, ``incident_energy`` (N,) in MeV, ``meta``, `read` and `blocks`."""

    names: ClassVar[tuple[str, ...]]
    """The datasets by which a layout is recognised; the last has the incident energies."""

    def __init__(self, path: Path, file: h5py.File, cells: CellMap | None) -> None:
        self.path, self._file, self.cells = path, file, cells
        for name in file:
            if isinstance(file.get(name), h5py.Dataset):
                check_declared(file[name], path)
        self.meta = {str(k): plain(v) for k, v in file.attrs.items()}
        self.unit = check_unit(str(self.meta.pop("units", "MeV")), path)
        self._incident_unit = check_unit(str(self.meta.pop("incident_units", self.unit)), path)
        order = str(self.meta.pop("columns", " ".join(COLUMNS))).replace(",", " ").split()
        if sorted(order) != sorted(COLUMNS):
            raise DataError(
                f"{path}: the attribute columns must name {', '.join(COLUMNS)} in their order, not "
                f"{' '.join(order)!r}"
            )
        self._order = [order.index(name) for name in COLUMNS]
        self.incident_energy = self._energies()
        rows, row_bytes = self._open()
        if rows == 0:
            raise DataError(f"{path}: holds no showers")
        if rows != len(self):
            raise DataError(f"{path}: {rows} showers but {len(self)} incident energies")
        self._size = max(1, _BLOCK_BYTES // max(1, row_bytes))
        self._ids = self._optional("event_id", (rows, 2))
        self._weights = self._optional("weights", (rows,))
        name = self.incident_energy.astype("<f8").tobytes() + path.name.encode()
        self._uid = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")

    @abstractmethod
    def _open(self) -> tuple[int, int]:
        """Check the datasets; the number of rows, and about how many bytes one takes."""

    @abstractmethod
    def _block(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Hits (M, 4) in the file's unit, and offsets, of the rows start … stop − 1."""

    def _energies(self) -> NDArray[np.float64]:
        energies: NDArray[np.float64] = self._numbers(self.names[-1]).reshape(-1)
        return energies * UNITS[self._incident_unit]

    def __len__(self) -> int:
        return len(self.incident_energy)

    def read(self, start: int = 0, stop: int | None = None) -> PointShowers:
        """The rows start … stop − 1 (clipped to the file), checked. Raises DataError."""
        start, stop, _ = slice(start, stop).indices(len(self))
        with damaged(self.path):
            hits, offsets = self._block(start, stop)
            ids = row_ids(self._uid, start, stop) if self._ids is None else self._ids[start:stop]
            weights = None if self._weights is None else self._weights[start:stop]
        return PointShowers.from_hits(
            hits,
            offsets,
            self.incident_energy[start:stop] / UNITS[self.unit],
            unit=self.unit,
            weights=weights,
            meta=self.meta,
            event_ids=ids.astype(np.uint64),
            where=str(self.path),
            first_row=start,
        )

    def blocks(self, size: int | None = None) -> Iterator[PointShowers]:
        """All rows in order, ``size`` at a time (default: as many as fit into 64 MB)."""
        size = size or self._size
        for start in range(0, len(self), size):
            yield self.read(start, start + size)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> PointReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _numbers(self, name: str) -> NDArray[np.float64]:
        dataset = self._file[name]
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu":
            raise DataError(f"{self.path}: {name!r} must be an array of numbers")
        values: NDArray[np.float64] = dataset[...].astype(np.float64)
        return values

    def _optional(self, name: str, shape: tuple[int, ...]) -> h5py.Dataset | None:
        found = self._file.get(name)
        if not isinstance(found, h5py.Dataset):
            return None
        if found.shape != shape or found.dtype.kind not in "fiu":
            raise DataError(
                f"{self.path}: {name!r} must be numbers of shape {shape}, got {found.dtype} of "
                f"{found.shape}"
            )
        return found


class _Ragged(PointReader):
    names = ("points", "offsets", "incident_energies")

    def _open(self) -> tuple[int, int]:
        points, offsets = self._file["points"], self._file["offsets"]
        if points.ndim != 2 or points.shape[1] != 4 or points.dtype.kind not in "fiu":
            raise DataError(
                f"{self.path}: points must be numbers of shape (M, 4), got {points.dtype} of "
                f"{points.shape}"
            )
        if offsets.dtype.kind not in "iu" or offsets.ndim != 1 or not len(offsets):
            raise DataError(
                f"{self.path}: offsets must be integers of shape (N + 1,), got {offsets.dtype} of "
                f"{offsets.shape}"
            )
        self._edges = offsets[...].astype(np.int64)
        check_offsets(self._edges, len(points), str(self.path))
        rows = len(self._edges) - 1
        return rows, 16 * len(points) // max(1, rows)

    def _block(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        edges = self._edges[start : stop + 1]
        hits = self._file["points"][edges[0] : edges[-1]]
        return hits[:, self._order], edges - edges[0]


class _Padded(PointReader):
    names = ("events", "energy")

    def _open(self) -> tuple[int, int]:
        events = self._file["events"]
        shape = events.shape
        if len(shape) != 3 or 4 not in shape[1:] or events.dtype.kind not in "fiu":
            raise DataError(
                f"{self.path}: events must be numbers of shape (N, points, 4) or (N, 4, points), got "
                f"{events.dtype} of {shape}"
            )
        self._turned = shape[2] != 4
        return shape[0], 4 * int(np.prod(shape[1:]))

    def _block(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        events = self._file["events"][start:stop]
        events = (events.transpose(0, 2, 1) if self._turned else events)[:, :, self._order]
        filled = events[:, :, 3] != 0  # NaN is not 0, and is found by the check
        return events[filled], _edges(filled.sum(axis=1))


class _HGCal(PointReader):
    names = ("showers", "gen_info")

    def _energies(self) -> NDArray[np.float64]:
        info = self._numbers("gen_info")
        if info.ndim != 2 or info.shape[1] < 1:
            raise DataError(
                f"{self.path}: gen_info must have shape (N, 3) = (energy, eta, phi), got {info.shape}"
            )
        self.unit = "GeV"  # that of the challenge
        return info[:, 0] * UNITS["GeV"]

    def _open(self) -> tuple[int, int]:
        showers, cells = self._file["showers"], self.cells
        if cells is None:
            raise DataError(
                f"{self.path}: showers of the CMS HGCal challenge do not say where their cells are; "
                "give a map of the cells (--geometry FILE, or cells=CellMap.load(FILE)): an HDF5 "
                "file with x_mm and y_mm (layers, cells)"
            )
        if showers.shape[1:] != cells.x_mm.shape or showers.dtype.kind not in "fiu":
            raise DataError(
                f"{self.path}: showers are {showers.dtype} of (layers, cells) = {showers.shape[1:]}, "
                f"but the map of cells {cells.name!r} has {cells.x_mm.shape}"
            )
        z = np.broadcast_to(cells.depths[:, None], cells.x_mm.shape)
        self._places = np.stack([v.reshape(-1) for v in (cells.x_mm, cells.y_mm, z)], axis=1)
        self._exists = cells.exists.reshape(-1)
        return showers.shape[0], 4 * int(np.prod(showers.shape[1:]))

    def _block(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        cells = self._file["showers"][start:stop].reshape(stop - start, -1)
        row, cell = np.nonzero(cells)  # NaN is not 0, and is found by the check
        missing = ~self._exists[cell]
        if missing.any():
            raise DataError(
                f"{self.path}: row {start + int(row[missing][0])} has energy in a cell that the map "
                "of cells does not have; it is another map"
            )
        hits = np.concatenate([self._places[cell], cells[row, cell][:, None]], axis=1)
        return hits, _edges(np.bincount(row, minlength=stop - start))


def _edges(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _reader_of(file: h5py.File) -> type[PointReader] | None:
    for reader in (_Ragged, _Padded, _HGCal):
        found = [file.get(name) for name in reader.names]
        if all(isinstance(dataset, h5py.Dataset) for dataset in found) and (
            reader is not _HGCal or len(found[0].shape or ()) == 3
        ):
            return reader
    return None
