"""MeanFlow against flows that are known: normal distributions, a rotation and a mixture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs, Transport
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports.mean_flow import MeanFlow

SMALL: dict[str, Any] = {
    "width": 32, "depth": 2, "train_steps": 800, "learning_rate": 3e-3, "window": 64, "windows": 4,
}  # fmt: skip
MODEL_ERROR = 0.15  # of a small network trained for seconds, in standard deviations of the target


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.from_numpy(stream(seed, "test").standard_normal((n, d), np.float32))


def from_noise(target: Tensor, **more: Any) -> Pairs:
    return Pairs(torch.zeros_like(target), target, from_noise=True, **more)


def trained(pairs: Pairs, **options: Any) -> MeanFlow:
    torch.manual_seed(0)
    dims = pairs.condition_dims()
    flow = MeanFlow(pairs.dim, dims, **(SMALL | options))
    fit(flow.phases(pairs, 0), TrainingSettings(ema_decay=0.99), seed=0, device="cpu")
    return flow.eval()


def random_network(dim: int, conditions: int = 0, **options: Any) -> MeanFlow:
    """Untrained, with weights of a size that makes it curved, in double precision."""
    torch.manual_seed(1)
    flow = MeanFlow(dim, {"c": conditions} if conditions else {}, width=16, depth=2, **options)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return flow.double()


# -- normal noise to N(m, s^2), independent coupling: everything is known --------------------------

PLACE = np.array([1.5, -0.5])
WIDTH = np.array([0.4, 1.6])


def spread(t: Any) -> Any:
    """Standard deviations (..., 2) at times t (..., 1) of independent ends."""
    place = PLACE if isinstance(t, np.ndarray) else torch.from_numpy(PLACE)
    width = WIDTH if isinstance(t, np.ndarray) else torch.from_numpy(WIDTH)
    return ((1 - t) ** 2 + (t * width) ** 2 + 0 * place) ** 0.5


def path(x: Any, t: Any, r: Any) -> Any:
    """Along dx/dt = m + (ds_t/dt) / s_t (x - t m): a normal distribution stays at its quantile."""
    place = PLACE if isinstance(x, np.ndarray) else torch.from_numpy(PLACE)
    return r * place + spread(r) / spread(t) * (x - t * place)


def velocity(x: Tensor, t: Tensor) -> Tensor:
    """E[x1 - x0 | x_t] of jointly normal x1 - x0 and x_t, by regression."""
    place, width = torch.from_numpy(PLACE), torch.from_numpy(WIDTH)
    return place + (t * width**2 - (1 - t)) / spread(t) ** 2 * (x - t * place)


class Known(torch.nn.Module):
    """The mean velocity of `path`, in the place of the network."""

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        r = t + c[:, :1]  # the stretch as it is, see `exact`
        safe = torch.where(r == t, t + 1.0, r)
        return torch.where(r == t, velocity(x, t), (path(x, t, safe) - x) / (safe - t))


def exact(**options: Any) -> MeanFlow:
    flow = MeanFlow(2, {}, width=8, depth=1, **options)
    flow.stretch = torch.nn.Identity()  # type: ignore[assignment]
    flow.network = Known()  # type: ignore[assignment]
    return flow.double()


def times(n: int, seed: int) -> tuple[Tensor, Tensor]:
    t, r = torch.from_numpy(stream(seed, "times").random((2, n, 1))).sort(0).values
    return t, torch.where(torch.arange(n)[:, None] % 4 == 0, t, r)


def test_the_mean_velocity_fulfils_the_identity() -> None:
    """For the true u and the velocity of the flow the target is u itself.

    What is left, 1e-4, is the step of the numerical derivative, squared. Fails (1) if the second
    term has the other sign, is left out, or is differentiated along the time alone.
    """
    flow = exact()
    x = normal(500, 2, 1).double()
    t, r = times(500, 1)
    c = torch.zeros(500, 0).double()
    truth = flow.mean_velocity(flow.network, x, t, r, c)
    found = flow.target(flow.network, x, velocity(x, t), t, r, c)
    assert (truth - velocity(x, t)).abs().max() > 0.5
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-4)


def test_the_targets_of_pairs_have_the_right_mean() -> None:
    """With v = x1 - x0 of a pair the target is the true u on average: k standard errors.

    Compared with functions of x_t, t and r, since means given these are meant. Fails if v of the pair
    is left out of the derivative, or r and t are exchanged.
    """
    n = 40_000
    flow = exact(window=1, windows=n, instant=0.25)
    target = torch.from_numpy(PLACE + WIDTH * normal(n, 2, 2).numpy()).float()
    data = next(flow.phases(from_noise(target), 0)).batch(0, stream(0, "batch"))
    x, v, t, r, c = (data[name].double() for name in ("x", "v", "t", "r", "c"))
    instant = (r == t).double().mean()
    assert abs(instant - 0.25) < 5 * (0.25 * 0.75 / n) ** 0.5
    assert ((t >= 0) & (t <= r) & (r <= 1)).all()
    off = flow.target(flow.network, x, v, t, r, c)
    off = off - flow.mean_velocity(flow.network, x, t, r, c)
    for test in (torch.ones_like(x), x, x.square(), t * x, r * x, (r - t) * x, x.flip(1)):
        terms = off * test
        assert (terms.mean(0).abs() < 4.5 * terms.std(0) / n**0.5).all()


def test_derivative_is_that_of_torch() -> None:
    """Central differences against automatic differentiation, on a network with random weights.

    Fails if the end of the stretch moves along with t.
    """
    flow = random_network(3, 2)
    x, v, c = (normal(200, k, seed).double() for k, seed in ((3, 1), (3, 2), (2, 3)))
    t, r = times(200, 2)

    def at(x: Tensor, t: Tensor) -> Tensor:
        return flow.mean_velocity(flow.network, x, t, r, c)

    _, slope = torch.autograd.functional.jvp(at, (x, t), (v, torch.ones_like(t)))
    found = flow.target(flow.network, x, v, t, r, c)
    assert ((r - t) * slope).std() > 0.05
    error = found - (v - (t - r) * slope)
    assert error.norm() < 1e-3 * ((r - t) * slope).norm()
    assert torch.equal(found[t[:, 0] == r[:, 0]], v[t[:, 0] == r[:, 0]])


@pytest.mark.parametrize("adaptive", [0.0, 1.0])
def test_gradient_is_that_of_a_constant_target(adaptive: float) -> None:
    """Of the loss written out row by row with numbers as targets and weights.

    Fails if gradients flow through the target, or through the adaptive weight.
    """
    flow = random_network(2, 1, carried=1, weights=[1.0], adaptive=adaptive, window=8, windows=4)
    c = torch.linspace(-1, 1, 64)[:, None]
    pairs = Pairs(normal(64, 2, 4), normal(64, 2, 5), {"c": c}, order="c")
    phase = next(flow.phases(pairs, 0))
    data = {name: value.double() for name, value in phase.batch(0, stream(0, "batch")).items()}
    phase.loss(flow.network, data).backward()
    found = [p.grad.clone() for p in flow.network.parameters() if p.grad is not None]
    flow.network.zero_grad()
    rows = []
    for i in range(32):
        x, v, t, r, c = (data[name][i : i + 1] for name in ("x", "v", "t", "r", "c"))
        u = flow.mean_velocity(flow.network, x, t, r, c)
        target = torch.from_numpy(flow.target(flow.network, x, v, t, r, c).numpy())
        square = (u - target).square().mean()
        rows.append(square / (float(square.detach()) + 1e-3) ** adaptive)
    torch.stack(rows).mean().backward()
    truth = [p.grad for p in flow.network.parameters()]
    assert len(found) == len(truth)
    for ours, theirs in zip(found, truth, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_steps_of_the_true_mean_velocity_are_exact() -> None:
    """Any number of steps ends where the flow does. Fails if a step is given the time of its end."""
    x = normal(100, 2, 6).double()
    for evaluations in (1, 2, 3, 4):
        flow = exact(evaluations=evaluations)
        assert flow.nfe == evaluations
        torch.testing.assert_close(flow.apply(x, {}), path(x, torch.zeros(1), torch.ones(1)))


@pytest.mark.slow
def test_learned_map_is_the_flow_of_normal_distributions() -> None:
    """In 1, 2 and 4 evaluations of one training; 0.08, 0.04 and 0.03 are seen."""
    n = 20_000
    target = torch.from_numpy(PLACE + WIDTH * normal(n, 2, 7).numpy()).float()
    flow = trained(from_noise(target))
    x = normal(4000, 2, 8)
    truth = path(x.numpy().astype(float), np.zeros(1), np.ones(1))
    for evaluations in (1, 2, 4):
        flow.evaluations = evaluations
        with torch.no_grad():
            off = (flow.apply(x, {}).numpy() - truth) / WIDTH
        # place and width of the training sample itself are known to 1 / sqrt(n)
        assert (off**2).mean() ** 0.5 < MODEL_ERROR + 3 * (2 / n) ** 0.5


# -- a mixture whose place is a condition ----------------------------------------------------------

PLACES = np.array([-1.3, 0.9])
WIDTHS = np.array([0.5, 0.35])
SHARES = np.array([0.4, 0.6])


def mixture(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Targets (n, 1) and conditions (n, 1): the mixture, moved by the condition."""
    rng = stream(seed, "mixture")
    which, c = rng.choice(2, n, p=SHARES), rng.uniform(-1, 1, n)
    x = PLACES[which] + WIDTHS[which] * rng.standard_normal(n) + 0.5 * c
    return torch.from_numpy(x).float()[:, None], torch.from_numpy(c).float()[:, None]


