"""The residual network and the time embedding: formulas, gradients, what they can represent."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import silu

from hepbridge.networks import ResidualMLP, SinusoidalEmbedding


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_embedding_is_its_formula():
    embedding = SinusoidalEmbedding(8, max_frequency=16.0)
    t = torch.tensor([0.0, 0.3, 1.0])
    turns = [0.5 * 32.0 ** (k / 3) for k in range(4)]
    want = [
        [math.sin(2 * math.pi * f * x) for f in turns]
        + [math.cos(2 * math.pi * f * x) for f in turns]
        for x in t.tolist()
    ]
    torch.testing.assert_close(embedding(t), torch.tensor(want), rtol=0, atol=2e-5)
    torch.testing.assert_close(embedding(t[:, None]), embedding(t))
    assert not embedding.state_dict()


def test_embedding_tells_every_pair_of_times_apart():
    """Fails with the positional frequencies of the transformer, or whole turns only (t=0, t=1)."""
    code = SinusoidalEmbedding(32)(torch.linspace(0, 1, 101))
    distance = torch.cdist(code, code) + torch.eye(101) * 10
    assert distance.min() > 0.1
    assert torch.linalg.norm(code[0] - code[-1]) > 1.0


def test_zero_initialised_network_is_zero_and_learns():
    net = ResidualMLP(5, 3, 2, width=16, depth=2)
    x, t, c = torch.randn(7, 5), torch.rand(7), torch.randn(7, 2)
    assert net(x, t, c).shape == (7, 3)
    assert not net(x, t, c).any()
    assert ResidualMLP(5, 3, 2, width=16, zero_init=False)(x, t, c).abs().min() > 0
    net(x, t, c).sub(1).square().mean().backward()
    assert net.leave.weight.grad.abs().max() > 0


@pytest.mark.parametrize("film", [True, False])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_network_is_its_formula(film, layer_norm):
    """A block-by-block reference that loops over rows and uses its own slices of the weights."""
    width, depth = 6, 3
    net = ResidualMLP(
        4, 2, 3, width, depth, film=film, layer_norm=layer_norm, zero_init=False, embedding=8
    ).double()
    for p in net.parameters():  # also the modulation, which starts at zero
        torch.nn.init.normal_(p, std=0.5)
    x, t, c = torch.randn(5, 4).double(), torch.rand(5).double(), torch.randn(5, 3).double()
    rows = []
    for i in range(5):
        angle = t[i] * net.time.frequencies
        context = torch.cat([angle.sin(), angle.cos(), c[i]])
        e = silu(net.embed.weight @ context + net.embed.bias)
        m = net.modulate.weight @ e + net.modulate.bias
        gamma = m[: depth * width].reshape(depth, width) if film else torch.zeros(depth, width)
        beta = m[-depth * width :].reshape(depth, width)
        h = net.enter.weight @ x[i] + net.enter.bias
        for k in range(depth):
            n = h
            if layer_norm:
                scale = (h.var(unbiased=False) + 1e-5).sqrt()
                n = (h - h.mean()) / scale * net.norms[k].weight + net.norms[k].bias
            u = net.up[k].weight @ n + net.up[k].bias
            h = h + net.down[k].weight @ silu((1 + gamma[k]) * u + beta[k]) + net.down[k].bias
        rows.append(net.leave.weight @ silu(h) + net.leave.bias)
    torch.testing.assert_close(net(x, t, c), torch.stack(rows))


def test_scalar_time_is_the_time_of_every_row():
    x, c = torch.randn(6, 4), torch.randn(6, 2)
    for conditions in (0, 2):
        net = ResidualMLP(4, 4, conditions, 8, 2, zero_init=False)
        torch.nn.init.normal_(net.modulate.weight)
        given = c if conditions else None
        one = net(x, torch.tensor(0.3), given)
        torch.testing.assert_close(one, net(x, torch.full((6, 1), 0.3), given))


def test_every_combination_of_inputs():
    x = torch.randn(6, 4)
    assert ResidualMLP(4, 2, 0, 8, 1, time=False)(x).shape == (6, 2)
    assert ResidualMLP(4, 2, 3, 8, 1, time=False)(x, None, torch.randn(6, 3)).shape == (6, 2)
    with pytest.raises(ValueError, match="needs the time"):
        ResidualMLP(4, 2, 0, 8, 1)(x)
    with pytest.raises(ValueError, match="conditions of 3 columns"):
        ResidualMLP(4, 2, 3, 8, 1)(x, torch.rand(6))
    with pytest.raises(ValueError, match="one of silu"):
        ResidualMLP(4, 2, activation="sin")
    with pytest.raises(ValueError, match="at least one block"):
        ResidualMLP(4, 2, depth=0)
    with pytest.raises(ValueError, match="even number"):
        SinusoidalEmbedding(5)
