"""Every registered transport, held to what it claims, on problems with closed-form truth.

The problem: with a condition c in [-1, 1], the source is N(0, S0) and the target N(m(c), S1), both in
two dimensions, so that the marginals, the joint, the Monge map and the Schrödinger bridge are known.
A transport that is added to the registry is tested without touching this file.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from hepbridge.core.protocols import Pairs, Transport
from hepbridge.core.rng import stream
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports import TRANSPORTS
from oracles import gaussian_sb_cross_covariance, monge_matrix

pytestmark = pytest.mark.slow

S0 = np.array([[1.0, 0.3], [0.3, 0.5]])
S1 = np.array([[0.6, -0.3], [-0.3, 1.2]])
N = 8000

SMALL: dict[str, dict[str, Any]] = {
    "flow_matching": {"train_steps": 1200, "width": 64, "depth": 2, "window": 64, "windows": 8},
    "mmd": {"train_steps": 1200, "width": 64, "depth": 2, "window": 64, "windows": 8},
    "light_sb": {"components": 3, "train_steps": 800, "learning_rate": 1e-2},
    "i2sb": {"train_steps": 1200, "width": 64, "depth": 2, "window": 64, "windows": 8},
    "spline_flow": {"train_steps": 800, "transforms": 2, "width": 32, "batch_size": 256},
    "inverse_flow": {
        "teacher_options": {
            "train_steps": 800,
            "transforms": 2,
            "width": 32,
            "batch_size": 256,
        },
        "train_steps": 400,
    },
    "bayesian_flow": {"kind": "affine", "train_steps": 800, "transforms": 2, "width": 32},
    "diffusion": {"train_steps": 1200, "width": 64, "depth": 2, "batch_size": 256},
    "edm": {"train_steps": 1200, "width": 64, "depth": 2, "batch_size": 256},
    "mean_flow": {"train_steps": 1500, "width": 64, "depth": 2, "window": 64, "windows": 8},
    "consistency": {
        "teacher_options": {"train_steps": 1200, "width": 64, "depth": 2, "batch_size": 256},
        "train_steps": 800,
    },
    "distilled": {
        "teacher_options": {
            "train_steps": 1200,
            "width": 64,
            "depth": 2,
            "window": 64,
            "windows": 8,
        },
        "train_steps": 1500,
        "width": 64,
        "depth": 2,
    },
    "staged_flow": {
        "first": {"train_steps": 800, "width": 64, "depth": 2, "window": 64, "windows": 8},
        "then": {
            "train_steps": 1200,
            "width": 64,
            "depth": 2,
            "window": 64,
            "windows": 8,
            "carried_weight": 30.0,  # here the two coordinates depend on each other
        },
    },
    "dsbm": {
        "sigma": 0.7,
        "iterations": 3,
        "steps_first": 500,
        "steps": 300,
        "width": 64,
        "depth": 2,
        "windows": 4,
    },
    "dsb": {
        "iterations": 4,
        "steps_first": 800,
        "steps": 500,
        "batch_size": 1024,
        "gamma": 0.05,
        "network_options": {"encoder": (64, 64), "decoder": (64, 64), "embedding": 16},
    },
}
# How far a trained network may be from the truth, in units of the target's standard deviation,
# beyond five standard errors of the samples: the error of a small network, trained for seconds.
MODEL_ERROR = 0.06


def shift(c: np.ndarray) -> np.ndarray:
    return np.stack([1.0 + 0.5 * c, -c], axis=1)


def problem(n: int, seed: int) -> Pairs:
    rng = stream(seed, "conformance")
    c = rng.uniform(-1, 1, n)
    source = rng.multivariate_normal(np.zeros(2), S0, n)
    target = rng.multivariate_normal(np.zeros(2), S1, n) + shift(c)
    tensors = (torch.from_numpy(a).float() for a in (source, target, c[:, None]))
    x0, x1, cond = tensors
    return Pairs(x0, x1, {"c": cond}, order="c")


@cache
def trained(name: str) -> Any:
    torch.manual_seed(0)
    transport = TRANSPORTS[name](2, {"c": 1}, **SMALL.get(name, {}))
    settings = TrainingSettings(ema_decay=0.99)
    fit(transport.phases(problem(N, 0), 0), settings, seed=0, device="cpu")
    return transport.eval()


def moved(name: str, pairs: Pairs, seed: int = 0) -> torch.Tensor:
    transport = trained(name)
    noise = torch.from_numpy(
        stream(seed, "noise").standard_normal((len(pairs), transport.noise_dim))
    )
    with torch.no_grad():
        return transport.apply(pairs.source, pairs.conditions, noise.float())


# What claims that its output follows p(target | source): (registered name, options), beside those
# of which the class does. A student claims what its teacher does.
STUDENT = {"train_steps": 1500, "width": 64, "depth": 2, "images": 4}
POSTERIOR: dict[str, tuple[str, dict[str, Any]]] = {
    "i2sb-implicit": ("i2sb", SMALL["i2sb"] | {"sampler": "implicit", "steps": 10}),
    "coupling_flow": ("spline_flow", SMALL["spline_flow"] | {"kind": "coupling"}),
    "edm-on-source": ("edm", SMALL["edm"] | {"condition_on_source": True}),
    **{
        f"student-of-{name}": (
            "distilled",
            {"teacher": name, "teacher_options": SMALL[name] | more, **STUDENT},
        )
        for name, more in (
            ("i2sb", {"sampler": "implicit", "steps": 10}),
            ("spline_flow", {}),
            ("diffusion", {"steps": 10}),
        )
    },
}


def claiming(claim: str) -> list[str]:
    return [name for name in TRANSPORTS if getattr(TRANSPORTS[name].claims, claim)]


@pytest.mark.parametrize("name", list(TRANSPORTS))
def test_protocol_shapes_and_seeds(name: str) -> None:
    pairs = problem(64, 1)
    transport = trained(name)
    assert isinstance(transport, Transport)
    assert transport.nfe >= 0
    out = moved(name, pairs)
    assert out.shape == (64, 2) and out.dtype == torch.float32 and torch.isfinite(out).all()
    assert torch.equal(out, moved(name, pairs))


@pytest.mark.parametrize("name", list(TRANSPORTS))
def test_saved_and_rebuilt_gives_the_same_bits(name: str) -> None:
    pairs = problem(64, 2)
    rebuilt = TRANSPORTS[name](2, {"c": 1}, **SMALL.get(name, {}))
    rebuilt.load_state_dict(trained(name).state_dict())
    noise = torch.from_numpy(stream(0, "noise").standard_normal((64, rebuilt.noise_dim))).float()
    with torch.no_grad():
        assert torch.equal(
            rebuilt.eval().apply(pairs.source, pairs.conditions, noise), moved(name, pairs)
        )


@pytest.mark.parametrize("name", list(TRANSPORTS))
def test_every_parameter_learns(name: str) -> None:
    """Each phase's loss reaches every parameter of the module that it names."""
    transport = TRANSPORTS[name](2, {"c": 1}, **SMALL.get(name, {}))
    torch.manual_seed(1)
    for phase in transport.phases(problem(500, 3), 0):
        with torch.no_grad():  # away from zero-initialised layers, which stop the gradient at first
            for p in phase.module.parameters():
                p.add_(0.01 * torch.randn_like(p))
        rng = stream(0, "batch")
        if phase.prepare is not None:
            phase.prepare(stream(0, "prepare"))
        phase.loss(phase.module, phase.batch(0, rng)).backward()
        for key, p in phase.module.named_parameters():
            assert p.grad is not None and torch.isfinite(p.grad).all(), key
            assert p.grad.abs().sum() > 0, key
        break


