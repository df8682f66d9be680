"""Networks on a grid and over layers as ONNX graphs, inside a sampler and a student."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hepbridge.transports.distilled import Distilled
from hepbridge.transports.edm import EDM

ort = pytest.importorskip("onnxruntime")
onnx_graph = pytest.importorskip("hepbridge.deploy.onnx.graph")


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        small = {"width": 4, "depth": 1}
        grid = {"network": "unet", "network_options": {"shape": [2, 3, 4]}}
        layers = {"network": "transformer", "network_options": {"layers": [8, 8, 5, 3], "heads": 2}}
        self.parts = nn.ModuleList(
            [
                EDM(24, {"c": 2}, sampler="euler", steps=2, **small, **layers),
                Distilled(24, {"c": 2}, teacher="edm", teacher_options=small, **small, **grid),
            ]
        )
        for parameter in self.parameters():
            parameter.data = 0.2 * torch.randn(parameter.shape)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, c, noise = inputs
        return tuple(part.apply(x, {"c": c}, noise) for part in self.parts)


@pytest.mark.slow
def test_graph_agrees_with_torch() -> None:
    """To 1e-5 of the size of the result, for any number of rows. Fails without the circle."""
    from hepbridge.deploy.onnx.trace import translate

    module, graph = Both().eval(), onnx_graph.Graph()
    inputs = [("x", 24), ("c", 2), ("noise", 24)]
    names = translate(module, graph, inputs, None)
    model = graph.model(
        [(name, torch.float32, ["rows", k]) for name, k in inputs],
        [(name, torch.float32, ["rows", 24]) for name in names],
        opset=14, ir_version=7, metadata={},
    )  # fmt: skip
    session = ort.InferenceSession(model.SerializeToString())
    for rows in (1, 20):
        given = {name: torch.randn(rows, k) for name, k in inputs}
        with torch.no_grad():
            truth = module(tuple(given.values()))
        found = session.run(None, {name: value.numpy() for name, value in given.items()})
        for ours, theirs in zip(truth, found, strict=True):
            assert ours.std() > 0.01
            assert np.abs(ours.numpy() - theirs).max() < 1e-5 * ours.abs().max()
