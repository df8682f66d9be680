"""The container of showers as clouds of points: hits with a place and an energy, any number each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepbridge.core.errors import DataError
from hepbridge.data.showers import UNITS, row_ids

__all__ = ["PointShowers", "check_offsets"]

Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class PointShowers:
    """N showers of M hits in all; the hits of shower i are ``offsets[i]`` … ``offsets[i + 1] − 1``.

    Attributes:
        x_mm, y_mm, z_mm: (M,) float32, mm; x and y from the axis of the particle, z along it (or the
            number of the layer, where depths are not known).
        energy: (M,) float32, MeV, positive.
        offsets: (N + 1,) int64.
        incident_energy: (N,) float64, MeV.
        event_ids: (N, 2) uint64 = (data-set uid, row).
        weights: (N,) float64 or None.
        meta: provenance.

    Make it with `from_hits` or `from_padded`, which check; indexing takes rows.
    """

    x_mm: Floats32
    y_mm: Floats32
    z_mm: Floats32
    energy: Floats32
    offsets: NDArray[np.int64]
    incident_energy: NDArray[np.float64]
    event_ids: NDArray[np.uint64]
    weights: NDArray[np.float64] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_hits(
        cls,
        hits: ArrayLike,
        offsets: ArrayLike,
        incident_energy: ArrayLike,
        *,
        unit: str = "MeV",
        weights: ArrayLike | None = None,
        meta: dict[str, Any] | None = None,
        event_ids: NDArray[np.uint64] | None = None,
        where: str = "the arrays",
        first_row: int = 0,
    ) -> PointShowers:
        """Wrap ``hits`` (M, 4) = (x, y, z, energy) and ``offsets`` (N + 1,); drop hits of energy 0.

        ``unit`` ("MeV" or "GeV") is that of hits and incident energies. ``where`` names the origin
        in error messages, ``first_row`` the number that row 0 has there.

        Raises DataError on wrong shapes, offsets that run backwards or past the end, NaN or
        infinity, negative energies, incident energies that are not positive, and no showers.
        """
        if unit not in UNITS:
            raise DataError(f"{where}: unit {unit!r} is unknown; allowed: {', '.join(UNITS)}")
        points, start = _numbers(hits, "hits", where), _numbers(offsets, "offsets", where)
        incident = _numbers(incident_energy, "incident_energy", where).reshape(-1)
        if points.ndim != 2 or points.shape[1] != 4:
            raise DataError(
                f"{where}: hits must have shape (M, 4) = (x, y, z, energy), got {points.shape}"
            )
        if len(incident) == 0:
            raise DataError(f"{where}: holds no showers")
        if start.dtype.kind not in "iu" or start.shape != (len(incident) + 1,):
            raise DataError(
                f"{where}: offsets must be {len(incident) + 1} integers, one more than there are "
                f"incident energies; got shape {start.shape} of {start.dtype}"
            )
        edges = start.astype(np.int64)
        check_offsets(edges, len(points), where)
        owner = np.repeat(np.arange(len(incident)), np.diff(edges))
        _check(points, owner, incident, where, first_row)
        factor = UNITS[unit]
        with np.errstate(over="ignore"):
            energy = (points[:, 3] * factor).astype(np.float32)
        kept = energy > 0
        if not np.isfinite(energy).all():
            raise DataError(f"{where}: energies of hits are too large for MeV in single precision")
        counts = np.bincount(owner[kept], minlength=len(incident))
        weight = None
        if weights is not None:
            weight = _numbers(weights, "weights", where).reshape(-1).astype(np.float64)
            if len(weight) != len(incident) or not np.isfinite(weight).all():
                raise DataError(f"{where}: weights must be {len(incident)} finite numbers")
        x, y, z = (np.ascontiguousarray(points[kept, k], dtype=np.float32) for k in range(3))
        incident = incident.astype(np.float64) * factor
        ids = row_ids(_uid(energy, incident), 0, len(incident)) if event_ids is None else event_ids
        edges = np.concatenate([[0], np.cumsum(counts)])
        return cls(x, y, z, energy[kept], edges, incident, ids, weight, dict(meta or {}))

    @classmethod
    def from_padded(
        cls, events: ArrayLike, incident_energy: ArrayLike, **options: Any
    ) -> PointShowers:
        """Wrap ``events`` (N, P, 4) = (x, y, z, energy), padded with points of energy 0.

        ``options`` as in `from_hits`; raises DataError as it does.
        """
        where = options.get("where", "the arrays")
        points = _numbers(events, "events", where)
        if points.ndim != 3 or points.shape[2] != 4:
            raise DataError(
                f"{where}: padded showers must have shape (N, points, 4), got {points.shape}"
            )
        n, most, _ = points.shape
        filled = points[:, :, 3] != 0  # NaN is not 0, and is found by the check
        offsets = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int64)
        return cls.from_hits(
            points.reshape(n * most, 4)[filled.reshape(-1)], offsets, incident_energy, **options
        )

    def __len__(self) -> int:
        return len(self.incident_energy)

    def __getitem__(self, rows: slice | int | NDArray[Any]) -> PointShowers:
        """The rows of a slice, a mask or an index array, with their hits."""
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        counts = np.diff(self.offsets)[chosen]
        edges = np.concatenate([[0], np.cumsum(counts)])
        hits = np.arange(edges[-1]) + np.repeat(self.offsets[chosen] - edges[:-1], counts)
        return replace(
            self,
            x_mm=self.x_mm[hits],
            y_mm=self.y_mm[hits],
            z_mm=self.z_mm[hits],
            energy=self.energy[hits],
            offsets=edges,
            incident_energy=self.incident_energy[chosen],
            event_ids=self.event_ids[chosen],
            weights=None if self.weights is None else self.weights[chosen],
        )

    @property
    def owner(self) -> NDArray[np.int64]:
        """(M,) row of the shower of each hit, ascending."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @staticmethod
    def joined(parts: Sequence[PointShowers]) -> PointShowers:
        """The showers of all parts, in order."""
        weighted = any(p.weights is not None for p in parts)
        counts = np.concatenate([np.diff(p.offsets) for p in parts])
        return PointShowers(
            np.concatenate([p.x_mm for p in parts]),
            np.concatenate([p.y_mm for p in parts]),
            np.concatenate([p.z_mm for p in parts]),
            np.concatenate([p.energy for p in parts]),
            np.concatenate([[0], np.cumsum(counts)]),
            np.concatenate([p.incident_energy for p in parts]),
            np.concatenate([p.event_ids for p in parts]),
            np.concatenate([np.ones(len(p)) if p.weights is None else p.weights for p in parts])
            if weighted
            else None,
            dict(parts[0].meta),
        )


