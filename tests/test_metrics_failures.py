"""A planted fault is found where it was planted: input, incident energy, single showers."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.geometry import SQUIRELS, Geometry
from hepbridge.data.showers import Showers
from hepbridge.metrics import ClassifierSettings, classifier_test
from hepbridge.metrics.classifier_inputs import high_level, input_names, low_level
from hepbridge.metrics.failures import failures
from metrics_toys import spectrum, toy_showers

FAST = ClassifierSettings(seeds=1, folds=3, curve=(), trees=30)
N = 600


@pytest.fixture(scope="module")
def pair() -> tuple[Showers, Showers]:
    energy = spectrum(N, 1)
    return toy_showers(N, 1, energy), toy_showers(N, 2, energy)


def test_a_perfect_candidate_has_nothing_to_show(pair: tuple[Showers, Showers]) -> None:
    found = failures(*pair, settings=FAST)
    assert abs(found["auc"] - 0.5) < 4 * found["se"]
    assert all(abs(b["auc"] - 0.5) < 4 * b["se"] for b in found["by_energy"])
    assert abs(found["tail"]["share"] - 0.01) < 4 * found["tail"]["se"]
    assert max(abs(i["drop"]) / max(i["se"], 1e-3) for i in found["importances"]) < 8
    assert found == failures(*pair, settings=FAST)


def test_the_faulty_input_is_named(pair: tuple[Showers, Showers]) -> None:
    """The axis of the candidate is tilted: the centre in x, and nothing else, gives it away."""
    ref, _ = pair
    found = failures(ref, toy_showers(N, 3, ref.incident_energy, tilt=0.08), settings=FAST)
    first, second = found["importances"][:2]
    assert first["name"] == "centre in x"
    assert first["drop"] > 5 * first["se"] and first["drop"] > 3 * second["drop"]
    assert len(found["importances"]) == len(input_names("high", SQUIRELS))


def test_the_faulty_energies_are_found(pair: tuple[Showers, Showers]) -> None:
    """Cells are 3 % too small above 70 GeV. Fails if a bin holds showers of another."""
    ref, good = pair
    cells = np.where(ref.incident_energy[:, None] > 70e3, 0.97, 1.0) * good.cells
    bins = failures(ref, ref.with_cells(cells.astype(np.float32)), settings=FAST)["by_energy"]
    assert len(bins) == N // 200 and sum(b["n"] for b in bins) == N
    assert all(a["high_gev"] <= b["low_gev"] for a, b in pairwise(bins))
    assert bins[-1]["auc"] - bins[0]["auc"] > 4 * np.hypot(bins[-1]["se"], bins[0]["se"])
    assert bins[-1]["auc"] > 0.75


def test_the_faulty_showers_are_listed(
    pair: tuple[Showers, Showers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shower in sixteen has a hot cell in the corner. Fails if rows or names are mixed up."""
    monkeypatch.setattr(sys.modules["hepbridge.metrics.failures"], "_MOST_INPUTS", 10)
    ref, good = pair
    cells = good.cells.copy()
    bad = np.arange(3, N, 16)
    cells[bad, 0] += 0.05 * good.incident_energy[bad]
    found = failures(ref, good.with_cells(cells), settings=FAST)
    assert {s["row"] for s in found["suspects"]} <= set(bad.tolist())
    top = found["suspects"][0]
    assert top["why"][0]["name"] == "ring 4" and top["why"][0]["z"] > 10
    assert top["event_id"] == [f"{int(good.event_ids[0, 0]):016x}", top["row"]]
    assert top["incident_energy_gev"] == pytest.approx(good.incident_energy[top["row"]] / 1e3)
    assert found["tail"]["share"] > 0.01 + 3 * found["tail"]["se"]
    assert found["auc"] < 0.6  # most showers are right
    assert found["importances"] == []  # more inputs than are shuffled


def test_auc_is_that_of_the_classifier_test(pair: tuple[Showers, Showers]) -> None:
    ref, _ = pair
    cand = toy_showers(N, 4, ref.incident_energy, scale=0.99)
    found = failures(ref, cand, settings=FAST)
    tested = classifier_test(ref, cand, settings=FAST)["high"]
    assert found["auc"] == pytest.approx(tested["auc"], rel=1e-9)  # the same trees
    assert found["se"] == pytest.approx(tested["se"], rel=1e-9)


def test_weights_can_hide_a_fault_that_they_correct() -> None:
    """The faulty half of the candidate has no weight: no AUC is left."""
    ref, good = toy_showers(400, 1), toy_showers(400, 2)
    bad = toy_showers(400, 3, scale=0.9)
    half = np.arange(400) % 2 == 0
    cells = np.where(half[:, None], good.cells, bad.cells)
    mixed = Showers.from_arrays(cells, ref.incident_energy)
    weighted = Showers.from_arrays(cells, ref.incident_energy, weights=half.astype(float))
    found = failures(ref, weighted, settings=FAST)
    assert abs(found["auc"] - 0.5) < 4 * found["se"]
    assert failures(ref, mixed, settings=FAST)["auc"] > 0.65


def test_inputs_have_their_names() -> None:
    showers = toy_showers(60, 1)
    assert len(input_names("high", SQUIRELS)) == high_level(showers).shape[1]
    names = input_names("low", SQUIRELS)
    assert len(names) == low_level(showers).shape[1]
    assert names[23] == "cell 2,3" and names[-1] == "log incident energy"
    odd = Geometry("odd", (5, 7), ("x", "y"), (30.0, 30.0))
    cells = np.random.default_rng(0).gamma(1.0, 1.0, (60, 35))
    columns = high_level(Showers.from_arrays(cells, np.full(60, 100.0), geometry=odd)).shape[1]
    assert len(input_names("high", odd)) == columns


def test_what_cannot_be_asked_is_refused(pair: tuple[Showers, Showers]) -> None:
    with pytest.raises(ConfigError, match="unknown level 'middle'; available: low, high"):
        failures(*pair, level="middle")
    with pytest.raises(DataError, match="two samples of equal size"):
        failures(pair[0], pair[1][:100])
