"""What a file of showers holds, as a number of rows and a checksum: kept in its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import HepbridgeError, VerificationError
from hepbridge.core.jobs import RESULT
from hepbridge.data import io
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers

__all__ = ["Contents", "verify_file", "verify_files"]

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
    Returns the number of rows and the checksum. Raises VerificationError if anything differs, and
    DataError if a file cannot be read.
    """
    found = Contents()
    with io.open_reader(Path(output), geometry=geometry) as reader:
        stated = (reader.manifest or {}).get(RESULT)
        if not isinstance(stated, dict):
            raise VerificationError(
                f"{output}: holds no checksum, so it cannot be verified; make it again with this "
                "version of hepbridge (.npy files have no room for one)"
            )
        size = max(1, _BLOCK // (4 * reader.geometry.n_cells))
        for block in reader.blocks(size):
            found.add(block)
        if found.record() != stated:
            raise VerificationError(
                f"{output}: is damaged: it holds {found.record()}, its manifest says {stated}; "
                "delete it and run the command again"
            )
        if fast is not None:
            _same_events(reader, Path(fast), size)
    return found.record()


def verify_files(
    files: Mapping[Path, Path], refused: Mapping[Path, str] | None = None
) -> list[dict[str, Any]]:
    """`verify_file` for many files, input -> output; all are read, whatever is wrong with the first.

    ``refused``, output -> reason, are those that are known not to be the ones asked for. Raises
    VerificationError with every output that does not pass and its reason.
    """
    refused, bad, good = refused or {}, {}, []
    for fast, output in files.items():
        try:
            if not output.exists():
                raise VerificationError(f"{output}: is missing; run the command again")
            if output in refused:  # say first if it cannot be read at all
                io.open_reader(output).close()
                raise VerificationError(refused[output])
            good.append(verify_file(output, fast))
        except HepbridgeError as error:
            bad[output] = str(error)
    if bad:
        lines = (f"\n  {output}: {_reason(output, bad[output])}" for output in sorted(bad))
        raise VerificationError(
            f"{len(bad)} of {len(files)} outputs do not pass verification; delete what is damaged and "
            f"run the command again:{''.join(lines)}"
        )
    return good


def _reason(output: Path, message: str) -> str:
    """A message about a file without its name at the front."""
    return message.removeprefix(f"{output}").lstrip(": ")


def _same_events(reader: Any, fast: Path, size: int) -> None:
    with io.open_reader(fast, geometry=reader.geometry) as source:
        blocks = zip_longest(reader.blocks(size), source.blocks(size))
        for k, (ours, theirs) in enumerate(blocks):
            if ours is None or theirs is None or not _equal(ours, theirs):
                raise VerificationError(
                    f"{reader.path}: its events are not those of {fast} in the rows from {k * size} "
                    f"({len(reader)} rows here, {len(source)} there); delete it and refine again"
                )


def _equal(ours: Showers, theirs: Showers) -> bool:
    return np.array_equal(ours.event_ids, theirs.event_ids) and np.array_equal(
        ours.incident_energy.astype(np.float32), theirs.incident_energy.astype(np.float32)
    )
