"""The default system on real showers: what must hold exactly, and how it says that it lost."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

import tiny
from hepbridge.core.errors import ConfigError, DataError, DomainError, ModelFileError
from hepbridge.data import Geometry, sample
from hepbridge.data.showers import Showers
from hepbridge.systems.gate import without_network
from hepbridge.systems.inference import TILE, refine_cells
from hepbridge.systems.model_file import Model, load
from hepbridge.systems.recipe import load_recipe
from hepbridge.systems.squirels import Squirels
from hepbridge.systems.train import split, train
from hepbridge.transforms.moment_match import MomentMatch

TINY = ["training.steps=20", *tiny.TINY]


@pytest.fixture(scope="module")
def pairs() -> tuple[Showers, Showers]:
    return sample.load("train_fast")[:1500], sample.load("train_full")[:1500]


@pytest.fixture(scope="module")
def model(pairs: tuple[Showers, Showers]) -> Model:
    return train(*pairs, overrides=TINY, device="cpu")


@pytest.fixture(scope="module")
def fast() -> Showers:
    return sample.load("gflash", 50)


def test_energy_sum_is_the_exact_conditional_map(model: Model, fast: Showers) -> None:
    """However badly the network is trained, e_sum is that of the quantile baseline, in rank order."""
    baseline = without_network(model)
    refined, expected = model.refine(fast), baseline.refine(fast)
    assert np.allclose(refined.e_sum, expected.e_sum, rtol=1e-5)
    order = np.argsort(fast.e_sum)
    assert np.all(np.diff(refined.e_sum[order]) > -1e-5 * refined.e_sum.mean())


def test_refined_energy_sum_is_that_of_full_simulation(fast: Showers) -> None:
    """Kolmogorov-Smirnov distance at 50 GeV: 1,000 showers each, and tables from about 800 each.

    2.2 is the 99.99 % quantile of its scaled distribution; fails if the tables of fast and full
    simulation are exchanged. Before the refinement the distance is ten times as large.
    """
    model = train(
        sample.load("train_fast"), sample.load("train_full"), recipe="quantile", device="cpu"
    )
    truth = sample.load("full", 50).e_sum
    error = (2 / 1000 + 2 / 800) ** 0.5
    assert ks_2samp(model.refine(fast).e_sum, truth).statistic < 2.2 * error
    assert ks_2samp(fast.e_sum, truth).statistic > 2.2 * error, "no power on this sample"


def test_refined_showers_are_valid_and_keep_their_ids(model: Model, fast: Showers) -> None:
    refined = model.refine(fast)
    assert refined.cells.dtype == np.float32
    assert np.isfinite(refined.cells).all() and (refined.cells >= 0).all()
    assert np.array_equal(refined.event_ids, fast.event_ids)
    assert np.array_equal(refined.incident_energy, fast.incident_energy)


@pytest.mark.parametrize("batch", [1, 500, TILE, 10 * TILE])
def test_batch_size_changes_no_bit(model: Model, fast: Showers, batch: int) -> None:
    assert np.array_equal(model.refine(fast, batch=batch).cells, model.refine(fast).cells)


def test_tiles_and_threads_change_no_bit(model: Model) -> None:
    """Rows of a larger sample, computed from a tile's edge, and with another number of threads."""
    fast = sample.load("train_fast")[: 2 * TILE + 100]
    whole = model.refine(fast).cells
    parts = [
        refine_cells(model, f.cells, f.incident_energy, f.event_ids)
        for f in (fast[:TILE], fast[TILE:])
    ]
    assert np.array_equal(np.concatenate(parts), whole)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert np.array_equal(model.refine(fast).cells, whole)
    finally:
        torch.set_num_threads(before)


def test_permuted_rows_agree_closely(model: Model, fast: Showers) -> None:
    """Noise belongs to the event, not to its place; products may differ in the last bit."""
    order = np.random.default_rng(0).permutation(len(fast))
    again = model.refine(fast[order]).cells
    reference = model.refine(fast).cells[order]
    close = np.isclose(again, reference, rtol=1e-4, atol=1e-3)
    assert close.mean() > 0.9999


