"""HDF5 in the layout of the CaloChallenge: the canonical format.

Datasets ``incident_energies`` (N, 1) and ``showers`` (N, n_cells), MeV, float32. Files written
here hold more, which other readers ignore: ``event_id`` (N, 2) uint64, ``weights`` (N,), the
groups ``conditions`` and ``columns``, and as attributes the provenance, ``units``, ``geometry``
(JSON) and ``hepbridge_manifest`` (JSON). Any further top-level dataset with N rows in a user's
file is a column. Source of the layout: Krause et al., arXiv:2410.21611.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hepbridge.core.errors import DataError
from hepbridge.core.files import atomic_path
from hepbridge.data.formats.attributes import UNITS_KEY, read_attributes, write_attributes
from hepbridge.data.formats.base import Block, Format, Reader, agreed, check_unit, damaged
from hepbridge.data.formats.hdf5 import check_declared, open_hdf5
from hepbridge.data.formats.packing import PackedRows, can_be_packed
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import UNITS, Showers

__all__ = ["FORMAT", "CaloChallengeReader", "open_calochallenge_writer"]

log = logging.getLogger(__name__)

ENERGIES, SHOWERS, EVENT_ID, WEIGHTS = "incident_energies", "showers", "event_id", "weights"
CONDITIONS, COLUMNS = "conditions", "columns"
CHUNK_BYTES = 1 << 19
LIBVER = ("v110", "v110")  # this file version has checksums on its metadata: damage is noticed


class CaloChallengeReader(Reader):
    """An open CaloChallenge file.

    ``unit`` defaults to the attribute ``units`` of the file, else MeV, and is that of cells and
    incident energies. Raises DataError on a missing dataset, on rows or cells that do not fit,
    and if the stored geometry is not the one asked for.
    """

    def __init__(
        self,
        path: Path,
        *,
        geometry: Geometry | None = None,
        unit: str | None = None,
        allow_empty_showers: bool = False,
    ) -> None:
        self.path, self.allow_empty_showers = path, allow_empty_showers
        with damaged(path):
            self._file = open_hdf5(path)
            try:
                self._open(geometry, unit)
            except BaseException:
                self._file.close()
                raise

    def _open(self, geometry: Geometry | None, unit: str | None) -> None:
        file, path = self._file, self.path
        for key, shape in ((ENERGIES, "(N, 1)"), (SHOWERS, "(N, cells)")):
            if not isinstance(file.get(key), h5py.Dataset):
                raise DataError(
                    f"{path}: there is no dataset {key!r} {shape}; the file has: "
                    f"{', '.join(file) or 'nothing'}. Rename or convert what holds it"
                )
        energies, showers = file[ENERGIES], file[SHOWERS]
        for dataset in (energies, showers):
            check_declared(dataset, path)
            if dataset.dtype.kind not in "fiu":
                raise DataError(
                    f"{path}: {dataset.name[1:]!r} must be numbers, got {dataset.dtype}"
                )
        if not showers.shape or len(showers.shape) < 2:
            raise DataError(
                f"{path}: {SHOWERS!r} must have shape (N, cells), got {showers.shape or '()'}"
            )
        n = showers.shape[0]
        if energies.size != n:
            raise DataError(f"{path}: {n} showers but {energies.size or 0} incident energies")
        if n == 0:
            raise DataError(f"{path}: holds no showers")
        self.meta, self.manifest, stored = read_attributes(file, path)
        self.geometry = agreed(geometry, stored, path)
        cells = int(np.prod(showers.shape[1:]))
        if cells != self.geometry.n_cells:
            raise DataError(
                f"{path}: {cells} cells per shower, but geometry {self.geometry.name!r} has "
                f"{self.geometry.n_cells}; pass the right geometry (geometry=…; to evaluate: "
                "--geometry)"
            )
        self.unit = check_unit(unit or str(self.meta.get(UNITS_KEY, "MeV")), path)
        self.meta.pop(UNITS_KEY, None)  # inside it is always MeV
        self.incident_energy = energies[...].reshape(-1).astype(np.float64) * UNITS[self.unit]
        self._find_datasets(n)

    def _find_datasets(self, n: int) -> None:
        """Sort the other datasets into ids, weights, conditions and columns; check their rows."""
        file = self._file
        self._ids: h5py.Dataset | None = None
        self._weights: h5py.Dataset | None = None
        self._conditions = _members(file, CONDITIONS)
        self._columns = _members(file, COLUMNS)
        for name, dataset in {**self._conditions, **self._columns}.items():
            _require_rows(dataset, name, n, self.path)
        for name in file:
            dataset = file.get(name)
            if name in (ENERGIES, SHOWERS) or not isinstance(dataset, h5py.Dataset):
                continue
            numbers = dataset.dtype.kind in "fiu"
            if name == EVENT_ID and dataset.dtype.kind == "u" and dataset.shape[1:] == (2,):
                _require_rows(dataset, name, n, self.path)
                self._ids = dataset
            elif name == WEIGHTS and numbers and dataset.shape[1:] in ((), (1,)):
                _require_rows(dataset, name, n, self.path)
                self._weights = dataset
            elif not dataset.shape or dataset.shape[0] != n:
                log.warning("%s: %r has no %d rows and is not carried along", self.path, name, n)
            elif not _storable(dataset.dtype):
                log.warning("%s: %r (%s) is not carried along", self.path, name, dataset.dtype)
            else:
                self._columns.setdefault(name, dataset)
        for dataset in (*self._conditions.values(), *self._columns.values()):
            check_declared(dataset, self.path)

    def _block(self, start: int, stop: int) -> Block:
        block = self._without_cells(start, stop)
        block.cells = self._file[SHOWERS][start:stop]
        return block

    def _without_cells(self, start: int, stop: int) -> Block:
        rows = slice(start, stop)
        return Block(
            np.empty((0, self.geometry.n_cells), np.float32),
            {name: dataset[rows] for name, dataset in self._conditions.items()},
            None if self._weights is None else self._weights[rows],
            {name: _read(dataset, rows) for name, dataset in self._columns.items()},
            None if self._ids is None else self._ids[rows],
        )

    def close(self) -> None:
        self._file.close()


class CaloChallengeWriter:
    """Rows appended to the datasets of an open HDF5 file; the first block decides their kinds."""

    def __init__(self, file: h5py.File, path: Path, level: int, sink: _Sink) -> None:
        self._file, self._path, self._level, self._sink = file, path, level, sink
        self._kinds: dict[str, tuple[Any, ...]] | None = None
        self._geometry: Geometry | None = None
        self._packed: dict[str, PackedRows] = {}
        self.meta: dict[str, Any] = {}
        self.rows = 0

    def append(self, showers: Showers) -> None:
        """Add rows. Raises DataError if their columns or geometry differ from before."""
        arrays = _to_arrays(showers, self._path)
        kinds = {name: (a.shape[1:], a.dtype.kind) for name, a in arrays.items()}
        if self._kinds is None:
            self._kinds, self._geometry, self.meta = kinds, showers.geometry, dict(showers.meta)
            for name, array in arrays.items():
                self._create(name, array)
        if kinds != self._kinds or showers.geometry != self._geometry:
            raise DataError(
                f"cannot add rows to {self._path}: they have {sorted(kinds)} of geometry "
                f"{showers.geometry.name!r}, the rows before them have {sorted(self._kinds)}"
            )
        for name, array in arrays.items():
            if name in self._packed:
                self._packed[name].append(array)
            else:
                self._file[name].resize(self.rows + len(array), axis=0)
                self._file[name][self.rows :] = array
            self._sink.check()
        self.rows += len(showers)

    def _create(self, name: str, array: np.ndarray[Any, Any]) -> None:
        row_bytes = max(1, array.dtype.itemsize * int(np.prod(array.shape[1:])))
        packed: dict[str, Any] = {"compression": self._level, "shuffle": True, "fletcher32": True}
        dataset = self._file.create_dataset(
            name,
            shape=(0, *array.shape[1:]),
            maxshape=(None, *array.shape[1:]),
            dtype=h5py.string_dtype() if array.dtype.kind == "O" else array.dtype,
            chunks=(max(1, min(4096, CHUNK_BYTES // row_bytes)), *array.shape[1:]),
            **({} if array.dtype.kind == "O" else packed),
        )
        if can_be_packed(array.dtype):
            self._packed[name] = PackedRows(dataset, self._level)

    def finish(
        self, n: int | None, meta: Mapping[str, Any] | None, manifest: Mapping[str, Any] | None
    ) -> None:
        """Check that all rows are there and write the attributes."""
        if self._geometry is None or self.rows == 0 or (n is not None and self.rows != n):
            raise DataError(
                f"cannot write {self._path}: got {self.rows} showers, "
                f"{'at least one' if n is None else n} needed"
            )
        for packed in self._packed.values():
            packed.finish()
            self._sink.check()
        write_attributes(self._file, self.meta if meta is None else meta, self._geometry, manifest)


@contextmanager
def open_calochallenge_writer(
    path: Path,
    *,
    meta: Mapping[str, Any] | None = None,
    n: int | None = None,
    manifest: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    level: int = 4,
) -> Iterator[CaloChallengeWriter]:
    """A context that writes a CaloChallenge file atomically; ``level`` is that of gzip."""
    with atomic_path(path, overwrite=overwrite) as temporary, _Sink(temporary, "w+") as sink:
        try:
            with h5py.File(sink, "w", libver=LIBVER) as file:
                writer = CaloChallengeWriter(file, path, level, sink)
                yield writer
                writer.finish(n, meta, manifest)
        finally:
            sink.check()


class _Sink(io.FileIO):
    """The file below HDF5. After the first failure to write it swallows everything.

    HDF5 that cannot flush on closing leaves the file open and crashes the process at exit; so it
    is told that all went well, and `check` raises what really happened.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < len(view):
            try:
                done += os.write(self.fileno(), view[done:])
            except OSError as error:
                self.error = error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self.error is not None:
            raise self.error


