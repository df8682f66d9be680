"""The refiner trained on a discrepancy: its batches, its stationary point, and what it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import gamma, norm
from torch import Tensor, nn

from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Pairs
from hepbridge.core.rng import stream
from hepbridge.data import SQUIRELS
from hepbridge.systems.recipe import load_recipe
from hepbridge.systems.squirels import Squirels
from hepbridge.training import TrainingSettings, fit
from hepbridge.transports.mmd import MMD

TINY = {"width": 8, "depth": 1}
SMALL = {"width": 32, "depth": 2, "window": 64, "windows": 4}


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(stream(seed, "mmd").standard_normal(shape, dtype=np.float32))


def trained(refiner: MMD, pairs: Pairs) -> MMD:
    (phase,) = refiner.phases(pairs, 0)
    fit(iter([phase]), TrainingSettings(ema_decay=0.98), seed=0, device="cpu")
    return refiner.eval().requires_grad_(False)


def numbered(coupled: bool) -> Pairs:
    """Row i is (i, i) in the source, (-i, -i) in the target; the condition sorts the rows."""
    i = torch.arange(200.0)[:, None].expand(-1, 2)
    return Pairs(i, -i, {"c": i[:, :1] / 100}, order="c", coupled=coupled)


@pytest.mark.parametrize("coupled", [False, True])
def test_a_window_compares_different_rows_of_neighbours(coupled: bool) -> None:
    refiner = MMD(2, {"c": 1}, window=10, windows=3, **TINY)
    (phase,) = refiner.phases(numbered(coupled), 0)
    batch = phase.batch(0, stream(0, "batch"))
    for k in range(3):
        source, target = batch["source"][k, :, 0], -batch["target"][k, :, 0]
        rows = sorted([*source.tolist(), *target.tolist()])
        assert rows == list(np.arange(rows[0], rows[0] + 20))  # none twice, no gaps
        assert torch.equal(batch["c"][k, :, 0], source / 100)
        assert torch.equal(batch["c_target"][k, :, 0], target / 100)
        partner = -source if coupled else source
        assert torch.equal(batch["partner"][k, :, 0], partner)


def test_the_pull_to_the_partner_ends_halfway() -> None:
    """It decides which map is found, and must not hold back where the map ends."""
    (phase,) = MMD(2, {"c": 1}, train_steps=100, **TINY).phases(numbered(False), 0)
    weights = [float(phase.batch(step, stream(0, "batch"))["weight"].mean()) for step in range(100)]
    np.testing.assert_allclose(weights[:50], 0.01 * (1 - np.arange(50) / 50), rtol=1e-6)
    assert weights[50:] == [0.0] * 50


class Shift(nn.Module):
    """f(x, c) = b."""

    def __init__(self, b: float) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor([b]))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.b.expand(len(x), 1)


def test_stationary_point_of_a_shift() -> None:
    """N(0, 1) moved by b towards N(mu, 1): 2 erf((mu - b) / 2) = 2 lambda b in closed form.

    Fails if lambda is doubled, if the discrepancy is biased, or if source and target share rows.
    """
    mu, weight = 1.0, 0.3
    best = brentq(lambda b: math.erf((mu - b) / 2) - weight * b, 0.0, mu)
    refiner = MMD(1, {}, displacement=weight, window=8, windows=100, **TINY)
    pairs = Pairs(normal(0, 50_000, 1), normal(1, 50_000, 1) + mu)
    (phase,) = refiner.phases(pairs, 0)

    def slope(b: float) -> tuple[float, float]:
        found = []
        for step in range(100):
            module = Shift(b)
            phase.loss(module, phase.batch(0, stream(step, "batch"))).backward()
            found.append(float(module.b.grad))
        # the sample of 50,000 + 50,000 rows is drawn from again and again: its own error too
        return float(np.mean(found)), float(np.hypot(np.std(found) / 10, (2 / len(pairs)) ** 0.5))

    mean, error = slope(best)
    assert abs(mean) < 4 * error
    assert slope(best + 0.1)[0] > 8 * error and slope(best - 0.1)[0] < -8 * error


def test_untrained_is_the_identity() -> None:
    refiner = MMD(3, {"c": 1}, carried=1, **TINY)
    x = normal(2, 20, 3)
    assert torch.equal(refiner.apply(x, {"c": x[:, :1]}), x)
    assert refiner.nfe == 1 and refiner.noise_dim == 0


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"kernel": "gaussian", "scales": [1.0, 3.0]}])
def test_one_variable_is_moved_by_its_monotone_map(options: dict) -> None:
    """N(0, 1) to a gamma distribution: of all maps, the nearest is the one of the quantiles.

    Fails if the pull to the source does not end (by a third of a standard deviation).
    """
    shape = 3.0
    target = stream(3, "mmd").gamma(shape, size=(10_000, 1)).astype(np.float32)
    torch.manual_seed(0)
    refiner = MMD(1, {}, train_steps=500, learning_rate=3e-3, **SMALL, **options)
    trained(refiner, Pairs(normal(4, 10_000, 1), torch.from_numpy(target)))
    p = np.linspace(0.1, 0.9, 17)
    x = torch.from_numpy(norm.ppf(p)[:, None]).float()
    truth = gamma.ppf(p, shape)
    error = np.abs(refiner.apply(x, {})[:, 0].numpy() - truth) / shape**0.5
    # a quantile of 10,000 rows is known to 0.01 to 0.025; the network was trained for seconds
    assert error.max() < 5 * 0.025 and error.mean() < 5 * 0.01


@pytest.mark.slow
def test_the_carried_part_and_unordered_conditions_steer_the_others() -> None:
    """Target = noise + carried + 2 sign: fails if carried part or conditions are not compared."""
    n = 10_000
    sign = torch.from_numpy(stream(5, "mmd").choice([-1.0, 1.0], (n, 1))).float()
    source, target = normal(6, n, 2), normal(7, n, 2)
    target[:, :1] += target[:, 1:] + 2 * sign
    torch.manual_seed(0)
    refiner = MMD(2, {"sign": 1}, carried=1, train_steps=700, learning_rate=3e-3, **SMALL)
    trained(refiner, Pairs(source, target, {"sign": sign}))
    x = normal(8, n, 2)
    y = refiner.apply(x, {"sign": sign})
    assert torch.equal(y[:, 1], x[:, 1])
    design = torch.cat([x[:, 1:], sign, torch.ones(n, 1)], dim=1)
    found = torch.linalg.lstsq(design, y[:, :1]).solution[:, 0]
    assert (found - torch.tensor([1.0, 2.0, 0.0])).abs().max() < 0.12
    rest = y[:, 0] - design @ found
    assert abs(float(rest.std()) - 1) < 0.15


def test_recipe_builds_a_refiner_of_one_evaluation() -> None:
    settings = ["model.symmetry=none", "model.dense=2", "model.conditions=[]"]
    settings += ["model.joint_zeros=false", "model.match_moments=false"]
    chosen = load_recipe("squirels-mmd", overrides=settings)
    refiner = Squirels(chosen.system_config(), SQUIRELS)
    assert isinstance(refiner.transport, MMD) and refiner.nfe == 1
    factors = refiner.transport.factors
    assert torch.equal(factors, factors[:1].expand(len(factors)))  # no coordinate counts more


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": 0}, "windows must be a whole number from 1"),
        ({"window": 1}, "window must be a whole number from 2"),
        ({"depth": "deep"}, "depth must be a whole number from 1"),
        ({"kernel": "laplace"}, "unknown kernel 'laplace'; allowed: energy, gaussian"),
        ({"scales": [1.0, -1.0]}, "scales must be positive numbers"),
        ({"scales": []}, "scales must be positive numbers"),
        ({"displacement": -1.0}, "displacement must be at least 0"),
        ({"carried": 3}, "carried must be from 0 to 2"),
        ({"weights": [1.0]}, "weights must be 3 positive numbers"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MMD(3, {}, **options)


@pytest.mark.parametrize(("n", "dim"), [(100, 2), (3, 3)])
def test_pairs_that_do_not_fit_are_refused(n: int, dim: int) -> None:
    pairs = Pairs(torch.zeros(n, dim), torch.zeros(n, dim))
    with pytest.raises(ConfigError, match=r"for 3 coordinates got 2|at least 4 rows, got 3"):
        next(MMD(3, {}, **TINY).phases(pairs, 0))
