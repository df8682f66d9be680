"""The classifier test: blind to nothing, sees only faults, and knows its own error."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.core.registry import Registry
from hepbridge.data.showers import Showers
from hepbridge.metrics import ClassifierSettings, classifier_test
from hepbridge.metrics import classifier as module
from hepbridge.metrics.classifier import above_floor, auc_standard_error
from hepbridge.metrics.classifier_inputs import high_level, low_level
from hepbridge.metrics.classifier_trees import Trees
from metrics_toys import spectrum, toy_showers

QUICK = ClassifierSettings(seeds=2, folds=2, curve=(0.25,), trees=30)


def test_standard_error_of_the_area() -> None:
    assert auc_standard_error(0.5, 4000, 4000) == pytest.approx(0.00646, abs=1e-5)
    assert auc_standard_error(0.3, 200, 300) == auc_standard_error(0.7, 200, 300)
    # against the scatter of areas of Gaussian scores, AUC = Φ(1/√2) = 0.760
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    label = np.arange(300) >= 150
    found = [roc_auc_score(label, rng.normal(size=300) + label) for _ in range(400)]
    assert np.std(found) == pytest.approx(auc_standard_error(0.760, 150, 150), rel=0.15)


def test_low_level_inputs() -> None:
    toys = toy_showers(5, 1, spectrum(5, 1))
    x = low_level(toys)
    assert x.shape == (5, 101)
    assert x[:, :100].sum(axis=1) == pytest.approx(toys.e_sum / toys.incident_energy, rel=1e-5)
    assert x[:, 100] == pytest.approx(np.log(toys.incident_energy), rel=1e-6)


def test_high_level_inputs_by_hand() -> None:
    cells = np.zeros((10, 10), dtype=np.float32)
    cells[4, 4], cells[4, 5], cells[2, 5], cells[0, 9] = 400.0, 200.0, 200.0, 0.5
    x = high_level(Showers.from_arrays(cells.reshape(1, 100), [1000.0]))[0]
    total = 800.5
    mean_x = (600 * 4.5 + 200 * 2.5 + 0.5 * 0.5) / total
    mean_y = (400 * 4.5 + 400 * 5.5 + 0.5 * 9.5) / total
    width_x = np.sqrt((600 * 4.5**2 + 200 * 2.5**2 + 0.5**3) / total - mean_x**2)
    width_y = np.sqrt((400 * 4.5**2 + 400 * 5.5**2 + 0.5 * 9.5**2) / total - mean_y**2)
    assert x[:3] == pytest.approx([0.8005, 3, 0.4], rel=1e-6)
    assert x[3:7] == pytest.approx([mean_x, width_x, mean_y, width_y], rel=1e-5)
    rings = np.array([600, 0, 200, 0, 0.5]) / total  # cell (2, 5) lies in ring 2
    assert x[7:] == pytest.approx([rings[:2].sum(), *rings], rel=1e-5)


def test_same_truth_gives_one_half_and_a_fault_more() -> None:
    ref, same = toy_showers(400, 1), toy_showers(400, 2)
    for result in classifier_test(ref, same, settings=QUICK).values():
        assert abs(result["auc"] - 0.5) < 4 * result["se"]
        assert result["n"] == 400 and result["train_n"] == 200
        assert [point["n"] for point in result["curve"]] == [50, 200]
        assert result["curve"][-1]["auc"] == result["auc"]
    moved = classifier_test(ref, toy_showers(400, 3, tilt=0.02), settings=QUICK)
    for result in moved.values():
        assert result["auc"] > 0.5 + 4 * result["se"]


def test_same_seed_same_answer_and_another_seed_another() -> None:
    ref, cand = toy_showers(120, 1), toy_showers(120, 2)
    first, again = (classifier_test(ref, cand, settings=QUICK, seed=5) for _ in range(2))
    assert first == again
    assert first != classifier_test(ref, cand, settings=QUICK, seed=6)


class Memory:
    """Remembers the incident energies it was trained with, and recognises them when tested."""

    inputs: ClassVar = {"low": low_level}
    tested: ClassVar[list[float]] = []
    trained_on: ClassVar[list[int]] = []

    def __init__(self, settings: ClassifierSettings, seed: int) -> None:
        self.known: set[float] = set()

    def fit(self, x: np.ndarray, label: np.ndarray, weights: object, groups: np.ndarray) -> None:
        assert label.sum() * 2 == len(label)  # equal class sizes
        energies = x[:, 100]
        for group in np.unique(groups):  # rows of one group, and no others, share their energy
            assert len(np.unique(energies[groups == group])) == 1
        assert len(np.unique(groups)) == len(np.unique(energies))
        self.known = set(energies.tolist())
        self.trained_on.append(len(x) // 2)

    def score(self, x: np.ndarray) -> np.ndarray:
        assert not self.known & set(x[:, 100].tolist())
        self.tested.extend(x[:, :100].sum(axis=1).tolist())
        return np.zeros(len(x))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> type[Memory]:
    monkeypatch.setattr(Memory, "tested", [])
    monkeypatch.setattr(Memory, "trained_on", [])
    monkeypatch.setattr(
        module, "CLASSIFIERS", Registry("classifier", {"memory": f"{__name__}:Memory"})
    )
    return Memory


def test_every_shower_is_tested_once_and_energies_stay_together(memory: type[Memory]) -> None:
    """Fails if an energy leaks from training into testing, or a shower is tested twice or never."""
    energy = np.repeat(spectrum(60, 3), 2)  # every energy twice in each sample
    ref, cand = toy_showers(120, 1, energy), toy_showers(120, 2, energy)
    settings = ClassifierSettings(seeds=1, folds=5, curve=())
    classifier_test(ref, cand, "memory", settings=settings)
    everyone = np.concatenate([low_level(s)[:, :100].sum(axis=1) for s in (ref, cand)])
    assert sorted(memory.tested) == sorted(everyone.tolist())


def test_a_planted_leak_is_noticed(memory: type[Memory], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above is no formality: with rows for groups, energies leak, and it fails."""
    monkeypatch.setattr(
        "hepbridge.metrics.cross_fit.row_groups", lambda showers: np.arange(len(showers))
    )
    energy = np.repeat(spectrum(60, 3), 2)
    ref, cand = toy_showers(120, 1, energy), toy_showers(120, 2, energy)
    with pytest.raises(AssertionError):
        classifier_test(ref, cand, "memory", settings=ClassifierSettings(seeds=1))


