"""Counter-based random numbers: noise is a function of (seed, purpose, event id).

The order of work never matters. The generator is Philox4x64-10 (Salmon et al., SC'11),
bit-identical to ``numpy.random.Philox``. The 128-bit key is a hash of (seed, purpose, data-set
uid); the 256-bit counter of an event is ``row * blocks`` with ``blocks = ceil(width / 4)``, so a
run of consecutive rows is one stretch of the sequence and any row can be had alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = ["event_bits", "event_normal", "event_uniform", "stream", "stream_key"]

_WORDS = 4  # 64-bit words of one Philox block
_CHUNK = 1 << 16  # words drawn at once: half a megabyte stays in the cache


class _Key(ISeedSequence):
    """Hands Philox its key; ``Philox(key=...)`` would first ask the system for entropy (slow)."""

    def __init__(self, key: NDArray[np.uint64]) -> None:
        self.key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[Any]:
        return self.key[:n_words].astype(dtype)


@lru_cache(maxsize=256, typed=True)
def stream_key(*parts: str | int) -> NDArray[np.uint64]:
    """The 128-bit Philox key of a stream, from any sequence of strings and integers."""
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), dtype="<u8")


def stream(*parts: str | int) -> np.random.Generator:
    """A NumPy generator for a named purpose: ``stream(seed, "bootstrap", "gflash")``."""
    return np.random.Generator(np.random.Philox(_Key(stream_key(*parts))))  # type: ignore[arg-type]


def event_bits(
    seed: int, purpose: str, event_ids: NDArray[np.uint64], width: int
) -> NDArray[np.uint64]:
    """Raw bits (N, width) for events with ids (N, 2) = (data-set uid, row)."""
    out = np.empty((len(event_ids), width), dtype=np.uint64)
    for rows, bits in _chunks(seed, purpose, event_ids, width):
        out[rows] = bits
    return out


def event_uniform(
    seed: int, purpose: str, event_ids: NDArray[np.uint64], width: int
) -> NDArray[np.float64]:
    """Uniform numbers (N, width) in the open interval (0, 1): 52 bits exclude both ends."""
    out = np.empty((len(event_ids), width))
    for rows, bits in _chunks(seed, purpose, event_ids, width):
        _to_uniform(bits, out[rows])
    return out


def event_normal(
    seed: int, purpose: str, event_ids: NDArray[np.uint64], width: int
) -> NDArray[np.float64]:
    """Standard normal numbers (N, width), by inversion: one draw per number, no rejection."""
    out = np.empty((len(event_ids), width))
    for rows, bits in _chunks(seed, purpose, event_ids, width):
        _to_uniform(bits, out[rows])
        ndtri(out[rows], out=out[rows])
    return out


def _to_uniform(bits: NDArray[np.uint64], out: NDArray[np.float64]) -> None:
    np.add(bits >> np.uint64(12), 0.5, out=out)
    np.multiply(out, 2.0**-52, out=out)


def _chunks(
    seed: int, purpose: str, event_ids: NDArray[np.uint64], width: int
) -> Iterator[tuple[slice, NDArray[np.uint64]]]:
    """(slice of events, their bits): runs of consecutive rows, cut where they leave the cache."""
    ids = np.asarray(event_ids, dtype=np.uint64)
    if not len(ids) or not width:
        return
    blocks = -(-width // _WORDS)
    most = max(1, _CHUNK // (blocks * _WORDS))
    uid, row = ids[:, 0], ids[:, 1]
    breaks = np.flatnonzero((uid[1:] != uid[:-1]) | (row[1:] != row[:-1] + np.uint64(1))) + 1
    generators: dict[int, tuple[np.random.Philox, int]] = {}  # uid -> generator, its next row
    for start, stop in zip([0, *breaks], [*breaks, len(ids)], strict=True):
        this, first = int(uid[start]), int(row[start])
        if this not in generators:
            generators[this] = np.random.Philox(_Key(stream_key(seed, purpose, this))), 0  # type: ignore[arg-type]
        philox, position = generators[this]
        philox.advance((first - position) * blocks)
        generators[this] = philox, first + int(stop - start)
        for begin in range(start, stop, most):
            end = min(begin + most, stop)
            raw = philox.random_raw((end - begin) * blocks * _WORDS)
            yield slice(begin, end), raw.reshape(end - begin, blocks * _WORDS)[:, :width]
