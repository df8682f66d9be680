"""The torch generator against NumPy's Philox, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepbridge.core import rng
from hepbridge.networks import philox


def some_ids(n: int = 400) -> np.ndarray:
    generator = np.random.default_rng(0)
    uid = generator.choice(np.array([1, 2**63 + 5, 2**64 - 1], dtype=np.uint64), n)
    row = generator.integers(0, 2**40, n, dtype=np.uint64)
    row[:50] = np.arange(50)
    return np.stack([uid, row], axis=1)


@pytest.mark.parametrize("width", [1, 4, 7, 101])
def test_bits_are_those_of_numpy(width):
    """Fails if a shift of a word with the top bit set is arithmetic instead of logical."""
    ids = some_ids()
    ours = philox.event_bits(3, "noise", ids, width).numpy().view(np.uint64)
    np.testing.assert_array_equal(ours, rng.event_bits(3, "noise", ids, width))


def test_rounds_match_numpy_for_any_counter_and_key():
    """All six words random over the full 64 bits."""
    generator = np.random.default_rng(1)
    words = generator.integers(0, 2**64, (200, 6), dtype=np.uint64)
    words[0] = 2**64 - 1
    torch_words = torch.from_numpy(words.view(np.int64))
    ours = torch.stack(
        philox.philox4x64(tuple(torch_words[:, :4].T), tuple(torch_words[:, 4:].T)), dim=1
    )
    for row, got in zip(words, ours.numpy().view(np.uint64), strict=True):
        before = sum(int(w) << (64 * k) for k, w in enumerate(row[:4])) - 1  # NumPy adds one first
        counter = [(before % 2**256 >> (64 * k)) & (2**64 - 1) for k in range(4)]
        numpy_philox = np.random.Philox(key=row[4:], counter=np.array(counter, dtype=np.uint64))
        np.testing.assert_array_equal(got, numpy_philox.random_raw(4))


def test_uniform_and_normal_match_numpy():
    """Uniforms are equal; the inverse error function of torch and SciPy agree to 1e-14."""
    ids = some_ids()
    uniform = philox.event_uniform(3, "noise", ids, 50)
    np.testing.assert_array_equal(uniform.numpy(), rng.event_uniform(3, "noise", ids, 50))
    normal = philox.event_normal(3, "noise", ids, 50, dtype=torch.float64)
    want = rng.event_normal(3, "noise", ids, 50)
    np.testing.assert_allclose(normal.numpy(), want, rtol=1e-13, atol=1e-13)
    assert philox.event_normal(3, "noise", ids, 50).dtype == torch.float32


def test_empty_and_impossible_requests():
    assert philox.event_bits(1, "x", np.zeros((0, 2), np.uint64), 5).shape == (0, 5)
    assert philox.event_bits(1, "x", some_ids()[:3], 0).shape == (3, 0)
    with pytest.raises(ValueError, match="too large"):
        philox.event_bits(1, "x", np.array([[1, 2**62]], dtype=np.uint64), 5)
