"""The container of calorimeter showers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.units import GEV, MEV
from hepbridge.data.conditions import check_values, checked_ids, floats
from hepbridge.data.geometry import SQUIRELS, Geometry

__all__ = ["Showers", "dataset_uid", "make_event_ids", "require_showers", "row_ids", "to_mev"]

UNITS = {"MeV": MEV, "GeV": GEV}


@dataclass(frozen=True)
class Showers:
    """N showers: cell energies and what is known about each.

    Attributes:
        cells: (N, n_cells) float32, MeV, finite and not negative.
        conditions: name -> (N,) float64; ``incident_energy`` (MeV) is always there.
        geometry: where the cells are.
        event_ids: (N, 2) uint64 = (data-set uid, row), the key of all per-event randomness.
        weights: (N,) float64 or None.
        columns: the user's own columns, name -> (N, …), carried through untouched.
        meta: provenance: plain values by name (simulation, particle, …).

    `Showers.from_arrays` wraps arrays, checks them and makes event ids; indexing takes rows.
    """

    cells: NDArray[np.float32]
    conditions: dict[str, NDArray[np.float64]]
    geometry: Geometry
    event_ids: NDArray[np.uint64]
    weights: NDArray[np.float64] | None = None
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_arrays(
        cls,
        cells: ArrayLike,
        incident_energy: ArrayLike,
        *,
        geometry: Geometry = SQUIRELS,
        unit: str = "MeV",
        conditions: dict[str, ArrayLike] | None = None,
        weights: ArrayLike | None = None,
        columns: dict[str, ArrayLike] | None = None,
        meta: dict[str, Any] | None = None,
        event_ids: ArrayLike | None = None,
        where: str = "the arrays",
        first_row: int = 0,
        allow_empty_showers: bool = False,
    ) -> Showers:
        """Wrap arrays: ``cells`` (N, n_cells) or ``(N, *shape)``, ``incident_energy`` (N,).

        ``unit`` ("MeV" or "GeV") is that of both. ``where`` names the origin in error messages
        and ``first_row`` the number that row 0 has there.
        Raises DataError on wrong shapes, NaN or infinity, negative energies, showers without any
        energy (unless ``allow_empty_showers``), and empty input.
        """
        if unit not in UNITS:
            raise DataError(f"{where}: unit {unit!r} is unknown; allowed: {', '.join(UNITS)}")
        energy = floats(incident_energy, "incident_energy", where)
        values = floats(cells, "cells", where)
        if len(values) == 0:
            raise DataError(f"{where}: holds no showers")
        values = values.reshape(len(values), -1)
        if values.shape[1] != geometry.n_cells:
            raise DataError(
                f"{where}: {values.shape[1]} cells per shower, but geometry {geometry.name!r} has "
                f"{geometry.n_cells}; pass the right geometry"
            )
        if energy.size != len(values):
            raise DataError(f"{where}: {len(values)} showers but {energy.size} incident energies")
        cells32 = to_mev(values, unit)
        energy = energy.reshape(-1).astype(np.float64) * UNITS[unit]
        named = {"incident_energy": energy}
        for name, value in (conditions or {}).items():
            named[name] = _column(value, f"condition {name!r}", where)
        weight = None if weights is None else _column(weights, "weights", where)
        kept = {name: np.atleast_1d(value) for name, value in (columns or {}).items()}
        sized: dict[str, Any] = {**named, "weights": weight, **kept}
        for name, value in sized.items():
            if value is not None and len(value) != len(cells32):
                raise DataError(
                    f"{where}: {name!r} has {len(value)} rows, but there are {len(cells32)} showers"
                )
        _check(cells32, named, where, first_row, allow_empty_showers)
        if weight is not None and not np.isfinite(weight).all():
            row = first_row + _first(~np.isfinite(weight))
            raise DataError(f"{where}: weights must be finite; row {row} is not")
        made = make_event_ids(cells32, energy) if event_ids is None else event_ids
        ids = checked_ids(made, len(cells32), where)
        return cls(cells32, named, geometry, ids, weight, kept, dict(meta or {}))

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, rows: slice | int | NDArray[Any]) -> Showers:
        """The rows of a slice, a mask or an index array, with everything that belongs to them."""
        if not isinstance(rows, slice):
            rows = np.atleast_1d(rows)
        return replace(
            self,
            cells=self.cells[rows],
            conditions={k: v[rows] for k, v in self.conditions.items()},
            event_ids=self.event_ids[rows],
            weights=None if self.weights is None else self.weights[rows],
            columns={k: v[rows] for k, v in self.columns.items()},
        )

    @property
    def incident_energy(self) -> NDArray[np.float64]:
        """Incident energy (N,), MeV."""
        return self.conditions["incident_energy"]

    @property
    def e_sum(self) -> NDArray[np.float64]:
        """Sum over the cells (N,), MeV, added in double precision."""
        total: NDArray[np.float64] = self.cells.sum(axis=1, dtype=np.float64)
        return total

    def with_cells(self, cells: NDArray[np.float32], **meta: Any) -> Showers:
        """The same events with other cell energies; ``meta`` is added to the provenance."""
        if cells.shape != self.cells.shape:
            raise DataError(
                f"cells of shape {cells.shape} cannot replace cells of shape {self.cells.shape}"
            )
        return replace(
            self,
            cells=np.ascontiguousarray(cells, np.float32),
            columns=dict(self.columns),
            meta={**self.meta, **meta},
        )


def require_showers(value: object, name: str) -> None:
    """Raise DataError unless ``value`` is `Showers`; ``name`` says which argument it is."""
    if not isinstance(value, Showers):
        raise DataError(
            f"{name} must be Showers, got {type(value).__name__}; read a file with hepbridge.load, "
            "or wrap arrays with Showers.from_arrays(cells, incident_energy)"
        )


def to_mev(values: NDArray[Any], unit: str) -> NDArray[np.float32]:
    """Cell energies as float32 MeV; what does not fit becomes infinite, which the checks refuse."""
    factor = UNITS[unit]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(values * factor if factor != 1 else values, dtype=np.float32)


def dataset_uid(
    energy: NDArray[np.float64], head: NDArray[np.float32], tail: NDArray[np.float32]
) -> int:
    """Name of a data set: 64-bit hash of length, incident energies, first and last 1024 showers."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(np.int64(len(energy)).astype("<i8").tobytes())
    for part in (energy.astype("<f8"), head[:1024].astype("<f4"), tail[-1024:].astype("<f4")):
        digest.update(np.ascontiguousarray(part).tobytes())
    return int.from_bytes(digest.digest(), "little")


