"""Moments of cells given the sums: against samples whose conditional distributions are known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermeval
from scipy.stats import skewnorm
from torch import Tensor

from hepbridge.transforms.moment_match import ORDERS, MomentMatch

N = 40_000
SUMS = 2


def sample(slope: float, skew: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cells u with mean ``slope`` s_0 and unit variance in all, of a skewness that grows with s_0."""
    rng = np.random.default_rng(seed)
    s, c = rng.standard_normal((N, SUMS)), rng.uniform(-1, 1, (N, 1))
    delta = skew * np.tanh(s[:, :1]).repeat(3, axis=1)
    first, second = rng.standard_normal((2, N, 3))
    skewed = delta * np.abs(first) + np.sqrt(1 - delta**2) * second
    # mean and variance of the skew normal distribution, Azzalini (1985)
    mean, variance = delta * np.sqrt(2 / np.pi), 1 - 2 * delta**2 / np.pi
    u = slope * s[:, :1] + np.sqrt(1 - slope**2) * (skewed - mean) / np.sqrt(variance)
    return tuple(torch.from_numpy(x.astype(np.float32)) for x in (u, s, c))  # type: ignore[return-value]


def matched(made: tuple[Tensor, ...], target: tuple[Tensor, ...], steps: int) -> Tensor:
    u, s, c = made
    match = MomentMatch(SUMS, [0, 0, 1])
    match.aim(*target)
    for _ in range(steps):
        match.step(match(u, s, c), s, c)
    return match(u, s, c)


def above(u: Tensor, s: Tensor, low: float, high: float, level: float) -> tuple[float, float]:
    """Fraction of cells above a level where the first sum is in a range, and its standard error."""
    seen = (u[(s[:, 0] > low) & (s[:, 0] < high)] > level).double()
    return float(seen.mean()), float((seen.var() / seen.numel()).sqrt())


BINS = ((-1.5, -0.8), (-0.3, 0.3), (0.8, 1.5))


def test_what_the_sums_say_is_that_of_the_target() -> None:
    """Fractions above levels, which no step has looked at, agree within four standard errors; before they did not."""
    target, made = sample(0.25, 0.0, 1), sample(0.45, 0.5, 2)
    after = matched(made, target, 10)
    worst = {"before": 0.0, "after": 0.0}
    for low, high in BINS:
        for level in (-1.0, 0.0, 1.0):
            truth, error = above(target[0], target[1], low, high, level)
            for name, u in (("before", made[0]), ("after", after)):
                seen, own = above(u, made[1], low, high, level)
                pull = abs(seen - truth) / np.hypot(error, own)
                worst[name] = max(worst[name], float(pull))
    assert worst["before"] > 10
    assert worst["after"] < 4


def test_steps_converge() -> None:
    """Each of ten steps at most keeps the largest lack in a mean, and the last leaves a twentieth of it."""
    target, (u, s, c) = sample(0.25, 0.0, 3), sample(0.35, 0.4, 4)
    match, whole = MomentMatch(SUMS, [0, 0, 1]), MomentMatch(SUMS, [0, 0, 1])
    match.aim(*target)
    whole.aim(u, s, c)
    lacking = [float((match.target - whole.target)[0].abs().max())]
    for _ in range(10):
        match.step(match(u, s, c), s, c)
        whole.aim(match(u, s, c), s, c)
        lacking.append(float((match.target - whole.target)[0].abs().max()))
    assert all(after < before for before, after in pairwise(lacking))
    assert lacking[-1] < 0.05 * lacking[0]


def test_rows_far_from_normal_end_where_they_began() -> None:
    """Steps would run away; what a step has made worse is taken back, and nothing is infinite."""
    target, (_, s, c) = sample(0.25, 0.0, 3), sample(0.35, 0.4, 4)
    u = (3 * torch.tanh(20 * s[:, :1])).repeat(1, 3)  # a step: no polynomial makes it normal
    match = MomentMatch(SUMS, [0, 0, 1])
    match.aim(*target)
    better = [match.step(match(u, s, c), s, c) for _ in range(20)]
    assert better[0] and not all(better)
    assert match.weight.abs().max() <= 0.25
    assert match(u, s, c).isfinite().all()


def test_the_sum_of_hermite_polynomials() -> None:
    """Against numpy's, and 0 beyond the range that counts as far."""
    rng = np.random.default_rng(5)
    match = MomentMatch(SUMS, [0, 1, 2])
    match.weight.copy_(torch.from_numpy(rng.normal(0, 0.1, match.weight.shape)))
    u, s = rng.uniform(-3.4, 3.4, (50, 3)), rng.uniform(-3, 3, (50, SUMS))
    c = rng.uniform(-1, 1, (50, 1))
    powers = np.concatenate([np.ones_like(c), s, s**2], axis=1)
    features = np.concatenate([powers, powers * c], axis=1)
    coefficients = np.einsum("nf,kfj->knj", features, match.weight.double().numpy())
    expected = u + hermeval(u, coefficients, tensor=False)
    found = match.double()(*(torch.from_numpy(x) for x in (u, s, c)))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("u", [3.5, 5.0])
def test_far_coordinates_are_moved_as_the_last_near_one(u: float) -> None:
    match = MomentMatch(1, [0])
    match.weight[:, 0] = 0.01
    s, c = torch.zeros(1, 1), torch.zeros(1, 1)
    moved = [float(match(torch.tensor([[x]]), s, c)) - x for x in (3.5, u)]
    assert moved[0] == pytest.approx(moved[1], abs=1e-6)


def test_unfitted_does_nothing() -> None:
    u, s, c = sample(0.2, 0.0, 6)
    assert torch.equal(MomentMatch(SUMS, [0, 1, 2])(u, s, c), u)


def test_cells_of_a_group_share_their_correction() -> None:
    target, made = sample(0.25, 0.0, 7), sample(0.45, 0.5, 8)
    match = MomentMatch(SUMS, [0, 0, 1])
    match.aim(*target)
    match.step(*made)
    assert torch.equal(match.weight[:, :, 0], match.weight[:, :, 1])
    assert not torch.equal(match.weight[:, :, 0], match.weight[:, :, 2])
    assert match.weight.shape[0] == ORDERS


def test_the_sample_has_the_skewness_that_it_says() -> None:
    """Of this file's own sampler: the closed form of the skew normal distribution."""
    u, s, _ = sample(0.0, 0.7, 9)
    rows = (s[:, 0] - 1.0).abs() < 0.05
    delta = 0.7 * np.tanh(1.0)
    truth = float(skewnorm.stats(delta / np.sqrt(1 - delta**2), moments="s"))
    x = u[rows].double().reshape(-1)
    assert abs(float((x**3).mean()) - truth) < 5 * np.sqrt(15 / len(x))
