"""Event tables in HDF5: one file holds one or several.

Layout: a group for each table, with ``event_id`` (N, 2) uint64, ``columns/NAME`` (N,) float64 with the
attribute ``unit``, ``defined/NAME`` and ``flags/NAME`` (N,) of truth values, and ``weights`` (N,); its
attributes are the provenance of the table. Attributes of the file: ``format`` = ``hepbridge-tables``,
``format_version``, the provenance of the file and ``hepbridge_manifest`` (JSON).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError, HepbridgeError
from hepbridge.core.files import atomic_path
from hepbridge.data.formats.attributes import fixed_text, plain, read_attributes, write_attributes
from hepbridge.data.formats.base import damaged
from hepbridge.data.formats.hdf5 import check_declared, open_hdf5, passes
from hepbridge.data.tables import Table

__all__ = ["is_tables", "load_tables", "read_tables_manifest", "save_tables"]

FORMAT, VERSION = "hepbridge-tables", 1
FORMAT_KEY, VERSION_KEY, UNIT_KEY = "format", "format_version", "unit"
COLUMNS, DEFINED, FLAGS, WEIGHTS, EVENT_ID = "columns", "defined", "flags", "weights", "event_id"
CHUNK_ROWS = 1 << 16
LIBVER = ("v110", "v110")  # this file version has checksums on its metadata: damage is noticed


def is_tables(path: str | Path) -> bool:
    """Is this a file of event tables?"""
    return passes(path, _says_tables)


def save_tables(
    tables: Mapping[str, Table],
    path: str | Path,
    *,
    meta: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write tables by name into an HDF5 file, atomically.

    ``meta`` is the provenance of the file, ``manifest`` the request that made it. The file is put
    together in memory first, so that a full disk leaves nothing behind.

    Raises DataError for names that HDF5 does not take, OutputError if the file cannot be written.
    """
    if not tables:
        raise DataError(f"cannot write {path}: there are no tables")
    content = io.BytesIO()
    with h5py.File(content, "w", libver=LIBVER, track_order=True) as file:
        for name, table in tables.items():
            _write(file.create_group(_checked(name, path), track_order=True), table, path)
        marks = {FORMAT_KEY: FORMAT, VERSION_KEY: VERSION}
        write_attributes(file, {**dict(meta or {}), **marks}, None, manifest)
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_tables(path: str | Path, names: Iterable[str] | None = None) -> dict[str, Table]:
    """Tables by name, all or those asked for; the provenance of the file is in each one's ``meta``.

    Raises DataError if the file is none of tables, damaged, or lacks a table or a part of one.
    """
    path = _existing(path)
    with damaged(path), open_hdf5(path) as file:
        meta = _file_meta(file, path)[0]
        there = [name for name in file if isinstance(file[name], h5py.Group)]
        wanted = there if names is None else list(names)
        for name in wanted:
            if name not in there:
                raise DataError(
                    f"{path}: there is no table {name!r}; the file has: {', '.join(there) or 'none'}"
                )
        return {name: _read(file[name], meta, path) for name in wanted}


def read_tables_manifest(path: str | Path) -> dict[str, Any] | None:
    """What the writer of a file of tables stored about its job; None if there is no such thing."""
    try:
        path = _existing(path)
        with damaged(path), open_hdf5(path) as file:
            return _file_meta(file, path)[1]
    except HepbridgeError:
        return None


def _write(group: h5py.Group, table: Table, path: str | Path) -> None:
    for name, column in table.columns.items():
        dataset = _dataset(group, f"{COLUMNS}/{_checked(name, path)}", column)
        dataset.attrs[UNIT_KEY] = fixed_text(table.units[name])
    for kind, members in ((DEFINED, table.defined), (FLAGS, table.flags)):
        for name, mask in members.items():
            _dataset(group, f"{kind}/{_checked(name, path)}", mask)
    _dataset(group, EVENT_ID, table.event_ids)
    if table.weights is not None:
        _dataset(group, WEIGHTS, table.weights)
    write_attributes(group, table.meta, None, None)


def _dataset(group: h5py.Group, name: str, values: NDArray[Any]) -> h5py.Dataset:
    parent, _, leaf = name.rpartition("/")
    if parent:  # columns come back in the order in which they were written
        group = group[parent] if parent in group else group.create_group(parent, track_order=True)
    return group.create_dataset(
        leaf,
        data=values,
        chunks=(min(len(values), CHUNK_ROWS), *values.shape[1:]),
        compression=4,
        shuffle=True,
        fletcher32=True,
    )


def _checked(name: str, path: str | Path) -> str:
    if not name.isprintable() or "/" in name or name in ("", ".", ".."):
        raise DataError(f"cannot write {path}: the name {name!r} is no name of a dataset")
    return name


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    return path


def _file_meta(file: h5py.File, path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    meta, manifest, _ = read_attributes(file, path)
    if meta.pop(FORMAT_KEY, None) != FORMAT:
        raise DataError(f"{path}: is no file of event tables (hepbridge simulate zjets makes some)")
    if (version := meta.pop(VERSION_KEY, None)) != VERSION:
        raise DataError(
            f"{path}: has version {version} of {FORMAT}, this hepbridge reads {VERSION}"
        )
    return meta, manifest


def _read(group: h5py.Group, meta: Mapping[str, Any], path: Path) -> Table:
    name = group.name[1:]
    if not isinstance(group.get(COLUMNS), h5py.Group):
        raise DataError(f"{path}: table {name!r} has no group {COLUMNS!r}")
    columns, units = {}, {}
    for key, dataset in _members(group, COLUMNS, path).items():
        columns[key] = dataset[...]
        if UNIT_KEY not in dataset.attrs:
            raise DataError(
                f"{path}: column {key!r} of table {name!r} has no attribute {UNIT_KEY!r}"
            )
        units[key] = str(plain(dataset.attrs[UNIT_KEY]))
    own, _, _ = read_attributes(group, path)
    others = {}
    for key in (EVENT_ID, WEIGHTS):
        dataset = group.get(key)
        if isinstance(dataset, h5py.Dataset):
            check_declared(dataset, path)
            others[key] = np.asarray(dataset[...])
    return Table.from_columns(
        columns,
        units,
        defined={k: d[...] for k, d in _members(group, DEFINED, path).items()},
        flags={k: d[...] for k, d in _members(group, FLAGS, path).items()},
        weights=others.get(WEIGHTS),
        event_ids=others.get(EVENT_ID),
        meta={**meta, **own},
        where=f"{path}: table {name!r}",
    )


def _members(group: h5py.Group, name: str, path: Path) -> dict[str, h5py.Dataset]:
    found = group.get(name)
    if not isinstance(found, h5py.Group):
        return {}
    datasets = {key: found[key] for key in found if isinstance(found[key], h5py.Dataset)}
    for dataset in datasets.values():
        check_declared(dataset, path)
    return datasets


def _says_tables(file: h5py.File) -> bool:
    found = file.attrs.get(FORMAT_KEY)
    return bool((found.decode() if isinstance(found, bytes) else found) == FORMAT)