@pytest.mark.parametrize("name", claiming("marginals"))
@pytest.mark.parametrize("at", [-0.8, 0.0, 0.8])
def test_claim_marginals(name: str, at: float) -> None:
    """Mean and variance of each coordinate at a fixed condition; fails if conditions are shuffled."""
    pairs = problem(6000, 4)
    pairs.conditions["c"][:] = at
    y = moved(name, pairs).numpy().astype(float)
    truth, variance = shift(np.array([at]))[0], np.diag(S1)
    slack = (
        2 * TRANSPORTS[name](2, {"c": 1}, **SMALL.get(name, {})).gammas[-1] if name == "dsb" else 0
    )
    assert np.all(np.abs(y.mean(0) - truth) < (5 / len(y) ** 0.5 + MODEL_ERROR) * variance**0.5)
    error = (5 * (2 / len(y)) ** 0.5 + 2 * MODEL_ERROR) * variance + slack
    assert np.all(np.abs(y.var(0) - variance) < error)


@pytest.mark.parametrize("name", claiming("joint"))
def test_claim_joint(name: str) -> None:
    """The correlation of the target, which has the other sign than that of the source."""
    pairs = problem(6000, 5)
    pairs.conditions["c"][:] = 0.3
    y = moved(name, pairs).numpy().astype(float)
    found, truth = np.corrcoef(y.T)[0, 1], S1[0, 1] / (S1[0, 0] * S1[1, 1]) ** 0.5
    assert abs(found - truth) < 5 * (1 - truth**2) / len(y) ** 0.5 + MODEL_ERROR


@pytest.mark.parametrize("name", claiming("coupling"))
def test_claim_coupling(name: str) -> None:
    """Input and output keep a positive rank correlation at fixed condition."""
    pairs = problem(4000, 6)
    pairs.conditions["c"][:] = 0.0
    y = moved(name, pairs).numpy()
    for i in range(2):
        assert spearmanr(pairs.source[:, i], y[:, i]).statistic > 0.3


# Smearing: the target x is N(0, S1), its source y = A x + e with e from N(0, R).
SMEAR = np.array([[0.9, 0.3], [-0.2, 0.8]])
NOISE = np.array([[0.3, 0.1], [0.1, 0.2]])


