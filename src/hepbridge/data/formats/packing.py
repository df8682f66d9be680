"""Rows into an HDF5 dataset, packed here instead of inside HDF5: smaller, and in half the time.

Deflate looks for repeated strings, of which the shuffled bytes of energies have none. Run lengths and
Huffman codes alone (zlib's strategy ```Z_RLE``) find what there is: zeros, and exponents that are alike.
What is written is plain shuffle and deflate, which every HDF5 reads, and zlib works without
Python's lock, beside other threads. The sum that deflate ends with (Adler-32) shows damage, so that
HDF5's own is left out (the chunk's filter mask says so).
"""

from __future__ import annotations

import zlib
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["PackedRows", "can_be_packed"]


def can_be_packed(dtype: np.dtype[Any]) -> bool:
    """Numbers and truth values, whose bytes in memory are those in the file."""
    return dtype.kind in "biuf" and dtype.itemsize <= 8


class PackedRows:
    """Appends rows to a chunked, empty dataset with the filters shuffle and deflate, and perhaps more
    behind them; `finish` writes the last chunk."""

    def __init__(self, dataset: h5py.Dataset, level: int) -> None:
        plist = dataset.id.get_create_plist()
        self._mask = sum(1 << i for i in range(2, plist.get_nfilters()))
        self._dataset, self._level = dataset, level
        floats = dataset.dtype.kind == "f"  # numbered rows do repeat strings
        self._strategy = zlib.Z_RLE if floats else zlib.Z_DEFAULT_STRATEGY
        self._rest = np.empty((0, *dataset.shape[1:]), dataset.dtype)
        self._written = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows (n, …); fewer than a chunk are kept until it is full."""
        size, rows = self._dataset.chunks[0], np.ascontiguousarray(rows, self._dataset.dtype)
        if len(self._rest):
            missing = size - len(self._rest)
            self._rest = np.concatenate([self._rest, rows[:missing]])
            rows = rows[missing:]
            if len(self._rest) < size:
                return
            self._write(self._rest)
        whole = len(rows) // size * size
        for start in range(0, whole, size):
            self._write(rows[start : start + size])
        self._rest = rows[whole:].copy()

    def finish(self) -> None:
        if len(self._rest):
            self._write(self._rest)

    def _write(self, rows: NDArray[Any]) -> None:
        dataset, count = self._dataset, len(rows)
        chunk = np.zeros(dataset.chunks, dataset.dtype)  # the last one is stored whole, too
        chunk[:count] = rows
        dataset.resize(self._written + count, axis=0)
        shuffled = chunk.reshape(-1).view(np.uint8).reshape(-1, chunk.itemsize).T
        packer = zlib.compressobj(self._level, zlib.DEFLATED, zlib.MAX_WBITS, 9, self._strategy)
        data = packer.compress(shuffled.tobytes()) + packer.flush()
        place = (self._written, *(0 for _ in dataset.shape[1:]))
        dataset.id.write_direct_chunk(place, data, self._mask)
        self._written += count
