"""Couplings, integration and options of flow matching, against brute force and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs
from hepbridge.core.rng import stream
from hepbridge.data import SQUIRELS
from hepbridge.transports.couplings import assign, random_windows, symmetrise
from hepbridge.transports.flow_matching import FlowMatching

CASES = settings(derandomize=True, max_examples=30, deadline=None)


@CASES
@given(seed=st.integers(0, 2**31), n=st.integers(1, 6))
def test_assignment_is_the_best_of_all_permutations(seed: int, n: int) -> None:
    rng = stream(seed, "test")
    a, b = (torch.from_numpy(rng.standard_normal((n, 3))) for _ in range(2))
    scale = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)

    def cost(order: torch.Tensor) -> float:
        return float(((a - b[order]) * scale).square().sum())

    best = min(cost(torch.tensor(p)) for p in itertools.permutations(range(n)))
    assert cost(assign(a, b, scale)) == pytest.approx(best)


@CASES
@given(seed=st.integers(0, 2**31), n=st.integers(1, 500), width=st.integers(1, 200))
def test_windows_are_neighbours_in_the_order(seed: int, n: int, width: int) -> None:
    rng = stream(seed, "test")
    order = rng.permutation(n)
    place = np.argsort(order)
    windows = random_windows(order, width, 3, rng)
    assert windows.shape == (3, min(width, n))
    for window in windows:
        places = np.sort(place[window])
        assert np.array_equal(places, np.arange(places[0], places[0] + len(places)))


def test_rows_at_the_ends_are_drawn_often_enough() -> None:
    """At least half as often as rows in the middle; without care, 1/64 as often."""
    counts = np.bincount(random_windows(np.arange(1000), 64, 20_000, stream(0, "test")).ravel())
    assert counts.min() > 0.5 * 0.9 * np.median(counts)


def test_symmetry_images_are_images() -> None:
    moves = torch.from_numpy(SQUIRELS.permutations())
    x = torch.arange(100.0).expand(400, -1)
    seen = {tuple(row.tolist()) for row in symmetrise(x, moves, stream(1, "test")).long()}
    assert seen == {tuple(move.tolist()) for move in moves}


class Rotation(torch.nn.Module):
    """dx/dt = (pi/2) J x, c added: a quarter turn in unit time, then a shift by the condition."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return 0.5 * math.pi * torch.stack([-x[:, 1], x[:, 0]], dim=1)


def _turned(steps: int, x: torch.Tensor) -> torch.Tensor:
    flow = FlowMatching(3, {}, carried=1, steps=steps, width=8, depth=1)
    flow.network = Rotation()
    return flow.apply(x, {})


def test_heun_converges_with_second_order_and_carries_exactly() -> None:
    """Errors against the exact quarter turn fall by 4 when the steps double; Euler's would by 2."""
    x = torch.from_numpy(stream(2, "test").standard_normal((100, 3)))
    truth = torch.stack([-x[:, 1], x[:, 0], x[:, 2]], dim=1)
    errors = [float((_turned(n, x) - truth).norm()) for n in (4, 8, 16, 32)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(abs(order - 2) < 0.15 for order in orders), orders
    assert torch.equal(_turned(4, x)[:, 2], x[:, 2])


@pytest.mark.slow
def test_the_carried_part_is_learned_as_a_condition() -> None:
    """Target = source + carried: what is carried must steer the others, and stay as it is."""
    from hepbridge.training import TrainingSettings, fit

    rng = stream(3, "test")
    a, b = rng.standard_normal((2, 4000, 2)).astype(np.float32)
    target = b.copy()
    target[:, 0] += 2.0 * b[:, 1]
    pairs = Pairs(torch.from_numpy(a), torch.from_numpy(target))
    torch.manual_seed(0)
    flow = FlowMatching(2, {}, carried=1, train_steps=1000, width=64, depth=1, windows=8, window=32)
    fit(flow.phases(pairs, 0), TrainingSettings(ema_decay=0.98), seed=0, device="cpu")
    with torch.no_grad():
        y = flow.eval().apply(pairs.source, {})
    assert torch.equal(y[:, 1], pairs.source[:, 1])
    found = np.polyfit(y[:, 1].numpy(), y[:, 0].numpy(), 1)[0]
    assert abs(found - 2.0) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 to"),
        ({"steps": "abc"}, "steps must be a whole number from 1 to"),
        ({"steps": 10**9}, "steps must be a whole number from 1 to"),
        ({"steps": 5000}, "steps must be at most 1000"),
        ({"window": 0}, "window must be a whole number"),
        ({"width": -3}, "width must be a whole number"),
        ({"carried": 3}, "carried must be from 0 to 2"),
        ({"weights": [1.0]}, "weights must be 3 positive numbers"),
        ({"weights": [1.0, 0.0, 1.0]}, "weights must be 3 positive numbers"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FlowMatching(3, {}, **options)


def test_pairs_of_another_dimension_are_refused() -> None:
    pairs = Pairs(torch.zeros(100, 2), torch.zeros(100, 2))
    with pytest.raises(ConfigError, match="for 3 coordinates got 2"):
        next(FlowMatching(3, {}, width=8, depth=1).phases(pairs, 0))
