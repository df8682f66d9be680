"""Per-event random numbers on the device: `hepbridge.core.rng` in torch, equal to the last bit.

Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11). Torch has no
unsigned 64-bit arithmetic, so words travel as int64 with the same bit pattern: sums and products
wrap modulo 2^64, which is what the generator wants, and the upper half of a product is put
together from 32-bit pieces.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hepbridge.core.rng import stream_key

__all__ = ["event_bits", "event_normal", "event_uniform", "philox4x64"]

_ROUNDS = 10
_LOW = 0xFFFFFFFF


def _signed(word: int) -> int:
    """The int64 with the bit pattern of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (_signed(0x9E3779B97F4A7C15), _signed(0xBB67AE8584CAA73B))


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower 64 bits of the unsigned product of a constant and a tensor of words."""
    a_high, a_low = a >> 32, a & _LOW
    b_high, b_low = (b >> 32) & _LOW, b & _LOW
    low, cross, other = a_low * b_low, a_high * b_low, a_low * b_high
    middle = ((low >> 32) & _LOW) + (cross & _LOW) + (other & _LOW)
    high = a_high * b_high + ((cross >> 32) & _LOW) + ((other >> 32) & _LOW) + (middle >> 32)
    return high, _signed(a) * b


def philox4x64(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox on four counter words and two key words (int64, broadcastable)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    return c0, c1, c2, c3


def event_bits(
    seed: int,
    purpose: str,
    event_ids: NDArray[np.uint64],
    width: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Raw bits (N, width) int64 for events with ids (N, 2) = (data-set uid, row).

    Seen as uint64 they are `core.rng.event_bits`. Raises ValueError for rows beyond
    2^62 / ceil(width / 4), where the one-word counter of this implementation would overflow.
    """
    ids = np.asarray(event_ids, dtype=np.uint64)
    blocks = -(-width // 4)
    if len(ids) and width and int(ids[:, 1].max()) >= 2**62 // blocks:
        raise ValueError(f"row {int(ids[:, 1].max())} is too large for {width} numbers per event")
    uids, which = np.unique(ids[:, 0], return_inverse=True)
    keys = np.array([stream_key(seed, purpose, int(uid)) for uid in uids], dtype=np.uint64)
    key = torch.from_numpy(keys.reshape(-1, 2).view(np.int64)[which]).to(device)
    row = torch.from_numpy(ids[:, 1].astype(np.int64)).to(device)
    # NumPy counts up before it computes a block, hence the one
    block = row[:, None] * blocks + torch.arange(1, blocks + 1, device=device)
    zero = torch.zeros((), dtype=torch.int64, device=device)
    words = philox4x64((block, zero, zero, zero), (key[:, :1], key[:, 1:]))
    return torch.stack(words, dim=-1).reshape(len(ids), 4 * blocks)[:, :width]


def event_uniform(
    seed: int,
    purpose: str,
    event_ids: NDArray[np.uint64],
    width: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Uniform numbers (N, width) in the open interval (0, 1); float32 may round to exactly 1."""
    bits = event_bits(seed, purpose, event_ids, width, device)
    return (((bits >> 12) & ((1 << 52) - 1)).double() + 0.5).mul_(2.0**-52).to(dtype)


def event_normal(
    seed: int,
    purpose: str,
    event_ids: NDArray[np.uint64],
    width: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal numbers (N, width), by inversion in float64."""
    uniform = event_uniform(seed, purpose, event_ids, width, device)
    return torch.special.ndtri(uniform).to(dtype)
