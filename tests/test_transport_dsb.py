"""The diffusion Schrödinger bridge against closed forms for Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs, Transport
from hepbridge.networks.conv import ConvNet
from hepbridge.networks.encoder_mlp import EncoderMLP
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports.dsb import DSB
from hepbridge.transports.schedules import gamma_schedule
from oracles import (
    gaussian_sb_cross_covariance,
    ipf_of_lines,
    monge_matrix,
    sinkhorn,
)

SMALL = {"encoder": [64, 32], "decoder": [64], "embedding": 16}
SETTINGS = TrainingSettings(ema_decay=0.98, threads=1)


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d), np.float32))


def make(dim: int = 1, conditions: dict[str, int] | None = None, **options: object) -> DSB:
    torch.manual_seed(0)
    chosen = {"steps_first": 300, "steps": 200, "batch_size": 512, "cache_size": None,
              "learning_rate": 4e-3, "network_options": SMALL, "iterations": 3,
              "cache_refresh": 2}  # fmt: skip
    return DSB(dim, conditions, **(chosen | options))


def applied(bridge: DSB, x: torch.Tensor, conditions: dict[str, torch.Tensor], seed: int = 7):
    with torch.no_grad():
        return bridge.apply(x, conditions, normal(len(x), bridge.noise_dim, seed))


# -- the oracles themselves ----------------------------------------------------------------------


def test_gaussian_bridge_formula_agrees_with_sinkhorn_on_a_grid():
    epsilon, s0, s1 = 0.7, 1.3, 0.4
    x = np.linspace(-7, 7, 101)[:, None]
    a = np.exp(-0.5 * x[:, 0] ** 2 / s0)
    b = np.exp(-0.5 * (x[:, 0] - 1) ** 2 / s1)
    plan = sinkhorn(a / a.sum(), b / b.sum(), x, x, epsilon)
    mean0, mean1 = plan.sum(1) @ x[:, 0], plan.sum(0) @ x[:, 0]
    found = (x[:, 0] - mean0) @ plan @ (x[:, 0] - mean1)
    assert found == pytest.approx(
        gaussian_sb_cross_covariance(np.eye(1) * s0, np.eye(1) * s1, epsilon)[0, 0], rel=1e-6
    )


def test_gaussian_bridge_formula_in_two_dimensions():
    """The plan's precision matrix has the block -1/eps between the ends; eps -> 0 is Monge."""
    s0 = np.array([[1.0, 0.5], [0.5, 0.8]])
    s1 = np.array([[0.6, -0.2], [-0.2, 1.5]])
    c = gaussian_sb_cross_covariance(s0, s1, 0.5)
    precision = np.linalg.inv(np.block([[s0, c], [c.T, s1]]))
    np.testing.assert_allclose(precision[:2, 2:], -np.eye(2) / 0.5, atol=1e-9)
    exact = monge_matrix(s0, s1)
    np.testing.assert_allclose(exact @ s0 @ exact.T, s1, atol=1e-9)
    np.testing.assert_allclose(gaussian_sb_cross_covariance(s0, s1, 1e-7), s0 @ exact.T, atol=1e-6)


@pytest.mark.parametrize("reference", ["brownian", "ou"])
def test_mean_matching_converges_to_the_bridge_as_steps_become_small(reference):
    """The method without networks: errors fall as 1/K, towards the closed form with `epsilon`."""
    errors = []
    for steps in (80, 160, 320):
        gammas = np.full(steps, 1.0 / steps)
        epsilon = make(
            time_steps=steps, gamma=1 / steps, schedule="flat", reference=reference
        ).epsilon
        found = ipf_of_lines(0.0, 1.0, 1.0, 0.36, gammas, 5, reference)
        c = gaussian_sb_cross_covariance(np.eye(1), 0.36 * np.eye(1), epsilon)[0, 0]
        errors.append(np.abs(np.subtract(found, (1.0, 0.36, c))))
    np.testing.assert_allclose(errors[1] / errors[0], 0.5, atol=0.12)
    np.testing.assert_allclose(errors[2] / errors[1], 0.5, atol=0.08)
    assert errors[2].max() < 0.004


