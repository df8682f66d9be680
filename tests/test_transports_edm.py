"""Diffusion with preconditioning, against closed forms for Gaussians and mixtures of them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs, Transport
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports.distilled import Distilled
from hepbridge.transports.edm import EDM
from hepbridge.transports.preconditioning import scalings
from hepbridge.transports.samplers import SAMPLERS
from hepbridge.transports.samplers.noise_levels import karras, lu

MIXTURE = ((0.3, -1.2, 0.3), (0.7, 0.6, 0.5))  # share, mean, spread


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.from_numpy(stream(seed, "test").standard_normal((n, d), np.float32))


def small(dim: int, **options: Any) -> EDM:
    torch.manual_seed(0)
    return EDM(dim, {}, **({"width": 16, "depth": 1, "train_steps": 10} | options))


def posterior_mean(x: Tensor, sigma: Tensor | float, mixture: Any = MIXTURE) -> Tensor:
    """E[target | x = target + sigma eps] for targets of a mixture."""
    top, bottom = 0.0, 0.0
    for share, mean, spread in mixture:
        variance = spread**2 + sigma**2
        density = share * torch.exp(-0.5 * (x - mean) ** 2 / variance) / variance**0.5
        top = top + density * (mean + spread**2 / variance * (x - mean))
        bottom = bottom + density
    return top / bottom


class Exact(nn.Module):
    """The network of the best denoiser for a mixture: from its input back to x, by the paper's table."""

    def __init__(self, sigma_data: float, mixture: Any = MIXTURE) -> None:
        super().__init__()
        self.sigma_data, self.mixture = sigma_data, mixture

    def forward(self, x: Tensor, t: Tensor, c: None) -> Tensor:
        sigma, s = torch.exp(4 * t), self.sigma_data
        y = x * (sigma**2 + s**2).sqrt()
        best = posterior_mean(y, sigma, self.mixture)
        return (best - s**2 / (s**2 + sigma**2) * y) * (sigma**2 + s**2).sqrt() / (sigma * s)


def of_mixture(n: int, seed: int) -> Tensor:
    rng = stream(seed, "mixture")
    shares, means, spreads = np.array(MIXTURE).T
    part = rng.choice(len(MIXTURE), size=n, p=shares)
    return torch.from_numpy(rng.normal(means[part], spreads[part])[:, None]).float()


# -- preconditioning -----------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.002, 0.3, 1.0, 80.0])
@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 3.0])
def test_scalings_are_what_the_paper_asks_for(sigma: float, sigma_data: float) -> None:
    """Unit variance of input and target, least amplification: appendix B.6 has no other solution."""
    c = scalings(sigma, sigma_data)
    assert c.c_in**2 * (sigma_data**2 + sigma**2) == pytest.approx(1)

    def variance(skip: float) -> float:  # of c_out times the target, (1 - skip) x0 - skip noise
        return (1 - skip) ** 2 * sigma_data**2 + skip**2 * sigma**2

    assert c.c_out**2 == pytest.approx(variance(c.c_skip))
    assert variance(c.c_skip) < min(variance(c.c_skip + 1e-3), variance(c.c_skip - 1e-3))
    assert c.c_noise == math.log(sigma) / 4
    for ours, theirs in zip(scalings(torch.tensor(sigma).double(), sigma_data), c, strict=True):
        assert float(ours) == pytest.approx(theirs)


@pytest.mark.parametrize("sigma_data", [0.5, 2.0])
def test_inputs_and_targets_have_unit_variance_at_every_noise_level(sigma_data: float) -> None:
    """Fails if c_in is applied twice, or c_skip and c_out are interchanged."""
    edm = small(1, sigma_data=sigma_data, p_mean=-0.2, p_std=1.0, batch_size=100_000)
    data = sigma_data * normal(400_000, 1, 1)
    batch = next(edm.phases(Pairs(torch.zeros_like(data), data), 0)).batch(0, stream(0, "batch"))
    assert batch["c"] is None and batch["x"].shape == (100_000, 1)
    logs = 4 * batch["t"][:, 0].numpy().astype(float)
    n = len(logs)
    assert abs(logs.mean() + 0.2) < 4 / n**0.5 and abs(logs.std() - 1) < 4 / (2 * n) ** 0.5
    edges = [-9.0, -1.0, -0.2, 0.6, 9.0]
    for low, high in itertools.pairwise(edges):
        rows = (logs > low) & (logs < high)
        for name in ("x", "target"):
            value = batch[name][:, 0].numpy()[rows]
            # some rows of the data are drawn twice, which adds a quarter to the variance at most
            assert abs(value.var() - 1) < 4 * (2.5 / len(value)) ** 0.5, (name, low)


