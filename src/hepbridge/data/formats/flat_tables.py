"""Event tables as flat columns side by side: what ROOT trees, Parquet files and .npz archives hold.

A table that hepbridge writes has a column for each of its own (NaN where it has no value), one of truth
values for each flag, ``event_id_uid`` and ``event_id_row``, ``weight`` if there are weights, and a record
(JSON) that says which is which, the units and the provenance. A foreign file has no record: numbers become
columns, truth values flags, and the caller says what else there is.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.files import file_digest
from hepbridge.data.showers import row_ids
from hepbridge.data.tables import Table

__all__ = ["RECORD", "Asked", "Stored", "flattened", "record_of"]

log = logging.getLogger(__name__)

RECORD = "hepbridge"  # the name of the record in a file
FORMAT, VERSION = "hepbridge-table", 1
IDS, WEIGHT = ("event_id_uid", "event_id_row"), "weight"
_EXACT = 1 << 53  # beyond it float64 skips integers


@dataclass(frozen=True)
class Asked:
    """What a caller says of a file and wants of it; see `hepbridge.data.table_files.read_tables`."""

    columns: Sequence[str] | Mapping[str, str] | None = None
    units: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None
    event_ids: tuple[str, str] | None = None

    @property
    def names(self) -> dict[str, str] | None:
        """Name in the table -> name in the file, None: all."""
        if self.columns is None or isinstance(self.columns, Mapping):
            return None if self.columns is None else dict(self.columns)
        if isinstance(self.columns, str):
            raise DataError(f"columns is a list of names, not {self.columns!r}: [{self.columns!r}]")
        return {name: name for name in self.columns}


@dataclass(frozen=True)
class Stored:
    """A table in a file, before its columns are read.

    Attributes:
        path: the file. name: of the table.
        types: column -> None for plain numbers and truth values, or what else it is, in words.
        record: of a table that hepbridge wrote, else None.
    """

    path: Path
    name: str
    types: Mapping[str, str | None]
    record: Mapping[str, Any] | None

    @property
    def where(self) -> str:
        return f"{self.path}: table {self.name!r}"

    def wanted(self, asked: Asked) -> list[str]:
        """The columns of the file to read. Raises DataError if they are not there, or no numbers."""
        names, special = asked.names, self._special(asked)
        own = self.record["columns"] if self.record else self.types
        found = list(dict.fromkeys((*(own if names is None else names.values()), *special)))
        if missing := [name for name in found if name not in self.types]:
            raise DataError(
                f"{self.where}: has no column {missing[0]!r}; it has: {', '.join(self.types)}"
            )
        if unfit := [f"{name} ({kind})" for name in found if (kind := self.types[name])]:
            fit = [name for name in self.types if self.types[name] is None]
            raise DataError(
                f"{self.where}: not one number for each event: {', '.join(unfit)}; choose among the "
                f"others with columns=[…]: {', '.join(fit) or 'there are none'}"
            )
        return found

    def _weights_and_ids(self, asked: Asked) -> tuple[str | None, tuple[str, str] | None]:
        """Names of the column with the weights, and of those with the event ids, if there are any."""
        if self.record is not None:
            return WEIGHT if self.record["weights"] else None, IDS
        return asked.weights, asked.event_ids or (IDS if set(IDS) <= set(self.types) else None)

    def _special(self, asked: Asked) -> list[str]:
        """What is read besides the columns asked for."""
        weights, ids = self._weights_and_ids(asked)
        flags = self.record["flags"] if self.record else []
        return [*flags, *(ids or ()), *([weights] if weights else [])]

    def table(self, arrays: Mapping[str, NDArray[Any]], asked: Asked) -> Table:
        """The table of what was read. Raises DataError as `Table.from_columns`, and on infinities."""
        weights, ids = self._weights_and_ids(asked)
        record = self.record or {}
        names = asked.names
        if names is None:
            names = {name: name for name in arrays if name not in (weights, *(ids or ()))}
        else:
            names |= {name: name for name in record.get("flags", [])}
        chosen = {new: arrays[name] for new, name in names.items()}
        flags = {name: a for name, a in chosen.items() if a.dtype.kind == "b"}
        columns = {name: self._numbers(a, name) for name, a in chosen.items() if name not in flags}
        stored = record.get("units", {})
        units = {new: stored.get(names[new], "1") for new in columns}
        for name, unit in asked.units.items():
            if name not in columns:
                if name not in self.types:
                    log.info("%s: there is a unit of %r, but no such column", self.where, name)
            elif self.record is not None and units[name] != unit:
                raise DataError(
                    f"{self.where}: column {name!r} is in {units[name]!r}, as the file says, not in "
                    f"{unit!r}; leave the unit out"
                )
            else:
                units[name] = unit
        n = len(next(iter(arrays.values()))) if arrays else 0
        return Table.from_columns(
            columns,
            units,
            defined={n: ~np.isnan(c) for n, c in columns.items() if np.isnan(c).any()},
            flags=flags,
            weights=arrays[weights] if weights else None,
            event_ids=self._made(n) if ids is None else self._pairs(arrays, ids),
            meta=record.get("meta", {}),
            where=self.where,
        )

    def _numbers(self, values: NDArray[Any], name: str) -> NDArray[Any]:
        if values.dtype.kind in "iu" and len(values):
            if max(abs(int(values.min())), abs(int(values.max()))) > _EXACT:
                log.warning("%s: column %r has integers above 2^53: rounded", self.where, name)
            return values
        if (bad := np.isinf(values)).any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{self.where}: column {name!r} is {values[row]} in row {row}; a value that does not "
                "exist is NaN"
            )
        return values

    def _pairs(self, arrays: Mapping[str, NDArray[Any]], ids: tuple[str, str]) -> NDArray[Any]:
        for name in ids:
            if arrays[name].dtype.kind not in "iu" or (
                len(arrays[name]) and arrays[name].min() < 0
            ):
                raise DataError(
                    f"{self.where}: column {name!r} holds no event ids, which are integers >= 0"
                )
        return np.stack([arrays[name].astype(np.uint64) for name in ids], axis=1)

    def _made(self, n: int) -> NDArray[np.uint64]:
        """Ids of the rows of this table of this file, whichever columns are read."""
        text = f"{file_digest(self.path)} {self.name}".encode()
        uid = hashlib.blake2b(text, digest_size=8).digest()
        return row_ids(int.from_bytes(uid, "little"), 0, n)


def flattened(table: Table, path: str | Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The columns of a table side by side, and its record.

    Raises DataError if two of them would have one name.
    """
    arrays: dict[str, NDArray[Any]] = {}
    pieces: list[tuple[str, NDArray[Any]]] = [*table.columns.items(), *table.flags.items()]
    pieces += [(name, table.event_ids[:, k]) for k, name in enumerate(IDS)]
    if table.weights is not None:
        pieces.append((WEIGHT, table.weights))
    for name, values in pieces:
        if name in arrays or not name.isprintable() or not name:
            raise DataError(
                f"cannot write {path}: {name!r} cannot be the name of a column or flag there, or is "
                "one twice; rename it, or write .h5"
            )
        arrays[name] = np.ascontiguousarray(values)
    record = {
        "format": FORMAT,
        "format_version": VERSION,
        "columns": list(table.columns),
        "units": dict(table.units),
        "flags": list(table.flags),
        "weights": table.weights is not None,
        "meta": dict(table.meta),
    }
    try:
        json.dumps(record)
    except (TypeError, ValueError) as error:
        raise DataError(f"cannot write {path}: meta must be JSON-able: {error}") from error
    return arrays, record


def record_of(value: Any, where: str) -> dict[str, Any] | None:
    """The record of a table that hepbridge wrote, checked; None for anything else."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        return None
    if value.get("format_version") != VERSION:
        raise DataError(
            f"{where}: has version {value.get('format_version')} of {FORMAT}, this hepbridge reads "
            f"{VERSION}"
        )
    kinds = {"columns": list, "units": dict, "flags": list, "weights": bool, "meta": dict}
    if wrong := [k for k, kind in kinds.items() if not isinstance(value.get(k), kind)]:
        raise DataError(f"{where}: the record of hepbridge has no valid {wrong[0]!r}")
    return value
