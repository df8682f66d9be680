"""Deterministic samplers: measured orders, exactness on polynomials, noise levels, costs."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

import sampler_problems as problems
from hepbridge.core.errors import ConfigError
from hepbridge.transports.samplers import SAMPLERS, noise_levels
from hepbridge.transports.samplers.ddim import ddpm, euler
from hepbridge.transports.samplers.dpm_solver import dpmpp_2m
from hepbridge.transports.samplers.heun import edm, heun
from hepbridge.transports.samplers.lms import lms
from hepbridge.transports.samplers.noise_levels import LEVELS
from hepbridge.transports.samplers.unipc import unipc

STEPS = (56, 80, 112, 160, 224, 320)
ORDERS = {
    "euler": 1, "heun": 2, "dpmpp_2m": 2, "lms2": 2, "lms3": 3, "lms4": 4, "unipc2": 3, "unipc3": 4,
}  # fmt: skip


def start(n: int, d: int, seed: int = 0) -> Tensor:
    draws = np.random.default_rng(seed).standard_normal((n, d))
    return torch.from_numpy(draws)


def measured(
    run: Callable[..., Tensor], levels: Callable[..., list[float]], problem: str
) -> tuple[float, float]:
    """Order and its standard error, at a fixed lowest level, where the exact path is denoised."""
    denoise = getattr(problems, f"{problem}_denoise")
    x = 80.0 * start(20, 2 if problem == "normal" else 1)
    truth = denoise(getattr(problems, f"{problem}_path")(x, 80.0, 0.01), 0.01)
    errors = []
    for n in STEPS:
        out = run(denoise, x, levels(n, 0.01, 80.0))
        errors.append(float((out - truth).square().mean().sqrt()))
    return problems.order(STEPS, errors)


# -- orders --------------------------------------------------------------------------------------


def test_every_deterministic_sampler_is_measured() -> None:
    assert set(ORDERS) == {name for name in SAMPLERS if not SAMPLERS[name].stochastic}
    assert all(SAMPLERS[name].order == ORDERS[name] for name in ORDERS)


@pytest.mark.parametrize("levels", ["karras", "lu"])
@pytest.mark.parametrize("problem", ["normal", "mixture"])
@pytest.mark.parametrize("name", ORDERS)
def test_order_is_that_of_the_theory(name: str, problem: str, levels: str) -> None:
    """Against the path in closed form, and by an adaptive method of eighth order."""
    found, error = measured(SAMPLERS[name].run, LEVELS[levels], problem)
    # the fit leaves out the second correction, (1 / n)^2, which moves the slope by a few per cent
    assert abs(found - ORDERS[name]) < 0.06 * ORDERS[name] + 3 * error, (found, error)
    assert error < 0.1


def published_heun(denoise: Callable[..., Tensor], x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """A published fault: the corrector sees the state before the step in place of the predicted."""
    for sigma, then in itertools.pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        ahead = x + (then - sigma) * slope
        if then > 0:
            ahead = x + (then - sigma) * 0.5 * (slope + (x - denoise(x, then)) / then)
        x = ahead
    return x


def test_published_fault_of_the_corrector_is_found() -> None:
    found, error = measured(published_heun, noise_levels.karras, "normal")
    assert abs(found - 2) > 0.5 + 3 * error


def test_published_fault_of_the_logarithmic_levels_is_found() -> None:
    """ln sigma in place of sigma: the check of the levels refuses it."""
    right = noise_levels.lu(10)
    with pytest.raises(ConfigError, match="decrease to 0 at the end"):
        SAMPLERS["heun"](
            problems.normal_denoise, start(5, 2), [math.log(s) for s in right[:-1]] + [0.0]
        )


# -- exactness -----------------------------------------------------------------------------------

# the first steps, which have no values from before, are made tiny
UNEVEN = [3.0, 3.0 - 1e-4, 3.0 - 2e-4, 3.0 - 3e-4, 2.9, 2.2, 1.9, 1.1, 0.8]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_integrates_polynomials_exactly(order: int) -> None:
    """A slope of degree order - 1 in sigma, along uneven steps; the next degree has an error."""
    for degree, exact in ((order - 1, True), (order, False)):

        def denoise(x: Tensor, sigma: float, degree: int = degree) -> Tensor:
            return x - sigma * (1.0 + sigma**degree)

        found = float(lms(denoise, torch.zeros(1, 1, dtype=torch.float64), UNEVEN, order=order))
        truth = sum((UNEVEN[-1] ** (p + 1) - UNEVEN[0] ** (p + 1)) / (p + 1) for p in (0, degree))
        assert (abs(found - truth) < 1e-6 * abs(truth)) == exact, (found, truth)


@pytest.mark.parametrize(
    ("run", "degree"),
    [(dpmpp_2m, 0), (partial(unipc, order=1), 0), (partial(unipc, order=2), 1),
     (partial(unipc, order=3), 2)],
)  # fmt: skip
def test_multistep_in_lambda_is_exact_for_polynomials(
    run: Callable[..., Tensor], degree: int
) -> None:
    """D of a degree in lambda, against numerical quadrature; the next degree has an error.

    A list that does not end in 0 ends on a prediction, which is what is compared.
    """
    first, last = -math.log(UNEVEN[0]), -math.log(UNEVEN[-1])
    for power, exact in ((degree, True), (degree + 1, False)):

        def denoise(x: Tensor, sigma: float, power: int = power) -> Tensor:
            return torch.full_like(x, 1.0 + (-math.log(sigma)) ** power)

        rise, _ = quad(lambda s, q=power: math.exp(s - last) * (1.0 + s**q), first, last)
        truth = math.exp(first - last) * 0.7 + rise
        found = float(run(denoise, torch.full((1, 1), 0.7, dtype=torch.float64), UNEVEN))
        assert (abs(found - truth) < 1e-6) == exact, (found, truth)


def test_corrector_of_unipc_is_exact_for_one_degree_more() -> None:
    """D of degree p, up to the last correction: what a denoiser is asked at the last level.

    There the state is a prediction from a corrected state: the error is that of one step alone.
    """
    asked: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        asked.append(float(x))
        return torch.full_like(x, math.log(sigma) ** 2)

    levels = [*UNEVEN, UNEVEN[-1] - 1e-6, 0.0]  # the last prediction is over a tiny step
    unipc(denoise, torch.full((1, 1), 0.7, dtype=torch.float64), levels, order=2)
    first, last = -math.log(levels[0]), -math.log(levels[-2])
    rise, _ = quad(lambda s: math.exp(s - last) * s**2, first, last)
    assert asked[-1] == pytest.approx(math.exp(first - last) * 0.7 + rise, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if not SAMPLERS[name].draws(1)])
def test_last_step_is_the_denoiser(name: str) -> None:
    x = start(9, 2)
    found = SAMPLERS[name](problems.normal_denoise, x, [1.5, 0.0])
    torch.testing.assert_close(found, problems.normal_denoise(x, 1.5), rtol=1e-12, atol=1e-12)


def test_special_cases_are_each_other() -> None:
    x, levels = 80.0 * start(9, 2), noise_levels.karras(12)
    noise = start(13 * 9, 2, 1).reshape(13, 9, 2)
    plain = heun(problems.normal_denoise, x, levels)
    assert torch.equal(edm(problems.normal_denoise, x, levels, noise, churn=0.0), plain)
    assert not torch.equal(edm(problems.normal_denoise, x, levels, noise), plain)
    torch.testing.assert_close(
        ddpm(problems.normal_denoise, x, levels, noise, eta=0.0),
        euler(problems.normal_denoise, x, levels),
    )
    torch.testing.assert_close(
        lms(problems.normal_denoise, x, levels, order=1), euler(problems.normal_denoise, x, levels)
    )


# -- noise levels --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "clock"),
    [
        ("karras", lambda s: s ** (1 / 7)),
        ("lu", np.log),
        # alpha^2 = 1 / (1 + sigma^2) and -ln alpha^2 = int beta, beta = 0.1 + 19.9 t
        ("variance_preserving",
         lambda s: np.array([np.roots([9.95, 0.1, -np.log1p(v**2)]).max() for v in s])),
        # cos^2 of the time is alpha^2
        ("cosine", lambda s: np.arccos(1 / np.sqrt(1 + s**2))),
    ],
)  # fmt: skip
def test_levels_are_equal_steps_of_their_clock(
    name: str, clock: Callable[[np.ndarray], np.ndarray]
) -> None:
    levels = LEVELS[name](9, 0.01, 50.0)
    assert (len(levels), levels[0], levels[-2:]) == (10, 50.0, [0.01, 0.0])
    steps = np.diff(clock(np.array(levels[:-1])))
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-6)


def test_levels_of_the_paper() -> None:
    """Eq. 5 of Karras et al., written out, for three levels."""
    middle = (80 ** (1 / 7) + 0.5 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert noise_levels.karras(3) == pytest.approx([80, middle, 0.002, 0])


@pytest.mark.parametrize(
    ("steps", "low", "high"), [(1, 0.1, 1), (5, 0, 1), (5, 2, 1), (5, 0.1, math.inf)]
)
def test_impossible_levels_are_refused(steps: int, low: float, high: float) -> None:
    with pytest.raises(ConfigError, match="noise levels need steps >= 2 and 0 < sigma_min"):
        noise_levels.lu(steps, low, high)


# -- interface -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize("steps", [5, 12])
def test_costs_are_those_told(name: str, steps: int) -> None:
    """The denoiser is called as often as told, and every number of the noise is used."""
    sampler, levels = SAMPLERS[name], noise_levels.karras(steps, 0.06, 40.0)
    calls: list[float] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return problems.mixture_denoise(x, sigma)

    draws = sampler.draws(steps)
    noise = start(draws * 3, 1).reshape(draws, 3, 1).requires_grad_()
    out = sampler(denoise, 40.0 * start(3, 1), levels, noise)
    assert len(calls) == sampler.nfe(steps)
    assert all(sigma > 0 for sigma in calls)
    if draws:
        (slopes,) = torch.autograd.grad(out.sum(), noise)
        assert (slopes != 0).all()


@pytest.mark.parametrize("levels", [[1.0], [2.0, 1.0], [1.0, 2.0, 0.0], [1.0, 1.0, 0.0],
                                    [math.inf, 1.0, 0.0], [1.0, math.nan, 0.0]])  # fmt: skip
def test_wrong_levels_are_refused(levels: list[float]) -> None:
    with pytest.raises(ConfigError, match="noise levels must be finite and decrease to 0"):
        SAMPLERS["euler"](problems.normal_denoise, start(3, 2), levels)


def test_wrong_noise_is_refused() -> None:
    levels = noise_levels.karras(4)
    with pytest.raises(ConfigError, match=r"shape \(3, 5, 2\), got \(0, 5, 2\)"):
        SAMPLERS["ddpm"](problems.normal_denoise, start(5, 2), levels)
    with pytest.raises(ConfigError, match=r"got \(4, 5, 2\)"):
        SAMPLERS["ddpm"](problems.normal_denoise, start(5, 2), levels, torch.zeros(4, 5, 2))


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_samplers_can_be_sent_to_workers(name: str) -> None:
    """Spawned processes pickle what they are given: no lambda may be inside."""
    sampler, sent = SAMPLERS[name], pickle.loads(pickle.dumps(SAMPLERS[name]))
    assert (sent.nfe(9), sent.draws(9), sent.stochastic) == (
        sampler.nfe(9), sampler.draws(9), sampler.stochastic,
    )  # fmt: skip


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'unipc3'"):
        SAMPLERS["unipc"]
    with pytest.raises(ConfigError, match="unknown schedule of noise levels 'kerras'"):
        LEVELS["kerras"]
