"""Event tables in Parquet files through PyArrow (extra ``parquet``): a file is a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError, MissingExtraError
from hepbridge.core.files import atomic_path
from hepbridge.data.formats.base import damaged
from hepbridge.data.formats.flat_tables import RECORD, Asked, Stored, flattened, record_of
from hepbridge.data.tables import Table

__all__ = ["load_parquet_tables", "save_parquet_tables"]

_UNIT = b"unit"  # metadata of a column, for other readers


def load_parquet_tables(
    path: str | Path, names: Iterable[str] | None = None, asked: Asked | None = None
) -> dict[str, Table]:
    """The table of a Parquet file, by its stored name, or the first part of the file's. Null is undefined.

    Raises DataError for a file that is damaged, another table than there is, columns that are not
    there, and columns with more or less than one number for each event.
    """
    parquet, path, asked = _parquet(f"reading {path}"), Path(path), asked or Asked()
    with damaged(path), parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        note = json.loads((schema.metadata or {}).get(RECORD.encode(), b"null"))
        record = record_of(note, str(path))
        name = str(record.get("name", path.stem)) if record else path.stem
        if names is not None and (asked_for := list(names)) != [name]:
            raise DataError(
                f"{path}: holds the table {name!r}, not {', '.join(asked_for) or 'none'}"
            )
        if twice := [n for n in schema.names if schema.names.count(n) > 1]:
            raise DataError(f"{path}: has two columns {twice[0]!r}; rename one")
        stored = Stored(path, name, {f.name: _kind(f.type) for f in schema}, record)
        found = file.read(columns=stored.wanted(asked))
        arrays = {n: _values(found.column(n), n, stored) for n in found.column_names}
        return {name: stored.table(arrays, asked)}


def _kind(kind: Any) -> str | None:
    """None for numbers and truth values, else the type of the column."""
    from pyarrow import types

    plain = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return None if plain else str(kind)


def _values(column: Any, name: str, stored: Stored) -> NDArray[Any]:
    from pyarrow import types

    if column.null_count and types.is_boolean(column.type):
        raise DataError(f"{stored.where}: the truth values {name!r} have nulls")
    return np.array(column.to_numpy())  # integers with nulls come as float64 with NaN


def save_parquet_tables(
    tables: Mapping[str, Table], path: str | Path, *, overwrite: bool = False
) -> None:
    """Write a table, atomically, with null where it has no value; the units stand in its metadata.

    Raises DataError if there is more than one, OutputError if the file cannot be written.
    """
    parquet = _parquet(f"writing {path}")
    import pyarrow as pa

    if len(tables) != 1:
        raise DataError(
            f"cannot write {path}: a Parquet file holds one table, not {', '.join(tables) or 'none'}; "
            "write one file for each, or .h5 or .root"
        )
    ((name, table),) = tables.items()
    arrays, record = flattened(table, path)
    columns = {
        n: pa.array(
            a, mask=~table.defined[n] if n in table.defined and n in table.columns else None
        )
        for n, a in arrays.items()
    }
    units = {n: {_UNIT: u.encode()} for n, u in table.units.items()}
    fields = [pa.field(n, a.type, metadata=units.get(n)) for n, a in columns.items()]
    note = {RECORD.encode(): json.dumps({**record, "name": name}).encode()}
    whole = pa.table(list(columns.values()), schema=pa.schema(fields, metadata=note))
    with atomic_path(path, overwrite=overwrite) as temporary:
        parquet.write_table(whole, temporary)


def _parquet(purpose: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError.of("parquet", "pyarrow", purpose) from error
    return pyarrow.parquet