def test_a_batch_gives_its_target_back() -> None:
    """c_skip x + c_out target is the target of the pair, with images under symmetries."""
    data = torch.tensor([[1.0, 3.0]]).expand(64, 2)
    pairs = Pairs(torch.zeros(64, 2), data, symmetries=torch.tensor([[0, 1], [1, 0]]))
    batch = next(small(2, batch_size=500).phases(pairs, 0)).batch(0, stream(0, "batch"))
    c = scalings(torch.exp(4 * batch["t"].double()), 1.0)
    found = c.c_skip * batch["x"] / c.c_in + c.c_out * batch["target"]
    swapped = found[:, :1] > 2
    assert 0.3 < swapped.double().mean() < 0.7
    truth = torch.where(swapped, data[:1].flip(1).double(), data[:1].double())
    torch.testing.assert_close(found, truth, rtol=0, atol=2e-4)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 6.0])
def test_regression_gives_the_linear_denoiser(sigma: float) -> None:
    """Least squares on a batch, put in the place of the network: m + S (S + sigma^2)^-1 (x - m).

    For data of any shape that is the best linear denoiser. Fails if c_in is applied twice in training
    or in application, if the network predicts another quantity than training taught it, and for
    noise that is not that of the label.
    """
    rng = stream(1, "linear")
    data = rng.standard_exponential((20_000, 2)) @ np.array([[1.0, 0.6], [0.0, 0.5]]) - 0.3
    target = torch.from_numpy(data).float()
    edm = small(2, sigma_data=0.7, p_mean=math.log(sigma), p_std=1e-6, batch_size=100_000)
    batch = next(edm.phases(Pairs(torch.zeros_like(target), target), 0)).batch(0, rng)
    n = len(batch["x"])
    design = np.concatenate([batch["x"].numpy(), np.ones((n, 1))], axis=1).astype(float)
    wanted = batch["target"].numpy().astype(float)
    weights, *_ = np.linalg.lstsq(design, wanted, rcond=None)
    noise = np.linalg.inv(design.T @ design)

    class Linear(nn.Module):
        def forward(self, x: Tensor, t: Tensor, c: None) -> Tensor:
            assert float(t[0]) == pytest.approx(math.log(sigma) / 4)
            return x @ torch.from_numpy(weights[:2]) + torch.from_numpy(weights[2])

    edm.network = Linear()
    x = torch.from_numpy(rng.normal(size=(50, 2)) * (1 + sigma))
    found = edm.denoise(x, sigma, {}).numpy()
    mean, cov = data.mean(0), np.cov(data.T)
    truth = mean + (x.numpy() - mean) @ np.linalg.inv(cov + sigma**2 * np.eye(2)) @ cov
    c_in, c_out = (0.49 + sigma**2) ** -0.5, 0.7 * sigma * (0.49 + sigma**2) ** -0.5
    at = np.concatenate([c_in * x.numpy(), np.ones((50, 1))], axis=1)
    residual = (wanted - design @ weights).std(axis=0)
    errors = c_out * np.sqrt(np.einsum("ni,ij,nj->n", at, noise, at))[:, None] * residual
    assert np.abs(truth - x.numpy()).mean() > 3 * errors.mean()
    assert np.all(np.abs(found - truth) < 5 * errors)


