"""The ``.npy`` layout of the SQuIRELS reference code (Zenodo 10.5281/zenodo.8275193).

One two-dimensional array. For a geometry of c cells: columns 0 … c-1 are the cell energies in
GeV, columns c … 2c-1 are not used by the reference code (content unknown; ignored here), column
2c is the incident energy in MeV. Some files lack the last one: then the user has to say it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.files import atomic_path
from hepbridge.core.units import GEV
from hepbridge.data.formats.base import Block, Format, Reader, check_unit, damaged
from hepbridge.data.geometry import SQUIRELS, Geometry
from hepbridge.data.showers import Showers

__all__ = ["FORMAT", "SquirelsNpyReader"]

log = logging.getLogger(__name__)

_BLOCK = 1 << 24  # bytes that are read at once for the incident energies


class SquirelsNpyReader(Reader):
    """An open SQuIRELS ``.npy`` file, read row by row: a mapped file that is truncated by somebody
    else would end the process.

    Args:
        unit: that of the cells (default GeV); incident energies are MeV.
        incident_energy: MeV, one number or one per row; needed if, and only allowed if, the file
            has no such column. It is never guessed: the reference code took 50 GeV for all files.
    """

    def __init__(
        self,
        path: Path,
        *,
        geometry: Geometry | None = None,
        unit: str | None = None,
        incident_energy: ArrayLike | None = None,
        allow_empty_showers: bool = False,
    ) -> None:
        self.path, self.allow_empty_showers = path, allow_empty_showers
        self.geometry = geometry or SQUIRELS
        self.unit, self.meta = check_unit(unit or "GeV", path), {}
        self._file = open(path, "rb")  # noqa: SIM115 (`close` does)
        try:
            n, width = self._open()
            self.incident_energy = self._energies(n, width, incident_energy)
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> tuple[int, int]:
        """Rows and columns that the header declares, if the file is large enough for them."""
        path, cells = self.path, self.geometry.n_cells
        with damaged(path):
            version = np.lib.format.read_magic(self._file)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, fortran, self._dtype = read(self._file)
        if len(shape) != 2 or self._dtype.kind not in "fiu":
            raise DataError(
                f"{path}: must be a two-dimensional array of numbers, got {self._dtype} of shape "
                f"{shape}"
            )
        if fortran:
            raise DataError(
                f"{path}: is stored column by column (Fortran order); save "
                "numpy.ascontiguousarray of it"
            )
        n, width = shape
        self._start, self._row_bytes = self._file.tell(), width * self._dtype.itemsize
        there = path.stat().st_size - self._start
        if min(n, width) < 0 or n * self._row_bytes > there:
            raise DataError(
                f"{path}: the file is truncated or damaged: it declares the shape {shape} but only "
                f"{there} bytes follow"
            )
        if n == 0:
            raise DataError(f"{path}: holds no showers")
        if width < cells:
            raise DataError(
                f"{path}: {width} columns, but geometry {self.geometry.name!r} has {cells} cells; "
                "pass the right geometry"
            )
        self._width = width
        return n, width

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        """The rows start … stop - 1, (n, width)."""
        wanted = max(0, stop - start) * self._row_bytes
        self._file.seek(self._start + start * self._row_bytes)
        data = self._file.read(wanted)
        if len(data) < wanted:
            raise DataError(
                f"{self.path}: the file is truncated: it ends in row "
                f"{start + len(data) // self._row_bytes}"
            )
        return np.frombuffer(data, self._dtype).reshape(-1, self._width)

    def _energies(self, n: int, width: int, given: ArrayLike | None) -> Any:
        column = 2 * self.geometry.n_cells
        if width > column:
            if given is not None:
                raise DataError(
                    f"{self.path}: column {column} holds the incident energies (MeV); do not pass "
                    "incident_energy as well"
                )
            with damaged(self.path):
                block = max(1, _BLOCK // self._row_bytes)
                parts = [
                    self._rows(k, min(k + block, n))[:, column].astype(np.float64)
                    for k in range(0, n, block)
                ]
                return np.concatenate(parts)
        if given is None:
            raise DataError(
                f"{self.path}: {width} columns, so there is no column {column} with incident "
                "energies; pass incident_energy in MeV (one number, or one per row)"
            )
        energy = np.asarray(given, dtype=np.float64).reshape(-1)
        if energy.size not in (1, n):
            raise DataError(f"{self.path}: {n} showers but {energy.size} incident energies given")
        return np.broadcast_to(energy, n).copy()

    def _block(self, start: int, stop: int) -> Block:
        return Block(self._rows(start, stop)[:, : self.geometry.n_cells])

    def close(self) -> None:
        self._file.close()


class _NpyWriter:
    def __init__(self, handle: IO[bytes], path: Path) -> None:
        self._handle, self._path, self._width, self.rows = handle, path, 0, 0

    def append(self, showers: Showers) -> None:
        """Add rows; event ids, weights, columns and further conditions have no place here."""
        n, cells = showers.cells.shape
        if self._width not in (0, 2 * cells + 1):
            raise DataError(
                f"cannot add rows of {cells} cells to {self._path}: those before have others"
            )
        if not self._width:
            log.warning("%s: the .npy layout keeps only cells and incident energies", self._path)
            self._width = 2 * cells + 1
            self._header()
        table = np.zeros((n, self._width), dtype="<f4")
        table[:, :cells] = showers.cells / GEV
        table[:, -1] = showers.incident_energy
        self._handle.write(table.tobytes())
        self.rows += n

    def _header(self) -> None:
        np.lib.format.write_array_header_1_0(
            self._handle,
            {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self._width)},
        )

    def finish(self, n: int | None) -> None:
        if self.rows == 0 or (n is not None and n != self.rows):
            raise DataError(
                f"cannot write {self._path}: got {self.rows} showers, "
                f"{'at least one' if n is None else n} needed"
            )
        self._handle.seek(0)
        self._header()  # as long as before: NumPy leaves room for the number of rows to grow


@contextmanager
def _open_writer(
    path: Path,
    *,
    meta: Mapping[str, Any] | None = None,
    n: int | None = None,
    manifest: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Iterator[_NpyWriter]:
    with atomic_path(path, overwrite=overwrite) as temporary, open(temporary, "wb") as handle:
        writer = _NpyWriter(handle, path)
        yield writer
        writer.finish(n)


def _recognises(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(6) == b"\x93NUMPY"


FORMAT = Format("squirels-npy", (".npy",), _recognises, SquirelsNpyReader, _open_writer)
