"""Conditional diffusion and its samplers, against closed forms for Gaussians and the paper's update."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs, Transport
from hepbridge.core.rng import stream
from hepbridge.transports.diffusion import Diffusion
from hepbridge.transports.distilled import Distilled
from hepbridge.transports.multistep import follow
from hepbridge.transports.samplers import SAMPLERS
from hepbridge.transports.samplers.ddim import euler
from hepbridge.transports.samplers.noise_levels import karras


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(stream(seed, "test").standard_normal((n, d), np.float32))


def small(dim: int, **options: object) -> Diffusion:
    torch.manual_seed(0)
    return Diffusion(dim, {}, **({"width": 16, "depth": 1, "train_steps": 10} | options))


def paper_schedule(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """alpha and sigma of the paper: logsnr(t) = -2 ln tan(a t + b), alpha^2 = sigmoid(logsnr)."""
    b = math.atan(math.exp(-10.0))
    a = math.atan(math.exp(10.0)) - b
    logsnr = -2.0 * np.log(np.tan(a * t + b))
    return (1 / (1 + np.exp(-logsnr))) ** 0.5, (1 / (1 + np.exp(logsnr))) ** 0.5


class Exact(torch.nn.Module):
    """The best v for targets N(mean, spread^2), whatever the source; with its own schedule."""

    def __init__(self, mean: float, spread: float) -> None:
        super().__init__()
        self.mean, self.spread = mean, spread

    def forward(self, x: torch.Tensor, t: torch.Tensor, c: None) -> torch.Tensor:
        alpha, sigma = (float(part) for part in paper_schedule(np.array(float(t[0]))))
        x = x[:, :1]
        s2 = self.spread**2
        variance = (alpha * self.spread) ** 2 + sigma**2
        target = self.mean + alpha * s2 * (x - alpha * self.mean) / variance
        epsilon = sigma * (x - alpha * self.mean) / variance
        return alpha * epsilon - sigma * target


def drawn(sampler: str, steps: int, spread: float, mean: float = 0.4) -> tuple[float, float]:
    """Mean and standard deviation of the output: exactly, since it is affine in the noise."""
    diffusion = small(1, sampler=sampler, steps=steps)
    diffusion.network = Exact(mean, spread)
    noise = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    zero, one = diffusion.apply(torch.zeros_like(noise), {}, noise)[:, 0].tolist()
    return zero, one - zero


# -- sampling with the exact network -------------------------------------------------------------


def test_schedule_is_the_papers() -> None:
    t = np.linspace(0, 1, 21)
    angle = Diffusion.angle(torch.from_numpy(t)).numpy()
    alpha, sigma = paper_schedule(t)
    np.testing.assert_allclose(np.cos(angle), alpha, rtol=1e-9)
    np.testing.assert_allclose(np.sin(angle), sigma, rtol=1e-9)
    assert -2 * math.log(math.tan(angle[0])) == pytest.approx(20)


def test_ddim_is_the_papers_update() -> None:
    """x_0 = alpha x - sigma v, eps = sigma x + alpha v, x <- alpha' x_0 + sigma' eps, written out."""
    diffusion = small(3, sampler="ddim", steps=7)
    with torch.no_grad():
        for p in diffusion.parameters():
            p.add_(0.3 * torch.randn_like(p))
    diffusion.double()
    source, x = (normal(20, 3, seed).double() for seed in (1, 2))
    with torch.no_grad():
        found = diffusion.apply(source, {}, x)
        t = np.linspace(1, 0, 8)
        alpha, sigma = paper_schedule(t)
        for k in range(7):
            seen = torch.cat([x, source], dim=1)
            v = diffusion.network(seen, torch.tensor([t[k]], dtype=torch.float64), None)
            clean, epsilon = alpha[k] * x - sigma[k] * v, sigma[k] * x + alpha[k] * v
            x = alpha[k + 1] * clean + sigma[k + 1] * epsilon
    assert (found - normal(20, 3, 2)).abs().max() > 0.1
    torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("multistep", 2)])
def test_samplers_converge_to_the_target(sampler: str, order: int) -> None:
    """Width of the output, with the order of the sampler; the means to 1 %.

    Fails if the slope of the second order is left out or has the other sign, or if the network is
    asked at the time after the step.
    """
    errors = []
    for steps in (10, 20, 40):
        mean, spread = drawn(sampler, steps, 0.5)
        errors.append(abs(spread / 0.5 - 1))
        assert abs(mean - 0.4) < (0.2 / steps if order == 1 else 0.01)
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(found > order - 0.2 for found in orders), (orders, errors)
    assert errors[1] < (0.1 if order == 1 else 0.01), errors


def test_steps_are_exact_where_the_end_is_linear_in_the_angle() -> None:
    """d(w / cos) = D d tan with D = 2 + 3 theta, by numerical quadrature: order 2 has no error.

    But for the first step, which has no slope yet, and which is therefore made tiny. Fails if the
    slope is divided by another step than the one before.
    """
    angles = [0.3, 0.3 + 1e-9, 0.7, 1.2, 1.3]
    w0 = torch.tensor([[0.5]], dtype=torch.float64)

    def end(w: torch.Tensor, k: int) -> torch.Tensor:
        return torch.full_like(w, 2 + 3 * angles[k])

    found = follow(w0, angles, end, order=2)
    grid = np.linspace(0.3, 1.2, 200_001)
    rise = np.trapezoid((2 + 3 * grid) / np.cos(grid) ** 2, grid)
    last = (2 + 3 * 1.2) * (math.tan(1.3) - math.tan(1.2))  # the last step takes D as constant
    truth = math.cos(1.3) * (0.5 / math.cos(0.3) + rise + last)
    assert float(found) == pytest.approx(truth, rel=1e-6)


def test_change_of_variables_is_exact() -> None:
    """DDIM in angles is Euler in noise levels, with sigma = tan(angle) and x = w / cos(angle)."""
    diffusion = small(1, sampler="ddim", steps=9)
    diffusion.network = Exact(0.4, 0.5)
    noise = torch.tensor([[0.3], [-1.2]], dtype=torch.float64)
    angles = [diffusion.angle(1.0 - k / 9) for k in range(10)]

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return 0.4 + 0.25 / (0.25 + sigma**2) * (x - 0.4)

    x = euler(denoise, noise / math.cos(angles[0]), [math.tan(a) for a in angles])
    found = diffusion.apply(torch.zeros_like(noise), {}, noise)
    torch.testing.assert_close(found, x * math.cos(angles[-1]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["heun", "ddpm", "edm", "restart"])
def test_sampler_of_the_zoo_gets_start_noise_and_times(name: str) -> None:
    """The sampler itself, with the denoiser in closed form: the first column is the start."""
    diffusion = small(1, sampler=name, steps=7)
    diffusion.network = Exact(0.4, 0.5)
    noise = normal(5, diffusion.noise_dim, 1).double()

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return 0.4 + 0.25 / (0.25 + sigma**2) * (x - 0.4)

    start, others = noise[:, :1] * (1 + 80.0**2) ** 0.5, noise[:, 1:].T[:, :, None]
    truth = SAMPLERS[name](denoise, start, karras(7), others)
    found = diffusion.apply(torch.zeros(5, 1, dtype=torch.float64), {}, noise)
    torch.testing.assert_close(found, truth, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("levels", [None, "lu", "variance_preserving", "cosine"])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_draws_the_target(name: str, levels: str | None) -> None:
    """Mean and width of the output, exactly: it is affine in the start and in every noise number."""
    diffusion = small(1, sampler=name, levels=levels, steps=200)
    diffusion.network = Exact(0.4, 0.5)
    rows = 1 + diffusion.noise_dim
    noise = torch.eye(rows, dtype=torch.float64)[:, 1:].contiguous()
    out = diffusion.apply(torch.zeros(rows, 1, dtype=torch.float64), {}, noise)[:, 0]
    width = float((out[1:] - out[0]).norm())
    limit = 0.06 if SAMPLERS[name].order == 1 else 0.01
    # the steps within an interval of Restart stay few; the last steps in ln sigma of the
    # variance-preserving time differ by much, which multistep methods do not like
    if name == "restart" or levels == "variance_preserving":
        limit = max(limit, 0.03)
    assert abs(width / 0.5 - 1) < limit
    # the start has mean 0 in place of 0.4 cos(angle), of which 0.4 * spread / 80 is left
    assert abs(float(out[0]) - 0.4) < 0.005


# -- training ------------------------------------------------------------------------------------


def test_points_and_labels_of_a_batch() -> None:
    """alpha x + sigma eps between a fixed target and normal noise, and v that gives both back."""
    pairs = Pairs(torch.full((64, 1), -1.0), torch.full((64, 1), 3.0), coupled=True)
    diffusion = small(1, batch_size=20_000)
    data = next(diffusion.phases(pairs, 0)).batch(0, stream(0, "batch"))
    alpha, sigma = paper_schedule(data["t"].numpy()[:, 0].astype(float))
    x, source = data["x"].numpy().astype(float).T
    v = data["v"].numpy()[:, 0].astype(float)
    assert (source == -1).all() and data["c"] is None
    np.testing.assert_allclose(alpha * x - sigma * v, 3.0, atol=1e-5)
    epsilon = sigma * x + alpha * v
    assert abs(epsilon.mean()) < 5 / len(x) ** 0.5
    assert abs(epsilon.var() - 1) < 5 * (2 / len(x)) ** 0.5


# -- interface -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "multistep"])
def test_interface(sampler: str) -> None:
    """One evaluation a step, at equal times from 1; the same noise gives the same output."""
    diffusion = small(3, sampler=sampler, steps=5)
    assert isinstance(diffusion, Transport)
    assert (diffusion.noise_dim, diffusion.nfe, diffusion.planned_steps) == (3, 5, 10)
    asked: list[float] = []
    diffusion.network.register_forward_pre_hook(lambda _, args: asked.append(float(args[1][0])))
    y = diffusion.apply(normal(7, 3, 1), {}, normal(7, 3, 2))
    assert asked == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert torch.equal(y, diffusion.apply(normal(7, 3, 1), {}, normal(7, 3, 2)))


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_interface_of_the_samplers(name: str) -> None:
    """As many evaluations and noise columns as told, by row, with gradients."""
    diffusion = small(3, sampler=name, steps=6)
    torch.nn.init.normal_(diffusion.network.leave.weight)
    assert isinstance(diffusion, Transport)
    assert diffusion.noise_dim == 3 * (1 + SAMPLERS[name].draws(6))
    calls: list[int] = []
    diffusion.network.register_forward_pre_hook(lambda *_: calls.append(1))
    source, noise = normal(7, 3, 1), normal(7, diffusion.noise_dim, 2)
    y = diffusion.apply(source, {}, noise)
    assert len(calls) == diffusion.nfe
    assert torch.equal(y, diffusion.apply(source, {}, noise))
    alone = diffusion.apply(source[2:3], {}, noise[2:3])
    torch.testing.assert_close(alone, y[2:3], rtol=1e-4, atol=1e-4)
    y.sum().backward()
    assert all(p.grad is not None for p in diffusion.parameters())


@pytest.mark.parametrize("sampler", ["multistep", "heun"])
def test_without_source(sampler: str) -> None:
    """The network sees x alone, the output is the same for every source; default states stay."""
    diffusion = small(3, sampler=sampler, condition_on_source=False, steps=5)
    torch.nn.init.normal_(diffusion.network.leave.weight)
    assert diffusion.source_free and diffusion.claims.joint and not diffusion.claims.posterior
    batch = next(diffusion.phases(Pairs(normal(50, 3, 1), normal(50, 3, 2)), 0)).batch(
        0, stream(0, "batch")
    )
    assert batch["x"].shape[1] == diffusion.network.enter.in_features == 3
    one, other = (diffusion.apply(normal(7, 3, k), {}, normal(7, 3, 9)) for k in (1, 2))
    assert torch.equal(one, other) and one.abs().max() > 0
    usual = small(3, sampler=sampler)
    assert not usual.source_free and usual.claims.posterior
    assert usual.network.enter.in_features == 6


def test_deterministic_samplers_can_be_taught_from() -> None:
    teacher = {"width": 8, "train_steps": 1}
    options = {"teacher": "diffusion", "width": 8, "depth": 1}
    student = Distilled(2, {}, teacher_options={**teacher, "sampler": "unipc2"}, **options)
    assert student.noise_dim == 2
    with pytest.raises(ConfigError, match="must be deterministic, or take one noise number"):
        Distilled(2, {}, teacher_options={**teacher, "sampler": "ddpm"}, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1}, "steps must be a whole number from 2 to 1000, got 1"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"sampler": "hoin"}, "unknown sampler 'hoin'; allowed: multistep, ddim, euler, ddpm"),
        ({"sampler": "heun", "levels": "lou"}, "unknown schedule of noise levels 'lou'"),
        (
            {"sampler": "ddim", "levels": "lu"},
            "'ddim' has its own noise levels; leave out levels: lu",
        ),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(3, **options)


def test_pairs_of_another_dimension_are_refused() -> None:
    with pytest.raises(ConfigError, match="for 3 coordinates got 2"):
        next(small(3).phases(Pairs(torch.zeros(100, 2), torch.zeros(100, 2)), 0))
