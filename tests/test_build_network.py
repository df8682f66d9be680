"""Networks by name inside the methods: what is built, what is refused, and what stays as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs
from hepbridge.core.rng import stream
from hepbridge.networks import NETWORKS, ResidualMLP
from hepbridge.networks.cylinder_unet import CylinderUNet
from hepbridge.networks.layer_transformer import LayerTransformer
from hepbridge.transports import TRANSPORTS
from hepbridge.transports.build_network import build_network

OPTIONS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "unet": {"shape": [1, 2, 3], "periodic": False},
    "transformer": {"layers": [2, 4], "heads": 2},
}
METHODS: dict[str, dict[str, Any]] = {
    "flow_matching": {"steps": 2, "window": 16, "windows": 1},
    "edm": {"steps": 3, "batch_size": 16},
    "mean_flow": {"window": 16, "windows": 1},
    "distilled": {
        "teacher": "edm",
        "teacher_options": {"train_steps": 1, "width": 8, "depth": 1, "steps": 2},
        "batch_size": 16,
    },
}


def pairs(n: int = 40) -> Pairs:
    rng = stream(0, "build")
    x0, x1, c = (torch.from_numpy(rng.standard_normal((n, k), np.float32)) for k in (6, 6, 1))
    return Pairs(x0, x1, {"c": c}, order="c", from_noise=True)


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("method", list(METHODS))
def test_every_network_in_every_method(method: str, network: str) -> None:
    """Shapes, gradients for all parameters, and a state that another object of the options takes."""
    options = METHODS[method] | {"width": 8, "depth": 1, "train_steps": 1}
    options |= {"network": network, "network_options": OPTIONS[network]}
    torch.manual_seed(0)
    transport = TRANSPORTS[method](6, {"c": 1}, **options)
    kinds = {"mlp": ResidualMLP, "unet": CylinderUNet, "transformer": LayerTransformer}
    assert type(transport.network) is kinds[network]
    with torch.no_grad():
        for parameter in transport.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    data = pairs()
    *_, phase = transport.phases(data, 0)
    if phase.prepare is not None:
        phase.prepare(stream(0, "prepare"))
    phase.loss(phase.module, phase.batch(0, stream(0, "batch"))).backward()
    for name, parameter in transport.network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    again = TRANSPORTS[method](6, {"c": 1}, **options)
    again.load_state_dict(transport.state_dict())
    noise = torch.randn(40, transport.noise_dim)
    with torch.no_grad():
        out = transport.apply(data.source, data.conditions, noise)
        assert torch.equal(out, again.apply(data.source, data.conditions, noise))
    assert out.shape == (40, 6) and torch.isfinite(out).all()


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("flow_matching", {"max_frequency": 4.0, "embedding": 32}),
        ("distilled", {"time": False, "embedding": 32}),
    ],
)
def test_default_network_is_what_it_was(method: str, own: dict[str, Any]) -> None:
    """Names, and bits of the same seed: written out as before there was a choice."""
    torch.manual_seed(3)
    found = TRANSPORTS[method](6, {"c": 1}, width=16, depth=2).network
    torch.manual_seed(3)
    truth = ResidualMLP(6, 6, 1, 16, 2, **own)
    assert list(found.state_dict()) == list(truth.state_dict())
    for kind in ("named_parameters", "named_buffers"):  # frequencies are no part of the state
        ours, theirs = dict(getattr(found, kind)()), dict(getattr(truth, kind)())
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_own_options_come_before_those_of_the_method() -> None:
    def frequencies(network: nn.Module) -> Tensor:
        return network.time.frequencies

    small, large = (
        build_network("m", "mlp", options, 6, 6, 1, 8, 1, embedding=8, max_frequency=4.0)
        for options in (None, {"max_frequency": 8.0, "activation": "tanh"})
    )
    torch.testing.assert_close(frequencies(large)[-1], 2 * frequencies(small)[-1])
    assert isinstance(large.activation, nn.Tanh)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("unett", {}, "unknown network 'unett'; did you mean 'unet'"),
        ("mlp", {"flim": False}, "edm: network 'mlp' has no option 'flim'; did you mean 'film'"),
        ("unet", {}, "edm: network 'unet' needs network_options: shape"),
        ("transformer", {"heads": 2}, "edm: network 'transformer' needs network_options: layers"),
        ("unet", {"shape": [2, 2, 2]}, "edm: network 'unet': a grid of shape .* has 8 cells; 6"),
        ("unet", {"shape": 6}, "edm: network 'unet': "),
        ("transformer", {"layers": [3, 4]}, "edm: network 'transformer': 2 layers of together 7"),
        ("mlp", {"time": False}, "whether it has a time is for the method to say; leave it out"),
        ("mlp", {"activation": "sin"}, "edm: network 'mlp': activation is one of silu"),
    ],
)
def test_bad_networks(network: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TRANSPORTS["edm"](6, {}, network=network, network_options=options, width=8)