def _to_arrays(showers: Showers, path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Dataset name -> array, in the file's types."""
    arrays: dict[str, np.ndarray[Any, Any]] = {
        ENERGIES: showers.incident_energy.astype(np.float32).reshape(-1, 1),
        SHOWERS: showers.cells,
        EVENT_ID: showers.event_ids,
    }
    if showers.weights is not None:
        arrays[WEIGHTS] = showers.weights
    for group, members in ((CONDITIONS, showers.conditions), (COLUMNS, showers.columns)):
        for name, value in members.items():
            if name == "incident_energy" and group == CONDITIONS:
                continue
            if not name.isprintable() or "/" in name or name in ("", ".", ".."):
                raise DataError(f"cannot write {path}: the name {name!r} is no name of a dataset")
            if value.dtype.kind == "U":
                value = value.astype(object)
            text = value.dtype.kind == "O" and all(isinstance(v, str) for v in value.flat)
            if not text and not _storable(value.dtype):
                raise DataError(
                    f"cannot write {path}: column {name!r} of {value.dtype} has no HDF5 type"
                )
            if text and any("\0" in str(v) for v in value.flat):
                raise DataError(
                    f"cannot write {path}: column {name!r} has text with a NUL character"
                )
            arrays[f"{group}/{name}"] = value
    return arrays


def _storable(dtype: np.dtype[Any]) -> bool:
    """Numbers, truth values, text, and records of them; no references and no ragged arrays."""
    text = h5py.check_string_dtype(dtype)
    return text is not None or (not dtype.hasobject and dtype.kind in "biufcSV")


def _read(dataset: h5py.Dataset, rows: slice) -> Any:
    text = h5py.check_string_dtype(dataset.dtype)
    variable = text is not None and text.length is None
    return dataset.asstr()[rows] if variable else dataset[rows]


def _members(file: h5py.File, group: str) -> dict[str, h5py.Dataset]:
    found = file.get(group)
    if not isinstance(found, h5py.Group):
        return {}
    return {name: found[name] for name in found if isinstance(found.get(name), h5py.Dataset)}


def _require_rows(dataset: h5py.Dataset, name: str, n: int, path: Path) -> None:
    rows = dataset.shape[0] if dataset.shape else 0
    if rows != n:
        raise DataError(f"{path}: {name!r} has {rows} rows, but there are {n} showers")


FORMAT = Format(
    "calochallenge",
    (".h5", ".hdf5"),
    lambda path: bool(h5py.is_hdf5(path)),
    CaloChallengeReader,
    open_calochallenge_writer,
)
