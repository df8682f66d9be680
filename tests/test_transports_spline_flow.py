"""Conditional flows: their density by quadrature and autograd, their tails, a closed-form posterior."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Density, Pairs, Transport
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports.spline_flow import SplineFlow

KINDS = ["autoregressive", "coupling", "affine"]


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(stream(seed, "test").standard_normal((n, d), np.float32))


def rough(dim: int, size: float = 0.3, **options: object) -> SplineFlow:
    """A flow with random weights, far from the identity."""
    torch.manual_seed(0)
    flow = SplineFlow(dim, {"c": 1}, **({"width": 16, "train_steps": 10} | options))
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(size * torch.randn_like(p))
    return flow.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_is_normalised(kind: str) -> None:
    """The integral over a plane, given one source and condition; fails without the determinant."""
    flow = rough(2, 0.2, kind=kind, transforms=2).double()
    g = torch.linspace(-12, 12, 241, dtype=torch.float64)
    plane = torch.cartesian_prod(g, g)
    given = {
        "source": torch.tensor([[0.5, -1.0]]).double().expand(len(plane), 2),
        "c": torch.full((len(plane), 1), 0.3).double(),
    }
    with torch.no_grad():
        mass = flow.log_prob(plane, given).exp().sum() * (g[1] - g[0]) ** 2
    assert float(mass) == pytest.approx(1.0, abs=3e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_has_that_density(kind: str) -> None:
    """ln p(x(z)) = ln N(z) - ln |dx/dz| with autograd's Jacobian of `sample`, one row at a time.

    Fails if log_prob does not see the source, or drawing sees another one.
    """
    flow = rough(3, kind=kind).double()
    source, c, noise = (normal(6, d, k).double() for k, d in enumerate((3, 1, 3)))
    x = flow.apply(source, {"c": c}, noise)
    found = flow.log_prob(x, {"source": source, "c": c})
    for i in range(6):
        given = {"source": source[i : i + 1], "c": c[i : i + 1]}
        jacobian = torch.autograd.functional.jacobian(
            lambda z, given=given: flow.sample(given, z[None])[0], noise[i]
        )
        truth = norm.logpdf(noise[i].numpy()).sum() - float(torch.linalg.slogdet(jacobian)[1])
        assert float(found[i].detach()) == pytest.approx(truth, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_drawing_is_finite_and_inverts(kind: str) -> None:
    """In single precision, for many rows and noise beyond the box of the splines too."""
    flow = rough(4, kind=kind)
    n = 20_000
    noise = 2.5 * normal(n, 4, 1)  # thousands beyond the box
    given = {"source": normal(n, 4, 2), "c": normal(n, 1, 3)}
    with torch.no_grad():
        x = flow.sample(given, noise)
        back = flow.network(flow._context(given))(x)
    assert torch.isfinite(x).all()
    assert (noise.abs() > 5).any(dim=1).sum() > 1000
    assert (back - noise).abs().quantile(0.999) < 0.02


@pytest.mark.slow
def test_far_and_narrow_targets_are_learned() -> None:
    """Targets N(20 + 3 y, 0.1^2): 200 of their widths away from zero, and beyond the box.

    Fails (it never leaves the tail of the splines) without the affine map before them.
    """
    torch.manual_seed(0)
    n = 8000
    y = normal(n, 1, 1)
    pairs = Pairs(y, 20.0 + 3.0 * y + 0.1 * normal(n, 1, 2), coupled=True)
    flow = SplineFlow(1, {}, width=32, transforms=2, batch_size=256, train_steps=1200)
    fit(flow.phases(pairs, 0), TrainingSettings(ema_decay=0.99, threads=1), seed=0)
    fresh = normal(4000, 1, 3)
    with torch.no_grad():
        off = (flow.eval().apply(fresh, {}, normal(4000, 1, 4)) - 20.0 - 3.0 * fresh).numpy()
    inside = np.abs(fresh[:, 0].numpy()) < 2
    assert abs(np.median(off[inside])) < 0.05
    assert abs(np.diff(np.percentile(off[inside], [16, 84]))[0] / 0.2 - 1) < 0.25


def test_beyond_the_box_the_tails_are_normal_and_conditional() -> None:
    """Far out, ln p falls as the square of the distance in units of the *conditional* width."""
    flow = rough(1).double()
    given = {"source": torch.tensor([[1.0]]).double(), "c": torch.tensor([[0.5]]).double()}
    z = torch.linspace(6, 9, 4, dtype=torch.float64)[:, None]
    repeated = {name: value.expand(4, 1) for name, value in given.items()}
    with torch.no_grad():
        x = flow.sample(repeated, z)
        elsewhere = flow.sample({**repeated, "source": -3 * repeated["source"]}, z)
        density = flow.log_prob(x, repeated)
    steps = x.diff(dim=0)[:, 0]
    torch.testing.assert_close(steps, steps[0].expand(3), rtol=1e-9, atol=0)
    width = float(steps[0])  # one unit of z
    truth = norm.logpdf(z[:, 0].numpy()) - math.log(width)
    np.testing.assert_allclose(density.numpy(), truth, atol=1e-9)
    assert (x - elsewhere).abs().min() > 0.05


def test_interface() -> None:
    flow = rough(3)
    assert isinstance(flow, Transport) and isinstance(flow, Density)
    assert (flow.noise_dim, flow.nfe, flow.planned_steps) == (3, 12, 10)
    assert rough(3, kind="coupling").nfe == 4
    calls: list[int] = []
    for p in flow.network.transforms:
        p.hyper.register_forward_hook(lambda *_: calls.append(1))
    flow.apply(normal(5, 3, 1), {"c": normal(5, 1, 2)}, normal(5, 3, 3))
    assert len(calls) == flow.nfe


def test_coupled_halves_reach_every_coordinate() -> None:
    """Every output depends on every noise coordinate; fails if all maps move the same half."""
    flow = rough(6, kind="affine", transforms=12).double()
    given = {"source": normal(1, 6, 1).double(), "c": normal(1, 1, 2).double()}
    jacobian = torch.autograd.functional.jacobian(
        lambda z: flow.sample(given, z[None])[0], normal(1, 6, 3)[0].double()
    )
    assert (jacobian.abs() > 1e-9).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "spline"}, "unknown kind 'spline'; allowed: autoregressive, coupling, affine"),
        ({"transforms": 0}, "transforms must be a whole number"),
        ({"bins": 1}, "bins must be a whole number from 2"),
        ({"dim": 1, "kind": "coupling"}, "set kind: autoregressive"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplineFlow(**({"dim": 3, "condition_dims": {}} | options))


def test_pairs_of_another_dimension_are_refused() -> None:
    with pytest.raises(ConfigError, match="for 3 coordinates got 2"):
        next(rough(3).phases(Pairs(torch.zeros(100, 2), torch.zeros(100, 2)), 0))
