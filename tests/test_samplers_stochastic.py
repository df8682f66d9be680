"""Stochastic samplers: exact mean and covariance for normal data, distributions for a mixture."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

import sampler_problems as problems
from hepbridge.core.errors import ConfigError
from hepbridge.core.rng import stream
from hepbridge.transports.samplers import SAMPLERS, noise_levels
from hepbridge.transports.samplers.ddim import ddpm, euler
from hepbridge.transports.samplers.dpm_solver import dpmpp_2m, dpmpp_2m_sde
from hepbridge.transports.samplers.euler_maruyama import euler_maruyama
from hepbridge.transports.samplers.heun import heun
from hepbridge.transports.samplers.restart import Interval, restarting
from hepbridge.transports.samplers.sampler import Sampler

STEPS = (56, 80, 112, 160, 224, 320)
ORDERS = {"ddpm": 1, "euler_maruyama": 1, "edm": 2, "dpmpp_2m_sde": 2, "restart": 2}


def chosen(name: str, steps: int) -> Sampler:
    """The sampler; Restart with as many steps in its intervals, so that all of its error falls.

    They end on the last level, the only one that stays where it is.
    """
    if name == "restart":
        return restarting([Interval(0.01, 1.0, steps, 2), Interval(0.01, 0.3, steps, 1)])
    sampler: Sampler = SAMPLERS[name]
    return sampler


def covariance_error(sampler: Sampler, levels: list[float]) -> float:
    """Greatest error of the covariance for normal data, exactly: no numbers are drawn.

    The truth is that of the last level, denoised, as all samplers end.
    """
    mean, found = problems.moments(
        lambda x, noise: sampler(problems.normal_denoise, x, levels, noise),
        sampler.draws(len(levels) - 1),
        levels[0],
    )
    torch.testing.assert_close(mean, problems.MEAN, rtol=1e-9, atol=1e-9)
    noisy = problems.COVARIANCE + levels[-2] ** 2 * torch.eye(2, dtype=torch.float64)
    truth = problems.COVARIANCE @ torch.linalg.solve(noisy, problems.COVARIANCE)
    return float((found - truth).abs().max())


def test_every_stochastic_sampler_is_measured() -> None:
    assert set(ORDERS) == {name for name in SAMPLERS if SAMPLERS[name].stochastic}
    assert all(SAMPLERS[name].order == ORDERS[name] for name in ORDERS)


@pytest.mark.parametrize("levels", [noise_levels.karras, noise_levels.lu])
@pytest.mark.parametrize("name", ORDERS)
def test_weak_order_is_that_of_the_theory(name: str, levels: Callable[..., list[float]]) -> None:
    errors = [covariance_error(chosen(name, n), levels(n, 0.01, 80.0)) for n in STEPS]
    found, error = problems.order(STEPS, errors)
    assert abs(found - ORDERS[name]) < 0.06 * ORDERS[name] + 3 * error, (found, error)
    assert error < 0.1


# -- single steps --------------------------------------------------------------------------------


def test_step_of_ddpm_is_the_posterior() -> None:
    """q(x' | x, x0) by Bayes: precision 1/s'^2 + 1/(s^2 - s'^2), for a denoiser that knows x0."""
    x0, x, sigma, then = 0.7, 2.0, 1.5, 0.6
    precision = 1 / then**2 + 1 / (sigma**2 - then**2)
    mean = (x0 / then**2 + x / (sigma**2 - then**2)) / precision
    zero, one = (
        float(
            ddpm(
                lambda x, sigma: torch.full_like(x, x0),
                torch.tensor([[x]], dtype=torch.float64),
                [sigma, then],
                torch.full((1, 1, 1), z, dtype=torch.float64),
            )
        )
        for z in (0.0, 1.0)
    )
    assert (zero, one - zero) == pytest.approx((mean, precision**-0.5))


def test_step_of_euler_maruyama_is_along_the_score() -> None:
    """The score of normal data is -(S + sigma^2)^-1 (x - m), the variance of the step sigma^2 - sigma'^2."""
    x = torch.from_numpy(stream(0, "test").standard_normal((7, 2)))
    noise = torch.from_numpy(stream(1, "test").standard_normal((1, 7, 2)))
    noisy = problems.COVARIANCE + 1.5**2 * torch.eye(2, dtype=torch.float64)
    score = -torch.linalg.solve(noisy, (x - problems.MEAN).T).T
    gone = 1.5**2 - 0.9**2
    found = euler_maruyama(problems.normal_denoise, x, [1.5, 0.9], noise)
    torch.testing.assert_close(found, x + gone * score + gone**0.5 * noise[0])


def test_sde_solver_is_exact_for_a_constant_end() -> None:
    """With constant D the reverse SDE is the posterior, whose steps any grid composes."""
    x = torch.from_numpy(stream(0, "test").standard_normal((7, 2)))
    noise = torch.from_numpy(stream(1, "test").standard_normal((3, 7, 2)))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return torch.full_like(x, 0.3)

    levels = [3.0, 1.2, 0.9, 0.2]
    torch.testing.assert_close(
        dpmpp_2m_sde(denoise, x, levels, noise), ddpm(denoise, x, levels, noise)
    )


@pytest.mark.parametrize("power", [1, 2])
def test_second_step_of_the_solver_is_the_papers(power: int) -> None:
    """D = (1 + 1/2r) D_1 - 1/2r D_0 with r = h_1 / h_2, on uneven levels; the SDE has 2 h for h."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return torch.full_like(x, 1.0 + sigma)

    levels = [3.0, 1.9, 0.5]
    x = torch.full((1, 1), 0.7, dtype=torch.float64)
    found = dpmpp_2m(denoise, x, levels)
    if power == 2:
        found = dpmpp_2m_sde(denoise, x, levels, torch.zeros(2, 1, 1, dtype=torch.float64))
    h1, h2 = (np.log(a / b) for a, b in itertools.pairwise(levels))
    after = np.exp(-power * h1) * 0.7 + (1 - np.exp(-power * h1)) * 4.0
    r = h1 / h2
    line = (1 + 1 / (2 * r)) * 2.9 - 1 / (2 * r) * 4.0
    truth = np.exp(-power * h2) * after + (1 - np.exp(-power * h2)) * line
    assert float(found) == pytest.approx(truth)


# -- distributions -------------------------------------------------------------------------------


def chi_square(name: str, steps: int, n: int = 10_000, bins: int = 40) -> float:
    """Of n samples in bins that hold as much of the mixture each."""
    rng, sampler, levels = stream(5, name), SAMPLERS[name], noise_levels.karras(steps)
    noise = torch.from_numpy(rng.standard_normal((sampler.draws(steps), n, 1)))
    x = problems.mixture_draw(n, levels[0], rng)
    out = sampler(problems.mixture_denoise, x, levels, noise)[:, 0].numpy()
    seen, _ = np.histogram(problems.mixture_cdf(out), bins, (0, 1))
    return float(((seen - n / bins) ** 2).sum() / (n / bins))


@pytest.mark.parametrize("name", [*ORDERS, "euler", "heun", "unipc3"])
def test_many_steps_draw_from_the_mixture(name: str) -> None:
    """Chi-square of 39 degrees of freedom; with few steps the same test finds what is wrong."""
    limit = float(chi2.isf(1e-4, 39))
    steps = 800 if name in ("ddpm", "euler_maruyama", "euler") else 100
    assert chi_square(name, steps) < limit
    assert chi_square(name, 5) > limit


# -- Restart -------------------------------------------------------------------------------------


def test_restart_forgets_an_error_as_its_contraction_says() -> None:
    """An error of the start shrinks by sqrt((s^2 + low^2) / (s^2 + high^2)) with each repeat."""
    levels = noise_levels.karras(400, 0.002, 80.0)
    low = min(levels, key=lambda sigma: abs(sigma - 0.1))
    s2, vectors = torch.linalg.eigh(problems.COVARIANCE)
    ways = torch.cat([torch.zeros_like(s2)[None], 80.0 * vectors.T])

    def left(sampler: Sampler) -> Tensor:
        noise = torch.zeros(sampler.draws(400), 3, 2, dtype=torch.float64)
        out = sampler(problems.normal_denoise, problems.MEAN + ways, levels, noise)
        return ((out[1:] - out[0]) * vectors.T).sum(dim=1)

    plain = left(SAMPLERS["heun"])
    for repeats in (1, 3):
        found = left(restarting([Interval(0.1, 1.0, 200, repeats)])) / plain
        truth = ((s2 + low**2) / (s2 + 1.0)) ** (0.5 * repeats)
        torch.testing.assert_close(found, truth, rtol=1e-3, atol=0)


def test_restart_mends_what_few_steps_did() -> None:
    """Eight steps of Heun, and the same with a restart at low noise: half of the error, or less."""
    levels = noise_levels.karras(8, 0.01, 80.0)
    plain = covariance_error(SAMPLERS["heun"], levels)
    again = covariance_error(restarting([Interval(0.1, 1.0, 8, 3)]), levels)
    assert again < 0.5 * plain, (again, plain)


def test_restart_that_never_fires_is_found() -> None:
    """A published fault: the restarts are looked up under a key that is never met.

    Plain Heun steps then stand for it; they use no noise and cost less than is told.
    """
    sampler, levels = SAMPLERS["restart"], noise_levels.karras(10)
    calls: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return problems.normal_denoise(x, sigma)

    x = 80.0 * torch.from_numpy(stream(0, "test").standard_normal((7, 2)))
    plain = heun(denoise, x, levels)
    assert len(calls) == sampler.nfe(10) - 2 * 2 * 5
    noise = torch.zeros(2, 7, 2, dtype=torch.float64)
    assert (sampler(denoise, x, levels, noise) - plain).abs().max() > 0.1


def test_restart_starts_at_the_nearest_level() -> None:
    """From the level nearest to ``low``, back to ``high`` exactly, through Karras levels."""
    levels = [5.0, 2.0, 1.1, 0.4, 0.05, 0.0]
    calls: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return problems.normal_denoise(x, sigma)

    sampler = restarting([Interval(0.5, 1.5, 2, 1)])
    sampler(denoise, torch.ones(1, 2, dtype=torch.float64), levels, torch.zeros(1, 1, 2).double())
    middle = (0.5 * (1.5 ** (1 / 7) + 0.4 ** (1 / 7))) ** 7
    assert calls == pytest.approx(
        [5, 2, 2, 1.1, 1.1, 0.4, 1.5, middle, middle, 0.4, 0.4, 0.05, 0.05]
    )


@pytest.mark.parametrize(
    ("low", "high", "steps", "repeats"),
    [(0, 1, 3, 1), (1, 1, 3, 1), (0.1, 1, 0, 1), (0.1, 1, 3, 0)],
)
def test_impossible_intervals_are_refused(
    low: float, high: float, steps: int, repeats: int
) -> None:
    with pytest.raises(ConfigError, match="0 < low < high, steps >= 1 and repeats >= 1"):
        Interval(low, high, steps, repeats)


def test_interval_without_a_level_is_refused() -> None:
    noise = torch.zeros(1, 1, 2, dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"no level between 0 and 0\.5 is reached by a step"):
        restarting([Interval(0.1, 0.5, 2, 1)])(
            problems.normal_denoise, noise[0], [5.0, 1.0, 0.0], noise
        )


def test_noise_is_what_makes_them_forget() -> None:
    """Two starts that differ end nearer to each other than along the path, with the same noise."""
    levels, starts = noise_levels.karras(60), torch.tensor([[40.0, 0.0], [-40.0, 0.0]]).double()
    apart = {}
    for name in ORDERS:
        noise = torch.zeros(SAMPLERS[name].draws(60), 2, 2, dtype=torch.float64)
        out = SAMPLERS[name](problems.normal_denoise, starts, levels, noise)
        apart[name] = float((out[0] - out[1]).norm())
    path = euler(problems.normal_denoise, starts, levels)
    assert max(apart.values()) < 0.8 * float((path[0] - path[1]).norm()), apart
