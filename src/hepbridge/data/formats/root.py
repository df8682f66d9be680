"""ROOT files through uproot (extra ``root``): one TTree, one row per shower.

The cells are one branch (a fixed-size array, or a vector of constant length) or one flat branch
per cell; the names are the user's. Files written here have the branches ``showers``,
``incident_energies``, ``event_uid``, ``event_row``, ``weights``, ``condition_<name>`` and the
columns, and a string ``hepbridge`` (JSON) with provenance, geometry and manifest.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError, MissingExtraError
from hepbridge.core.files import atomic_path
from hepbridge.data.formats.base import Block, Format, Reader, agreed, check_unit, damaged
from hepbridge.data.geometry import SQUIRELS, Geometry
from hepbridge.data.showers import UNITS, Showers

__all__ = ["FORMAT", "RootReader"]

log = logging.getLogger(__name__)

TREE, RECORD = "showers", "hepbridge"
CELLS, ENERGY, WEIGHTS, CONDITION = "showers", "incident_energies", "weights", "condition_"
IDS = ("event_uid", "event_row")


def _uproot(purpose: str) -> Any:
    try:
        import uproot
    except ImportError as error:
        raise MissingExtraError.of("root", "uproot", purpose) from error
    return uproot


class RootReader(Reader):
    """An open TTree.

    Args:
        tree: name of the TTree.
        cells: name of the branch with all cells, or the names of the n_cells flat branches.
        incident_energy: name of the branch with the incident energies.
        unit: that of cells and incident energies (default MeV).
    """

    def __init__(
        self,
        path: Path,
        *,
        geometry: Geometry | None = None,
        unit: str | None = None,
        tree: str = TREE,
        cells: str | Sequence[str] = CELLS,
        incident_energy: str = ENERGY,
        allow_empty_showers: bool = False,
    ) -> None:
        self.path, self.allow_empty_showers = path, allow_empty_showers
        self.unit = check_unit(unit or "MeV", path)
        uproot = _uproot(f"reading {path}")
        with damaged(path):
            self._file = uproot.open(path)
            try:
                self._open(uproot, geometry, tree, cells, incident_energy)
            except BaseException:
                self._file.close()
                raise

    def _open(
        self,
        uproot: Any,
        geometry: Geometry | None,
        tree: str,
        cells: str | Sequence[str],
        energy: str,
    ) -> None:
        size, end = self.path.stat().st_size, int(self._file.file.fEND)
        if size < end:
            raise DataError(f"{self.path}: the file is truncated: {size} of {end} bytes are there")
        trees = self._file.keys(recursive=True, cycle=False, filter_classname="TTree")
        if tree not in trees:
            raise DataError(
                f"{self.path}: there is no TTree {tree!r}; the file has: "
                f"{', '.join(trees) or 'none'}. Pass tree=…"
            )
        self._tree = self._file[tree]
        self._cells = [cells] if isinstance(cells, str) else list(cells)
        names = self._tree.keys(recursive=False)
        for name in (*self._cells, energy):
            if name not in names:
                raise DataError(
                    f"{self.path}: TTree {tree!r} has no branch {name!r}; it has: "
                    f"{', '.join(names)}. Pass cells=… and incident_energy=…"
                )
        record = self._record()
        stored = Geometry.from_dict(record["geometry"]) if "geometry" in record else None
        self.geometry = agreed(geometry, stored, self.path)
        self.meta, self.manifest = dict(record.get("meta", {})), record.get("manifest")
        energies = _dense(self._branch(energy), self.path, energy)
        if energies.dtype.kind not in "fiu" or energies.size != self._tree.num_entries:
            raise DataError(f"{self.path}: branch {energy!r} must hold one number per row")
        if energies.size == 0:
            raise DataError(f"{self.path}: holds no showers")
        self.incident_energy = energies.reshape(-1).astype(np.float64) * UNITS[self.unit]
        self._others = [n for n in names if n not in (*self._cells, energy)]

    def _record(self) -> dict[str, Any]:
        if RECORD not in self._file.keys(recursive=False, cycle=False):
            return {}
        record = json.loads(str(self._file[RECORD]))
        return record if isinstance(record, dict) else {}

    def _branch(self, name: str, start: int | None = None, stop: int | None = None) -> Any:
        return self._tree[name].array(library="np", entry_start=start, entry_stop=stop)

    def _block(self, start: int, stop: int) -> Block:
        parts = [_dense(self._branch(n, start, stop), self.path, n) for n in self._cells]
        block = Block(parts[0] if len(parts) == 1 else np.stack(parts, axis=1))
        for name in list(self._others):
            values = self._branch(name, start, stop)
            if values.dtype.hasobject or values.dtype.kind not in "biuf":
                log.warning("%s: branch %r is not carried along: no numbers", self.path, name)
                self._others.remove(name)
            elif name == WEIGHTS and values.ndim == 1:
                block.weights = values
            elif name.startswith(CONDITION):
                block.conditions[name.removeprefix(CONDITION)] = values
            else:
                block.columns[name] = values
        if all(name in block.columns and block.columns[name].dtype.kind in "iu" for name in IDS):
            block.event_ids = np.stack([block.columns.pop(n) for n in IDS], axis=1)
        return block

    def close(self) -> None:
        self._file.close()


def _dense(values: NDArray[Any], path: Path, name: str) -> NDArray[Any]:
    """Vectors of constant length as one array."""
    if values.dtype != object:
        return values
    lengths = {np.size(v) for v in values}
    if len(lengths) != 1:
        raise DataError(
            f"{path}: branch {name!r} has rows of different lengths ({min(lengths, default=0)} … "
            f"{max(lengths, default=0)}); every shower needs the same number of cells"
        )
    return np.stack([np.asarray(v) for v in values])


class _RootWriter:
    def __init__(self, file: Any, path: Path) -> None:
        self._file, self._path, self._tree, self.rows = file, path, None, 0
        self.meta: dict[str, Any] = {}
        self.geometry: Geometry = SQUIRELS

    def append(self, showers: Showers) -> None:
        """Add rows. Raises DataError if their branches differ from those before."""
        arrays = self._to_arrays(showers)
        if self._tree is None:
            types = {n: np.dtype((a.dtype, a.shape[1:])) for n, a in arrays.items()}
            self._tree = self._file.mktree(TREE, types)
            self._types, self.meta, self.geometry = types, dict(showers.meta), showers.geometry
        if {n: np.dtype((a.dtype, a.shape[1:])) for n, a in arrays.items()} != self._types:
            raise DataError(
                f"cannot add rows to {self._path}: they have {sorted(arrays)}, the rows before "
                f"them have {sorted(self._types)}"
            )
        self._tree.extend(arrays)  # type: ignore[attr-defined]
        self.rows += len(showers)

    def _to_arrays(self, showers: Showers) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {
            CELLS: showers.cells,
            ENERGY: showers.incident_energy.astype(np.float32),
            IDS[0]: showers.event_ids[:, 0],
            IDS[1]: showers.event_ids[:, 1],
        }
        if showers.weights is not None:
            arrays[WEIGHTS] = showers.weights
        for name, value in showers.conditions.items():
            if name != "incident_energy":
                arrays[CONDITION + name] = value
        for name, value in showers.columns.items():
            if name in arrays or value.dtype.kind not in "biuf" or not name.isidentifier():
                raise DataError(
                    f"cannot write {self._path}: column {name!r} ({value.dtype}) has no place in a "
                    "ROOT tree; leave it out or write .h5"
                )
            arrays[name] = value
        return {n: np.ascontiguousarray(a) for n, a in arrays.items()}


@contextmanager
def _open_writer(
    path: Path,
    *,
    meta: Mapping[str, Any] | None = None,
    n: int | None = None,
    manifest: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Iterator[_RootWriter]:
    uproot = _uproot(f"writing {path}")
    with atomic_path(path, overwrite=overwrite) as temporary, uproot.recreate(temporary) as file:
        writer = _RootWriter(file, path)
        yield writer
        if writer.rows == 0 or (n is not None and n != writer.rows):
            raise DataError(
                f"cannot write {path}: got {writer.rows} showers, "
                f"{'at least one' if n is None else n} needed"
            )
        record = {
            "meta": dict(writer.meta if meta is None else meta),
            "geometry": writer.geometry.to_dict(),
            "manifest": None if manifest is None else dict(manifest),
        }
        try:
            file[RECORD] = json.dumps(record)
        except (TypeError, ValueError) as error:
            raise DataError(f"meta and manifest must be JSON-able: {error}") from error


def _recognises(path: Path) -> bool:
    with open(path, "rb") as handle:
        return handle.read(4) == b"root"


FORMAT = Format("root", (".root",), _recognises, RootReader, _open_writer)
