"""The paper's system: preprocessing, conditions, faults that can be put back, recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from hepbridge import recipes
from hepbridge.core.errors import ConfigError
from hepbridge.data import sample
from hepbridge.data.geometry import SQUIRELS, Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.squirels_paper import (
    BridgeConfig,
    SquirelsPaper,
    SquirelsPaperConfig,
    watched,
)
from hepbridge.systems.train import train
from hepbridge.training import TrainingSettings, fit

TINY = {"iterations": 1, "steps_first": 2, "steps": 2, "batch_size": 16, "cache_size": 32,
        "learning_rate": 1e-3, "normalised": True}  # fmt: skip
SMALL = {
    "energy": {**TINY, "network_options": {"encoder": [16, 16], "decoder": [16], "embedding": 8}},
    "shower": {**TINY, "network_options": {"channels": 4, "time_encoder": [8], "embedding": 8}},
}


def showers(n: int, seed: int, width: float) -> Showers:
    """Round showers of energies 10 to 100 GeV whose outermost corner cell is always empty."""
    rng = np.random.default_rng(seed)
    energy = np.random.default_rng(99).uniform(1e4, 1e5, n)
    x, y = np.indices((10, 10)) - 4.5
    mean = np.exp(-np.hypot(x, y) / width).reshape(-1)
    cells = rng.gamma(4.0, mean[None, :] / 4.0, (n, 100))
    cells[:, 0] = 0.0
    cells *= (energy * rng.normal(0.99, 0.004, n) / cells.sum(1))[:, None]
    return Showers.from_arrays(cells, energy)


@pytest.fixture(scope="module")
def samples() -> tuple[Showers, Showers]:
    return showers(400, 1, 0.7), showers(400, 2, 0.8)


def built(samples: tuple[Showers, Showers], **config: object) -> SquirelsPaper:
    torch.manual_seed(0)
    refiner = SquirelsPaper(SquirelsPaperConfig(**{**SMALL, **config}), SQUIRELS)
    refiner.fit(*samples, seed=0)
    return refiner


def refined(refiner: SquirelsPaper, fast: Showers, noise: torch.Tensor | None = None) -> np.ndarray:
    if noise is None:
        noise = torch.zeros(len(fast), refiner.noise_dim)
    energy = torch.from_numpy(fast.incident_energy)
    with torch.no_grad():
        out = refiner.refine(torch.from_numpy(fast.cells), {"incident_energy": energy}, noise)
    assert out.dtype == torch.float32
    return out.numpy()


def test_untrained_refiner_without_noise_changes_the_standardisation_only(samples):
    """Identity bridges: z-scores of the fast side are read with the statistics of the full side.

    The reference is the paper's formula in NumPy. Fails if sides are mixed up, if negative cells
    are cut after the scaling, or if the sum is not that of the energy bridge.
    """
    fast, full = samples
    refiner = built(samples)
    assert refiner.noise_dim == 19 * 1 + 19 * 100
    assert refiner.nfe == 40
    r_fast, r_full = fast.e_sum / fast.incident_energy, full.e_sum / full.incident_energy
    ratio = (r_fast - r_fast.mean()) / r_fast.std() * r_full.std() + r_full.mean()
    f_fast, f_full = (s.cells / s.e_sum[:, None] for s in (fast, full))
    std_fast, std_full = (np.where(f.std(0) > 0, f.std(0), 1.0) for f in (f_fast, f_full))
    f = (f_fast - f_fast.mean(0)) / std_fast * std_full + f_full.mean(0)
    assert (f < 0).any()
    f = np.maximum(f, 0.0)
    expected = f / f.sum(1, keepdims=True) * (ratio * fast.incident_energy)[:, None]
    out = refined(refiner, fast)
    np.testing.assert_allclose(out, expected, rtol=2e-4, atol=0.05)
    np.testing.assert_allclose(out.sum(1), ratio * fast.incident_energy, rtol=3e-6)
    assert (out[:, 0] == 0).all()  # a cell without any variation: no NaN


def test_fault_b7_biases_the_energy_sum_upwards(samples):
    noise = torch.randn(400, 1919, generator=torch.Generator().manual_seed(1))
    right = refined(built(samples), samples[0], noise).sum(1)
    wrong = refined(built(samples, paper_compat=["B7"]), samples[0], noise).sum(1)
    assert (wrong >= right * (1 - 1e-6)).all()
    assert wrong.mean() > right.mean() * 1.0001


def test_conditions_in_refinement_are_those_of_training(samples):
    """The shower bridge sees the same standardisation in training and refinement (fault B1).

    Where the energy bridge is the identity and both sides are one sample, ``e_full`` of a shower in
    refinement must equal ``e_full`` of its training pair. Fails with ``paper_compat=["B1"]``.
    """
    fast, _ = samples

    def conditions_of(*faults: str) -> tuple[dict, dict]:
        refiner = built((fast, fast), paper_compat=list(faults))
        seen: list[dict] = []
        refiner.shower.apply = lambda x, c, z: seen.append(c) or x  # type: ignore[method-assign]
        refined(refiner, fast)
        pairs: list[dict] = []
        refiner.shower.phases = lambda pairs_, seed: pairs.append(pairs_.conditions) or []  # type: ignore[method-assign]
        list(refiner.phases(fast, fast, 0))
        return seen[0], pairs[0]

    refining, training = conditions_of()
    assert set(refining) == set(training) == {"incident_energy", "e_fast", "e_full"}
    for name in training:
        np.testing.assert_allclose(refining[name], training[name], atol=2e-5)
    refining, training = conditions_of("B1")
    np.testing.assert_allclose(refining["e_fast"], training["e_full"], atol=2e-5)
    assert np.corrcoef(refining["e_full"][:, 0], training["incident_energy"][:, 0])[0, 1] < 0.3
    assert np.corrcoef(training["e_full"][:, 0], training["incident_energy"][:, 0])[0, 1] > 0.99


def test_degenerate_showers_stay_finite(samples):
    refiner = built(samples)
    fast = samples[0][:4]
    cells = fast.cells.copy()
    cells[0] = 0.0
    cells[1] = 0.0
    cells[1, 0] = 5.0  # all energy in the cell that is always empty
    noise = 30 * torch.ones(4, refiner.noise_dim)
    for sign in (1, -1):
        out = refined(refiner, fast.with_cells(cells), sign * noise)
        assert np.isfinite(out).all() and (out >= 0).all()
        assert (out[0] == 0).all()


def test_phases_train_and_state_rebuilds_the_refiner(samples):
    refiner = built(samples)
    looked: list[str] = []
    fit(watched(refiner.phases(*samples, seed=3), looked.append), TrainingSettings(), seed=3)
    halves = ["ipf-01-backward", "ipf-01-forward"]
    assert looked == [f"{stage}-{half}" for stage in ("energy", "shower") for half in halves]
    assert refiner.planned_steps == 8
    again = SquirelsPaper(refiner.config, SQUIRELS)
    again.load_state_dict(refiner.state_dict())
    noise = torch.randn(400, refiner.noise_dim, generator=torch.Generator().manual_seed(1))
    out = refined(refiner, samples[0], noise)
    assert np.array_equal(refined(again, samples[0], noise), out)
    assert (out >= 0).all()
    assert not np.allclose(out, refined(built(samples), samples[0], noise))  # it has learned


@pytest.mark.slow
def test_faults_can_be_trained_with(samples):
    refiner = built(samples, paper_compat=["B1", "B2", "B3", "B4", "B6", "B7"])
    fit(refiner.phases(*samples, seed=3), TrainingSettings(), seed=3)
    assert np.isfinite(refined(refiner, samples[0])).all()


def test_bad_configurations(samples):
    with pytest.raises(ValueError, match="paper_compat"):
        SquirelsPaperConfig(paper_compat=["B5"])
    with pytest.raises(ValueError, match="rate"):
        BridgeConfig(iterations=1, steps_first=1, steps=1, batch_size=1, rate=1.0)
    flat = Geometry("bar", (100,), ("x",), (30.0,))
    with pytest.raises(ConfigError, match="two-dimensional grid"):
        SquirelsPaper(SquirelsPaperConfig(**SMALL), flat)
    energy = {**TINY, "network_options": {"depth": 3}}
    with pytest.raises(ConfigError, match=r"network_options of the mlp network: .*depth"):
        SquirelsPaper(SquirelsPaperConfig(**{**SMALL, "energy": energy}), SQUIRELS)


def test_recipe_is_the_schedule_of_the_paper():
    """The recipe spells out what the configuration has as defaults, and both are the paper."""
    folder = Path(recipes.__file__).parent
    record = yaml.safe_load((folder / "squirels-paper.yaml").read_text(encoding="utf-8"))
    config = SquirelsPaperConfig(**record["model"])
    TrainingSettings(**record["training"])
    refiner = SquirelsPaper(config, SQUIRELS)
    default = SquirelsPaper(SquirelsPaperConfig(), SQUIRELS)
    assert {k: v.shape for k, v in refiner.state_dict().items()} == {
        k: v.shape for k, v in default.state_dict().items()
    }
    for side in ("energy", "shower"):
        given, built_in = getattr(config, side), getattr(SquirelsPaperConfig(), side)
        rest = {"network_options"}
        assert given.model_dump(exclude=rest) == built_in.model_dump(exclude=rest)
        bridge = getattr(refiner, side)
        assert bridge.gammas == [0.001] * 20
        assert bridge.epsilon == pytest.approx(0.04, rel=2e-3)
    # the paper's 12,000 + 13 * 2 * 6,000 and 24,000 + 14 * 2 * 12,000, less the last, unused half
    assert refiner.energy.planned_steps == 168_000 - 6_000
    assert refiner.shower.planned_steps == 360_000 - 12_000
    shower = refiner.shower.forward_network
    assert sum(p.numel() for p in shower.parameters()) == 173_280


def test_reduced_recipe_keeps_architecture_and_noise():
    folder = Path(recipes.__file__).parent
    record = yaml.safe_load((folder / "squirels-paper-reduced.yaml").read_text(encoding="utf-8"))
    reduced = SquirelsPaper(SquirelsPaperConfig(**record["model"]), SQUIRELS)
    TrainingSettings(**record["training"])
    assert reduced.energy.gammas == reduced.shower.gammas == [0.001] * 20
    assert reduced.energy.reference == reduced.shower.reference == "ou"
    assert reduced.planned_steps < 10_000


@pytest.mark.slow
def test_training_compares_the_paper_with_the_quantile_baseline(caplog) -> None:
    """Barely trained bridges lose to the baseline, and say so."""
    tiny = [
        f"model.{bridge}.{key}=1"
        for bridge in ("energy", "shower")
        for key in ("iterations", "steps_first", "steps")
    ]
    tiny += ["model.energy.cache_size=200", "model.shower.cache_size=50", "holdout=0.3"]
    fast, full = sample.load("train_fast")[:1000], sample.load("train_full")[:1000]
    with caplog.at_level("WARNING"):
        model = train(fast, full, recipe="squirels-paper-reduced", overrides=tiny, device="cpu")
    assert set(model.metrics["distance"]) == {"fast", "quantile", "refined"}
    assert "LOSES on held-out showers to the quantile baseline" in caplog.text
