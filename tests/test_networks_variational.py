"""Variational layers: divergence, noise and posterior against closed forms and explicit draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from hepbridge.core.protocols import Phase
from hepbridge.core.rng import stream
from hepbridge.networks.variational import (
    VariationalLinear,
    divergence,
    noisy,
    variational_layers,
)
from hepbridge.training import TrainingSettings, fit


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rough(dim_in: int, dim_out: int, **options: object) -> VariationalLinear:
    """A layer in double precision whose means and widths differ from weight to weight."""
    layer = VariationalLinear(dim_in, dim_out, log_sigma=-1.0, **options).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(p.numel())).double())
        for p in (layer.weight_spread, layer.bias_spread):
            if p is not None:
                p.mul_(0.05)
    return layer


def posterior(layer: VariationalLinear) -> list[Normal]:
    """The distributions of its weights and biases."""
    return [
        Normal(layer.weight.detach(), layer.log_sigma.detach().exp()),
        Normal(layer.bias.detach(), layer.bias_log_sigma.detach().exp()),
    ]


def test_divergence_is_that_of_torch_and_of_a_simulation() -> None:
    """Against torch's closed form, and E[ln q - ln p] over draws. Fails for ln sigma with the other sign."""
    layer = rough(5, 3, prior_precision=4.0)
    prior = Normal(torch.tensor(0.0).double(), torch.tensor(0.5).double())
    truth = sum(float(kl_divergence(q, prior).sum()) for q in posterior(layer))
    assert float(layer.kl().detach()) == pytest.approx(truth, rel=1e-12)
    values, g = [], generator()
    for _ in range(4000):
        layer.draw(g)
        drawn = (layer.drawn_weight, layer.drawn_bias)
        values.append(
            sum(
                float((q.log_prob(w) - prior.log_prob(w)).sum())
                for q, w in zip(posterior(layer), drawn, strict=True)
            )
        )
    assert abs(np.mean(values) - truth) < 5 * np.std(values) / len(values) ** 0.5
    both = divergence(nn.Sequential(layer, nn.SiLU(), rough(5, 3, prior_precision=4.0)))
    assert float(both.detach()) == pytest.approx(2 * truth)


@pytest.mark.parametrize("bias", [True, False])
def test_noise_has_the_moments_of_explicit_draws(bias: bool) -> None:
    """Mean and variance of the outputs; and rows are independent, which those of one draw are not.

    Fails if the variance is that of x instead of its square, or leaves out the bias.
    """
    layer, n = rough(4, 3, bias=bias), 20_000
    x = torch.tensor([[0.5, -1.0, 2.0, 0.0], [1.0, -0.8, 1.0, 1.5]]).double()
    with torch.no_grad():
        with noisy(layer, generator(1)):
            noise = layer(x.expand(n, 2, 4))
        g, drawn = generator(2), torch.empty_like(noise)
        for k in range(n):
            layer.draw(g)
            drawn[k] = layer(x)
    variance = drawn.var(dim=0)
    error = (2 * variance / n).sqrt()  # of a difference of two means
    assert (noise.mean(dim=0) - drawn.mean(dim=0)).abs().lt(5 * error).all()
    assert (noise.var(dim=0) / variance - 1).abs().max() < 5 * 2 / n**0.5
    one, other = (torch.corrcoef(y[:, :, 0].T)[0, 1] for y in (noise, drawn))
    assert abs(one) < 5 / n**0.5 < 0.1 < abs(other)


def test_the_posterior_of_a_linear_model_is_found() -> None:
    r"""y = w x + e with e from N(0, s^2): the best independent normal weights are known.

    Their means are those of the exact posterior, :math:`(\lambda + X^T X/s^2)^{-1} X^T y/s^2`, their
    widths :math:`\sigma_i^{-2} = \lambda + \sum x_i^2/s^2` (Bishop 2006, section 10.1.2). Fails if
    the divergence is not divided by the number of rows.
    """
    n, s, precision = 60, 0.5, 10.0
    rng = stream(0, "linear")
    x = rng.standard_normal((n, 3)) * [1.0, 0.5, 2.0]
    x[:, 1] += 0.6 * x[:, 0]  # correlated, so that exact and independent widths differ
    y = x @ [1.0, -2.0, 0.5] + s * rng.standard_normal(n)
    exact = precision * np.eye(3) + x.T @ x / s**2
    mean, width = np.linalg.solve(exact, x.T @ y / s**2), np.diag(exact) ** -0.5
    assert np.max(np.diag(np.linalg.inv(exact)) ** 0.5 / width) > 1.1
    layer = VariationalLinear(3, 1, bias=False, prior_precision=precision, log_sigma=-2.0)
    data = torch.from_numpy(np.column_stack([x, y])).float()

    def batch(step: int, rng: np.random.Generator) -> dict[str, object]:
        return {"rows": data.repeat(20, 1), "seed": int(rng.integers(2**63))}

    def loss(module: nn.Module, given: dict) -> torch.Tensor:
        rows = given["rows"]
        with noisy(module, generator(given["seed"])):
            off = module(rows[:, :3])[:, 0] - rows[:, 3]
        return (0.5 * off.square() / s**2).mean() + divergence(module) / n

    phase = Phase("linear", layer, batch, loss, 1200, 0.02)
    fit([phase], TrainingSettings(ema_decay=0.99, clip_norm=None, threads=1), seed=0)
    np.testing.assert_allclose(layer.weight[0].detach().numpy(), mean, atol=0.1 * width.min())
    np.testing.assert_allclose(layer.log_sigma[0].detach().exp().numpy(), width, rtol=0.03)