# -- the transport -------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["brownian", pytest.param("ou", marks=pytest.mark.slow)])
def test_one_dimensional_gaussian_bridge(reference):
    """Mean, variance and cross-covariance, within 4 standard errors and the network's 2 %.

    Fails if sqrt(2 gamma) loses its 2, if the time labels of training are one step off, or if the
    target of the regression has the wrong sign (each was tried).
    """
    n, mean, std = 20_000, 1.0, 0.6
    bridge = make(time_steps=20, gamma=0.05, reference=reference)
    pairs = Pairs(normal(n, 1, 1), mean + std * normal(n, 1, 2))
    fit(bridge.phases(pairs, 3), SETTINGS, seed=3)
    x = normal(n, 1, 4)
    y = applied(bridge, x, {})
    line = ipf_of_lines(0.0, 1.0, mean, std**2, np.array(bridge.gammas), 3, reference)
    x, y = x.double().numpy()[:, 0], y.double().numpy()[:, 0]
    c = np.cov(x, y)[0, 1]
    assert y.mean() == pytest.approx(line[0], abs=4 * std / n**0.5 + 0.02)
    assert y.var() == pytest.approx(
        line[1], abs=4 * std**2 * (2 / n) ** 0.5 + 0.02 * line[1] + 0.01
    )
    spread = ((1.0 * std**2 + c**2) / n) ** 0.5
    assert c == pytest.approx(line[2], abs=4 * spread + 0.02)
    # and the closed form itself, with the error of 20 steps (known from `ipf_of_lines`) allowed
    exact = gaussian_sb_cross_covariance(np.eye(1), std**2 * np.eye(1), bridge.epsilon)[0, 0]
    assert c == pytest.approx(exact, abs=abs(line[2] - exact) + 4 * spread + 0.02)
    wrong = gaussian_sb_cross_covariance(np.eye(1), std**2 * np.eye(1), bridge.epsilon / 2)[0, 0]
    assert abs(c - wrong) > 0.05


@pytest.mark.slow
def test_two_dimensional_bridge_and_its_inverse():
    """Correlated Gaussians: marginals at both ends, and the whole cross-covariance matrix."""
    n = 20_000
    s0 = np.array([[1.0, 0.5], [0.5, 0.8]])
    s1 = np.array([[0.6, -0.2], [-0.2, 1.0]])
    root0, root1 = (torch.from_numpy(np.linalg.cholesky(s)).float() for s in (s0, s1))
    bridge = make(2, time_steps=20, gamma=0.03, iterations=4, steps_first=300, steps=200)
    pairs = Pairs(normal(n, 2, 1) @ root0.T, normal(n, 2, 2) @ root1.T)
    fit(bridge.phases(pairs, 3), SETTINGS, seed=3)
    x = normal(n, 2, 4) @ root0.T
    y = applied(bridge, x, {})
    joint = np.cov(np.hstack([x, y]).T)
    error = 4 * (2 / n) ** 0.5 + 0.04  # standard errors of a covariance of unit size; 20 steps
    np.testing.assert_allclose(joint[2:, 2:], s1, atol=error)
    c = gaussian_sb_cross_covariance(s0, s1, bridge.epsilon)
    np.testing.assert_allclose(joint[:2, 2:], c, atol=error)
    with torch.no_grad():
        back = bridge.inverse(pairs.target, {}, normal(n, bridge.noise_dim, 9))
    np.testing.assert_allclose(np.cov(back.T), s0, atol=error + 0.04)  # one phase older


@pytest.mark.slow
def test_conditions_steer_the_bridge():
    """Target mean equals one condition: the transported mean follows it, by name.

    Fails if conditions enter by position.
    """
    n = 8_000
    c = 2 * torch.rand(n, 1, generator=torch.Generator().manual_seed(1)) - 1
    d = torch.rand(n, 1, generator=torch.Generator().manual_seed(2))
    pairs = Pairs(0.5 * normal(n, 1, 1), c + 0.5 * normal(n, 1, 2), {"b": c, "a": d})
    bridge = make(1, {"b": 1, "a": 1}, time_steps=12, gamma=0.06)
    fit(bridge.phases(pairs, 3), SETTINGS, seed=3)
    for value in (-0.8, 0.8):
        named = {"a": d, "b": torch.full((n, 1), value)}  # another order than in training
        line = ipf_of_lines(0.0, 0.25, value, 0.25, np.array(bridge.gammas), 3, "brownian")
        assert applied(bridge, pairs.source, named).mean() == pytest.approx(line[0], abs=0.08)


