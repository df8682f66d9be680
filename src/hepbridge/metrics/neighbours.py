"""Nearest neighbours of showers: exact, by brute force in blocks of bounded memory.

In the tens to thousands of coordinates that a shower has, a tree visits every point anyway; one
matrix product per block is the fast way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError
from hepbridge.metrics.distance import Floats

__all__ = ["Index", "nearest"]

Index = NDArray[np.int64]

_BLOCK = 1 << 23  # numbers of one block: 32 MB of distances
_SPARE = 4  # neighbours looked at beyond those asked for, against rounding in the product


def nearest(
    queries: NDArray[np.floating],
    points: NDArray[np.floating],
    k: int,
    *,
    skip_self: bool = False,
) -> tuple[Floats, Index]:
    """Euclidean distances (q, k) of each query to its k nearest points, ascending, and their rows.

    ``|q − p|² = |q|² + |p|² − 2 q·p`` chooses k + 4 points in single precision; their distances are
    then taken from the differences themselves, because the formula loses what is close: copies of a
    point are exactly 0 away. With ``skip_self`` query i is point i, and no neighbour of itself.

    Raises DataError if there are fewer than k points (k + 1 with ``skip_self``).
    """
    if len(points) < k + skip_self:
        raise DataError(f"{k} nearest neighbours need more than the {len(points)} showers given")
    centre = points.mean(axis=0, dtype=np.float64)
    p = (points - centre).astype(np.float32)
    length = np.einsum("ij,ij->i", p, p)
    take = min(len(p), k + skip_self + _SPARE)
    size = max(1, min(_BLOCK // len(p), _BLOCK // (take * max(1, p.shape[1]))))
    distance, index = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), size):
        rows = slice(start, min(start + size, len(queries)))
        q = (queries[rows] - centre).astype(np.float32)
        near = np.argpartition(length - 2 * (q @ p.T), take - 1, axis=1)[:, :take]
        difference = q[:, None, :] - p[near]
        square = np.einsum("ijk,ijk->ij", difference, difference, dtype=np.float64)
        if skip_self:
            square[near == np.arange(rows.start, rows.stop)[:, None]] = np.inf
        order = np.argsort(square, axis=1, kind="stable")[:, :k]
        index[rows] = np.take_along_axis(near, order, axis=1)
        distance[rows] = np.sqrt(np.take_along_axis(square, order, axis=1))
    return distance, index