def test_trained_denoiser_is_linear_for_normal_data() -> None:
    """At three noise levels, for a mean that depends on a condition."""
    torch.manual_seed(0)
    edm = EDM(1, {"c": 1}, width=32, depth=1, train_steps=400, learning_rate=3e-3)
    c = normal(8000, 1, 1)
    target = 0.8 * c + 0.5 * normal(8000, 1, 2)
    pairs = Pairs(torch.zeros_like(target), target, {"c": c})
    fit(edm.phases(pairs, 0), TrainingSettings(ema_decay=0.98), seed=0, device="cpu")
    c, eps = normal(4000, 1, 3), normal(4000, 1, 4)
    for sigma in (0.2, 1.0, 2.5):
        x = 0.8 * c + (0.25 + sigma**2) ** 0.5 * eps
        with torch.no_grad():
            found = edm.denoise(x, sigma, {"c": c})
        truth = 0.8 * c + 0.25 / (0.25 + sigma**2) * (x - 0.8 * c)
        assert (found - truth).square().mean() < 0.08**2, sigma


# -- weightings ----------------------------------------------------------------------------------


def effective(weighting: str, sigma_data: float, **options: Any) -> tuple[np.ndarray, ...]:
    """Noise levels of a batch, and the weight of each row's squared error of the denoiser in the loss.

    From the gradient of the loss itself: with an error d of the network, d loss / d d = 2 w d / N.
    """
    edm = small(1, weighting=weighting, sigma_data=sigma_data, batch_size=400, p_std=2.0, **options)
    data = torch.zeros(10, 1)
    (phase,) = edm.phases(Pairs(data, data), 0)
    batch = phase.batch(0, stream(0, "batch"))
    error = torch.full((400, 1), 0.1, requires_grad=True)

    class Off(nn.Module):
        def forward(self, x: Tensor, t: Tensor, c: None) -> Tensor:
            return batch["target"] + error

    phase.loss(Off(), batch).backward()
    assert error.grad is not None
    w = (error.grad * 400 / (2 * 0.1)).numpy()[:, 0].astype(float)
    sigma = np.exp(4 * batch["t"].numpy()[:, 0].astype(float))
    return sigma, w, w * (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


@pytest.mark.parametrize("s", [0.5, 1.0, 2.0])
def test_weights_of_the_denoiser_are_those_of_the_papers(s: float) -> None:
    """Lambda(sigma) in front of |D - x|^2, each in its own paper's form."""
    sigma, w, weight = effective("edm", s)
    np.testing.assert_allclose(w, 1, rtol=1e-5)
    np.testing.assert_allclose(weight, 1 / sigma**2 + 1 / s**2, rtol=1e-5)
    # Hang et al. predict x0 of data with unit variance: min(SNR, gamma), SNR = 1 / sigma^2 there
    sigma, w, weight = effective("min_snr", s)
    np.testing.assert_allclose(weight * s**2, np.minimum((s / sigma) ** 2, 5), rtol=1e-5)
    assert (w < 0.999 * 5 / 6).any() and w.max() <= 5 / 6 + 1e-6  # of v: min(SNR, 5) / (SNR + 1)
    _, _, lower = effective("min_snr", s, gamma=2.0)
    assert lower.max() * s**2 == pytest.approx(2)
    # Crowson et al., in noise levels for unit variance: 1 / (sigma^2 + 1 / gamma)
    sigma, w, weight = effective("soft_min_snr", s, gamma=4.0)
    np.testing.assert_allclose(weight * s**2, 1 / ((sigma / s) ** 2 + 1 / 4), rtol=1e-5)
    sigma, w, _ = effective("soft_min_snr", s)
    np.testing.assert_allclose(w, (sigma * s) ** 2 / (sigma**2 + s**2) ** 2, rtol=1e-5)
    sigma, w, _ = effective("jiang", s)
    np.testing.assert_allclose(w, sigma * s / (sigma**2 + s**2) ** 2, rtol=1e-5)


# -- sampling with the exact network -------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [("heun", 40), ("dpmpp_2m", 60), ("unipc2", 60), ("edm", 150), ("dpmpp_2m_sde", 150)],
)
def test_samples_of_a_mixture(sampler: str, steps: int) -> None:
    """Mean, variance, skewness and the share of the lower part, within 4 standard errors.

    Fails with c_in applied twice. (Stochastic samplers need more steps to be as exact.)
    """
    edm = small(1, sampler=sampler, steps=steps, sigma_data=0.8)
    edm.network = Exact(0.8)
    n = 20_000
    y = edm.apply(torch.zeros(n, 1), {}, normal(n, edm.noise_dim, 1))[:, 0].numpy().astype(float)
    x = np.linspace(-6, 6, 20_001)
    density = sum(p / s * np.exp(-0.5 * ((x - m) / s) ** 2) for p, m, s in MIXTURE)
    density /= density.sum()
    mean = (density * x).sum()
    for power in (1, 2, 3, 0):
        ours, theirs = ((a - mean) ** power if power else a < -0.4 for a in (y, x))
        truth = (density * theirs).sum()
        width = ((density * (theirs - truth) ** 2).sum() / n) ** 0.5
        assert abs(ours.mean() - truth) < 4 * width, power


