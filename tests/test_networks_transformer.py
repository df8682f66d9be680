"""The transformer over layers: attention and blocks against loops over rows, tokens and heads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from hepbridge.networks import NETWORKS
from hepbridge.networks.context import Context
from hepbridge.networks.layer_transformer import LayerTransformer, attention


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def test_attention_is_its_sum() -> None:
    """Fails without the root of d, with the softmax over the queries, and for k and v interchanged."""
    q, k, v = (torch.randn(2, 3, 5, 4).double() for _ in range(3))
    truth = torch.zeros_like(v)
    for n, head, i in np.ndindex(2, 3, 5):
        scores = [math.exp(float(q[n, head, i] @ k[n, head, j]) / 2.0) for j in range(5)]
        for j in range(5):
            truth[n, head, i] += scores[j] / sum(scores) * v[n, head, j]
    torch.testing.assert_close(attention(q, k, v), truth)
    torch.testing.assert_close(
        attention(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v)
    )


def reference(net: LayerTransformer, x: Tensor, e: Tensor, copies: int) -> Tensor:
    """One row, token by token and head by head."""

    def normed(h: Tensor) -> Tensor:
        return (h - h.mean()) / (h.var(unbiased=False) + 1e-5).sqrt()

    total, start, tokens = sum(net.layers), 0, []
    for k, n in enumerate(net.layers):
        part = torch.cat([x[j * total + start : j * total + start + n] for j in range(copies)])
        enter = net.enter[str(n)]
        tokens.append(enter.weight @ part + enter.bias + net.position[k])
        start += n
    width = net.position.shape[1]
    for block in net.blocks:
        m = (block.modulate.weight @ e + block.modulate.bias).reshape(6, width)
        seen = [normed(h) * (1 + m[2]) + m[1] for h in tokens]
        heads, size = block.heads, width // block.heads
        q, k, v = (
            [
                block.project.weight[i * width : (i + 1) * width] @ h
                + block.project.bias[i * width : (i + 1) * width]
                for h in seen
            ]
            for i in range(3)
        )
        for i in range(len(tokens)):
            joined = []
            for a in range(heads):
                own = slice(a * size, (a + 1) * size)
                scores = torch.stack([q[i][own] @ other[own] for other in k]) / math.sqrt(size)
                shares = scores.exp() / scores.exp().sum()
                joined.append(sum(s * value[own] for s, value in zip(shares, v, strict=True)))
            out = block.gather.weight @ torch.cat(joined) + block.gather.bias
            tokens[i] = tokens[i] + m[0] * out
        for i, h in enumerate(tokens):
            inner = normed(h) * (1 + m[5]) + m[4]
            hidden = gelu(block.hidden.weight @ inner + block.hidden.bias)
            tokens[i] = h + m[3] * (block.back.weight @ hidden + block.back.bias)
    gamma, beta = (net.modulate.weight @ e + net.modulate.bias).reshape(2, width)
    outs = []
    for n, h in zip(net.layers, tokens, strict=True):
        leave = net.leave[str(n)]
        outs.append(leave.weight @ (normed(h) * (1 + gamma) + beta) + leave.bias)
    return torch.cat(outs)


@pytest.mark.parametrize("layers", [[4, 3, 2], [3, 3, 3], [2, 5, 2]])
@pytest.mark.parametrize("copies", [1, 2])
def test_network_is_its_formula(layers: list[int], copies: int) -> None:
    """Fails for layers cut at the wrong columns, heads that are mixed, or a code of the wrong row."""
    total = sum(layers)
    net = shaken(LayerTransformer(copies * total, total, 3, 8, 2, layers=layers, heads=2)).double()
    x, t, c = torch.randn(5, copies * total), torch.rand(5), torch.randn(5, 3)
    x, t, c = x.double(), t.double(), c.double()
    truth = []
    for i in range(5):
        angle = t[i] * net.context.time.frequencies
        code = torch.cat([angle.sin(), angle.cos(), c[i]])
        e = silu(net.context.embed.weight @ code + net.context.embed.bias)
        truth.append(reference(net, x[i], e, copies))
    torch.testing.assert_close(net(x, t, c), torch.stack(truth))


def test_layers_of_one_size_share_their_maps() -> None:
    """Interchanged layers, with interchanged positions, give interchanged outputs."""
    net = shaken(LayerTransformer(12, 12, 0, 8, 2, time=False, layers=[4, 4, 4]))
    assert len(net.enter) == len(net.leave) == 1
    x = torch.randn(6, 3, 4)
    order = [2, 0, 1]
    truth = net(x.reshape(6, 12)).reshape(6, 3, 4)[:, order]
    with torch.no_grad():
        net.position.copy_(net.position[order].clone())
    found = net(x[:, order].reshape(6, 12)).reshape(6, 3, 4)
    torch.testing.assert_close(found, truth)
    assert (net(x.reshape(6, 12)).reshape(6, 3, 4)[:, order] - truth).abs().max() > 0.01


def test_copies_out_come_one_after_the_other() -> None:
    """Two copies out are the outputs of two networks with half of the last layers each."""
    layers, total = [3, 2], 5
    two = shaken(LayerTransformer(total, 2 * total, 0, 8, 1, time=False, layers=layers))
    one = LayerTransformer(total, total, 0, 8, 1, time=False, layers=layers)
    x = torch.randn(4, total)
    for k in range(2):
        state = two.state_dict()
        for n in layers:
            for kind in ("weight", "bias"):
                name = f"leave.{n}.{kind}"
                state[name] = state[name][k * n : (k + 1) * n]
        one.load_state_dict(state)
        torch.testing.assert_close(two(x)[:, k * total : (k + 1) * total], one(x))


def test_starts_at_zero_and_as_the_identity_and_learns() -> None:
    net = NETWORKS["transformer"](10, 5, 2, 8, 2, layers=[3, 2])
    x, t, c = torch.randn(6, 10), torch.rand(6, 1), torch.randn(6, 2)
    assert net(x, t, c).shape == (6, 5) and not net(x, t, c).any()
    awake = LayerTransformer(10, 5, 2, 8, 2, layers=[3, 2], zero_init=False)
    assert awake(x, t, c).abs().min() > 0
    tokens, e = torch.randn(6, 2, 8), awake.context(t, c)
    assert all(torch.equal(block(tokens, e), tokens) for block in awake.blocks)
    shaken(net)(x, t, c).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_code_of_time_and_conditions() -> None:
    """A scalar time is that of every row; what was promised must come."""
    t, c = torch.rand(6), torch.randn(6, 2)
    both, timed, named = Context(2, 8), Context(0, 8), Context(2, 8, time=False)
    torch.testing.assert_close(both(torch.tensor(0.3), c), both(torch.full((6, 1), 0.3), c))
    assert timed(torch.tensor(0.3), None).shape == (1, 8) and timed(t, None).shape == (6, 8)
    assert named(None, c).shape == (6, 8)
    assert Context(0, 8, time=False)(None, None).shape == (1, 8)
    for code, given, message in (
        (both, (None, c), "needs the time"),
        (both, (t, None), "conditions of 2 columns"),
    ):
        with pytest.raises(ValueError, match=message):
            code(*given)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((9, 9), {"layers": []}, "one per layer, not"),
        ((9, 9), {"layers": [4, 0, 5]}, "one per layer, not"),
        ((9, 9), {"layers": "45"}, "one per layer, not '45'"),
        ((10, 9), {"layers": [4, 5]}, "2 layers of together 9 columns do not fit: 10 columns in"),
        ((9, 10), {"layers": [4, 5]}, "9 columns in and 10 out must be multiples"),
        ((9, 9, 0, 10), {"layers": [4, 5]}, "a multiple of heads; not 10, 3, 4 and 4"),
        ((9, 9, 0, 8, 0), {"layers": [4, 5]}, "above 0"),
    ],
)
def test_sizes_that_do_not_fit(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerTransformer(*arguments, **options)