def smeared(n: int, seed: int) -> Pairs:
    rng = stream(seed, "smeared")
    x = rng.multivariate_normal(np.zeros(2), S1, n)
    y = x @ SMEAR.T + rng.multivariate_normal(np.zeros(2), NOISE, n)
    return Pairs(torch.from_numpy(y).float(), torch.from_numpy(x).float(), coupled=True)


@pytest.mark.parametrize("name", [*claiming("posterior"), *POSTERIOR])
def test_claim_posterior(name: str) -> None:
    """Mean, covariance and coverage of the draws for a source, against the closed form.

    Fails for targets of exchanged rows (the spread is that of the prior) and for a source that the
    transport does not see.
    """
    registered, options = POSTERIOR.get(name, (name, SMALL.get(name, {})))
    torch.manual_seed(0)
    transport = TRANSPORTS[registered](2, {}, **options)
    assert transport.claims.posterior
    fit(transport.phases(smeared(N, 0), 0), TrainingSettings(ema_decay=0.99), seed=0, device="cpu")
    n, m = 1000, 74  # sources, draws for each
    pairs = smeared(n, 1)
    noise = stream(0, "noise").standard_normal((n * m, transport.noise_dim), dtype=np.float32)
    with torch.no_grad():
        rows = pairs.source.repeat_interleave(m, dim=0)
        drawn = transport.eval().apply(rows, {}, torch.from_numpy(noise))
    y, x = pairs.source.numpy().astype(float), pairs.target.numpy().astype(float)
    draws = drawn.numpy().astype(float).reshape(n, m, 2)
    gain = S1 @ SMEAR.T @ np.linalg.inv(SMEAR @ S1 @ SMEAR.T + NOISE)
    covariance = S1 - gain @ SMEAR @ S1
    width = np.diag(covariance) ** 0.5
    off = draws - (y @ gain.T)[:, None]
    # the mean of the draws of each source: what is beyond their standard error is the network's
    per_source = off.mean(axis=1) / width
    chi = (per_source**2).mean(axis=0) - 1 / m
    assert np.all(chi < 5 * (2 / n) ** 0.5 / m + (2.5 * MODEL_ERROR) ** 2)
    spread = np.cov(off.reshape(-1, 2).T)
    error = (5 * (2 / (n * m)) ** 0.5 + 2 * MODEL_ERROR) * np.outer(width, width)
    assert np.all(np.abs(spread - covariance) < error)
    # coverage: how many draws are below the true target is uniform on 0 .. m, in the middle
    below = (draws < x[:, None]).sum(axis=1)
    for half, share in ((25, 0.68), (35, 0.947)):
        inside = (np.abs(below - m // 2) <= half).mean(axis=0)
        assert (2 * half + 1) / (m + 1) == pytest.approx(share, abs=1e-3)
        error = 4 * (share * (1 - share) / n) ** 0.5 + 0.5 * MODEL_ERROR
        assert np.all(np.abs(inside - share) < error), inside


@pytest.mark.parametrize("name", claiming("optimal"))
def test_claim_optimal(name: str) -> None:
    """The closed-form Monge map of Gaussians; fails for the independent coupling."""
    pairs = problem(4000, 7)
    y = moved(name, pairs).numpy().astype(float)
    c = pairs.conditions["c"].numpy()[:, 0].astype(float)
    truth = pairs.source.numpy() @ monge_matrix(S0, S1).T + shift(c)
    rms = ((y - truth) ** 2).mean(0) ** 0.5
    # in windows of 64 rows the assignment itself scatters around the map, which a finite
    # training set leaves in the velocity as a shrinkage of a few per cent
    assert np.all(rms < 3 * MODEL_ERROR * np.diag(S1) ** 0.5)


@pytest.mark.parametrize("name", claiming("entropic"))
def test_claim_entropic(name: str) -> None:
    """Cross-covariance of the closed-form Schrödinger bridge with the same regulariser."""
    pairs = problem(6000, 8)
    transport = trained(name)
    pairs.conditions["c"][:] = 0.0
    y = moved(name, pairs).numpy().astype(float)
    x = pairs.source.numpy().astype(float)
    found = (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)
    truth = gaussian_sb_cross_covariance(S0, S1, transport.epsilon)
    scale = np.sqrt(np.outer(np.diag(S0), np.diag(S1)))
    assert np.all(np.abs(found - truth) < (5 / len(x) ** 0.5 + 2 * MODEL_ERROR) * scale)


@pytest.mark.parametrize("name", claiming("invertible"))
def test_claim_invertible(name: str) -> None:
    pairs = problem(2000, 9)
    transport = trained(name)
    with torch.no_grad():
        back = transport.inverse(moved(name, pairs), pairs.conditions)
    error = (back - pairs.source).square().mean().sqrt()
    assert error < 0.01


@pytest.mark.parametrize("name", list(TRANSPORTS))
def test_claim_deterministic(name: str) -> None:
    """Other noise gives the same output exactly if, and only if, the method claims so."""
    pairs = problem(256, 10)
    same = torch.equal(moved(name, pairs, 0), moved(name, pairs, 1))
    assert same == TRANSPORTS[name].claims.deterministic
