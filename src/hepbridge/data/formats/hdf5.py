"""HDF5 files are opened here: what they declare is checked before the library trusts it."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from hepbridge.core.errors import DataError

__all__ = ["check_declared", "open_hdf5", "passes"]

# Deflate packs at most 1032 : 1. A dataset that declares far more than its stored bytes can hold
# is damaged or hostile; small ones are harmless.
MAX_RATIO, HARMLESS_BYTES = 2000, 1 << 26

_HEAP, _HEAD = (
    b"GCOL\x01\x00\x00\x00",
    16,
)  # a collection of the global heap; header of it and of objects
_BLOCK = 1 << 24  # bytes searched at once


def open_hdf5(path: str | Path) -> h5py.File:
    """The file, open for reading.

    Raises OSError as h5py does, DataError if its text cannot be read without harm (`_check_heaps`).
    """
    file = h5py.File(path, "r")
    try:
        if _has_variable_text(file):
            _check_heaps(Path(path), file.userblock_size)
    except BaseException:
        file.close()
        raise
    return file


def check_declared(dataset: h5py.Dataset, path: Path) -> None:
    """Refuse a dataset that declares more than its stored bytes can hold, before allocating it."""
    declared, stored = dataset.nbytes, dataset.id.get_storage_size()
    if declared > HARMLESS_BYTES and declared > MAX_RATIO * stored:
        raise DataError(
            f"{path}: {dataset.name[1:]!r} declares {declared:.3g} bytes {dataset.shape} but only "
            f"{stored} are stored; the file is truncated, damaged or not what it claims to be"
        )


def passes(path: str | Path, test: Callable[[h5py.File], bool]) -> bool:
    """Whether ``path`` is an HDF5 file that passes a test; a damaged one does not.

    Whoever opens it then says what is wrong with it.
    """
    try:
        if not (Path(path).is_file() and h5py.is_hdf5(path)):
            return False
        with open_hdf5(path) as file:
            return test(file)
    except (OSError, RuntimeError, KeyError, DataError):
        return False


def _has_variable_text(file: h5py.File) -> bool:
    """Whether any attribute holds text of variable length, which lies in the global heap."""
    found = _in_heap(file)

    def look(_: str, member: h5py.HLObject) -> bool | None:
        return True if _in_heap(member) else None  # None: go on

    return found or bool(file.visititems(look))


def _in_heap(holder: h5py.HLObject) -> bool:
    for name in holder.attrs:
        kind = h5py.check_string_dtype(holder.attrs.get_id(name).dtype)
        if kind is not None and kind.length is None:
            return True
    return False


def _check_heaps(path: Path, base: int) -> None:
    """Raise DataError if a walk through a global heap would never end, or an object fills the memory.

    HDF5 1.14 and 2.0 step from object to object by their sizes. Object 0 is the free space and ends the
    walk, if its size does; with size 0 the library stays there for ever. A reference to an object holds
    its length, for which the library takes memory before it finds out that the object is shorter.
    ``base``: where addresses count from.
    """
    heaps: list[int] = []
    with (
        open(path, "rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        start = content.find(_HEAP)
        while start >= 0:
            heaps.append(start - base)
            place = start + _HEAD
            end = min(
                start + int.from_bytes(content[start + 8 : start + 16], "little"), len(content)
            )
            while place + _HEAD <= end:
                number = int.from_bytes(content[place : place + 2], "little")
                size = int.from_bytes(content[place + 8 : place + _HEAD], "little")
                if number == 0 and size == 0:
                    raise DataError(
                        f"{path}: the heap of its text is damaged at byte {place}; the file is damaged"
                    )
                place += size if number == 0 else _HEAD + (size + 7) // 8 * 8
            start = content.find(_HEAP, start + 1)
        for first in range(0, len(content), _BLOCK):
            bad = _too_long(content[first : first + _BLOCK + _HEAD], heaps, len(content))
            if bad is not None:
                raise DataError(
                    f"{path}: a text is longer than the file (byte {first + bad}); the file is damaged"
                )


def _too_long(block: bytes, heaps: list[int], longest: int) -> int | None:
    """Where a reference to an object of more than ``longest`` bytes begins.

    That is: its length (4 bytes), the place of its heap (8), and its number there (4, of which HDF5
    uses 2).
    """
    for shift in range(4):
        words = np.frombuffer(block, "<u4", (len(block) - shift) // 4, shift)
        length, low, high, number = (words[k : len(words) - 3 + k] for k in range(4))
        found = np.flatnonzero((length > longest) & (number - 1 < 0xFFFF))
        place = low[found] + (high[found].astype(np.uint64) << np.uint64(32))
        if (bad := found[np.isin(place, heaps)]).size:
            return int(bad[0]) * 4 + shift
    return None
