"""Counter-based random numbers: noise is a function of (seed, purpose, event id), never of the order of work.

The generator is Philox4x64-10 (Salmon et al., SC'11), bit-identical to ``numpy.random.Philox``.
The 128-bit key is a hash of (seed, purpose, data-set uid); the 256-bit counter of an event is
``row * blocks + j`` with ``blocks = ceil(width / 4)``, so a run of consecutive rows is one call
into NumPy and any row can be had alone.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = ["event_bits", "event_normal", "event_uniform", "stream", "stream_key"]

_WORDS = 4  # 64-bit words of one Philox block


def stream_key(*parts: str | int) -> NDArray[np.uint64]:
    """The 128-bit Philox key of a stream, from any sequence of strings and integers."""
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), dtype="<u8")


def stream(*parts: str | int) -> np.random.Generator:
    """A NumPy generator for a named purpose: ``stream(seed, "bootstrap", "gflash")``."""
    return np.random.Generator(np.random.Philox(key=stream_key(*parts)))


def event_bits(
    seed: int, purpose: str, event_ids: NDArray[np.uint64], width: int
) -> NDArray[np.uint64]:
    """Raw bits (N, width) for events with ids (N, 2) = (data-set uid, row)."""
    ids = np.asarray(event_ids, dtype=np.uint64)
    blocks = -(-width // _WORDS)
    out = np.empty((len(ids), width), dtype=np.uint64)
    if not out.size:
        return out
    uid, row = ids[:, 0], ids[:, 1]
    breaks = np.flatnonzero((uid[1:] != uid[:-1]) | (row[1:] != row[:-1] + np.uint64(1))) + 1
    keys: dict[int, NDArray[np.uint64]] = {}
    for start, stop in zip([0, *breaks], [*breaks, len(ids)], strict=True):
        this = int(uid[start])
        if this not in keys:
            keys[this] = stream_key(seed, purpose, this)
        first = int(row[start]) * blocks
        counter = [(first >> (64 * k)) & 0xFFFFFFFFFFFFFFFF for k in range(_WORDS)]
        philox = np.random.Philox(key=keys[this], counter=counter)
        raw = philox.random_raw((stop - start) * blocks * _WORDS)
        out[start:stop] = raw.reshape(stop - start, blocks * _WORDS)[:, :width]
    return out


def event_uniform(
    seed: int, purpose: str, event_ids: NDArray[np.uint64], width: int
) -> NDArray[np.float64]:
    """Uniform numbers (N, width) in the open interval (0, 1): 52 bits, so that both ends are excluded."""
    bits = event_bits(seed, purpose, event_ids, width)
    return ((bits >> np.uint64(12)) + 0.5) * 2.0**-52


def event_normal(
    seed: int, purpose: str, event_ids: NDArray[np.uint64], width: int
) -> NDArray[np.float64]:
    """Standard normal numbers (N, width), by inversion: one draw per number, no rejection."""
    out: NDArray[np.float64] = ndtri(event_uniform(seed, purpose, event_ids, width))
    return out