def mixture_end(x: NDArray[np.float64], c: float) -> NDArray[np.float64]:
    """The flow from noise (n,) by an adaptive method of eighth order."""

    def slope(t: float, y: NDArray[np.float64]) -> NDArray[np.float64]:
        place, variance = t * (PLACES + 0.5 * c), (1 - t) ** 2 + (t * WIDTHS) ** 2
        away = y[:, None] - place
        chance = SHARES * variance**-0.5 * np.exp(-0.5 * away**2 / variance)
        chance /= chance.sum(axis=1, keepdims=True)
        # of each component, E[x1 - x0 | x_t] by regression
        each = PLACES + 0.5 * c + (t * WIDTHS**2 - (1 - t)) / variance * away
        return np.asarray((chance * each).sum(axis=1))

    return np.asarray(solve_ivp(slope, (0, 1), x, "DOP853", rtol=1e-9, atol=1e-9).y[:, -1])


@pytest.mark.slow
def test_learned_map_is_the_flow_of_a_mixture() -> None:
    """At three conditions, in 1, 2 and 4 evaluations: 0.06 to 0.11 of the spread, 1.2, are seen.

    In one dimension the end of a flow does not depend on the coupling: it keeps quantiles.
    """
    target, c = mixture(40_000, 1)
    flow = trained(from_noise(target, conditions={"c": c}, order="c"))
    x = normal(2000, 1, 9)
    for at in (-0.8, 0.0, 0.8):
        truth = mixture_end(x[:, 0].numpy().astype(float), at)
        for evaluations in (1, 2, 4):
            flow.evaluations = evaluations
            with torch.no_grad():
                end = flow.apply(x, {"c": torch.full((2000, 1), at)})[:, 0].numpy()
            assert ((end - truth) ** 2).mean() ** 0.5 < 1.2 * MODEL_ERROR


