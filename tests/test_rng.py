"""Counter-based random numbers against NumPy's own Philox and against their distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from hepbridge.core.rng import event_bits, event_normal, event_uniform, stream, stream_key

ROWS = 2**64


def ids(uid: int, rows) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.uint64)
    return np.stack([np.full(len(rows), uid, dtype=np.uint64), rows], axis=1)


def reference(seed: int, purpose: str, uid: int, row: int, width: int) -> np.ndarray:
    """One event at a time, with the counter written out as four unsigned words."""
    first = row * -(-width // 4)
    counter = np.array([(first >> (64 * k)) & (2**64 - 1) for k in range(4)], dtype=np.uint64)
    key = stream_key(seed, purpose, uid)
    return np.random.Philox(key=key, counter=counter).random_raw(width)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1) | st.integers(0, 9)),
        min_size=1,
        max_size=12,
    ),
    width=st.integers(1, 21),
)
def test_bits_are_numpy_philox(events, width):
    """Any ids, also in the upper half of the 64-bit range and repeated; fails if a counter word
    passes through a float (as `Philox(counter=[2**63, 0, 0, 0])` does)."""
    got = event_bits(11, "x", np.array(events, dtype=np.uint64), width)
    want = [reference(11, "x", uid, row, width) for uid, row in events]
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("draw", [event_bits, event_uniform, event_normal])
def test_order_and_batching_change_nothing(draw):
    """Fails if the position inside a run is not reset between runs."""
    every = np.concatenate([ids(5, range(700)), ids(2**63 + 9, range(3, 300))])
    whole = draw(1, "noise", every, 101)
    order = np.random.default_rng(0).permutation(len(every))
    np.testing.assert_array_equal(draw(1, "noise", every[order], 101), whole[order])
    pieces = [draw(1, "noise", part, 101) for part in np.array_split(every, 13)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    np.testing.assert_array_equal(draw(1, "noise", every[::-7], 101), whole[::-7])


def test_empty_requests():
    assert event_bits(1, "x", np.zeros((0, 2), np.uint64), 5).shape == (0, 5)
    assert event_normal(1, "x", ids(1, range(4)), 0).shape == (4, 0)


def test_uniform_and_normal_have_their_distributions():
    """Moments within 5 standard errors, shape by Kolmogorov and Smirnov."""
    n, width = 20_000, 10
    u = event_uniform(3, "u", ids(7, range(n)), width).ravel()
    assert u.min() > 0 and u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * (12 * u.size) ** -0.5
    assert kstest(u, "uniform").pvalue > 1e-4
    z = event_normal(3, "u", ids(7, range(n)), width).ravel()
    assert abs(z.mean()) < 5 * z.size**-0.5
    assert abs(z.var() - 1) < 5 * (2 / z.size) ** 0.5
    assert abs((z**4).mean() - 3) < 5 * (96 / z.size) ** 0.5
    assert kstest(z, "norm").pvalue > 1e-4


def test_extreme_bits_stay_inside_the_open_interval():
    """52 bits and a half: fails with 53 bits, where the largest value rounds to 1."""
    from hepbridge.core.rng import _to_uniform

    bits = np.array([0, 2**64 - 1], dtype=np.uint64)
    out = np.empty(2)
    _to_uniform(bits, out)
    assert 0 < out[0] < 1e-15 and 1 - 1e-15 < out[1] < 1


@pytest.mark.parametrize(
    "other",
    [
        dict(seed=2, purpose="a", uid=1),
        dict(seed=1, purpose="b", uid=1),
        dict(seed=1, purpose="a", uid=2),
        dict(seed=1, purpose="a", uid=1, shift=1),
    ],
    ids=["seed", "purpose", "uid", "row"],
)
def test_streams_are_uncorrelated(other):
    n, width = 5_000, 8
    shift = other.pop("shift", 0)
    a = event_normal(1, "a", ids(1, range(n)), width).ravel()
    b = event_normal(other["seed"], other["purpose"], ids(other["uid"], range(shift, n + shift)), 8)
    assert abs((a * b.ravel()).mean()) < 5 * a.size**-0.5


def test_columns_are_uncorrelated():
    z = event_normal(1, "a", ids(1, range(20_000)), 6)
    correlation = np.corrcoef(z.T) - np.eye(6)
    assert np.abs(correlation).max() < 5 * len(z) ** -0.5


def test_stream_is_keyed_by_every_part_and_its_type():
    draws = {
        parts: stream(*parts).random()
        for parts in [(1, "a"), (2, "a"), (1, "b"), ("1", "a"), (1, "a", 0), (1, "a0"), ("1a",)]
    }
    assert len(set(draws.values())) == len(draws)
    assert stream(1, "a").random() == draws[1, "a"]
    want = np.random.Generator(np.random.Philox(key=stream_key(1, "a"))).random()
    assert draws[1, "a"] == want
