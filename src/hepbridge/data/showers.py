"""The container of calorimeter showers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.geometry import SQUIRELS, Geometry

__all__ = ["Showers"]


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
        allow_empty_showers: bool = False,
    ) -> Showers:
        """Wrap arrays: ``cells`` (N, n_cells) or (N, *geometry.shape), ``incident_energy`` (N,) or (N, 1).

        ``unit`` ("MeV" or "GeV") is that of both. ``where`` names the origin in error messages.
        Raises DataError on wrong shapes, NaN or infinity, negative energies, showers without any
        energy (unless ``allow_empty_showers``), and empty input.
        """
        if unit not in ("MeV", "GeV"):
            raise DataError(f"{where}: unit {unit!r} is unknown; allowed: MeV, GeV")
        factor = 1000.0 if unit == "GeV" else 1.0
        energy = _floats(incident_energy, "incident_energy", where)
        values = _floats(cells, "cells", where)
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
        cells32 = np.ascontiguousarray(values * factor if factor != 1.0 else values, dtype=np.float32)
        energy = energy.reshape(-1).astype(np.float64) * factor
        named = {"incident_energy": energy}
        for name, value in (conditions or {}).items():
            named[name] = _floats(value, f"condition {name!r}", where).reshape(-1).astype(np.float64)
        _check(cells32, named, where, allow_empty_showers)
        weight = None if weights is None else _floats(weights, "weights", where).reshape(-1).astype(np.float64)
        kept = {name: np.asarray(value) for name, value in (columns or {}).items()}
        sized: dict[str, Any] = {**named, "weights": weight, **kept}
        for name, value in sized.items():
            if value is not None and len(value) != len(cells32):
                raise DataError(f"{where}: {name!r} has {len(value)} rows, but there are {len(cells32)} showers")
        if weight is not None and not np.isfinite(weight).all():
            raise DataError(f"{where}: weights must be finite; row {_first(~np.isfinite(weight))} is not")
        if event_ids is None:
            ids = make_event_ids(cells32, energy)
        else:
            ids = np.asarray(event_ids, dtype=np.uint64)
            if ids.shape != (len(cells32), 2):
                raise DataError(f"{where}: event ids must have shape ({len(cells32)}, 2), got {ids.shape}")
        return cls(cells32, named, geometry, ids, weight, kept, dict(meta or {}))

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, rows: slice | NDArray[Any]) -> Showers:
        """The rows of a slice, a mask or an index array, with everything that belongs to them."""
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
        return self.cells.sum(axis=1, dtype=np.float64)

    def with_cells(self, cells: NDArray[np.float32], **meta: Any) -> Showers:
        """The same events with other cell energies; ``meta`` is added to the provenance."""
        if cells.shape != self.cells.shape:
            raise DataError(f"cells of shape {cells.shape} cannot replace cells of shape {self.cells.shape}")
        return replace(self, cells=np.ascontiguousarray(cells, np.float32), meta={**self.meta, **meta})


def make_event_ids(cells: NDArray[np.float32], energy: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Ids (N, 2) = (uid, row); the uid is a hash of the energies and of the first and last 1024 showers."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(np.int64(len(cells)).tobytes())
    for part in (energy.astype("<f8"), cells[:1024].astype("<f4"), cells[-1024:].astype("<f4")):
        digest.update(np.ascontiguousarray(part).tobytes())
    uid = int.from_bytes(digest.digest(), "little")
    ids = np.empty((len(cells), 2), dtype=np.uint64)
    ids[:, 0], ids[:, 1] = uid, np.arange(len(cells))
    return ids


def _floats(value: ArrayLike, name: str, where: str) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{where}: {name} must be numbers, got dtype {array.dtype}")
    return np.atleast_1d(array)


def _first(mask: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(mask)[0])


def _check(
    cells: NDArray[np.float32],
    conditions: dict[str, NDArray[np.float64]],
    where: str,
    allow_empty_showers: bool,
) -> None:
    for name, value in conditions.items():
        bad = ~np.isfinite(value)
        if bad.any():
            raise DataError(f"{where}: {name} must be finite; row {_first(bad)} is {value[_first(bad)]}")
    energy = conditions["incident_energy"]
    if (energy <= 0).any():
        row = _first(energy <= 0)
        raise DataError(f"{where}: incident energies must be positive; row {row} is {energy[row]:g} MeV")
    sums = cells.sum(axis=1, dtype=np.float64)
    if not np.isfinite(sums).all():
        row = _first(~np.isfinite(sums))
        raise DataError(f"{where}: cell energies must be finite; row {row} holds NaN or infinity")
    if cells.min() < 0:
        row = _first((cells < 0).any(axis=1))
        raise DataError(
            f"{where}: cell energies must not be negative; row {row} holds {cells[row].min():g} MeV "
            "(subtract no pedestal, or clip before loading)"
        )
    if not allow_empty_showers and (sums == 0).any():
        row = _first(sums == 0)
        raise DataError(
            f"{where}: {int((sums == 0).sum())} showers have no energy at all (first: row {row}); "
            "remove them, or load with allow_empty_showers=True"
        )