def test_which_weights_are_used_is_said() -> None:
    """Means by default, also in training mode; a draw until `mean`; noise in the block alone."""
    layer = rough(4, 2).train()
    x = torch.randn(6, 4, generator=generator(3)).double()
    means = nn.functional.linear(x, layer.weight, layer.bias)
    state = torch.random.get_rng_state()
    assert torch.equal(layer(x), means)
    with noisy(layer, generator(1)):
        first = layer(x)
        second = layer(x)
    with pytest.raises(RuntimeError, match="stop"), noisy(layer, generator(1)):
        assert torch.equal(layer(x), first)
        raise RuntimeError("stop")
    assert torch.equal(layer(x), means)
    assert not torch.isclose(first, second).any() and not torch.isclose(first, means).any()
    layer.draw(generator(1))
    drawn = layer(x)
    assert torch.equal(layer(x), drawn) and not torch.isclose(drawn, means).any()
    assert set(layer.state_dict()) == {"weight", "weight_spread", "bias", "bias_spread"}
    layer.draw(generator(1))
    assert torch.equal(layer(x), drawn)
    with noisy(layer, generator(1)):  # training is around the means
        assert torch.equal(layer(x), first)
    layer.mean()
    assert torch.equal(layer(x), means)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_mask_is_kept_by_means_draws_and_noise() -> None:
    """A layer that takes the place of a masked one. Fails if the mask is lost in any of the three."""
    old = nn.Linear(3, 2)
    old.register_buffer("mask", torch.tensor([[True, False, True], [False, False, False]]))
    layer = VariationalLinear.like(old, prior_precision=1.0, log_sigma=-1.0)
    x = torch.randn(5, 3, generator=generator(4)).requires_grad_()
    expected = nn.functional.linear(x, old.weight * old.mask, old.bias)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)

    def reached() -> list[list[bool]]:
        rows = [torch.autograd.grad(layer(x)[:, i].sum(), x)[0].ne(0) for i in range(2)]
        return [row.any(dim=0).tolist() for row in rows]

    connections = old.mask.tolist()
    assert reached() == connections
    with noisy(layer, generator(0)):
        assert reached() == connections
    layer.draw(generator(0))
    assert reached() == connections
    layer.mean()
    layer.kl().backward()
    assert torch.equal(layer.weight.grad.ne(0), old.mask)
    assert torch.equal(layer.weight_spread.grad.ne(0), old.mask)
    q = [Normal(p.detach(), math.exp(-1.0)) for p in (old.weight[old.mask], old.bias)]
    truth = sum(float(kl_divergence(one, Normal(0.0, 1.0)).sum()) for one in q)
    assert float(layer.kl().detach()) == pytest.approx(truth, rel=1e-5)


def test_inputs_of_zero_have_gradients() -> None:
    """Fails (NaN) if the root of a variance of zero is differentiated."""
    layer = VariationalLinear(3, 2, bias=False)
    x = torch.zeros(4, 3, requires_grad=True)
    with noisy(layer, generator(0)):
        layer(x).sum().backward()
    assert torch.isfinite(x.grad).all() and torch.isfinite(layer.weight_spread.grad).all()


def test_layers_are_found_and_bad_options_refused() -> None:
    module = nn.Sequential(VariationalLinear(2, 3), nn.SiLU(), nn.Sequential(rough(3, 1)))
    assert variational_layers(module) == [module[0], module[2][0]]
    with pytest.raises(ValueError, match="positive, finite precision, not 0"):
        VariationalLinear(2, 3, prior_precision=0)
    with pytest.raises(ValueError, match=r"mask must be \(3, 2\) as the weights, not \(2, 3\)"):
        VariationalLinear(2, 3, mask=torch.ones(2, 3))
