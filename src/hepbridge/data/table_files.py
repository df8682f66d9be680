"""The door to files of event tables: HDF5, ROOT, Parquet and NumPy archives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hepbridge.core.errors import DataError, OutputError
from hepbridge.core.files import check_output
from hepbridge.data.formats.energyflow import is_energyflow, load_energyflow
from hepbridge.data.formats.flat_tables import Asked
from hepbridge.data.formats.npz_tables import load_npz_tables, save_npz_tables
from hepbridge.data.formats.parquet_tables import load_parquet_tables, save_parquet_tables
from hepbridge.data.formats.root_tables import load_root_tables, save_root_tables
from hepbridge.data.formats.tables import load_tables, save_tables
from hepbridge.data.tables import Table

__all__ = ["SUFFIXES", "read_tables", "write_tables"]

_ZIP = b"PK\x03\x04"
_BEGINNINGS: dict[bytes, Callable[..., dict[str, Table]]] = {
    b"root": load_root_tables,
    b"PAR1": load_parquet_tables,
    _ZIP: load_npz_tables,
}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_WRITERS: dict[str, Callable[..., None]] = {
    ".h5": save_tables,
    ".hdf5": save_tables,
    ".root": save_root_tables,
    ".parquet": save_parquet_tables,
    ".npz": save_npz_tables,
}
SUFFIXES = tuple(_WRITERS)


def read_tables(
    path: str | Path,
    names: Iterable[str] | None = None,
    *,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    weights: str | None = None,
    event_ids: tuple[str, str] | None = None,
) -> dict[str, Table]:
    """Tables by name; the content of the file, not its suffix, says what it is.

    What hepbridge wrote comes back as it was, and says itself what its weights and event ids are. Of a
    foreign ROOT tree, Parquet file or archive the numbers are columns (NaN, or null: undefined) and the
    truth values flags.

    Args:
        names: of tables (trees); default: all that hepbridge wrote, or the only one there is.
        columns: those to read, or {name in the table: name in the file}; default: all.
        units: column -> unit, for foreign files; default "1", a plain number. Of a file that says its units
            they must be the same.
        weights: the column of a foreign file with the weights.
        event_ids: two columns of integers of a foreign file, such as run and event, that say which rows
            of two tables are the same event. Default: ``event_id_uid`` and ``event_id_row`` if they are
            there, else made from the content of the file and the name of the table.

    Raises DataError for a file that is none of these, damaged, or without what is asked for; for
    branches of several numbers or of text, infinities, and unequal lengths.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    with open(path, "rb") as handle:
        head = handle.read(len(_HDF5))
    asked = Asked(columns, dict(units or {}), weights, event_ids)
    if head.startswith(_ZIP) and is_energyflow(path):
        return {name: _narrowed(t, asked, path) for name, t in load_energyflow(path).items()}
    for beginning, load in _BEGINNINGS.items():
        if head.startswith(beginning):
            return load(path, names, asked)
    if head != _HDF5:
        raise DataError(
            f"{path}: is no file of event tables; HDF5, ROOT, Parquet and .npz files can be read"
        )
    return {name: _narrowed(t, asked, path) for name, t in load_tables(path, names).items()}


def write_tables(
    tables: Mapping[str, Table], path: str | Path, *, overwrite: bool = False, **how: Any
) -> None:
    """Write tables by name; the suffix says as what: .h5, .hdf5, .root, .parquet or .npz.

    ``how``: ``meta`` and ``manifest`` of an HDF5 file (`save_tables`). Parquet files and archives hold
    one table. Everything of a table is written, and comes back from `read_tables`.

    Raises OutputError for another suffix or a file that cannot be written, DataError for tables that
    have no place in it.
    """
    path = check_output(path, overwrite=overwrite)
    save = _WRITERS.get(path.suffix.lower())
    if save is None:
        raise OutputError(f"cannot write {path}: tables end in {', '.join(SUFFIXES)}")
    if not tables:
        raise DataError(f"cannot write {path}: there are no tables")
    save(tables, path, overwrite=overwrite, **how)


def _narrowed(table: Table, asked: Asked, path: Path) -> Table:
    """The columns asked for, of a table that has all of them."""
    names = asked.names or {name: name for name in table.columns}
    for name in names.values():
        table.column(name)
    for name, unit in asked.units.items():
        if name in names and table.units[names[name]] != unit:
            raise DataError(
                f"{path}: column {name!r} is in {table.units[names[name]]!r}, as the file says, not in "
                f"{unit!r}; leave the unit out"
            )
    return replace(
        table,
        columns={new: table.columns[name] for new, name in names.items()},
        units={new: table.units[name] for new, name in names.items()},
        defined={new: table.defined[n] for new, n in names.items() if n in table.defined},
    )
