"""Event tables in ROOT files through uproot (extra ``root``): a flat TTree or RNTuple is a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hepbridge.core.errors import DataError, MissingExtraError
from hepbridge.core.files import atomic_path
from hepbridge.data.formats.base import damaged
from hepbridge.data.formats.flat_tables import RECORD, Asked, Stored, flattened, record_of
from hepbridge.data.tables import Table

__all__ = ["load_root_tables", "save_root_tables"]

_KINDS = ("TTree", "ROOT::RNTuple")
_WIDTHS = (8, 16, 32, 64)
_NUMBERS = {"double", "float", "bool", *(f"{s}int{w}_t" for s in ("", "u") for w in _WIDTHS)}


def load_root_tables(
    path: str | Path, names: Iterable[str] | None = None, asked: Asked | None = None
) -> dict[str, Table]:
    """The trees of a ROOT file as tables; all of a file of hepbridge, else the only one or ``names``.

    Raises DataError for a file that is damaged, a tree or branch that is not there, and branches with
    more or less than one number for each event.
    """
    uproot, path, asked = _uproot(f"reading {path}"), Path(path), asked or Asked()
    with damaged(path), uproot.open(path) as file:
        size, end = path.stat().st_size, int(file.file.fEND)
        if size < end:
            raise DataError(f"{path}: the file is truncated: {size} of {end} bytes are there")
        trees = file.keys(recursive=True, cycle=False, filter_classname=lambda c: c in _KINDS)
        there = ", ".join(trees) or "none"
        records = json.loads(str(file[RECORD])) if RECORD in file else {}
        records = records if isinstance(records, dict) else {}
        own = {name: record_of(records.get(name), f"{path}: table {name!r}") for name in trees}
        wanted = [name for name in trees if own[name]] or trees if names is None else list(names)
        if names is None and len(wanted) != 1 and not all(own[name] for name in wanted):
            raise DataError(f"{path}: which tree is the table? Pass names=[…]; it has: {there}")
        for name in wanted:
            if name not in trees:
                raise DataError(f"{path}: there is no tree {name!r}; the file has: {there}")
        if not wanted:
            raise DataError(f"{path}: has no TTree and no RNTuple")
        return {name: _read(file[name], name, own[name], path, asked) for name in wanted}


def _read(
    tree: Any, name: str, record: Mapping[str, Any] | None, path: Path, asked: Asked
) -> Table:
    branches = {b: tree[b] for b in tree.keys(recursive=False)}
    stored = Stored(path, name, {k: _kind(b) for k, b in branches.items()}, record)
    chosen = stored.wanted(asked)
    for branch in chosen:
        if (rows := int(branches[branch].num_entries)) != int(tree.num_entries):
            raise DataError(
                f"{stored.where}: branch {branch!r} has {rows} rows, the tree has "
                f"{int(tree.num_entries)}"
            )
    arrays = {b: np.asarray(branches[b].array(library="np")) for b in chosen}
    return stored.table(arrays, asked)


def _kind(branch: Any) -> str | None:
    """None for one number per event, else the type of the branch."""
    kind = str(branch.typename)
    return None if kind.removeprefix("std::") in _NUMBERS else kind


def save_root_tables(
    tables: Mapping[str, Table], path: str | Path, *, overwrite: bool = False
) -> None:
    """Write tables by name as TTrees, atomically; a string ``hepbridge`` (JSON) holds what trees cannot.

    Raises DataError for names that are no identifiers, OutputError if the file cannot be written.
    """
    uproot, records = _uproot(f"writing {path}"), {}
    with atomic_path(path, overwrite=overwrite) as temporary, uproot.recreate(temporary) as file:
        for name, table in tables.items():
            arrays, records[name] = flattened(table, path)
            if unfit := [n for n in (name, *arrays) if not n.isidentifier() or n == RECORD]:
                raise DataError(
                    f"cannot write {path}: {unfit[0]!r} is no name of a tree or branch; use letters, "
                    "digits and underscores, or write .h5"
                )
            file.mktree(name, {n: a.dtype for n, a in arrays.items()}).extend(arrays)
        file[RECORD] = json.dumps(records)


def _uproot(purpose: str) -> Any:
    try:
        import uproot
    except ImportError as error:
        raise MissingExtraError.of("root", "uproot", purpose) from error
    return uproot