# -- interface -------------------------------------------------------------------------------------


def test_noise_is_drawn_anew_and_carried_coordinates_are_kept() -> None:
    flow = MeanFlow(3, {}, carried=1, **SMALL)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1)
    assert isinstance(flow, Transport)
    assert (flow.noise_dim, flow.nfe, flow.planned_steps) == (0, 1, SMALL["train_steps"])
    x = normal(10, 3, 1)
    end = flow.apply(x, {})
    assert torch.equal(end[:, 2], x[:, 2]) and (end[:, :2] != x[:, :2]).all()
    same = torch.ones(100, 3)
    phase = next(flow.phases(from_noise(same), 0))
    sources = [1 - phase.batch(k, stream(k, "batch"))["v"] for k in range(2)]
    assert (sources[0] != sources[1]).all()
    assert abs(float(torch.cat(sources).std()) - 1) < 5 / (2 * 1024) ** 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluations": 0}, "evaluations must be a whole number from 1 to 1000, got 0"),
        ({"window": 0}, "window must be a whole number"),
        ({"instant": 1.5}, "instant must be from 0 to 1 and adaptive from 0 to 2, got 1.5"),
        ({"adaptive": math.nan}, "adaptive from 0 to 2, got 0.75 and nan"),
        ({"carried": 2}, "carried must be from 0 to 1"),
        ({"weights": [1.0]}, "weights must be 2 positive numbers"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MeanFlow(2, {}, **options)


def test_pairs_of_another_dimension_are_refused() -> None:
    with pytest.raises(ConfigError, match="for 3 coordinates got 2"):
        next(MeanFlow(3, {}).phases(Pairs(torch.zeros(100, 2), torch.zeros(100, 2)), 0))