@pytest.mark.parametrize("spread", [0.1, 0.4, 1.0, 1.5])
def test_widths_of_normal_targets(spread: float) -> None:
    """Of the default sampler within 1.5 %, of the paper's 4 to 10 %: exactly, being affine in the noise."""
    noise = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    errors = []
    for options in ({}, {"sampler": "heun", "levels": "karras", "steps": 18}):
        edm = small(1, **options)
        edm.network = Exact(1.0, [(1.0, 0.4, spread)])
        zero, one = edm.apply(torch.zeros_like(noise), {}, noise)[:, 0].tolist()
        assert abs(zero - 0.4) < 0.4 * spread / 80 + 0.002  # what is left of a start at mean 0
        errors.append((one - zero) / spread - 1)
    assert abs(errors[0]) < 0.015 and 0.038 < errors[1] < 0.1, errors


@pytest.mark.parametrize("name", ["heun", "ddpm", "edm", "restart"])
def test_sampler_gets_start_levels_and_noise(name: str) -> None:
    """The sampler itself, with the denoiser in closed form: the first column is the start."""
    edm = small(1, sampler=name, steps=7, levels="lu", sigma_min=0.01, sigma_max=20.0)
    edm.network = Exact(1.0)
    noise = normal(5, edm.noise_dim, 1).double()
    start, others = 20.0 * noise[:, :1], noise[:, 1:].T[:, :, None]
    truth = SAMPLERS[name](posterior_mean, start, lu(7, 0.01, 20.0), others)
    found = edm.apply(torch.zeros(5, 1, dtype=torch.float64), {}, noise)
    torch.testing.assert_close(found, truth, rtol=1e-7, atol=1e-7)


def test_sigma_data_does_not_change_the_exact_sampler() -> None:
    """It says where the network spends its effort, not what is sampled."""
    noise = normal(100, 1, 1).double()
    outs = []
    for sigma_data in (0.3, 1.0, 4.0):
        edm = small(1, sigma_data=sigma_data)
        edm.network = Exact(sigma_data)
        outs.append(edm.apply(torch.zeros_like(noise), {}, noise))
    torch.testing.assert_close(outs[0], outs[1])
    torch.testing.assert_close(outs[0], outs[2])


# -- the source ----------------------------------------------------------------------------------


def test_the_source_counts_only_if_told() -> None:
    torch.manual_seed(0)
    for sees in (False, True):
        edm = small(3, condition_on_source=sees, steps=3)
        nn.init.normal_(edm.network.leave.weight)
        assert edm.network.enter.in_features == (6 if sees else 3)
        assert edm.source_free is not sees and edm.claims.posterior is sees
        one, other = (edm.apply(normal(7, 3, k), {}, normal(7, 3, 9)) for k in (1, 2))
        assert torch.equal(one, other) is not sees
    batch = next(edm.phases(Pairs(normal(50, 3, 1), normal(50, 3, 2)), 0)).batch(0, stream(0, "b"))
    assert batch["x"].shape[1] == 6 and batch["target"].shape[1] == 3


# -- distillation --------------------------------------------------------------------------------


