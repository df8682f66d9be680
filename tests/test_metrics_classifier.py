"""The classifier test: blind to nothing, sees only faults, and knows its own error."""

from __future__ import annotations

import numpy as np
import pytest

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.showers import Showers
from hepbridge.metrics import ClassifierSettings, classifier_test
from hepbridge.metrics import classifier as module
from hepbridge.metrics.classifier import auc_standard_error, high_level, low_level
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


def test_every_shower_is_tested_once_and_energies_stay_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A classifier that remembers incident energies: if one leaked from training into testing, or
    # if a shower were tested twice or never, it would be noticed here.
    energy = np.repeat(spectrum(60, 3), 2)  # every energy twice in each sample
    ref, cand = toy_showers(120, 1, energy), toy_showers(120, 2, energy)
    tested: list[float] = []

    class Memory:
        def fit(self, x: np.ndarray, label: np.ndarray, sample_weight: object) -> None:
            assert label.sum() * 2 == len(label)  # equal class sizes
            self.known = set(x[:, 100].tolist())

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            assert not self.known & set(x[:, 100].tolist())
            tested.extend(x[:, :100].sum(axis=1).tolist())
            return np.full((len(x), 2), 0.5)

    monkeypatch.setattr(module, "INPUTS", {"low": low_level})
    monkeypatch.setitem(module.CLASSIFIERS, "memory", lambda settings, seed: Memory())
    settings = ClassifierSettings(seeds=1, folds=5, curve=())
    classifier_test(ref, cand, "memory", settings=settings)
    everyone = np.concatenate([low_level(s)[:, :100].sum(axis=1) for s in (ref, cand)])
    assert sorted(tested) == sorted(everyone.tolist())


def test_weights_can_hide_a_fault_that_they_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    # A candidate with every second shower wrong and weight 0 there is full simulation.
    monkeypatch.setattr(module, "INPUTS", {"high": high_level})
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
    with pytest.raises(ConfigError, match="unknown classifier 'tree'; available: trees"):
        classifier_test(ref, ref, "tree")
    with pytest.raises(ConfigError, match="folds"):
        ClassifierSettings(folds=1)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ClassifierSettings(curve=(0.5, 1.0))
