"""Bayesian flows: their loss, their masks, and whether the spread of their draws can be believed."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import ndtri
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from hepbridge.core.errors import ConfigError, TrainingInterrupted
from hepbridge.core.protocols import Density, Pairs, Phase, Transport
from hepbridge.core.rng import stream
from hepbridge.networks.variational import VariationalLinear, variational_layers
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports.bayesian_flow import BayesianFlow
from hepbridge.transports.spline_flow import SplineFlow

KINDS = ["autoregressive", "coupling", "affine"]
SMALL = {"width": 16, "transforms": 2, "train_steps": 30, "batch_size": 32}


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(stream(seed, "test").standard_normal((n, d), np.float32))


def small(dim: int = 3, seed: int = 0, **options: object) -> BayesianFlow:
    torch.manual_seed(seed)
    return BayesianFlow(dim, {"c": 1}, **(SMALL | options))


def pairs(n: int, dim: int = 3) -> Pairs:
    return Pairs(normal(n, dim, 1), normal(n, dim, 2), {"c": normal(n, 1, 3)})


@pytest.mark.parametrize("kind", KINDS)
def test_means_are_a_plain_flow(kind: str) -> None:
    """Before training; with one variational layer for each network, or with all its layers."""
    torch.manual_seed(0)
    plain = SplineFlow(3, {"c": 1}, **SMALL, kind=kind).eval()
    x, c, z = normal(20, 3, 1), {"c": normal(20, 1, 2)}, normal(20, 3, 3)
    networks = len(plain.network.transforms)
    for variational, count in (("last", networks), ("all", 3 * networks)):
        flow = small(kind=kind, variational=variational).eval()
        assert isinstance(flow, Transport) and isinstance(flow, Density)
        assert len(variational_layers(flow)) == count
        torch.testing.assert_close(flow.apply(x, c, z), plain.apply(x, c, z), rtol=0, atol=1e-5)
    last = small(kind=kind, variational="last").network.transforms
    assert all(isinstance(part.hyper[-1], VariationalLinear) for part in last)


@pytest.mark.parametrize("rows", [100, 400])
def test_the_loss_is_the_likelihood_and_the_divergence_per_row(rows: int) -> None:
    """With hardly any noise: -ln p of the means, and torch's KL over the rows of the training set.

    Fails if the divergence is divided by the rows of the batch, or by nothing.
    """
    flow = small(log_sigma=-20.0, prior_precision=3.0).double()
    (phase,) = flow.phases(pairs(rows), 0)
    batch = phase.batch(0, stream(0, "batch"))
    x, c = batch["x"].double(), batch["c"].double()
    loss = phase.loss(phase.module, {**batch, "x": x, "c": c}).detach()
    prior = Normal(torch.tensor(0.0).double(), torch.tensor(3.0).double() ** -0.5)
    layers = variational_layers(flow)
    assert len(layers) == 3
    kl = 0.0
    for layer in layers:
        q = Normal(layer.bias.detach(), layer.bias_log_sigma.detach().exp())
        kl += float(kl_divergence(q, prior).sum())
        q = Normal(layer.weight.detach(), layer.log_sigma.detach().exp())
        used = 1.0 if layer.mask is None else layer.mask.double()
        kl += float((used * kl_divergence(q, prior)).sum())
    likelihood = flow.log_prob(x, {"source": c[:, :3], "c": c[:, 3:]}).mean().detach()
    assert float(loss + likelihood) == pytest.approx(kl / rows, rel=1e-6)


def test_noise_comes_with_the_batch() -> None:
    """The loss depends on its batch alone, and on the noise in it; torch's generator rests."""
    flow = small(log_sigma=-1.0)
    (phase,) = flow.phases(pairs(100), 0)
    state = torch.random.get_rng_state()
    batch = phase.batch(0, stream(0, "batch"))
    one, again = (phase.loss(phase.module, batch).item() for _ in range(2))
    assert one == again == phase.loss(phase.module, phase.batch(0, stream(0, "batch"))).item()
    assert abs(phase.loss(phase.module, {**batch, "seed": 1}).item() - one) > 1e-3
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("variational", ["last", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_draws_keep_the_masks(kind: str, variational: str) -> None:
    """The density of a draw is that of what it draws, by autograd's Jacobian one row at a time.

    Fails if a network of an autoregressive map sees coordinates that it must not.
    """
    flow = small(kind=kind, variational=variational, log_sigma=-1.0).double().drawn(0, 0)
    source, c, noise = (normal(4, d, k).double() for k, d in enumerate((3, 1, 3)))
    x = flow.apply(source, {"c": c}, noise)
    found = flow.log_prob(x, {"source": source, "c": c})
    for i in range(4):
        given = {"source": source[i : i + 1], "c": c[i : i + 1]}
        jacobian = torch.autograd.functional.jacobian(
            lambda z, given=given: flow.sample(given, z[None])[0], noise[i]
        )
        truth = norm.logpdf(noise[i].numpy()).sum() - float(torch.linalg.slogdet(jacobian)[1])
        assert float(found[i].detach()) == pytest.approx(truth, abs=1e-6)


def test_draws_are_numbered_copies() -> None:
    flow = small(log_sigma=-1.0).eval()
    x, c, z = normal(50, 3, 1), {"c": normal(50, 1, 2)}, normal(50, 3, 3)
    with torch.no_grad():
        mean = flow.apply(x, c, z)
        first, again, other, seeded = (
            flow.drawn(seed, k).apply(x, c, z) for seed, k in ((0, 0), (0, 0), (0, 1), (1, 0))
        )
        assert torch.equal(first, again) and torch.equal(flow.apply(x, c, z), mean)
        for different in (other, seeded, mean):
            assert (first - different).abs().max() > 0.01
        narrow = small(log_sigma=-15.0).eval()
        assert (narrow.drawn(0, 0).apply(x, c, z) - mean).abs().max() < 1e-3
    kept, state = flow.state_dict(), flow.drawn(0, 0).state_dict()
    assert kept.keys() == state.keys()
    assert all(torch.equal(kept[name], state[name]) for name in kept)


def test_resumed_training_gives_the_same_weights(tmp_path: Path) -> None:
    """Cut after 17 of 30 steps. Fails if the noise of the weights comes from a generator of its own."""
    settings = TrainingSettings(checkpoint_every=7, threads=1)
    file = tmp_path / "flow.ckpt"

    def phases(flow: BayesianFlow, stop: int | None = None) -> list[Phase]:
        (phase,) = flow.phases(pairs(200), 0)

        def batch(step: int, rng: np.random.Generator) -> dict:
            if step == stop:
                signal.raise_signal(signal.SIGTERM)
            return phase.batch(step, rng)

        return [replace(phase, batch=batch)]

    whole, cut = small(log_sigma=-2.0), small(log_sigma=-2.0)
    fit(phases(whole), settings, seed=0)
    with pytest.raises(TrainingInterrupted):
        fit(phases(cut, stop=16), settings, seed=0, checkpoint=file)
    resumed = small(seed=1, log_sigma=-2.0)
    fit(phases(resumed), settings, seed=0, checkpoint=file, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert all((layer.weight_spread != 0.0).all() for layer in variational_layers(whole)[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variational": "some"}, "unknown variational 'some'; allowed: last, all"),
        ({"prior_precision": 0.0}, "prior_precision must be positive, got 0.0"),
        ({"log_sigma": 5}, "log_sigma must be from -20 to 2, got 5"),
        ({"transform": 3}, "has no option 'transform'; did you mean 'transforms'"),
        ({"kind": "spline"}, "unknown kind 'spline'"),
        ({"dim": 1}, "set kind: autoregressive"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BayesianFlow(**({"dim": 3, "condition_dims": {}} | options))


EDGES = np.linspace(-2.0, 2.0, 9)


def shares(mean: np.ndarray, width: np.ndarray) -> np.ndarray:
    """What normal distributions have in the bins of each coordinate."""
    return np.diff(norm.cdf((EDGES[:, None] - mean) / width), axis=0).T.ravel()


@pytest.mark.slow
def test_the_spread_of_draws_is_the_standard_error_of_histograms() -> None:
    """Two correlated normal coordinates, 500 and 8000 training rows, 20 draws from the posterior.

    The standard errors of the bins are those of fits of a normal distribution to bootstrap replicas
    of the rows. The spread of the draws is theirs within a factor of two (the true posterior has
    correlated weights, this one has not), falls with the root of the rows, by 4, loosely, and covers
    the truth and the fit. Fails if the divergence is not divided by the rows.
    """
    grid = ndtri((np.arange(100) + 0.5) / 100)
    noise = torch.from_numpy(np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)).float()
    truth, spread, pull = shares(np.zeros(2), np.ones(2)), [], []
    for n in (500, 8000):
        rows = stream(0, "rows", n).multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], n)
        fits = [shares(rows.mean(axis=0), rows.std(axis=0))]
        for k in range(200):
            some = rows[stream(k, "bootstrap").integers(0, n, n)]
            fits.append(shares(some.mean(axis=0), some.std(axis=0)))
        error = np.std(fits[1:], axis=0)
        torch.manual_seed(0)
        options = {"kind": "affine", "transforms": 2, "width": 4, "depth": 1, "batch_size": 128}
        options |= {"train_steps": 800, "learning_rate": 5e-3, "condition_on_source": False}
        flow = BayesianFlow(2, {}, **options, log_sigma=-3.0)
        target = torch.from_numpy(rows).float()
        settings = TrainingSettings(ema_decay=0.99, threads=1)
        fit(flow.phases(Pairs(torch.zeros_like(target), target), 0), settings, seed=0)
        found = []
        for k in range(20):
            with torch.no_grad():
                x = flow.eval().drawn(0, k).apply(noise, {}, noise).numpy()
            found.append([np.histogram(x[:, i], EDGES)[0] / len(x) for i in range(2)])
        draws = np.reshape(found, (20, -1))
        spread.append(np.mean(draws.var(axis=0, ddof=1)) ** 0.5)
        ratio = spread[-1] / np.mean(error**2) ** 0.5
        for where in (truth, fits[0]):
            off = (draws.mean(axis=0) - where) / draws.std(axis=0, ddof=1)
            pull.append(np.mean(off**2) ** 0.5)
        assert 0.7 < ratio < 2.0
    assert 2.5 < spread[0] / spread[1] < 6.0
    assert max(pull) < 2.5
