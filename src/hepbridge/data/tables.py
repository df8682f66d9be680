"""The container of event tables: named columns of numbers, with units, and masks for what is undefined."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.units import GEV, MEV, TEV
from hepbridge.data.showers import row_ids

__all__ = ["UNITS", "Table"]

UNITS: dict[str, tuple[str, float]] = {  # name -> (kind, size in the unit of hepbridge)
    "1": ("number", 1.0),
    "rad": ("angle", 1.0),
    "MeV": ("energy", MEV),
    "GeV": ("energy", GEV),
    "TeV": ("energy", TEV),
    "mm": ("length", 1.0),
    "cm": ("length", 10.0),
    "m": ("length", 1000.0),
}


@dataclass(frozen=True)
class Table:
    """N events: named columns, each with a unit.

    Some values do not exist: the momentum sharing of a jet in which soft drop finds no splitting, or
    any observable of a jet that was not found. They are NaN and have a mask, so that they are never
    mistaken for a number, and no spike stands in their place.

    Attributes:
        columns: name -> (N,) float64, finite where defined, NaN elsewhere.
        units: name -> a key of `UNITS`, for every column.
        defined: name -> (N,) bool, for the columns with undefined values; the others have none.
        flags: name -> (N,) bool: selections such as ``pass``.
        event_ids: (N, 2) uint64 = (data-set uid, row); equal ids are the same event in two tables.
        weights: (N,) float64 or None.
        meta: provenance: plain values by name.

    `Table.from_columns` wraps arrays and checks them; indexing takes rows.
    """

    columns: dict[str, NDArray[np.float64]]
    units: dict[str, str]
    event_ids: NDArray[np.uint64]
    defined: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    flags: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    weights: NDArray[np.float64] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, ArrayLike],
        units: Mapping[str, str],
        *,
        defined: Mapping[str, ArrayLike] | None = None,
        flags: Mapping[str, ArrayLike] | None = None,
        weights: ArrayLike | None = None,
        event_ids: ArrayLike | None = None,
        meta: Mapping[str, Any] | None = None,
        where: str = "the table",
    ) -> Table:
        """Wrap ``columns``, name -> (N,), with a unit for each. ``where`` names the origin in errors.

        What stands in a column where ``defined`` is False does not matter; it becomes NaN. Event ids
        are made from the content if there are none.

        Raises DataError on no columns, unequal lengths, a unit that is missing or unknown, NaN or
        infinity where a column is defined, and masks, weights or ids of a wrong type or shape.
        """
        if not columns:
            raise DataError(f"{where}: has no columns")
        values = {name: _numbers(column, name, where) for name, column in columns.items()}
        n = len(next(iter(values.values())))
        rows = {name: len(column) for name, column in values.items()}
        masks = {k: _booleans(v, f"the mask of {k!r}", where) for k, v in (defined or {}).items()}
        chosen = {k: _booleans(v, f"flag {k!r}", where) for k, v in (flags or {}).items()}
        weight = None if weights is None else _numbers(weights, "weights", where)
        rows |= {f"the mask of {name}": len(mask) for name, mask in masks.items()}
        rows |= {name: len(flag) for name, flag in chosen.items()}
        rows |= {} if weight is None else {"weights": len(weight)}
        if unequal := [f"{name!r} has {k} rows" for name, k in rows.items() if k != n]:
            raise DataError(
                f"{where}: {unequal[0]}, but {next(iter(values))!r} has {n}; all columns, masks, flags "
                "and weights need the same number"
            )
        if n == 0:
            raise DataError(f"{where}: holds no events")
        _check_units(values, units, where)
        if stray := [name for name in masks if name not in values]:
            raise DataError(f"{where}: there is a mask of {stray[0]!r}, but no such column")
        for name, column in values.items():
            mask = masks.get(name, np.ones(n, bool))
            bad = mask & ~np.isfinite(column)
            if bad.any():
                row = int(np.flatnonzero(bad)[0])
                raise DataError(
                    f"{where}: column {name!r} is {column[row]} in row {row}; where a value does not "
                    f"exist, say so with a mask: defined={{{name!r}: …}}"
                )
            values[name] = np.where(mask, column, np.nan)
        if weight is not None and not np.isfinite(weight).all():
            row = int(np.flatnonzero(~np.isfinite(weight))[0])
            raise DataError(f"{where}: weights must be finite; row {row} is {weight[row]}")
        return cls(
            values,
            {name: units[name] for name in values},
            _ids(event_ids, values, n, where),
            {name: mask for name, mask in masks.items() if not mask.all()},
            chosen,
            weight,
            dict(meta or {}),
        )

    def __len__(self) -> int:
        return len(self.event_ids)

    def __getitem__(self, rows: slice | int | NDArray[Any]) -> Table:
        """The rows of a slice, a mask or an index array, with everything that belongs to them."""
        if not isinstance(rows, slice):
            rows = np.atleast_1d(rows)
        masks = {name: mask[rows] for name, mask in self.defined.items()}
        return replace(
            self,
            columns={name: column[rows] for name, column in self.columns.items()},
            event_ids=self.event_ids[rows],
            defined={name: mask for name, mask in masks.items() if not mask.all()},
            flags={name: flag[rows] for name, flag in self.flags.items()},
            weights=None if self.weights is None else self.weights[rows],
        )

    def column(self, name: str, unit: str | None = None) -> NDArray[np.float64]:
        """A column (N,) in its own unit or in another of the same kind; NaN where undefined.

        Raises DataError for a name that is not there and a unit that does not fit.
        """
        if name not in self.columns:
            raise DataError(
                f"there is no column {name!r}; the table has: {', '.join(self.columns)}"
            )
        values, own = self.columns[name], self.units[name]
        if unit is None or unit == own:
            return values
        kind, size = _unit(own, name)
        asked, asked_size = _unit(unit, name)
        if asked != kind:
            raise DataError(
                f"column {name!r} is in {own!r} ({kind}) and cannot be had in {unit!r} ({asked})"
            )
        return values * (size / asked_size)

    def is_defined(self, *names: str) -> NDArray[np.bool_]:
        """Rows (N,) in which all these columns (default: all of the table) have a value."""
        out = np.ones(len(self), bool)
        for name in names or self.columns:
            self.column(name)
            if name in self.defined:
                out &= self.defined[name]
        return out

    def flag(self, name: str) -> NDArray[np.bool_]:
        """A flag (N,). Raises DataError if there is none of this name."""
        if name not in self.flags:
            raise DataError(
                f"there is no flag {name!r}; the table has: {', '.join(self.flags) or 'none'}"
            )
        return self.flags[name]

    def array(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Columns side by side (N, len(names)), each in its own unit.

        Raises DataError if one of them has an undefined value: choose rows first,
        ``table[table.is_defined(*names)].array(names)``.
        """
        missing = ~self.is_defined(*names)
        if missing.any():
            worst = [name for name in names if name in self.defined]
            raise DataError(
                f"{int(missing.sum())} of {len(self)} rows have no value of {', '.join(worst)}; choose "
                "rows with is_defined first, or fill them in column by column"
            )
        return np.stack([self.column(name) for name in names], axis=1)

    def filled(self, name: str, value: float) -> NDArray[np.float64]:
        """A column (N,) with ``value`` where it is undefined."""
        column = self.column(name)
        return np.where(self.defined[name], column, value) if name in self.defined else column

    @staticmethod
    def joined(parts: Iterable[Table]) -> Table:
        """The events of all parts, in order.

        Raises DataError if their columns, units, flags or weights differ.
        """
        tables = list(parts)
        if not tables:
            raise DataError("there are no tables to join")
        first = tables[0]
        for table in tables[1:]:
            for what, ours, theirs in (
                ("columns", list(first.columns), list(table.columns)),
                ("units", first.units, table.units),
                ("flags", list(first.flags), list(table.flags)),
                ("weights", first.weights is None, table.weights is None),
            ):
                if ours != theirs:
                    raise DataError(
                        f"tables with different {what} cannot be joined: {ours}, {theirs}"
                    )
        weights = [t.weights for t in tables if t.weights is not None]
        masked = dict.fromkeys(name for t in tables for name in t.defined)
        return Table(
            {k: np.concatenate([t.columns[k] for t in tables]) for k in first.columns},
            dict(first.units),
            np.concatenate([t.event_ids for t in tables]),
            {k: np.concatenate([t.is_defined(k) for t in tables]) for k in masked},
            {k: np.concatenate([t.flags[k] for t in tables]) for k in first.flags},
            np.concatenate(weights) if weights else None,
            dict(first.meta),
        )


