"""Event tables in NumPy archives (.npz): one array for each column; a file is a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.files import atomic_path
from hepbridge.data.formats.base import damaged
from hepbridge.data.formats.flat_tables import RECORD, Asked, Stored, flattened, record_of
from hepbridge.data.tables import Table

__all__ = ["load_npz_tables", "save_npz_tables"]


def load_npz_tables(
    path: str | Path, names: Iterable[str] | None = None, asked: Asked | None = None
) -> dict[str, Table]:
    """The table of an archive, by its stored name, or the first part of the file's.

    Raises DataError for a file that is damaged, arrays that are not there, objects (nothing is
    unpickled) and arrays with more or less than one number for each event.
    """
    path, asked = Path(path), asked or Asked()
    with damaged(path), open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
        note = json.loads(str(file[RECORD])) if RECORD in file.files else None
        record = record_of(note, str(path))
        name = str(record.get("name", path.stem)) if record else path.stem
        if names is not None and (asked_for := list(names)) != [name]:
            raise DataError(
                f"{path}: holds the table {name!r}, not {', '.join(asked_for) or 'none'}"
            )
        members = [m for m in file.files if m != RECORD]
        first = Stored(path, name, dict.fromkeys(members), record)
        arrays = {m: _array(file, m, path) for m in first.wanted(asked)}
    kinds = {m: f"{a.dtype} of shape {a.shape}" for m, a in arrays.items() if _unfit(a)}
    stored = Stored(path, name, {m: kinds.get(m) for m in members}, record)
    stored.wanted(asked)
    return {name: stored.table(arrays, asked)}


def _array(file: Any, name: str, path: Path) -> NDArray[Any]:
    try:
        return np.asarray(file[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"{path}: array {name!r} holds Python objects, which are never unpickled; leave it out "
            "with columns=[…]"
        ) from error


def _unfit(values: NDArray[Any]) -> bool:
    return values.ndim != 1 or values.dtype.kind not in "biuf"


def save_npz_tables(
    tables: Mapping[str, Table], path: str | Path, *, overwrite: bool = False
) -> None:
    """Write a table as a packed archive, atomically.

    Raises DataError if there is more than one, OutputError if the file cannot be written.
    """
    if len(tables) != 1:
        raise DataError(
            f"cannot write {path}: an .npz holds one table, not {', '.join(tables) or 'none'}; "
            "write one file for each, or .h5 or .root"
        )
    ((name, table),) = tables.items()
    arrays, record = flattened(table, path)
    if RECORD in arrays:
        raise DataError(f"cannot write {path}: the name {RECORD!r} is taken; rename the column")
    note = {RECORD: np.array(json.dumps({**record, "name": name}))}
    with atomic_path(path, overwrite=overwrite) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays, **note)