def row_ids(uid: int, start: int, stop: int) -> NDArray[np.uint64]:
    """Event ids (stop - start, 2) = (uid, row) of the rows start … stop - 1."""
    ids = np.empty((stop - start, 2), dtype=np.uint64)
    ids[:, 0], ids[:, 1] = uid, np.arange(start, stop, dtype=np.uint64)
    return ids


def make_event_ids(cells: NDArray[np.float32], energy: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Event ids (N, 2) = (uid, row) of a whole data set."""
    return row_ids(dataset_uid(energy, cells, cells), 0, len(cells))


def _column(value: ArrayLike, name: str, where: str) -> NDArray[np.float64]:
    return floats(value, name, where).reshape(-1).astype(np.float64)


def _first(mask: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(mask)[0])


def _check(
    cells: NDArray[np.float32],
    conditions: dict[str, NDArray[np.float64]],
    where: str,
    first_row: int,
    allow_empty_showers: bool,
) -> None:
    def at(mask: NDArray[np.bool_]) -> int:
        return first_row + _first(mask)

    check_values(conditions, where, first_row)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        sums = cells.sum(axis=1, dtype=np.float64)
    if not np.isfinite(sums).all():
        raise DataError(
            f"{where}: cell energies must be finite; row {at(~np.isfinite(sums))} holds "
            "NaN or infinity"
        )
    if cells.min() < 0:
        bad = np.asarray((cells < 0).any(axis=1))
        raise DataError(
            f"{where}: cell energies must not be negative; row {at(bad)} holds "
            f"{cells[bad][0].min():g} MeV (subtract no pedestal, or clip before loading)"
        )
    if not allow_empty_showers and (sums == 0).any():
        raise DataError(
            f"{where}: {int((sums == 0).sum())} showers have no energy at all "
            f"(first: row {at(sums == 0)}); remove them, or in Python pass "
            "allow_empty_showers=True to keep them"
        )