def test_a_student_draws_as_its_teacher_does() -> None:
    """T(z) itself, within two per cent of its variance, whatever the source.

    Fails (0.1 and more) if the student starts at the source, or its lessons have other noise.
    """
    torch.manual_seed(0)
    teacher = {"width": 8, "depth": 1, "train_steps": 1, "steps": 10}
    student = Distilled(
        1, {}, teacher="edm", teacher_options=teacher,
        width=32, depth=2, train_steps=500, learning_rate=3e-3, images=4,
    )  # fmt: skip
    assert (student.noise_dim, student.nfe, student.source_free) == (1, 1, True)
    assert student.network.enter.in_features == 1
    exact = small(1, steps=10)
    exact.network = Exact(1.0)
    student.adopt(exact)
    data = Pairs(torch.zeros(1, 1).expand(2000, 1), of_mixture(2000, 1))
    fit(student.phases(data, 0), TrainingSettings(ema_decay=0.98), seed=0, device="cpu")
    z = normal(4000, 1, 5)
    with torch.no_grad():
        found = student.apply(normal(4000, 1, 6), {}, z)
        truth = exact.apply(torch.zeros_like(z), {}, z)
    assert (found - truth).square().mean() < 0.02 * truth.var()
    assert torch.equal(found, student.apply(torch.zeros_like(z), {}, z).detach())


def test_teachers_that_cannot_be_learned_from() -> None:
    options = {"width": 8, "train_steps": 1}
    with pytest.raises(ConfigError, match="must be deterministic, or take one noise number"):
        Distilled(2, {}, teacher="edm", teacher_options=options | {"sampler": "ddpm"})
    student = Distilled(2, {}, teacher="edm", teacher_options=options)
    with pytest.raises(ConfigError, match="same condition_on_source in teacher_options"):
        student.adopt(EDM(2, {}, condition_on_source=True, **options))


def test_a_student_of_a_diffusion_without_source() -> None:
    options = {"width": 8, "train_steps": 1, "condition_on_source": False}
    student = Distilled(2, {}, teacher="diffusion", teacher_options=options, width=8)
    assert student.source_free and student.network.enter.in_features == 2
    assert not student.claims.posterior


# -- interface -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_interface(name: str) -> None:
    """As many evaluations and noise columns as told, by row, with gradients."""
    edm = small(3, sampler=name, steps=6)
    nn.init.normal_(edm.network.leave.weight)
    assert isinstance(edm, Transport) and edm.planned_steps == 10
    assert edm.noise_dim == 3 * (1 + SAMPLERS[name].draws(6))
    asked: list[float] = []
    edm.network.register_forward_pre_hook(lambda _, args: asked.append(float(args[1][0])))
    source, noise = normal(7, 3, 1), normal(7, edm.noise_dim, 2)
    y = edm.apply(source, {}, noise)
    assert len(asked) == edm.nfe
    assert asked[-1] == pytest.approx(math.log(karras(6)[-2]) / 4)
    assert torch.equal(y, edm.apply(source, {}, noise))
    alone = edm.apply(source[2:3], {}, noise[2:3])
    torch.testing.assert_close(alone, y[2:3], rtol=1e-4, atol=1e-4)
    y.sum().backward()
    assert all(p.grad is not None for p in edm.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1}, "steps must be a whole number from 2 to 1000, got 1"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"sampler": "hoin"}, "unknown sampler 'hoin'"),
        ({"levels": "lou"}, "unknown schedule of noise levels 'lou'"),
        ({"sigma_min": 90.0}, "0 < sigma_min < sigma_max"),
        (
            {"weighting": "snr"},
            "unknown weighting 'snr'; allowed: edm, min_snr, soft_min_snr, jiang",
        ),
        (
            {"gamma": 5.0},
            "weighting 'edm' has no gamma; leave out gamma: 5.0, or choose one of min",
        ),
        ({"weighting": "min_snr", "gamma": 0.0}, "gamma must be a finite number above 0, got 0.0"),
        ({"sigma_data": -1.0}, "sigma_data must be a finite number above 0, got -1.0"),
        ({"p_std": math.inf}, "p_std must be a finite number above 0, got inf"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(3, **options)


def test_pairs_of_another_dimension_are_refused() -> None:
    with pytest.raises(ConfigError, match="edm for 3 coordinates got 2"):
        next(small(3).phases(Pairs(torch.zeros(100, 2), torch.zeros(100, 2)), 0))
