"""The U-Net on a grid: padding, symmetry, shapes, against loops over cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hepbridge.networks import NETWORKS
from hepbridge.networks.cylinder_unet import CylinderConv, CylinderUNet

SHAPE = (3, 4, 5)
CELLS = 60


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """Away from all that is zero at the start."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def inputs(n: int, columns: int, conditions: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(n, columns), torch.rand(n, 1), torch.randn(n, conditions)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 2), (2, 2, 2)])
@pytest.mark.parametrize("shape", [SHAPE, (1, 2, 5), (2, 1, 1)])
def test_convolution_is_its_sum(periodic: bool, stride: tuple, shape: tuple) -> None:
    """Cell by cell: the middle index modulo its size, zero outside of all others.

    Fails for zeros in place of the circle, and if another axis than the middle one wraps.
    """
    conv = CylinderConv(2, 3, shape, periodic=periodic, stride=stride).double()
    x = torch.randn(2, 2, *shape).double()
    found = conv(x)
    weight, bias = conv.conv.weight.detach().numpy(), conv.conv.bias.detach().numpy()
    size = [-(-n // s) for n, s in zip(shape, stride, strict=True)]
    truth = np.zeros((2, 3, *size)) + bias[None, :, None, None, None]
    reach = [k // 2 for k in weight.shape[2:]]
    for at in np.ndindex(*size):
        for step in np.ndindex(*weight.shape[2:]):
            a, b, c = (i * s + j - r for i, s, j, r in zip(at, stride, step, reach, strict=True))
            if periodic:
                b %= shape[1]
            if 0 <= a < shape[0] and 0 <= b < shape[1] and 0 <= c < shape[2]:
                seen = x[:, :, a, b, c].numpy()
                truth[(slice(None), slice(None), *at)] += seen @ weight[(..., *step)].T
    np.testing.assert_allclose(found.detach().numpy(), truth, rtol=1e-12, atol=1e-12)


def rolled(x: Tensor, shape: tuple[int, int, int], axis: int, by: int) -> Tensor:
    return x.reshape(len(x), -1, *shape).roll(by, 2 + axis).reshape(len(x), -1)


@pytest.mark.parametrize("by", [1, 2, 3])
@pytest.mark.parametrize("shape", [SHAPE, (2, 5, 3)])
def test_rotations_commute_with_the_network(by: int, shape: tuple[int, int, int]) -> None:
    """By any number of cells, odd ones too: fails if the circle is coarsened, or not closed."""
    cells = int(np.prod(shape))
    network = shaken(CylinderUNet(2 * cells, cells, 2, 4, 2, shape=shape)).double()
    x, t, c = (value.double() for value in inputs(6, 2 * cells))
    with torch.no_grad():
        truth = rolled(network(x, t, c), shape, 1, by)
        found = network(rolled(x, shape, 1, by), t, c)
        along = rolled(network(x, t, c), shape, 2, 1)
        other = network(rolled(x, shape, 2, 1), t, c)
    assert truth.std() > 0.1
    assert (found - truth).abs().max() < 1e-12 * truth.abs().max()
    assert (other - along).abs().max() > 0.01 * truth.std(), "along the radius, too"


def test_an_open_grid_has_no_rotations() -> None:
    network = shaken(CylinderUNet(CELLS, CELLS, 2, 4, 1, shape=SHAPE, periodic=False))
    x, t, c = inputs(6, CELLS)
    difference = network(rolled(x, SHAPE, 1, 1), t, c) - rolled(network(x, t, c), SHAPE, 1, 1)
    assert difference.abs().max() > 0.01


def test_a_cell_lies_where_it_should() -> None:
    """Layer slowest, radius fastest: a change in one cell is first felt by its neighbours.

    Of the first convolution alone, with all paths but the direct one cut.
    """
    network = shaken(CylinderUNet(CELLS, CELLS, 0, 4, 1, time=False, shape=SHAPE))
    with torch.no_grad():
        for block in (*network.down, *network.up):
            block.second.conv.weight.zero_()
        network.join.weight[:, 4:].zero_()
        one = torch.zeros(1, CELLS)
        one[0, (1 * 4 + 0) * 5 + 2] = 1.0  # layer 1, azimuth 0, radius 2
        change = (network(one) - network(torch.zeros(1, CELLS))).reshape(SHAPE)
    felt = {tuple(int(k) for k in at) for at in change.abs().gt(1e-7).nonzero()}
    assert felt == {(a, b, c) for a in (0, 1, 2) for b in (3, 0, 1) for c in (1, 2, 3)}


def test_every_cell_reaches_its_output_through_the_coarse_level() -> None:
    """Repeating the cells of the coarse level brings each back to where it was: 45 layers to 23."""
    network = shaken(CylinderUNet(45, 45, 0, 2, 1, time=False, shape=(45, 1, 1)))
    with torch.no_grad():
        for block in (*network.down, *network.middle, *network.up):
            block.second.conv.weight.zero_()
        network.join.weight[:, :2].zero_()
        for k in (0, 21, 44):
            one = torch.zeros(1, 45)
            one[0, k] = 1.0
            change = (network(one) - network(torch.zeros(1, 45)))[0]
            felt = change.abs().gt(1e-7).nonzero()[:, 0]
            # three cells of the first convolution, three of the second, pairs of what is repeated
            assert k in felt and abs(felt - k).max() <= 4


def test_starts_at_zero_and_learns() -> None:
    x, t, c = inputs(6, 2 * CELLS)
    network = CylinderUNet(2 * CELLS, CELLS, 2, 4, 1, shape=SHAPE)
    assert network(x, t, c).shape == (6, CELLS)
    assert not network(x, t, c).any()
    assert CylinderUNet(
        2 * CELLS, CELLS, 2, 4, 1, shape=SHAPE, zero_init=False
    )(x, t, c).abs().min() > 0  # fmt: skip
    shaken(network)(x, t, c).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 10, 10), (3, 1, 2), (45, 16, 9)])