def test_training_is_reproducible_and_paths_do_not_depend_on_the_loop():
    bridges = [
        make(cache_size=200, iterations=1, steps_first=8, steps=8, cache_refresh=2) for _ in "ab"
    ]
    pairs = Pairs(normal(500, 1, 1), 1 + normal(500, 1, 2))
    for bridge in bridges:
        fit(bridge.phases(pairs, 3), SETTINGS, seed=3)
    a, b = (bridge.state_dict() for bridge in bridges)
    assert all(torch.equal(a[name], b[name]) for name in a)
    # a batch is a pure function of step and generator, also across refreshes of the cache
    phase = next(iter(bridges[0].phases(pairs, 3)))
    late = phase.batch(6, np.random.default_rng(1))
    phase.batch(0, np.random.default_rng(1))
    again = phase.batch(6, np.random.default_rng(1))
    assert torch.equal(late[0], again[0]) and torch.equal(late[3], again[3])
    assert not torch.equal(late[0], phase.batch(0, np.random.default_rng(1))[0])


def test_first_paths_are_the_reference_process():
    """Variance of the reference chain grows by 2 gamma per step, and the answer points back."""
    n = 40_000
    bridge = make(time_steps=5, gamma=0.1, schedule="flat", cache_size=None, batch_size=n)
    pairs = Pairs(torch.zeros(n, 1), torch.zeros(n, 1))
    phase = next(iter(bridge.phases(pairs, 1)))
    point, t, conditions, target = phase.batch(0, np.random.default_rng(0))
    assert conditions == {}
    assert sorted(set(t.tolist())) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    for k, time in enumerate(sorted(set(t.tolist()))):
        here = point[t == time]
        expected = 2 * 0.1 * (k + 1)
        assert here.var() == pytest.approx(expected, rel=5 * (2 / len(here)) ** 0.5)
        # E[x_k | x_{k+1}] = x_{k+1} k / (k + 1); in units of sqrt(2 gamma)
        slope = (here * target[t == time]).mean() / (here**2).mean() * 0.2**0.5
        assert slope == pytest.approx(-1 / (k + 1), abs=5 / len(here) ** 0.5)


def test_time_label_of_sampling_is_that_of_training():
    """Every label that sampling asks for is trained, and for the same kernel (fault B4).

    Fails if sampling asks one step off, as it does with ``paper_compat=["B4"]``.
    """
    for faults, right in (((), True), (("B4",), False)):
        bridge = make(time_steps=4, gamma=0.1, schedule="flat", paper_compat=faults)
        for direction, network in (
            ("forward", bridge.forward_network), ("backward", bridge.backward_network),
        ):  # fmt: skip
            asked: list[float] = []
            network.register_forward_pre_hook(
                lambda _, args, to=asked: to.append(float(args[1][0]))
            )
            move = bridge.apply if direction == "forward" else bridge.inverse
            move(normal(3, 1, 1), {}, normal(3, bridge.noise_dim, 2))
            expected = [0.0, 0.25, 0.5, 0.75] if direction == "forward" else [1.0, 0.75, 0.5, 0.25]
            assert (asked == pytest.approx(expected)) is right


def test_faults_of_the_reference_code_change_what_they_say():
    pairs = Pairs(normal(64, 1, 1), normal(64, 1, 2))

    def second_batch(*faults: str):
        bridge = make(
            iterations=1, cache_size=64, batch_size=40, time_steps=4, steps_first=2, steps=2,
            schedule="flat", paper_compat=faults, network_options={**SMALL, "zero_init": False},
        )  # fmt: skip
        phases = bridge.phases(pairs, 1)
        next(phases)
        return next(phases).batch(1, np.random.default_rng(0))

    _, t, _, target = second_batch()
    assert t.max() == 0.75
    assert not torch.equal(second_batch("B2")[3], target)
    assert second_batch("B3")[1].max() < 0.02
    assert not torch.equal(second_batch("B4")[3], target)
    ordered = second_batch("B6")
    assert ordered[1].tolist() == [0.0, 0.25, 0.5, 0.75] * 10  # whole paths, one after the other
    with pytest.raises(
        ConfigError, match=r"cannot put back B5; paper_compat allows B2, B3, B4, B6"
    ):
        make(paper_compat=["B5"])


# -- interface -----------------------------------------------------------------------------------


