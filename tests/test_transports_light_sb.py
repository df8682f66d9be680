"""The light Schrödinger bridge against numerical integration, Sinkhorn and the Gaussian bridge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import kstest, multivariate_normal
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports.light_sb import LightSB
from oracles import gaussian_sb_cross_covariance, sinkhorn

EPSILON = 0.5
ALPHA = np.array([0.5, 0.3, 0.2])
R = np.array([[0.5, 0.0], [-1.0, 0.5], [0.0, -1.0]])
S = np.array([[[0.6, 0.2], [0.2, 0.4]], [[0.3, -0.1], [-0.1, 0.5]], [[0.4, 0.0], [0.0, 0.2]]])


def chosen() -> LightSB:
    """A plan with a potential of three components, in double precision."""
    bridge = LightSB(2, {}, epsilon=EPSILON, components=3).double().eval()
    bridge.set_potential(*(torch.from_numpy(a) for a in (ALPHA, R, S)))
    return bridge.requires_grad_(False)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(stream(seed, "light_sb").standard_normal(shape))


def learned(source: Tensor, target: Tensor, steps: int, **options: float) -> LightSB:
    torch.manual_seed(0)
    bridge = LightSB(
        source.shape[1], {}, train_steps=steps, batch_size=1024, learning_rate=1e-2, **options
    )
    phases = bridge.phases(Pairs(source.float(), target.float()), 0)
    fit(phases, TrainingSettings(ema_decay=0.98), seed=0, device="cpu")
    return bridge.double().eval().requires_grad_(False)


def grid(low: float, high: float, n: int) -> NDArray[np.float64]:
    axis = np.linspace(low, high, n)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def test_density_is_the_tilted_potential() -> None:
    """e^(<x, y> / eps) v(y) with v from SciPy, normalised by the sum over a fine grid.

    Fails if the factor 2 of r.x in the weights is lost, or eps in the covariances.
    """
    y = grid(-7, 7, 281)
    v = sum(
        a * multivariate_normal.pdf(y, r, EPSILON * s) for a, r, s in zip(ALPHA, R, S, strict=True)
    )
    for x in ([0.3, -0.4], [1.5, 1.0], [-1.0, 0.2]):
        truth = np.exp(y @ np.array(x) / EPSILON) * v
        truth /= truth.sum() * (14 / 280) ** 2
        rows = torch.tensor(x, dtype=torch.float64).expand(len(y), 2)
        found = chosen().log_density(rows, torch.from_numpy(y), {}).exp().numpy()
        np.testing.assert_allclose(found, truth, atol=1e-6 * truth.max())


def test_plan_is_the_entropic_one_between_its_marginals() -> None:
    """Sinkhorn, given the two marginals only, finds the plan; fails for a wrong alpha_k(x)."""
    x, y = normal(1, 40, 2).numpy(), grid(-4, 4, 25)
    a = np.full(40, 1 / 40)
    left = torch.from_numpy(np.repeat(x, len(y), axis=0))
    right = torch.from_numpy(np.tile(y, (40, 1)))
    plan = chosen().log_density(left, right, {}).exp().numpy().reshape(40, -1)
    plan *= (a / plan.sum(axis=1))[:, None]
    truth = sinkhorn(a, plan.sum(axis=0), x, y, EPSILON, rounds=500)
    assert np.abs(plan - truth).sum() < 1e-6
    means = chosen().conditional_mean(torch.from_numpy(x), {}).numpy()
    assert np.abs(means - truth @ y / a[:, None]).max() < 0.01  # the grid ends at 4


def test_draws_have_the_density() -> None:
    """Along a direction, at fixed x; fails if components are drawn with the weights at x = 0."""
    bridge, n = chosen(), 20_000
    x = torch.tensor([[0.8, -0.6]], dtype=torch.float64)
    drawn = bridge.apply(x.expand(n, -1), {}, normal(2, n, 3)).numpy()
    y = grid(-8, 8, 401)
    density = bridge.log_density(x.expand(len(y), -1), torch.from_numpy(y), {}).exp().numpy()
    direction = np.array([0.6, 0.8])
    order = np.argsort(y @ direction)
    total = np.cumsum(density[order])
    cdf = np.interp(drawn @ direction, (y @ direction)[order], total / total[-1])
    assert kstest(cdf, "uniform").pvalue > 1e-3
    error = 5 * drawn.std(axis=0) / n**0.5
    mean = bridge.conditional_mean(x, {})[0].numpy()
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < error)


@pytest.mark.slow
def test_marginals_alone_give_the_plan_back() -> None:
    """Trained on shuffled samples, it finds the coupling that made them: KL(plan | learned).

    This is also how any method can be held against a bridge that is not Gaussian.
    """
    n = 20_000
    x = normal(3, n, 2) + torch.sign(normal(4, n, 1))
    truth = chosen()
    y = truth.apply(x, {}, normal(5, n, 3))
    shuffled = y[torch.from_numpy(stream(6, "light_sb").permutation(n))]
    bridge = learned(x, shuffled, 500, epsilon=EPSILON, components=3)
    gain = truth.log_density(x, y, {}) - bridge.log_density(x, y, {})
    # maximum likelihood of 18 parameters costs 18 / 2n = 0.0005; the independent coupling 0.6
    assert float(gain.mean()) < 0.0005 + 4 * float(gain.std()) / n**0.5
    independent = truth.log_density(x, y, {}) - bridge.log_density(x[torch.randperm(n)], y, {})
    assert float(independent.mean()) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.05, 1.0])
def test_one_component_is_the_gaussian_bridge(epsilon: float) -> None:
    """S = Cov(y, x) Var(x)^-1 and the means, in three dimensions; tolerance five standard errors."""
    n = 20_000
    a = normal(7, 3, 3).numpy()
    s0, s1 = np.diag([1.0, 0.5, 1.5]), 0.5 * np.eye(3) + 0.3 * a @ a.T
    m1 = np.array([0.5, -1.0, 0.0])
    x = normal(8, n, 3) @ torch.from_numpy(s0**0.5)
    y = normal(9, n, 3) @ torch.from_numpy(np.linalg.cholesky(s1).T) + torch.from_numpy(m1)
    bridge = learned(x, y, 300, epsilon=epsilon, components=1)
    _, r, lower = bridge.potential(None)
    s = (lower @ lower.mT)[0, 0].numpy()
    truth = gaussian_sb_cross_covariance(s0, s1, epsilon).T @ np.linalg.inv(s0)
    assert np.abs(s - truth).max() < 5 / n**0.5 * np.abs(truth).max() + 0.01
    assert np.abs(r[0, 0].numpy() - m1).max() < 5 * (s1.max() / n) ** 0.5 + 0.01


def test_without_conditions_no_network_is_evaluated() -> None:
    assert LightSB(2, {}).nfe == 0
    assert LightSB(2, {"c": 1}).nfe == 1


@pytest.mark.parametrize(
    ("dim", "options", "message"),
    [
        (105, {}, "at most 32 coordinates, got 105; use flow_matching"),
        (2, {"epsilon": 0.0}, "epsilon must be a positive number, got 0.0"),
        (2, {"components": 0}, "components must be a whole number from 1"),
        (2, {"batch_size": "many"}, "batch_size must be a whole number from 1"),
        (2, {"train_steps": 10**9}, "train_steps must be a whole number from 1"),
    ],
)
def test_bad_options_are_refused(dim: int, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LightSB(dim, {}, **options)


def test_pairs_of_another_dimension_are_refused() -> None:
    pairs = Pairs(torch.zeros(100, 2), torch.zeros(100, 2))
    with pytest.raises(ConfigError, match="for 3 coordinates got 2"):
        next(LightSB(3, {}).phases(pairs, 0))
