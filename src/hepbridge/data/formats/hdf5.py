"""HDF5 files are opened here: what they declare is checked before the library trusts it."""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

from hepbridge.core.errors import DataError

__all__ = ["check_declared", "open_hdf5", "passes"]

# Deflate packs at most 1032 : 1. A dataset that declares far more than its stored bytes can hold
# is damaged or hostile; small ones are harmless.
MAX_RATIO, HARMLESS_BYTES = 2000, 1 << 26

_HEAP, _HEAD = (
    b"GCOL\x01\x00\x00\x00",
    16,
)  # a collection of the global heap; header of it and of objects


def open_hdf5(path: str | Path) -> h5py.File:
    """The file, open for reading.

    Raises OSError as h5py does, DataError if its text cannot be read without harm.
    """
    file = h5py.File(path, "r")
    try:
        texts = _variable_texts(file)
        if texts or _has_columns_of_text(file):
            with (
                open(path, "rb") as handle,
                mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                _check_lengths(content, texts, path)
                _check_heaps(content, path)
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


def _variable_texts(file: h5py.File) -> dict[str, int]:
    """The attributes that hold text of variable length, which lies in the global heap: how many texts."""
    found = _texts_of(file)

    def look(_: str, member: h5py.HLObject) -> None:
        for name, count in _texts_of(member).items():
            found[name] = max(count, found.get(name, 0))

    file.visititems(look)
    return found


def _has_columns_of_text(file: h5py.File) -> bool:
    """Whether any dataset holds text of variable length."""

    def look(_: str, member: h5py.HLObject) -> bool | None:
        text = isinstance(member, h5py.Dataset) and _is_variable(member.dtype)
        return True if text else None  # None: go on

    return bool(file.visititems(look))


def _is_variable(dtype: Any) -> bool:
    kind = h5py.check_string_dtype(dtype)
    return kind is not None and kind.length is None


def _texts_of(holder: h5py.HLObject) -> dict[str, int]:
    found = {}
    for name in holder.attrs:
        attribute = holder.attrs.get_id(name)
        if _is_variable(attribute.dtype):
            found[name] = math.prod(attribute.shape)
    return found


def _check_lengths(content: mmap.mmap, texts: dict[str, int], path: str | Path) -> None:
    """Raise DataError if a text is longer than the file.

    An attribute holds the length of its text and where in the heap it lies. HDF5 takes memory for that
    length before it looks there. The message of an attribute in the file (version 1 to 3 of the format
    specification, IV.A.2.m): version, flags, sizes of name, type and space, the name, type and space,
    the data; parts of version 1 are filled up to 8 bytes.
    """
    for name, count in texts.items():
        word = name.encode() + b"\x00"
        at = content.find(word)
        while at >= 0:
            for version in (1, 2, 3):
                start = at - (9 if version == 3 else 8)
                if start < 0 or content[start] != version:
                    continue
                sizes = struct.unpack("<3H", content[start + 2 : start + 8])
                if sizes[0] != len(word):
                    continue
                data = at + sum(-(-size // 8) * 8 if version == 1 else size for size in sizes)
                for k in range(data, min(data + 16 * count, len(content) - 4), 16):
                    if int.from_bytes(content[k : k + 4], "little") > len(content):
                        raise DataError(
                            f"{path}: the text {name!r} is longer than the file; the file is damaged"
                        )
            at = content.find(word, at + 1)


def _check_heaps(content: mmap.mmap, path: str | Path) -> None:
    """Raise DataError if a walk through a global heap would never end.

    HDF5 1.14 and 2.0 step from object to object by their sizes. Object 0 is the free space and ends the
    walk, if its size does; with size 0 the library stays there for ever.
    """
    start = content.find(_HEAP)
    while start >= 0:
        place = start + _HEAD
        end = min(start + int.from_bytes(content[start + 8 : start + 16], "little"), len(content))
        while place + _HEAD <= end:
            number = int.from_bytes(content[place : place + 2], "little")
            size = int.from_bytes(content[place + 8 : place + _HEAD], "little")
            if number == 0 and size == 0:
                raise DataError(
                    f"{path}: the heap of its text is damaged at byte {place}; the file is damaged"
                )
            place += size if number == 0 else _HEAD + (size + 7) // 8 * 8
        start = content.find(_HEAP, start + 1)
