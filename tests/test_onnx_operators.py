"""Single operations of torch in ONNX, each against torch itself, in the oldest opset that is used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erfinv
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.deploy.onnx.forms import _FoldedMLP
from hepbridge.deploy.onnx.graph import Graph
from hepbridge.deploy.onnx.trace import translate
from hepbridge.networks.mlp import ResidualMLP

pytest.importorskip("onnx", reason="the extra onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

WIDTH = 6


class Many(nn.Module):
    """Operations that methods use or may use, as outputs of one module."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(WIDTH)
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.linear = nn.Linear(WIDTH, 4, bias=False)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        self.table = torch.arange(20.0) ** 2

    def forward(self, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        x, s = inputs
        n = len(x)
        part = x.clone()
        part[:, 1:3] = 7.0
        whole = x.clone()
        whole[:, :] = s[:, None]
        steps = (x * 3).int()
        return (
            torch.where(x > 0.5, x, 2.0),
            torch.where(x > 0.5, -torch.inf, x),
            part,
            whole,
            steps.clamp(-2, 2).double() + x,
            self.table[steps.abs()],
            x[:, ::2],
            x[:, -2:],
            torch.stack([x, x * 2], dim=1).unbind(1)[1],
            torch.cat([x, x.new_zeros(n, 0), s[:, None]], dim=1).sum(dim=1, keepdim=True),
            (x > 0).sum(dim=1),
            torch.full((n, 2), 3.0),
            s.new_ones(1, 3).expand(n, -1),
            x.reshape(n, 2, 3).transpose(1, 2).permute(0, 2, 1)[:, 1],
            self.norm(x),
            self.conv(x.reshape(n, 1, 2, 3)).flatten(1),
            self.linear(x.reshape(n, 1, WIDTH)).squeeze(1),
            nn.functional.gelu(x) + nn.functional.silu(x) + nn.functional.leaky_relu(x, 0.1),
            torch.special.ndtr(x) * torch.sigmoid(x) + torch.tanh(x).relu(),
            torch.addcmul(x, x, x, value=0.5) + torch.lerp(x, -x, 0.3) + torch.rsub(x, 2.0),
            x.square() + x.abs().pow(1.5) + x.pow(2) + x.abs().sqrt().reciprocal(),
            torch.maximum(x, -x) - torch.minimum(x, s[:, None]) + x.neg().exp().log(),
            x.floor() + x.sin() * x.cos() + x.clamp_min(0.1).clamp_max(0.2) + x.clamp(max=0.3),
            (x > 0) & (x < 1) | ~(s[:, None] >= 0),
            torch.chunk(x, 3, dim=1)[2] @ torch.eye(2),
            torch.add(x, x, alpha=3).to(torch.float64) - 1e-3,
            x.amax(dim=1),
            x.reshape(n, 2, 3).amax(dim=-1, keepdim=True),
            x.reshape(n, 2, 3).gather(2, steps.abs().long().clamp_max(2)[:, :2, None]),
            torch.atan(x) + torch.where(x >= s[:, None], -1.0, 1.0),
        )


def test_operations_are_those_of_torch() -> None:
    """Fails for any wrong axis, type or order of arguments; the number of rows is free."""
    module, graph = Many().eval(), Graph()
    names = translate(module, graph, [("x", WIDTH), ("s", 0)], None)
    for rows in (1, 5):
        x = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(rows))
        s = torch.linspace(-1, 1, rows)
        truth = module((x, s))
        kinds = [t.dtype for t in truth]
        model = graph.model(
            [("x", torch.float32, ["rows", WIDTH]), ("s", torch.float32, ["rows"])],
            [
                (name, kind, [str(k) for k in range(t.ndim)])
                for name, kind, t in zip(names, kinds, truth, strict=True)
            ],
            opset=14,
            ir_version=7,
            metadata={},
        )
        session = ort.InferenceSession(model.SerializeToString())
        found = session.run(None, {"x": x.numpy(), "s": s.numpy()})
        for k, (ours, theirs) in enumerate(zip(truth, found, strict=True)):
            assert ours.shape == theirs.shape, k
            assert np.allclose(ours.detach().numpy(), theirs, rtol=2e-6, atol=2e-6), k


def test_erfinv_against_scipy() -> None:
    """Below 5e-7 of the value over all of (-1, 1), tails included. Fails with a quarter as many nodes."""

    class Inverse(nn.Module):
        def forward(self, inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (torch.erfinv(inputs[0]),)

    graph = Graph()
    (name,) = translate(Inverse(), graph, [("x", 0)], None)
    model = graph.model(
        [("x", torch.float32, ["rows"])], [(name, torch.float32, ["rows"])],
        opset=14, ir_version=7, metadata={},
    )  # fmt: skip
    inner = np.linspace(-0.999, 0.999, 200_001)
    tail = 1 - np.logspace(-7.2, -3, 1000)
    x = np.concatenate([inner, tail, -tail, [1e-8, 0.0]]).astype(np.float32)
    (found,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    truth = erfinv(x.astype(np.float64))
    assert np.abs(found - truth).max() < 2e-6
    assert (np.abs(found - truth) / np.where(truth == 0, 1, np.abs(truth))).max() < 5e-7


def test_sigmoid_has_its_lower_tail() -> None:
    """To rounding of the value itself at -80 to 0. Fails with the Sigmoid of ONNX Runtime."""

    class Share(nn.Module):
        def forward(self, inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (torch.sigmoid(inputs[0]),)

    graph = Graph()
    (name,) = translate(Share(), graph, [("x", 0)], None)
    model = graph.model(
        [("x", torch.float32, ["rows"])], [(name, torch.float32, ["rows"])],
        opset=14, ir_version=7, metadata={},
    )  # fmt: skip
    x = np.linspace(-80, 20, 1001).astype(np.float32)
    (found,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    truth = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert np.abs(found / truth - 1).max() < 1e-6


@pytest.mark.parametrize("film", [True, False])
@pytest.mark.parametrize("time", [True, False])
def test_folded_network_is_the_network(film: bool, time: bool) -> None:
    """Biases moved to the entrance change nothing but the rounding."""
    torch.manual_seed(0)
    network = ResidualMLP(5, 4, 2, 16, 3, time=time, film=film, zero_init=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        x, c, t = torch.randn(9, 5), torch.randn(9, 2), torch.tensor([0.3]) if time else None
        expected = network(x, t, c)
        folded = _FoldedMLP(network)
        found = folded(x, t, c)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert not torch.equal(network.enter.bias, folded.network.enter.bias)


def test_what_has_no_translation_is_named() -> None:
    class Strange(nn.Module):
        def forward(self, inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (torch.fft.fft(inputs[0]).real,)

    with pytest.raises(ConfigError, match=r"cannot be written in ONNX here \(aten\."):
        translate(Strange(), Graph(), [("x", 4)], None)


def test_what_cannot_be_traced_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (inputs[0] if inputs[0].sum() > 0 else -inputs[0],)

    with pytest.raises(ConfigError, match="depends on its numbers"):
        translate(Branching(), Graph(), [("x", 4)], None)