def test_interface():
    bridge = make(3, {"e": 2}, time_steps=6)
    assert isinstance(bridge, Transport)
    assert (bridge.noise_dim, bridge.nfe) == (15, 6)
    x, c, z = normal(5, 3, 1), {"e": normal(5, 2, 2)}, normal(5, 15, 3)
    y = bridge.apply(x, c, z)
    assert y.shape == x.shape
    other = make(3, {"e": 2}, time_steps=6)
    other.load_state_dict(bridge.state_dict())
    assert torch.equal(other.apply(x, c, z), y)
    names = [phase.name for phase in bridge.phases(Pairs(x, x, c), 0)][:4]
    assert names == ["ipf-01-backward", "ipf-01-forward", "ipf-02-backward", "ipf-02-forward"]
    # untrained, the networks move nothing: only the noise is left, and none in the last step
    sigma = (2 * np.array(bridge.gammas[:-1])) ** 0.5
    noise = (z.reshape(5, 5, 3) * torch.from_numpy(sigma).float()[None, :, None]).sum(1)
    torch.testing.assert_close(y, x + noise)


def test_schedules():
    assert gamma_schedule("flat", 3, 0.1).tolist() == [0.1, 0.1, 0.1]
    np.testing.assert_allclose(gamma_schedule("triangular", 5, 0.3, 0.1), [0.1, 0.2, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(gamma_schedule("triangular", 4, 0.3, 0.1), [0.1, 0.3, 0.3, 0.1])
    assert make(gamma=0.001, time_steps=20, schedule="flat").epsilon == pytest.approx(0.04)
    ou = make(gamma=0.001, time_steps=20, schedule="flat", reference="ou")
    assert ou.epsilon == pytest.approx(2 * np.sinh(0.02), rel=2e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "levy"}, "unknown reference process 'levy'; allowed: brownian, ou"),
        ({"schedule": "cosine"}, "unknown gamma schedule 'cosine'; allowed: flat, triangular"),
        ({"gamma": 0.0}, "positive sizes"),
        ({"network": "tree"}, "unknown network 'tree' for dsb; allowed: mlp, conv"),
        ({"network": "conv"}, r"needs the option shape: \[height, width\] with 1 pixels"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


# -- networks ------------------------------------------------------------------------------------


def test_networks_have_the_size_of_the_published_ones():
    """Parameter counts of the reference code: 691,969 and 173,280."""
    energy = EncoderMLP(1, {"incident_energy": 1}, encoder=(256, 256, 256))
    shower = ConvNet((10, 10), {"incident_energy": 1, "e_fast": 1, "e_full": 1}, bias=False)
    assert sum(p.numel() for p in energy.parameters()) == 691_969
    assert sum(p.numel() for p in shower.parameters()) == 173_280


@pytest.mark.parametrize("zero_init", [True, False])
def test_networks_take_conditions_by_name(zero_init):
    torch.manual_seed(0)
    conditions = {"b": normal(4, 1, 1), "a": normal(4, 2, 2)}
    swapped = {"a": conditions["a"], "b": conditions["b"]}
    for net in (
        EncoderMLP(12, {"a": 2, "b": 1}, zero_init=zero_init),
        ConvNet((3, 4), {"b": 1, "a": 2}, zero_init=zero_init),
    ):
        x, t = normal(4, 12, 3), torch.rand(4)
        y = net(x, t, conditions)
        assert y.shape == x.shape
        assert torch.equal(y, net(x, t, swapped))
        assert (y == 0).all() == zero_init
        torch.testing.assert_close(net(x, t[:1], conditions), net(x, t[:1].expand(4), conditions))
        if not zero_init:
            assert not torch.allclose(y, net(x, t, conditions, torch.zeros_like(x)))


def test_conv_network_is_two_dimensional():
    """Symmetric kernels commute with a transposition; pixels far apart do not mix."""
    torch.manual_seed(0)
    net = ConvNet((24, 24), {}, layers=2, channels=8, zero_init=False).double()
    for p in net.parameters():
        if p.dim() == 4:
            p.data = p.data + p.data.transpose(2, 3)
    x = torch.zeros(1, 24, 24, dtype=torch.float64)
    x[0, 4, 9] = 1.0
    t = torch.rand(1, dtype=torch.float64)
    y, base = (net(v.reshape(1, -1), t, {}).reshape(24, 24) for v in (x, torch.zeros_like(x)))
    flipped = net(x.transpose(1, 2).reshape(1, -1), t, {}).reshape(24, 24)
    torch.testing.assert_close(flipped.T, y)
    moved = (y - base).abs() > 1e-12
    assert moved[4, 9] and not moved[9:, :].any() and not moved[:, 14:].any()  # 4 layers: reach 4