def test_the_learning_curve_says_how_much_was_trained_on(memory: type[Memory]) -> None:
    """Fails if a fraction is of all showers instead of the training set, or the order is lost."""
    ref, cand = toy_showers(100, 1, spectrum(100, 3)), toy_showers(100, 2, spectrum(100, 3))
    settings = ClassifierSettings(seeds=2, folds=5, curve=(0.5, 0.1))
    found = classifier_test(ref, cand, "memory", settings=settings)["low"]
    assert [point["n"] for point in found["curve"]] == [8, 40, 80]
    assert found["train_n"] == 80
    assert sorted(memory.trained_on) == [8] * 5 + [40] * 5 + [80] * 10


def test_upper_limit_above_the_floor_by_hand() -> None:
    found = above_floor(0.53, 0.006, 0.49, 0.008)
    assert found["excess"] == pytest.approx(0.04)
    assert found["excess_upper95"] == pytest.approx(0.04 + 1.6449 * 0.010, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1.01])
def test_upper_limit_covers(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The expected excess lies below the limit, and the limit is as far off as the excess scatters.

    Fails if the limit forgets the standard error of the floor or of the candidate: the scatter is
    then 1.4 times what the limit allows for. Excesses of 60 experiments know theirs to 9 %.
    """
    monkeypatch.setattr(Trees, "inputs", {"high": high_level})
    settings = ClassifierSettings(seeds=1, folds=2, curve=(), trees=10)
    trials, found = 60, []
    for k in range(trials):
        ref, ref2 = toy_showers(200, 1000 + k), toy_showers(200, 2000 + k)
        cand = toy_showers(200, 3000 + k, scale=scale)
        test, floor = (
            classifier_test(ref, other, settings=settings)["high"] for other in (cand, ref2)
        )
        found.append(above_floor(test["auc"], test["se"], floor["auc"], floor["se"]))
    excess, upper = (np.array([f[key] for f in found]) for key in ("excess", "excess_upper95"))
    assert (upper >= excess.mean()).mean() > 0.95 - 4 * np.sqrt(0.95 * 0.05 / trials)
    allowed = (upper - excess).mean() / 1.645
    assert excess.std(ddof=1) / allowed < 1 + 3.3 / np.sqrt(2 * trials)
    assert abs(excess.mean()) < 0.02 if scale == 1.0 else excess.mean() > 0.02


def test_weights_can_hide_a_fault_that_they_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    # A candidate with every second shower wrong and weight 0 there is full simulation.
    monkeypatch.setattr(Trees, "inputs", {"high": high_level})
    ref = toy_showers(400, 1)
    good, bad = toy_showers(400, 2), toy_showers(400, 3, scale=0.9)
    odd = np.arange(400) % 2 == 1
    cells = np.where(odd[:, None], bad.cells, good.cells)
    plain = Showers.from_arrays(cells, good.incident_energy)
    weighted = Showers.from_arrays(cells, good.incident_energy, weights=1.0 - odd)
    seen, hidden = (classifier_test(ref, c, settings=QUICK)["high"] for c in (plain, weighted))
    assert seen["auc"] > 0.65
    assert abs(hidden["auc"] - 0.5) < 4 * hidden["se"]
    assert hidden["se"] > auc_standard_error(0.5, 400, 400)  # fewer showers count


def test_what_cannot_be_tested_is_refused() -> None:
    ref = toy_showers(60, 1)
    with pytest.raises(DataError, match="equal size"):
        classifier_test(ref, ref[:50])
    with pytest.raises(
        ConfigError,
        match=r"unknown classifier 'tree'; did you mean 'trees'\? Available: trees, mlp",
    ):
        classifier_test(ref, ref, "tree")
    few = toy_showers(60, 1, np.repeat([2e4, 5e4, 8e4], 20))
    with pytest.raises(DataError, match="3 energies cannot be cut into 5 folds"):
        classifier_test(few, few)
    with pytest.raises(ConfigError, match="folds"):
        ClassifierSettings(folds=1)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ClassifierSettings(curve=(0.5, 1.0))