@pytest.mark.parametrize("periodic", [True, False])
def test_every_shape_of_a_grid(shape: tuple[int, int, int], periodic: bool) -> None:
    cells = int(np.prod(shape))
    network = NETWORKS["unet"](cells, cells, 1, 2, 1, shape=shape, periodic=periodic)
    x, _, c = inputs(2, cells, 1)
    out = shaken(network)(x, torch.tensor(0.3), c)
    assert out.shape == (2, cells) and torch.isfinite(out).all()


def test_channels_out_come_one_after_the_other() -> None:
    """Two channels out are the outputs of two networks with half of the last layer each."""
    two = shaken(CylinderUNet(CELLS, 2 * CELLS, 0, 3, 1, time=False, shape=SHAPE))
    one = CylinderUNet(CELLS, CELLS, 0, 3, 1, time=False, shape=SHAPE)
    state = two.state_dict()
    x = torch.randn(4, CELLS)
    for k in range(2):
        own = {name: v[k : k + 1] if name.startswith("leave") else v for name, v in state.items()}
        one.load_state_dict(own)
        torch.testing.assert_close(two(x)[:, k * CELLS : (k + 1) * CELLS], one(x))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((60, 60), {"shape": (3, 4)}, "three whole numbers above 0, not"),
        ((60, 60), {"shape": (3, 4, 0)}, "three whole numbers above 0, not"),
        ((61, 60), {"shape": SHAPE}, "has 60 cells; 61 columns in and 60 out must be multiples"),
        ((60, 61), {"shape": SHAPE}, "has 60 cells; 60 columns in and 61 out must be multiples"),
        ((60, 60, 0, 512), {"shape": SHAPE}, "1 to 128 channels .* not 512 and 1"),
        ((60, 60, 0, 8, 0), {"shape": SHAPE}, "at least one block .* not 8 and 0"),
    ],
)
def test_sizes_that_do_not_fit(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CylinderUNet(*arguments, **options)
