"""Classifier tests in the report: tables, text, learning curves, and p-values at their bound."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from hepbridge.metrics import ClassifierSettings, evaluate
from hepbridge.metrics.verdict import combine
from hepbridge.report import classifier_markdown, classifier_table, summary, write
from hepbridge.report.learning_curves import learning_curves
from hepbridge.report.style import styles
from hepbridge.report.text import above_floor, p_value
from metrics_toys import joined, toy_showers


def curve(*aucs: float) -> list[dict[str, float]]:
    return [{"n": 100 * 2**k, "auc": auc, "se": 0.01} for k, auc in enumerate(aucs)]


def outcome(*aucs: float, floor: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {"auc": aucs[-1], "se": 0.01, "n": 500, "curve": curve(*aucs)}
    found |= {"floor_auc": 0.5, "floor_se": 0.01, "floor_curve": curve(*[0.5] * len(aucs))}
    found |= {"excess": aucs[-1] - 0.5, "excess_upper95": aucs[-1] - 0.5 + 0.023}
    if not floor:
        found |= dict.fromkeys(["floor_auc", "floor_se", "floor_curve", "excess", "excess_upper95"])
    return found


def record(sets: int = 2, floor: bool = True) -> dict[str, Any]:
    tested = {
        "gflash": {k: {"low": outcome(0.98, 0.99, floor=floor)} for k in ("trees", "mlp")},
        "refined": {k: {"low": outcome(0.52, 0.54, floor=floor)} for k in ("trees", "mlp")},
    }
    return {
        "sets": [
            {"label": f"{20 * (k + 1)} GeV", "classifier": copy.deepcopy(tested)}
            for k in range(sets)
        ],
        "starred": [],
    }


def figure_of(found: dict[str, Any]) -> tuple[Figure, str]:
    look = styles(["gflash", "refined"], "gflash", "refined")
    (plate,) = learning_curves(found, look, "gflash")
    assert plate.figure is not None
    return plate.figure, plate.caption


def test_learning_curves_have_a_panel_per_test_and_the_recorded_points() -> None:
    """Fails if a panel shows another candidate, set or classifier than its title says."""
    found = record()
    found["sets"][1]["classifier"]["refined"] = {
        k: {"low": outcome(*aucs)} for k, aucs in (("trees", (0.51, 0.53)), ("mlp", (0.55, 0.57)))
    }
    figure, caption = figure_of(found)
    drawn = {}
    for ax in figure.axes:
        (line,) = [c[0] for c in ax.containers if c[0].get_marker() == "o"]
        drawn[ax.get_title(loc="left")] = list(line.get_ydata())
        assert ax.get_ylim()[0] < 0.5 and 0.57 < ax.get_ylim()[1] < 0.62
        assert [t.get_text() for t in ax.get_xticklabels()] == ["100", "200"]
    assert drawn == {
        "20 GeV: trees, low level": [0.52, 0.54],
        "40 GeV: trees, low level": [0.51, 0.53],
        "20 GeV: mlp, low level": [0.52, 0.54],
        "40 GeV: mlp, low level": [0.55, 0.57],
    }
    assert "Triangles: above the drawn range: gflash (AUC 0.99 or more)" in caption
    assert "the floor" in caption


def test_one_set_lies_across_and_no_floor_is_not_mentioned() -> None:
    figure, caption = figure_of(record(sets=1, floor=False))
    width, height = figure.get_size_inches()
    assert len(figure.axes) == 2 and width > height
    assert "floor" not in caption


def test_without_curves_there_is_no_figure() -> None:
    look = styles(["refined"], None, "refined")
    single = {"low": outcome(0.54)}
    only = {"sets": [{"label": "a", "classifier": {"refined": {"trees": single}}}], "starred": []}
    assert list(learning_curves(only, look, None)) == []
    assert list(learning_curves({"sets": [{"label": "a", "classifier": {}}]}, look, None)) == []


def test_tables_give_the_excess_and_its_limit() -> None:
    out = io.StringIO()
    table = classifier_table(record())
    assert table is not None
    Console(file=out, width=120).print(table)
    for text in (out.getvalue(), classifier_markdown(record())):
        assert text.count("0.040 (< 0.063)") == 4  # two sets, two classifiers
        assert "mlp, low" in text and "40 GeV" in text
    rows = [line for line in classifier_markdown(record()).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 8 and len({row.count("|") for row in rows}) == 1
    empty = {"sets": [{"label": "a", "classifier": {}}]}
    assert classifier_table(empty) is None and classifier_markdown(empty) == ""
    assert above_floor(outcome(0.54, floor=False)) == "–"


@pytest.mark.parametrize(
    ("splits", "above", "words"),
    [(200, 7, "p ≤ 0.005"), (40, 7, "p ≤ 0.025"), (200, 1, "p = 0.500"), (1000, 7, "p ≤ 0.001")],
)
def test_a_p_value_at_its_bound_is_a_bound(splits: int, above: int, words: str) -> None:
    """Fails if 1/201 is printed as 0.00498, which 200 splits cannot know."""
    null = np.arange(splits) % 2  # half of the splits have one row above
    assert p_value(combine([(above, null)], 7).to_dict()) == words


def test_a_p_value_just_above_its_bound_is_a_value() -> None:
    null = (np.arange(200) < 2).astype(np.int64)
    assert p_value(combine([(1, null)], 7).to_dict()) == "p = 0.0100"
    assert p_value({"above": 1, "of": 2, "p": 0.2}) == "p = 0.200"  # a record without the bound


@pytest.mark.slow
def test_the_page_shows_limits_curves_and_bounds(tmp_path: Path) -> None:
    ref, ref2 = (joined(toy_showers(60, s, 2e4), toy_showers(60, s + 1, 5e4)) for s in (1, 3))
    fast = joined(toy_showers(60, 5, 2e4, scale=0.9), toy_showers(60, 6, 5e4, scale=0.9))
    settings = ClassifierSettings(seeds=1, folds=2, curve=(0.5,), trees=5)
    evaluation = evaluate(
        ref, {"gflash": fast}, ref2, bootstraps=2, splits=20, classifier_settings=settings
    )
    page = write(evaluation, ref, {"gflash": fast}, ref2, tmp_path / "report")
    text = page.read_text(encoding="utf-8")
    assert (tmp_path / "report" / "figures" / "classifier_curves.pdf").exists()
    section = text[text.index('id="classifiers"') :].partition("</section>")[0]
    assert 'id="classifier_curves"' in section and section.count("<img") == 1
    assert text.count('id="classifier_curves"') == 1
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))
    for entry in metrics["sets"]:
        for test in entry["classifier"]["gflash"]["trees"].values():
            excess, limit = test["excess"], test["excess_upper95"]
            shown = (
                f'data-excess="{excess!r}" data-limit="{limit!r}">{excess:.3f} (&lt; {limit:.3f})'
            )
            assert shown in section
    assert "(p ≤ 0.048)" in text and "(p ≤ 0.048)" in summary(metrics)  # 1 / 21 = 0.0476
    assert "above the floor." in summary(metrics)