def test_seeds_and_events_have_their_own_noise(model: Model, fast: Showers) -> None:
    assert not np.array_equal(model.refine(fast, seed=0).cells, model.refine(fast, seed=1).cells)
    twin = Showers.from_arrays(
        fast.cells, fast.incident_energy, event_ids=fast.event_ids + np.uint64(1)
    )
    assert not np.array_equal(model.refine(twin).cells, model.refine(fast).cells)


def test_training_twice_gives_the_same_model(pairs, model: Model) -> None:
    again = train(*pairs, overrides=TINY, device="cpu")
    for a, b in zip(
        model.members[0].state_dict().values(), again.members[0].state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def test_gate_compares_with_both_baselines_and_shouts(pairs, caplog) -> None:
    """A network that is trained with an absurd learning rate loses to the baseline and says so."""
    with caplog.at_level(logging.WARNING):
        bad = train(
            *pairs,
            overrides=[*TINY, "training.learning_rate=3", "training.clip_norm=null", "holdout=0.4"],
            device="cpu",
        )
    distance = bad.metrics["distance"]
    assert set(distance) == {"fast", "quantile", "refined"}
    assert distance["quantile"] < distance["fast"]
    assert bad.metrics["auc"]["refined"] > bad.metrics["auc"]["quantile"]
    assert "THE REFINER LOSES on held-out showers to" in caplog.text
    assert "the quantile baseline (no network)" in caplog.text


def test_gate_is_quiet_about_a_refiner_that_does_not_lose(pairs, caplog) -> None:
    """Twenty steps from zero are the baseline itself, within errors."""
    with caplog.at_level(logging.WARNING):
        good = train(*pairs, overrides=TINY, device="cpu")
    assert good.metrics["lost"] == []
    assert "LOSES" not in caplog.text


def test_symmetry_is_used_only_if_the_data_confirm_it(pairs) -> None:
    """A beam off the axis: the declared D4 is refused, and every cell has its own table."""
    fast, full = pairs
    crooked = full.cells.copy()
    crooked.reshape(-1, 10, 10)[:, :5] *= 1.1
    tilted = Showers.from_arrays(crooked, full.incident_energy)
    coarse = ["model.nodes=9", "model.knots=15"]  # a table for every cell takes long
    for other, symmetry in ((tilted, "none"), (full, "declared")):
        model = train(fast, other, recipe="quantile", overrides=coarse, device="cpu")
        assert model.recipe.model["symmetry"] == symmetry


def test_marginals_of_cells_are_matched_and_stored(
    pairs, model: Model, fast: Showers, tmp_path: Path
) -> None:
    """The sums keep their tables, the baseline keeps its own, and the file has both."""
    path = tmp_path / "matched.safetensors"
    other = train(*pairs, overrides=[*TINY, "model.match_marginals=true"], output=path)
    refiner = other.members[0]
    own, target = refiner.matched, refiner.quantile.target
    cells = int(target.groups[:100].max()) + 1
    assert torch.equal(own.table[:, cells:], target.table[:, cells:])
    change = (own.table - target.table)[:, :cells, 20:-20].abs()
    assert 1e-4 < float(change.mean()) < 0.3  # hardly trained, the network is nearly the identity
    first = without_network(model).refine(fast)
    assert np.array_equal(without_network(other).refine(fast).cells, first.cells)
    refined = other.refine(fast)
    assert not np.array_equal(refined.cells, model.refine(fast).cells)
    assert np.allclose(refined.e_sum, first.e_sum, rtol=1e-5)
    assert np.array_equal(load(path).refine(fast).cells, refined.cells)


@pytest.mark.slow
def test_moments_are_those_of_final_cells(pairs, tmp_path: Path) -> None:
    """What the rings say of the final cells is nearer to full simulation than with marginals alone; the file
    has the correction."""
    fast, full = pairs
    path = tmp_path / "moments.safetensors"
    plain = [*TINY, "model.match_marginals=true", "model.match_moments=false"]
    alone = train(fast, full, overrides=plain)
    other = train(fast, full, overrides=[*plain[:-1], "model.match_moments=true"], output=path)
    assert float(other.members[0].moments.weight.abs().max()) > 1e-3
    assert np.array_equal(load(path).refine(fast).cells, other.refine(fast).cells)
    lacking = []
    for model in (alone, other):
        refiner = other.members[0]
        cells = model.refine(fast)
        u, c = refiner._normal("full", cells, 0), refiner.conditions(cells)["incident_energy"]
        end, ce = refiner._normal("full", full, 0), refiner.conditions(full)["incident_energy"]
        judge = MomentMatch(u.shape[1] - 100, refiner.moments.groups.tolist())
        judge.aim(end[:, :100], end[:, 100:], ce)
        reached = judge.target.clone()
        judge.aim(u[:, :100], u[:, 100:], c)
        lacking.append(float((judge.target - reached)[:2].square().sum()))
    assert lacking[1] < 0.8 * lacking[0]


def test_showers_outside_the_trained_range_are_flagged_or_refused(
    model: Model, fast: Showers, caplog
) -> None:
    far = Showers.from_arrays(fast.cells * 4, fast.incident_energy * 4)
    with caplog.at_level(logging.WARNING):
        refined = model.refine(far)
    assert "1000 of 1000 showers have incident energies outside the trained range" in caplog.text
    assert refined.columns["outside_domain"].all()
    with pytest.raises(DomainError, match=r"first: row 0, 200 GeV\); train a model that covers"):
        model.refine(far, strict=True)


def test_other_detectors_and_particles_are_refused(model: Model, fast: Showers) -> None:
    other = Geometry("other", (10, 10), ("x", "y"), (20.0, 20.0))
    with pytest.raises(ModelFileError, match=r"trained for geometry 'squirels' \(10, 10\)"):
        model.refine(Showers.from_arrays(fast.cells, fast.incident_energy, geometry=other))
    if model.domain.particle != "unknown":
        photons = Showers.from_arrays(fast.cells, fast.incident_energy, meta={"particle": "gamma"})
        with pytest.raises(ModelFileError, match="trained for particle"):
            model.refine(photons)


def test_conditions_that_the_model_does_not_know_are_named(
    model: Model, fast: Showers, caplog
) -> None:
    """Tilted showers are refined as if they were not: that must be said. A constant is no news."""
    angles = np.linspace(0, 0.1, len(fast))
    for theta, said in ((angles, True), (0 * angles, False)):
        other = Showers.from_arrays(
            fast.cells, fast.incident_energy, conditions={"theta_rad": theta}
        )
        caplog.clear()
        model.refine(other[:50])
        assert ("vary in theta_rad" in caplog.text) is said
    assert len(model.refine(other[:0])) == 0


def test_unknown_member_is_refused(model: Model, fast: Showers) -> None:
    with pytest.raises(ConfigError, match=r"1 member\(s\); there is no member 3"):
        model.refine(fast, member=3)


def test_an_ensemble_gives_a_spread(pairs, fast: Showers) -> None:
    both = train(*pairs, overrides=[*TINY, "ensemble=2", "bootstrap=true"], device="cpu")
    assert len(both.members) == 2
    assert len(both.metrics["ensemble"]) == 2
    assert not np.array_equal(both.refine(fast, member=0).cells, both.refine(fast, member=1).cells)


def test_too_few_or_mismatched_pairs_are_refused(pairs) -> None:
    fast, full = pairs
    with pytest.raises(DataError, match="40 pairs are too few"):
        train(fast[:40], full[:40], overrides=TINY)
    shifted = Showers.from_arrays(full.cells, full.incident_energy * 1.5)
    with pytest.raises(DataError, match="energ"):
        train(fast, shifted, overrides=TINY)


def test_holdout_is_a_fixed_partition() -> None:
    training, held = split(1000, 0.1, 3)
    assert len(held) == 100
    assert np.array_equal(np.sort(np.concatenate([training, held])), np.arange(1000))
    assert np.array_equal(held, split(1000, 0.1, 3)[1])


@pytest.mark.parametrize(("rings", "dense"), [("all", 2), ("core", 1), ("none", 1)])
def test_dense_rings_are_those_of_the_configuration(pairs, rings: str, dense: int) -> None:
    """Only rings 0 and 1 of the bundled showers are always hit; a ring of all outer cells is not."""
    config = load_recipe("quantile", overrides=[f"model.rings={rings}"]).system_config()
    assert Squirels.resolve(config, *pairs).dense == dense