def check_offsets(edges: NDArray[np.int64], hits: int, where: str) -> None:
    """Raise DataError unless the borders between showers grow from 0 to the number of hits."""
    backwards = bool((np.diff(edges) < 0).any())
    if edges[0] != 0 or edges[-1] != hits or backwards:
        raise DataError(
            f"{where}: offsets must grow from 0 to the number of hits, {hits}; they run from "
            f"{edges[0]} to {edges[-1]}" + (", and backwards in between" if backwards else "")
        )


def _numbers(value: ArrayLike, name: str, where: str) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise DataError(f"{where}: {name} is no array of numbers ({error})") from error
    if array.dtype.kind not in "fiu":
        raise DataError(f"{where}: {name} must be numbers, got dtype {array.dtype}")
    return np.atleast_1d(array)


def _check(
    points: NDArray[Any],
    owner: NDArray[np.int64],
    incident: NDArray[Any],
    where: str,
    first_row: int,
) -> None:
    bad = ~(np.isfinite(incident) & (incident > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{where}: incident energies must be positive and finite; row {first_row + row} is "
            f"{incident[row]:g}"
        )
    wrong = ~np.isfinite(points).all(axis=1)
    if wrong.any():
        row = int(owner[np.flatnonzero(wrong)[0]])
        raise DataError(
            f"{where}: hits must be finite; row {first_row + row} holds NaN or infinity"
        )
    wrong = points[:, 3] < 0
    if wrong.any():
        row = int(owner[np.flatnonzero(wrong)[0]])
        raise DataError(
            f"{where}: energies of hits must not be negative; row {first_row + row} holds "
            f"{points[wrong][0, 3]:g}"
        )


def _uid(energy: Floats32, incident: NDArray[np.float64]) -> int:
    """Name of a data set: 64-bit hash of incident energies and hits."""
    digest = hashlib.blake2b(incident.astype("<f8").tobytes(), digest_size=8)
    digest.update(np.ascontiguousarray(energy, "<f4").tobytes())
    return int.from_bytes(digest.digest(), "little")
