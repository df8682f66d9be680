"""Conditional flows: their density by quadrature and autograd, their tails, a closed-form posterior."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import zuko
from scipy.stats import norm

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Density, Pairs, Transport
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports.spline_flow import SplineFlow
from hepbridge.transports.splines import RationalQuadratic

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
        back = flow.network(flow._context(given, x))(x)
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


@pytest.mark.parametrize(
    ("options", "nfe"),
    [
        ({}, 12),
        ({"kind": "coupling"}, 6),  # the first map is autoregressive
        ({"kind": "coupling", "condition_on_source": False}, 4),
        ({"kind": "affine"}, 3),
    ],
)
def test_interface(options: dict, nfe: int) -> None:
    flow = rough(3, **options)
    assert isinstance(flow, Transport) and isinstance(flow, Density)
    assert (flow.noise_dim, flow.nfe, flow.planned_steps) == (3, nfe, 10)
    calls: list[int] = []
    for p in flow.network.transforms:
        p.hyper[1].register_forward_hook(lambda *_: calls.append(1))
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
        ({"order": "down"}, "unknown order 'down'; allowed: alternate, random"),
        ({"bound": 0.0}, "bound must be a positive number, got 0.0"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1, got 1.0"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SplineFlow(**({"dim": 3, "condition_dims": {}} | options))


def test_pairs_of_another_dimension_are_refused() -> None:
    with pytest.raises(ConfigError, match="for 3 coordinates got 2"):
        next(rough(3).phases(Pairs(torch.zeros(100, 2), torch.zeros(100, 2)), 0))


# -- options of generation -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", [{}, {"c": 1}])
def test_without_a_source_it_is_ignored(kind: str, dims: dict) -> None:
    """Any source gives the same draw, none is part of the context; the density integrates to one."""
    torch.manual_seed(0)
    flow = SplineFlow(2, dims, kind=kind, condition_on_source=False, width=16).double().eval()
    assert not flow.claims.posterior and flow.claims.joint
    assert SplineFlow(2, dims, kind=kind).claims.posterior
    given = {"c": normal(5, 1, 1).double()}
    noise = normal(5, 2, 2).double()
    a, b = (flow.apply(normal(5, 2, k).double(), given, noise) for k in (3, 4))
    assert torch.equal(a, b)
    assert torch.equal(a, flow.sample(given, noise))
    g = torch.linspace(-12, 12, 241, dtype=torch.float64)
    plane = torch.cartesian_prod(g, g)
    with torch.no_grad():
        density = flow.log_prob(plane, {"c": torch.full((len(plane), 1), 0.3).double()})
    assert float(density.exp().sum() * 0.01) == pytest.approx(1.0, abs=3e-3)


def test_one_coordinate_without_conditions() -> None:
    flow = SplineFlow(1, {}, condition_on_source=False, width=8)
    pairs = Pairs(normal(50, 1, 1), normal(50, 1, 2))
    (phase,) = flow.phases(pairs, 0)
    assert torch.isfinite(phase.loss(phase.module, phase.batch(0, stream(0, "batch"))))
    assert flow.apply(pairs.source, {}, normal(50, 1, 3)).shape == (50, 1)


def test_targets_are_symmetry_images() -> None:
    """Targets with x0 < x1 always; half of a batch is exchanged. Fails without the augmentation."""
    flow = SplineFlow(2, {}, condition_on_source=False, width=8, batch_size=400)
    target = normal(300, 2, 1).sort(dim=1).values
    pairs = Pairs(normal(300, 2, 2), target, symmetries=torch.tensor([[0, 1], [1, 0]]))
    (phase,) = flow.phases(pairs, 0)
    x = phase.batch(0, stream(0, "batch"))["x"]
    share = float((x[:, 0] < x[:, 1]).float().mean())
    assert abs(share - 0.5) < 4 * 0.5 / 400**0.5


@pytest.mark.parametrize("order", ["alternate", "random"])
@pytest.mark.parametrize("dim", [6, 40])
def test_maps_are_triangular_in_their_order(order: str, dim: int) -> None:
    """Each spline map's Jacobian, sorted by its order, is lower triangular; no two orders are equal.

    Drawing inverts it, which fails if a coordinate sees itself. With 12 columns for 40 coordinates,
    too, the last one sees some of the last ten before it: fails with the masks of zuko, whose columns
    see the first 12 only.
    """
    flow = rough(dim, order=order, width=12, condition_on_source=False).double()
    maps = list(flow.network.transforms)
    orders = []
    for one in maps[1:]:
        jacobian = torch.autograd.functional.jacobian(
            lambda x, one=one: one(torch.zeros(1, 1).double())(x[None])[0],
            normal(1, dim, 1)[0].double(),
        )
        by_place = one.order.argsort()
        seen = jacobian[by_place][:, by_place] != 0
        assert not seen.triu(1).any() and seen.diagonal().all()
        assert seen[-1, -11:-1].any()
        there, back = one(torch.zeros(5, 1).double()), normal(5, dim, 2).double()
        torch.testing.assert_close(there(there.inv(back)), back, rtol=1e-8, atol=1e-8)
        orders.append(tuple(by_place.tolist()))
    ups = (tuple(range(dim)[::-1]), tuple(range(dim)), tuple(range(dim)[::-1]))
    assert (tuple(orders) == ups) == (order == "alternate")
    assert len(set(orders)) == (2 if order == "alternate" else 3)
    again = SplineFlow(dim, {"c": 1}, order=order, width=12, condition_on_source=False)
    assert [tuple(m.order.argsort().tolist()) for m in again.network.transforms][1:] == orders


def test_bound_is_that_of_the_splines() -> None:
    """At 9, splines of a box of 5 do nothing and those of a box of 14 do something."""
    x = torch.full((1, 3), 9.0)
    moved = []
    for bound in (5.0, 14.0):
        flow = rough(3, bound=bound, condition_on_source=False)
        spline = flow.network.transforms[1](torch.zeros(1, 1))
        moved.append(float((spline(x) - x).abs().max().detach()))
    assert moved[0] == 0.0 < 0.05 < moved[1]


def test_dropout_is_for_training_only_and_no_part_of_the_state() -> None:
    flow = rough(3, dropout=0.5)
    given = {"source": normal(6, 3, 1), "c": normal(6, 1, 2)}
    x = normal(6, 3, 3)
    assert torch.equal(flow.log_prob(x, given), flow.log_prob(x, given))
    assert not torch.equal(flow.train().log_prob(x, given), flow.log_prob(x, given))
    assert {k: v.shape for k, v in flow.state_dict().items()} == {
        k: v.shape for k, v in rough(3).state_dict().items()
    }


def zukos(kind: str, dim: int, context: int) -> zuko.lazy.LazyComposedTransform:
    """The maps as they were built before there were own ones: what stored models hold."""
    spline = {
        "univariate": partial(zuko.transforms.MonotonicRQSTransform, bound=5.0),
        "shapes": [(8,), (8,), (7,)],
    }
    common = {"context": context, "hidden_features": (16, 16), "activation": torch.nn.SiLU}
    maps = [zuko.flows.MaskedAutoregressiveTransform(dim, **common)] if kind != "affine" else []
    common |= spline if kind != "affine" else {}
    for k in range(3):
        if kind == "autoregressive":
            order = torch.arange(dim) if k % 2 else torch.arange(dim).flip(0)
            maps.append(zuko.flows.MaskedAutoregressiveTransform(dim, order=order, **common))
        else:
            places = torch.from_numpy(
                np.random.Generator(np.random.Philox(k // 2)).permutation(dim)
            )
            maps.append(
                zuko.flows.GeneralCouplingTransform(dim, mask=places % 2 == k % 2, **common)
            )
    return zuko.lazy.LazyComposedTransform(*maps)


@pytest.mark.parametrize(
    ("kind", "dim"), [*((kind, 4) for kind in KINDS), ("autoregressive", 1), ("autoregressive", 30)]
)
def test_stored_models_of_before_load_and_draw_the_same(kind: str, dim: int) -> None:
    """Against zuko's own maps and splines with the same state: draws and densities.

    In 30 coordinates their masks, which are part of the state, differ from those of new models.
    """
    torch.manual_seed(1)
    old = zukos(kind, dim, dim + 1).double()
    flow = SplineFlow(dim, {"c": 1}, kind=kind, width=16).double()
    with torch.no_grad():
        for p in old.parameters():
            p.add_(0.3 * torch.randn_like(p))
    flow.network.load_state_dict(old.state_dict(), strict=True)
    source, c, noise = (normal(20, d, k).double() for k, d in enumerate((dim, 1, dim)))
    context = torch.cat([source, c], dim=1)
    with torch.no_grad():
        x = flow.apply(source, {"c": c}, 2 * noise)
        torch.testing.assert_close(x, old(context).inv(2 * noise), rtol=1e-6, atol=1e-6)
        z, log_det = old(context).call_and_ladj(x)
        truth = norm.logpdf(z.numpy()).sum(axis=1) + log_det.numpy()
        found = flow.log_prob(x, {"source": source, "c": c})
    np.testing.assert_allclose(found.numpy(), truth, atol=1e-6)


@pytest.mark.parametrize("size", [1.0, 20.0])
def test_splines_are_those_of_zuko(size: float) -> None:
    """Values, slopes, inverses and gradients, for knots of any kind and values beyond the box too."""
    phi = [size * normal(500, 3 * k, i).double().view(500, 3, k) for i, k in enumerate((6, 6, 5))]
    phi = [p.requires_grad_() for p in phi]
    x = 4 * normal(500, 3, 7).double()
    ours = RationalQuadratic(*phi, bound=5.0)
    theirs = zuko.transforms.MonotonicRQSTransform(*phi, bound=5.0)
    (y, ladj), (y1, ladj1) = ours.call_and_ladj(x), theirs.call_and_ladj(x)
    torch.testing.assert_close((y, ladj), (y1, ladj1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours(x), y, rtol=0, atol=0)
    torch.testing.assert_close(ours.inv(x), theirs.inv(x), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(ours.inv(y), x, rtol=1e-7, atol=1e-7)
    weight = normal(500, 3, 8).double()
    for f in (lambda s: s.call_and_ladj(x)[0], lambda s: s.call_and_ladj(x)[1], lambda s: s.inv(x)):
        found, truth = (
            torch.autograd.grad((f(s) * weight).sum(), phi, retain_graph=True)
            for s in (ours, theirs)
        )
        torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-6)
