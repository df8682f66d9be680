"""The paper's two networks as a competitor in speed: in torch and in ONNX Runtime."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hepbridge.core.errors import MissingExtraError
from hepbridge.data.showers import Showers
from hepbridge.deploy.hushed import hushed
from hepbridge.systems.recipe import load_recipe
from hepbridge.systems.squirels_paper import SquirelsPaper

__all__ = ["OnnxNetwork", "disagreement", "in_onnxruntime", "untrained"]

_ROWS = 4  # of the example that is traced; the exported network takes any number


def untrained(fast: Showers, full: Showers, seed: int = 0) -> SquirelsPaper:
    """The system of the recipe ``squirels-paper``: statistics of the samples, random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        system = SquirelsPaper(load_recipe("squirels-paper").system_config(), fast.geometry)
    system.fit(fast, full, seed)
    return system.eval().requires_grad_(False)


def in_onnxruntime(system: SquirelsPaper) -> SquirelsPaper:
    """A copy in which ONNX Runtime evaluates the networks; the loops over steps stay in torch.

    Raises MissingExtraError without the libraries.
    """
    out = copy.deepcopy(system)
    for bridge in (out.energy, out.shower):
        bridge.forward_network = OnnxNetwork(bridge.forward_network, bridge.dim)
    return out


class OnnxNetwork(nn.Module):
    """A network ``v(x, t | conditions)`` of a bridge, evaluated by ONNX Runtime with one thread.

    Exported for any number of rows; graph optimisations are all on, as is the default. Shapes as in
    `hepbridge.networks.conv.ConvNet`, but one time for all rows: t (1,).

    Raises MissingExtraError without onnx, onnxscript and onnxruntime.
    """

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__()
        ort = _libraries()
        names: Any = network.condition_names
        self.condition_names: list[str] = list(names)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            _export(network, dim, self.condition_names, path)
            self.session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )

    def forward(
        self, x: Tensor, t: Tensor, conditions: Mapping[str, Tensor], skip: Tensor | None = None
    ) -> Tensor:
        c = torch.cat([conditions[name] for name in self.condition_names], 1)
        (v,) = self.session.run(None, {"x": x.numpy(), "t": t.numpy(), "c": c.numpy()})
        return torch.from_numpy(v)


def disagreement(a: SquirelsPaper, b: SquirelsPaper, cells: Tensor, energy: Tensor) -> float:
    """Largest difference of cells that two systems make of the same showers and noise.

    In units of the standard deviation of the cells of ``a``. ``inf`` if any cell is not finite.
    """
    noise = torch.randn(len(cells), a.noise_dim, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        left, right = (s.refine(cells, {"incident_energy": energy}, noise) for s in (a, b))
    if not (left.isfinite().all() and right.isfinite().all()):
        return float("inf")
    return float((left - right).abs().max() / left.std())


class _Flat(nn.Module):
    """The network with its conditions as columns of one tensor, in the order of their names."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        out: Tensor = self.network(x, t, {n: c[:, k : k + 1] for k, n in enumerate(self.names)})
        return out


def _export(network: nn.Module, dim: int, names: list[str], path: Path) -> None:
    rows = torch.export.Dim("rows")
    example = torch.zeros(_ROWS, dim), torch.zeros(1), torch.zeros(_ROWS, len(names))
    with hushed():
        program = torch.export.export(
            _Flat(network, names).eval(),
            example,
            dynamic_shapes=({0: rows}, None, {0: rows}),
            strict=True,  # the other way of tracing fixes the number of rows
        )
        torch.onnx.export(
            program,
            (),
            path,
            dynamo=True,
            verbose=False,
            input_names=["x", "t", "c"],
            output_names=["v"],
            external_data=False,
        )


def _libraries() -> Any:
    """ONNX Runtime; the exporter of torch needs the other two."""
    try:
        needed = [import_module(name) for name in ("onnxruntime", "onnx", "onnxscript")]
    except ImportError as error:
        raise MissingExtraError.of(
            "onnx", error.name or "onnxruntime", "ONNX Runtime as a competitor"
        ) from error
    return needed[0]
