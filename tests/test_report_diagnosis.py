"""Coverage, memorisation, sample size and suspicious showers in the report, and model selection."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from typer.testing import CliRunner

from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.showers import Showers
from hepbridge.metrics import ClassifierSettings, Evaluation, evaluate
from hepbridge.report import writer
from hepbridge.report.diagnosis import (
    advice,
    coverage_rows,
    memorisation_words,
    suspect_rows,
    telling_level,
)
from hepbridge.report.failures import KEYS, failure_plates
from hepbridge.report.samples import drawn_sets
from hepbridge.report.selection import read_metrics, selection, selection_table
from hepbridge.report.style import styles
from hepbridge.report.words import judge
from metrics_toys import joined, toy_showers

SETTINGS = ClassifierSettings(seeds=1, folds=2, curve=(), trees=5)
Samples = tuple[Showers, dict[str, Showers], Showers]


@pytest.fixture(scope="module")
def samples() -> Samples:
    ref, ref2, good = (
        joined(toy_showers(90, s, 20e3), toy_showers(90, s + 1, 50e3)) for s in (1, 3, 5)
    )
    bad = joined(toy_showers(90, 7, 20e3, tilt=0.3), toy_showers(90, 8, 50e3, tilt=0.3))
    return ref, {"gflash": bad, "refined": good}, ref2


@pytest.fixture(scope="module")
def record(samples: Samples) -> dict[str, Any]:
    ref, candidates, ref2 = samples
    train = joined(toy_showers(200, 20, 20e3), candidates["refined"][:10])
    return evaluate(
        ref,
        candidates,
        ref2,
        bootstraps=5,
        splits=40,
        classifier_settings=SETTINGS,
        train=train,
        paths={"--train": "train.h5"},
    ).to_dict()


def test_the_record_has_all_parts(record: dict[str, Any]) -> None:
    assert record == json.loads(json.dumps(record, allow_nan=False))
    assert Evaluation.from_dict(record).to_dict() == record
    for entry in record["sets"]:
        assert set(entry["prdc"]["candidates"]) == {"gflash", "refined"}
        assert set(entry["failures"]["low"]["floor"]) == {"auc", "se", "by_energy", "tail"}
        advised = [row["observable"] for row in entry["rows"] if row["advice"]]
        assert len(advised) == 7
    assert record["memorisation"]["train"] | {"uid": "", "meta": {}} == {
        "path": "train.h5",
        "n": 210,
        "uid": "",
        "meta": {},
    }
    verdict = record["verdict"]["gflash"]
    cells = [r["candidates"]["gflash"] for s in record["sets"] for r in s["rows"]]
    assert verdict["p_max"] == min(c["p_adjusted"] for c in cells)
    assert verdict["p_global"] == min(1.0, 2 * min(verdict["p"], verdict["p_max"]))


def test_one_row_that_is_far_off_is_a_verdict(record: dict[str, Any]) -> None:
    """The number of rows above the floor is blind to it: one of many is what chance does, too."""
    found = copy.deepcopy(record)
    for entry in found["sets"]:
        entry["classifier"] = {}
    found["verdict"]["refined"] = {
        "above": 1,
        "of": 14,
        "p": 0.5,
        "p_bound": 0.02,
        "p_max": 0.02,
        "p_global": 0.04,
    }
    cells = [r["candidates"]["refined"] for s in found["sets"] for r in s["rows"]]
    for cell in cells:
        cell["p_adjusted"] = 1.0
    cells[3]["p_adjusted"] = 0.02
    (told,) = (j for j in judge(found) if j.name == "refined")
    assert told.status == "distinguishable"
    assert "1 stands out even among so many rows (smallest corrected p ≤ 0.02)" in told.summary
    found["verdict"]["refined"] |= {"p_max": 0.3, "p_global": 0.6}
    cells[3]["p_adjusted"] = 0.3
    (told,) = (j for j in judge(found) if j.name == "refined")
    assert told.status == "compatible" and "0 stand out" in told.summary


def test_words_and_tables_are_those_of_the_record(record: dict[str, Any]) -> None:
    rows = coverage_rows(record)
    assert [(r["label"], r["candidate"]) for r in rows] == [
        (label, name) for label in ("20 GeV", "50 GeV") for name in ("gflash", "refined")
    ]
    first = record["sets"][0]["prdc"]
    assert rows[0]["numbers"]["recall"]["value"] == first["candidates"]["gflash"]["recall"]["value"]
    assert rows[0]["numbers"]["coverage"]["low"] is (
        first["candidates"]["gflash"]["coverage"]["value"] < first["floor"]["coverage"]["q05"]
    )
    told = {m["name"]: m for m in memorisation_words(record)}
    assert told["refined"]["lead"] == "signs of memorised training showers"
    assert told["gflash"]["lead"] == "no sign of memorisation"
    found = suspect_rows(record, "refined")
    level = telling_level(record["sets"][1], "refined")
    aucs = {k: v["candidates"]["refined"]["auc"] for k, v in record["sets"][1]["failures"].items()}
    assert aucs[level] == max(aucs.values())
    wanted = record["sets"][1]["failures"][level]["candidates"]["refined"]["suspects"][0]
    assert found[8] == {"label": "50 GeV", "level": level, **wanted}
    assert "90 showers per sample cannot be relied on" in advice(record)
    assert memorisation_words({"sets": []}) == [] and advice({"sets": []}) == ""


def test_figures_show_the_recorded_numbers(samples: Samples, record: dict[str, Any]) -> None:
    """Fails if a point or a bar is another candidate's, or a shower another row's."""
    look = styles(["gflash", "refined"], "gflash", "refined")
    plates = {
        p.key: p
        for p in failure_plates(record, drawn_sets(record, samples), look, "gflash", "refined")
    }
    assert tuple(plates) == KEYS
    energies = plates["auc_by_energy"].figure
    assert energies is not None
    high, low = energies.axes
    lines = {c.get_label(): c.lines[0].get_ydata() for c in low.containers}
    for name in ("gflash", "refined"):
        bins = [s["failures"]["low"]["candidates"][name]["by_energy"][0] for s in record["sets"]]
        assert np.allclose(lines[name], [b["auc"] for b in bins])
    assert high.get_ylim() == low.get_ylim()
    bars = plates["importances"].figure
    assert bars is not None
    ax = bars.axes[1]
    found = record["sets"][1]["failures"]["high"]["candidates"]["refined"]["importances"]
    drops = {i["name"]: i["drop"] for i in found}
    inputs = [tick.get_text() for tick in bars.axes[0].get_yticklabels()]
    assert np.allclose([p.get_width() for p in ax.patches], [drops[name] for name in inputs])
    pictures = plates["suspects"].figure
    assert pictures is not None
    level = telling_level(record["sets"][1], "refined")
    shown = record["sets"][1]["failures"][level]["candidates"]["refined"]["suspects"]
    assert pictures.axes[0].get_title().startswith(f"row {shown[0]['row']}, 50 GeV")
    cells = samples[1]["refined"].cells[90 + shown[0]["row"]].reshape(10, 10) / 1e3
    drawn = np.ma.filled(pictures.axes[0].images[0].get_array(), np.nan)
    assert np.allclose(drawn, np.where(cells > 1e-3, cells, np.nan).T, equal_nan=True)


def test_the_page_has_the_sections(
    samples: Samples, record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "draw_all", lambda *_: iter(()))
    monkeypatch.setitem(matplotlib.rcParams, "savefig.dpi", 50)
    ref, candidates, ref2 = samples
    text = write_page(record, ref, candidates, ref2, tmp_path / "new")
    for anchor in ("where", "sample", *KEYS):
        assert f'id="{anchor}"' in text
    for words in ("signs of memorised training showers", "What this many showers can see", "▼"):
        assert words in text
    before = {k: v for k, v in record.items() if k not in ("memorisation", "goal")}
    before["sets"] = [
        {k: v for k, v in s.items() if k not in ("prdc", "failures")} for s in record["sets"]
    ]
    for entry in before["sets"]:
        entry["rows"] = [{k: v for k, v in row.items() if k != "advice"} for row in entry["rows"]]
    old = write_page(before, ref, candidates, ref2, tmp_path / "old")  # a record of an old version
    assert 'id="where"' not in old and 'id="sample"' not in old


def write_page(
    record: dict[str, Any], ref: Showers, cand: dict[str, Showers], ref2: Showers, out: Path
) -> str:
    return writer.write(record, ref, cand, ref2, out).read_text(encoding="utf-8")


def saved(record: dict[str, Any], folder: Path) -> Path:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(record))
    return folder


def test_models_of_two_reports_in_one_table(record: dict[str, Any], tmp_path: Path) -> None:
    """The baseline of both is listed once; the closest is first. Fails if the order is reversed."""
    other = copy.deepcopy(record)
    for part in [other["samples"], *(r["candidates"] for s in other["sets"] for r in s["rows"])]:
        part["student"] = copy.deepcopy(part["refined"])
        del part["refined"]
    for part in [other["verdict"], *(s["classifier"] for s in other["sets"])]:
        part["student"] = part.pop("refined")
    for entry in other["sets"]:
        for row in entry["rows"]:
            for key in ("emd", "emd_sample", "ratio"):
                row["candidates"]["student"][key] *= 3.0
    paths = [str(saved(r, tmp_path / n)) for r, n in ((record, "a"), (other, "b"))]
    done = CliRunner().invoke(app, ["compare", *paths, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [c["name"] for c in found["candidates"]] == ["refined", "student", "gflash"]
    first, second, _ = found["candidates"]
    assert found["best"] == "refined" and "beyond two standard errors" in found["words"]
    assert second["ratio_geometric_mean"] == pytest.approx(3 * first["ratio_geometric_mean"])
    ratios = [r["candidates"]["refined"]["ratio"] for s in record["sets"] for r in s["rows"]]
    assert first["ratio_geometric_mean"] == pytest.approx(np.exp(np.mean(np.log(ratios))))
    table = CliRunner().invoke(app, ["compare", *paths]).stdout
    assert table.index("refined") < table.index("student") < table.index("gflash")


def test_one_name_for_two_models_is_told_apart(record: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    other["samples"]["refined"]["uid"] = "0" * 16
    names = {c["name"] for c in selection({"a": record, "b": other})["candidates"]}
    assert names == {"gflash", "a: refined", "b: refined"}
    words = selection({"a": record, "b": other})["words"]
    assert "not resolved from" in words
    assert selection_table(selection({"a": record})).row_count == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["samples"]["ref"].update(uid="f" * 16), "references differ: uid"),
        (lambda r: r["samples"]["ref2"].update(n=7), "second references differ"),
        (lambda r: r["starred"].append("e_max"), "starred observables differ: none against e_max"),
        (lambda r: r.update(seed=5), "seeds differ: 0 against 5"),
        (
            lambda r: r["sets"][0].update(n=80),
            "sets differ: 20 GeV 90, 50 GeV 90 against 20 GeV 80",
        ),
        (lambda r: r["sets"][0]["rows"].pop(0) and None, "floors differ"),
    ],
)
def test_other_measurements_are_not_compared(
    change: Any, words: str, record: dict[str, Any]
) -> None:
    other = copy.deepcopy(record)
    change(other)
    with pytest.raises(DataError, match=words):
        selection({"a": record, "b": other})


def test_what_is_no_record_is_refused(record: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*none"):
        read_metrics(tmp_path / "none")
    (tmp_path / "x.json").write_text("[")
    with pytest.raises(DataError, match="is no JSON"):
        read_metrics(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DataError, match=r"not the metrics\.json of an evaluation"):
        read_metrics(tmp_path / "x.json")
    newer = saved({**record, "format_version": 2}, tmp_path / "new")
    with pytest.raises(DataError, match="format 2 cannot be read; this version reads 1"):
        read_metrics(newer)
    alone = copy.deepcopy(record)
    for entry in alone["sets"]:
        for row in entry["rows"]:
            row["candidates"].pop("gflash")
    with pytest.raises(ConfigError, match="one candidate only"):
        selection({"a": alone})
