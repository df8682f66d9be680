"""The random numbers of `hepbridge.core.rng` inside compiled code.

Philox4x64-10 (Salmon et al., SC'11), bit-identical to ``numpy.random.Philox(key, counter)`` with
the counter (0, row, 0, 0): the words of an event are a function of the key (seed, purpose, data-set
uid) and its row; there are 2^66 of them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hepbridge.simulate.gflash.compiled import compiled, multiply

__all__ = ["State", "exponential", "gamma", "normal_pair", "philox", "uniform", "word"]

State = NDArray[np.uint64]  # key (2), row, counter, position, then the buffer

_M0, _M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_W0, _W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_ROUNDS = 10
_BLOCKS = 16  # drawn at once: independent of each other, so that the processor overlaps them
_ROW, _COUNTER, _NEXT, _FIRST = 2, 3, 4, 5
_END = _FIRST + 4 * _BLOCKS
_ZERO, _ONE, _DROP = np.uint64(0), np.uint64(1), np.uint64(12)


@compiled
def philox(key0: np.uint64, key1: np.uint64, row: np.uint64) -> State:
    """The generator of one event, before its first word."""
    state = np.zeros(_END, np.uint64)
    state[0], state[1], state[_ROW], state[_NEXT] = key0, key1, row, np.uint64(_END)
    return state


@compiled
def word(state: State) -> np.uint64:
    """The next 64 random bits."""
    if state[_NEXT] == np.uint64(_END):
        _refill(state)
    at = state[_NEXT]
    state[_NEXT] = at + _ONE
    drawn: np.uint64 = state[np.int64(at)]
    return drawn


@compiled
def _refill(state: State) -> None:
    counter = state[_COUNTER]
    for block in range(_BLOCKS):
        counter += _ONE  # NumPy, too, counts up before it draws
        k0, k1 = state[0], state[1]
        c0, c1, c2, c3 = counter, state[_ROW], _ZERO, _ZERO
        for _ in range(_ROUNDS):
            high0, low0 = multiply(_M0, c0)
            high1, low1 = multiply(_M1, c2)
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
            k0 += _W0
            k1 += _W1
        at = _FIRST + 4 * block
        state[at], state[at + 1], state[at + 2], state[at + 3] = c0, c1, c2, c3
    state[_COUNTER], state[_NEXT] = counter, np.uint64(_FIRST)


@compiled
def uniform(state: State) -> float:
    """Uniform in the open interval (0, 1), from 52 bits as in `core.rng`."""
    return (float(word(state) >> _DROP) + 0.5) * 2.0**-52


@compiled
def normal_pair(state: State) -> tuple[float, float]:
    """Two independent standard normal numbers (Box and Muller)."""
    r = math.sqrt(-2.0 * math.log(uniform(state)))
    phi = 2.0 * math.pi * uniform(state)
    return r * math.cos(phi), r * math.sin(phi)


@compiled
def exponential(state: State) -> float:
    """Exponential with mean 1."""
    return -math.log(uniform(state))


@compiled
def gamma(state: State, shape: float) -> float:
    """Gamma distribution of the given shape and scale 1 (Marsaglia and Tsang, TOMS 26 (2000) 363)."""
    scale = 1.0
    if shape < 1.0:
        scale = math.exp(-exponential(state) / shape)
        shape += 1.0
    d = shape - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        x, _ = normal_pair(state)
        v = (1.0 + c * x) ** 3
        if v > 0.0 and math.log(uniform(state)) < 0.5 * x * x + d - d * v + d * math.log(v):
            return scale * d * v
