"""What a file of showers holds, as a number of rows and a checksum: kept in its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.core.jobs import RESULT
from hepbridge.data import io
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers

__all__ = ["Contents", "verify_file"]

_BLOCK = 1 << 24  # bytes of cells that are read at once


class Contents:
    """The checksum of rows as they are added: blake2b of every array, then of those by name.

    It does not depend on how the rows are cut into blocks, nor on the format of the file.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._digests: dict[str, Any] = {}

    def add(self, showers: Showers) -> None:
        for name, array in _arrays(showers):
            digest = self._digests.setdefault(name, hashlib.blake2b(digest_size=16))
            digest.update(_bytes(array))
        self.rows += len(showers)

    def record(self) -> dict[str, Any]:
        whole = hashlib.blake2b(digest_size=16)
        for name in sorted(self._digests):
            whole.update(f"{name}\n{self._digests[name].hexdigest()}\n".encode())
        return {"rows": self.rows, "checksum": whole.hexdigest()}


def _arrays(showers: Showers) -> Iterator[tuple[str, NDArray[Any]]]:
    yield "cells", showers.cells.astype("<f4", copy=False)
    yield "event_ids", showers.event_ids.astype("<u8", copy=False)
    yield "incident_energy", showers.incident_energy.astype("<f4")  # as files keep it
    if showers.weights is not None:
        yield "weights", showers.weights.astype("<f8", copy=False)
    for name, values in showers.conditions.items():
        if name != "incident_energy":
            yield f"condition {name}", values.astype("<f8", copy=False)
    for name, values in showers.columns.items():
        yield f"column {name}", values


def _bytes(array: NDArray[Any]) -> bytes:
    if array.dtype.kind in "OU":  # text
        return b"".join(f"{value}\0".encode() for value in array.flat)
    little = array.dtype.newbyteorder("<")
    return np.ascontiguousarray(array, little).tobytes()


def verify_file(
    output: str | Path, fast: str | Path | None = None, *, geometry: Geometry | None = None
) -> dict[str, Any]:
    """Read a file that `refine_file` made, and compare it with its manifest.

    With the file of fast showers it came from, also that it has the same events in the same order.
    Returns the number of rows and the checksum. Raises DataError if anything differs.
    """
    found = Contents()
    with io.open_reader(Path(output), geometry=geometry) as reader:
        stated = (reader.manifest or {}).get(RESULT)
        if not isinstance(stated, dict):
            raise DataError(
                f"{output}: holds no checksum, so it cannot be verified; make it again with this "
                "version of hepbridge (.npy files have no room for one)"
            )
        size = max(1, _BLOCK // (4 * reader.geometry.n_cells))
        for block in reader.blocks(size):
            found.add(block)
        if found.record() != stated:
            raise DataError(
                f"{output}: is damaged: it holds {found.record()}, its manifest says {stated}; "
                "delete it and run the command again"
            )
        if fast is not None:
            _same_events(reader, Path(fast), size)
    return found.record()


def _same_events(reader: Any, fast: Path, size: int) -> None:
    with io.open_reader(fast, geometry=reader.geometry) as source:
        blocks = zip_longest(reader.blocks(size), source.blocks(size))
        for k, (ours, theirs) in enumerate(blocks):
            if ours is None or theirs is None or not _equal(ours, theirs):
                raise DataError(
                    f"{reader.path}: its events are not those of {fast} in the rows from {k * size} "
                    f"({len(reader)} rows here, {len(source)} there); delete it and refine again"
                )


def _equal(ours: Showers, theirs: Showers) -> bool:
    return np.array_equal(ours.event_ids, theirs.event_ids) and np.array_equal(
        ours.incident_energy.astype(np.float32), theirs.incident_energy.astype(np.float32)
    )
