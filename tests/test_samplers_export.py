"""One sampler of every kind as an ONNX graph."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hepbridge.transports.diffusion import Diffusion

ort = pytest.importorskip("onnxruntime")
onnx_graph = pytest.importorskip("hepbridge.deploy.onnx.graph")


class Samplers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleList(
            Diffusion(3, {}, sampler=name, steps=3, width=8, depth=1)
            for name in ("edm", "lms3", "unipc3", "dpmpp_2m_sde")
        )
        for parameter in self.parameters():
            parameter.data = 0.2 * torch.randn(parameter.shape)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, noise = inputs
        return tuple(part.apply(x, {}, noise[:, : part.noise_dim]) for part in self.parts)


@pytest.mark.slow
def test_graph_agrees_with_torch() -> None:
    """To 1e-5 of the size of the result, with random networks."""
    from hepbridge.deploy.onnx.forms import simplify
    from hepbridge.deploy.onnx.trace import translate

    module = Samplers().eval()
    form, graph = copy.deepcopy(module), onnx_graph.Graph()
    simplify(form)
    inputs = [("x", 3), ("noise", 12)]
    names = translate(form, graph, inputs, None)
    model = graph.model(
        [(name, torch.float32, ["rows", k]) for name, k in inputs],
        [(name, torch.float32, ["rows", 3]) for name in names],
        opset=14, ir_version=7, metadata={},
    )  # fmt: skip
    given = {name: torch.randn(50, k) for name, k in inputs}
    with torch.no_grad():
        truth = module(tuple(given.values()))
    session = ort.InferenceSession(model.SerializeToString())
    found = session.run(None, {name: value.numpy() for name, value in given.items()})
    for ours, theirs in zip(truth, found, strict=True):
        assert np.abs(ours.numpy() - theirs).max() < 1e-5 * ours.abs().max()
