"""The gate at the end of a training: what it calls lost, and what it calls not resolved."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

import onnx_generators as toys
from hepbridge.data import sample
from hepbridge.data.cells import CellLayer, PolarCells
from hepbridge.data.geometry import Geometry
from hepbridge.metrics.shapes.shapes import MAX_CELLS
from hepbridge.systems import gate as module
from hepbridge.systems.gate import gate
from hepbridge.systems.generation.train import train_generator
from hepbridge.systems.train import train


@pytest.mark.parametrize(
    ("distance", "clear", "auc", "lost", "unresolved"),
    [
        (0.010, False, 0.60, [], []),  # better in both
        (0.014, False, 0.60, [], ["in distance (0.0140 against 0.0120)"]),
        (0.014, True, 0.60, ["in distance (0.0140 against 0.0120)"], []),
        (0.010, False, 0.72, [], ["in classifier AUC (0.720 against 0.700)"]),  # 1.4 errors
        (0.010, False, 0.74, ["in classifier AUC (0.740 against 0.700)"], []),  # 2.8 errors
    ],
)
def test_worse_by_two_errors_is_lost_and_by_less_not_resolved(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    distance: float,
    clear: bool,
    auc: float,
    lost: list[str],
    unresolved: list[str],
) -> None:
    fast, full = sample.load("gflash", 20)[:60], sample.load("full", 20)[:60]
    model: Any = SimpleNamespace(members=[None])
    baseline: Any = SimpleNamespace(members=[None])
    kinds = {id(fast): "fast"}
    distances = {"fast": 0.5, "quantile": 0.012, "refined": distance}
    aucs = {"fast": 1.0, "quantile": 0.7, "refined": auc}
    kept = []

    def refined(which: object, showers: Any, **_: object) -> Any:
        kept.append(showers[:])
        kinds[id(kept[-1])] = "refined" if which is model else "quantile"
        return kept[-1]

    def tested(_: object, showers: Any, **__: object) -> dict[str, Any]:
        found = {"auc": aucs[kinds[id(showers)]], "se": 0.01}
        return {"low": found, "high": found}

    monkeypatch.setattr(module, "refine", refined)
    monkeypatch.setattr(module, "compare", lambda _, s, **__: distances[kinds[id(s)]])
    monkeypatch.setattr(module, "distances", lambda *_, **__: {})
    monkeypatch.setattr(module, "classifier_test", tested)
    monkeypatch.setattr(module, "_clearly", lambda *_: clear)
    with caplog.at_level(logging.INFO):
        found = gate(model, baseline, fast, full, 0)
    name = "the quantile baseline (no network)"
    assert found["lost"] == [f"{name} {words}" for words in lost]
    assert found["unresolved"] == [f"{name} {words}" for words in unresolved]
    assert ("THE REFINER LOSES" in caplog.text) == bool(lost)
    assert (f"not resolved from {name}" in caplog.text) == bool(unresolved)


def test_of_many_cells_only_the_shapes_are_judged() -> None:
    """Refiners and generators of a calorimeter whose cells no classifier sees are trained to the end."""
    sectors = [CellLayer(PolarCells(r_mm=(0.0, 5.0), n_phi=64))] * (1 + MAX_CELLS // 64)
    large = Geometry.of_layers("large", sectors, symmetry="Dn")
    assert large.n_cells > MAX_CELLS
    fast, full = (toys.showers(large, 120, seed) for seed in (0, 1))
    full = type(full).from_arrays(full.cells, fast.incident_energy, geometry=large)
    options = ["holdout=0.5", "model.symmetry=declared"]  # which pools cells: fewer tables
    refiner = train(fast, full, recipe="quantile", overrides=options)
    assert 0.5 <= refiner.metrics["auc"]["refined"] <= 1.0
    generator = train_generator(full, recipe="marginals", overrides=options)
    assert 0.5 <= generator.metrics["auc"]["generated"] <= 1.0