def _numbers(value: ArrayLike, name: str, where: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise DataError(f"{where}: {name!r} is no array of numbers ({error})") from error
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise DataError(
            f"{where}: {name!r} must be numbers of shape (N,), got {array.dtype} of {array.shape}"
        )
    return array.astype(np.float64)


def _booleans(value: ArrayLike, name: str, where: str) -> NDArray[np.bool_]:
    array = np.asarray(value)
    if array.ndim != 1 or array.dtype.kind != "b":
        raise DataError(
            f"{where}: {name} must be truth values of shape (N,), got {array.dtype} of {array.shape}"
        )
    return array.copy()


def _unit(unit: str, name: str) -> tuple[str, float]:
    if unit not in UNITS:
        raise DataError(
            f"column {name!r}: unit {unit!r} is unknown; allowed: {', '.join(UNITS)} (1: a plain number)"
        )
    return UNITS[unit]


def _check_units(columns: Mapping[str, Any], units: Mapping[str, str], where: str) -> None:
    for name in columns:
        if name not in units:
            raise DataError(
                f"{where}: column {name!r} has no unit; pass one of {', '.join(UNITS)} "
                "(1: a plain number)"
            )
        try:
            _unit(units[name], name)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
    if stray := [name for name in units if name not in columns]:
        raise DataError(f"{where}: there is a unit of {stray[0]!r}, but no such column")


def _ids(
    given: ArrayLike | None, columns: Mapping[str, NDArray[np.float64]], n: int, where: str
) -> NDArray[np.uint64]:
    if given is not None:
        ids = np.asarray(given)
        if ids.shape != (n, 2) or ids.dtype.kind not in "iu" or ids.min() < 0:
            raise DataError(
                f"{where}: event ids must be integers >= 0 of shape ({n}, 2) = (data-set uid, row), "
                f"got shape {ids.shape} of {ids.dtype}"
            )
        return ids.astype(np.uint64)
    digest = hashlib.blake2b(digest_size=8)
    for name, column in columns.items():
        digest.update(name.encode())
        digest.update(column.astype("<f8").tobytes())
    return row_ids(int.from_bytes(digest.digest(), "little"), 0, n)
