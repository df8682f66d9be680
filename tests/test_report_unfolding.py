"""The report of an unfolding: its numbers are those of the record, its figures show what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from hepbridge.core.errors import DataError, OutputError
from hepbridge.data.tables import Table
from hepbridge.metrics.classifier_settings import ClassifierSettings
from hepbridge.metrics.unfolding.evaluation import evaluate_posteriors, evaluate_unfolding
from hepbridge.metrics.unfolding.support import support
from hepbridge.report.plate import Plate
from hepbridge.report.style import RC
from hepbridge.report.unfolding import axis_label, label_of, losses, unfolding_tables
from hepbridge.report.unfolding_page import unfolding_plates, write_unfolding
from pages import Page, in_browser

NAMES = ["mass", "multiplicity", "z_g", "my_column"]


def sample(uid: int, n: int = 600, shift: float = 0.0, weighted: bool = False) -> Table:
    rng = np.random.default_rng(uid)
    mass = rng.gamma(4.0, 5.0, n) + 4 * shift
    ids = np.stack([np.full(n, uid, np.uint64), np.arange(n, dtype=np.uint64)], axis=1)
    return Table.from_columns(
        {
            "mass": mass,
            "multiplicity": np.round(8 + mass / 2 + rng.normal(0, 3, n)),
            "z_g": rng.uniform(0.1, 0.5, n),
            "my_column": rng.normal(shift, 1, n),
        },
        {"mass": "GeV", "multiplicity": "1", "z_g": "1", "my_column": "rad"},
        defined={"z_g": rng.random(n) > 0.05},
        weights=rng.uniform(0.5, 1.5, n) if weighted else None,
        event_ids=ids,
    )


def smeared(table: Table) -> Table:
    rng = np.random.default_rng(9)
    columns = {n: c + 0.02 * rng.normal(size=len(table)) for n, c in table.columns.items()}
    columns["mass"] = 1.1 * columns["mass"]
    columns["multiplicity"] = np.round(0.8 * table.columns["multiplicity"])
    return replace(table, columns=columns)


TRUTH, PRIOR = sample(1), sample(2, 700, 0.3)
CANDIDATES = {"Weights <w>": sample(3, 500, 0.1, weighted=True), "Flow": sample(4, 600)}
RESPONSE = PRIOR, smeared(PRIOR)
DATA = smeared(TRUTH)
BASELINES = {"Prior": PRIOR, "Data": DATA}
GIVEN: dict[str, Any] = {
    "baselines": BASELINES,
    "detector": "Data",
    "response": RESPONSE,
    "data": DATA,
}


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    found = evaluate_unfolding(
        TRUTH,
        CANDIDATES,
        NAMES,
        baselines=BASELINES,
        bootstraps=10,
        splits=5,
        classifier=ClassifierSettings(seeds=1, folds=2, curve=(), trees=5),
    )
    mass = TRUTH.column("mass")[:, None] + rng.normal(0, 3, (600, 1)) + rng.normal(0, 3, (600, 25))
    found["posteriors"] = evaluate_posteriors(TRUTH, {"Flow": {"mass": mass}})
    found["support"] = support(RESPONSE[1], DATA, NAMES)
    return {**found, "command": "hepbridge <x>", "created": "2026-01-01", "hepbridge": "0"}


@pytest.fixture(scope="module")
def report(record: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unfolding(
        record, TRUTH, CANDIDATES, tmp_path_factory.mktemp("out") / "report", **GIVEN
    )


@pytest.fixture(scope="module")
def plates(record: dict[str, Any]) -> Iterator[dict[str, Plate]]:
    with matplotlib.rc_context(RC):
        yield {p.key: p for p in unfolding_plates(record, TRUTH, CANDIDATES, **GIVEN)}


def figure_of(plate: Plate) -> Figure:
    assert plate.figure is not None
    return plate.figure


@pytest.mark.slow
def test_page_is_sound_and_self_contained(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and not page.all("script")
    assert "Weights &lt;w&gt;" in text and "<w>" not in text
    images = page.all("img")
    assert len(images) == 5 and all(str(i["src"]).startswith("data:image/png") for i in images)
    assert all(i["alt"] for i in images)
    assert not any(str(tag.get("href")).startswith("http") for tag in page.all("a"))
    names = {"observables", "correlations", "calibration", "migrations", "support"}
    files = {p.name for p in (report.parent / "figures").iterdir()}
    assert files == {f"{n}.{kind}" for n in names for kind in ("png", "pdf")}


@pytest.mark.slow
def test_no_code_names_are_shown(report: Path) -> None:
    """Fails if a column is shown by the name that it has in the code."""
    body = re.sub(r"<[^>]+>", " ", report.read_text(encoding="utf-8").split("<body>")[1])
    for name in ("z_g", "my_column", "ln_rho", "tau21", "n_effective", "emd", "frobenius"):
        assert name not in body, name


@pytest.mark.slow
def test_numbers_are_those_of_the_record(report: Path, record: dict[str, Any]) -> None:
    stored = json.loads((report.parent / "metrics.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(record))
    tables = {t.title: t for t in unfolding_tables(record)}
    assert len(tables) == 7
    text = report.read_text(encoding="utf-8")
    for found in tables.values():
        assert all(len(row) == len(found.heads) for row in found.rows)
    emd = tables["Earth mover's distance to the truth × 10"]
    assert emd.heads == [
        "observable",
        "unit",
        "Prior",
        "Data",
        "Weights <w>",
        "Flow",
        "truth, twice",
    ]
    cell = record["rows"][0]["candidates"]["Flow"]["emd"]
    shown, ratio = emd.rows[0][5].split(" · ")
    assert float(shown.split("(")[0]) == pytest.approx(cell["value"], rel=0.1)
    assert ratio == f"{cell['value'] / cell['chance']:.1f}×"
    assert emd.rows[0][1] == "GeV" and emd.rows[0][5] in text
    undefined = tables["Events without a value"]
    assert [row[0] for row in undefined.rows] == ["Groomed momentum sharing"]
    coverage = tables["Coverage of the posteriors of Flow"].rows[0]
    value = record["posteriors"]["Flow"]["mass"]["coverage"][0]["value"]
    assert float(coverage[1].split("(")[0]) == pytest.approx(100 * value, abs=1)
    outside = tables["Data beyond the simulation"]
    assert [row[1] for row in outside.rows] == [
        str(record["support"]["columns"][n]["below"]) for n in NAMES
    ]


def test_a_candidate_that_loses_says_so(record: dict[str, Any]) -> None:
    """Fails if the comparison is the other way round, or with the mean of something else."""
    assert not losses(record)
    worse = json.loads(json.dumps(record))
    for row in worse["rows"]:
        row["candidates"]["Flow"]["emd"]["value"] = 1.5 * row["candidates"]["Prior"]["emd"]["value"]
    (said,) = [text for text in losses(worse) if "than Prior" in text]
    assert said.startswith("Flow is further from the truth than Prior without any unfolding")
    ratios = [
        np.log(max(1.0, cell["value"] / cell["chance"]))
        for cell in (r["candidates"]["Prior"]["emd"] for r in record["rows"])
    ]
    assert f"those of Prior {np.exp(np.mean(ratios)):.1f} times" in said
    summary = next(iter(unfolding_tables(record)))
    assert [row[0] for row in summary.rows] == ["Prior", "Data", "Weights <w>", "Flow"]
    assert summary.rows[0][2] == f"{np.exp(np.mean(ratios)):.1f}×"


def test_histograms_are_the_weighted_fractions(plates: dict[str, Plate]) -> None:
    """Read from the drawn steps. Fails without the weights, or if undefined events leave the total."""
    figure = figure_of(plates["observables"])
    assert len(figure.axes) == 8
    for k, name in ((0, "mass"), (2, "z_g")):
        top = figure.axes[2 * k]
        steps = [p.get_data() for p in top.patches if hasattr(p, "get_data")]
        drawn = steps[-2]  # truth filled and outlined, two baselines, then the weighted candidate
        table = CANDIDATES["Weights <w>"]
        x, w = table.column(name), table.weights
        assert w is not None
        for b, value in enumerate(drawn.values):
            low, high = drawn.edges[b], drawn.edges[b + 1]
            last = b == len(drawn.values) - 1
            inside = (x >= low) & ((x <= high) if last else (x < high))
            assert value == pytest.approx(w[inside].sum() / w.sum(), abs=1e-12)
    assert "GeV" in figure.axes[1].get_xlabel()
    outline = figure.axes[2].patches[0]
    assert isinstance(outline, StepPatch)
    assert (outline.get_data().edges % 1 == 0.5).all()  # of integers
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels == ["Truth", "Prior", "Data", "Weights <w>", "Flow"]


def test_ratios_are_drawn(plates: dict[str, Plate]) -> None:
    """The points of the ratio are candidate / truth."""
    top, bottom = figure_of(plates["observables"]).axes[:2]
    steps = [p.get_data() for p in top.patches if hasattr(p, "get_data")]
    truth, flow = steps[0].values, steps[-1].values
    points = bottom.containers[-1]
    assert isinstance(points, ErrorbarContainer)
    line = points.lines[0]
    known = flow[truth > 0] / truth[truth > 0]
    assert all(np.isclose(known, y, rtol=1e-9).any() for y in line.get_ydata())
    assert len(line.get_ydata()) > 5


def test_migrations_add_up(plates: dict[str, Plate]) -> None:
    """Each column is the distribution of what is seen; fails if it is normalised the other way."""
    figure = figure_of(plates["migrations"])
    (mesh,) = [c for c in figure.axes[0].collections if isinstance(c, QuadMesh)]
    matrix = np.ma.filled(np.ma.asarray(mesh.get_array()), np.nan)  # [seen, true]
    edges = mesh.get_coordinates()[0, :, 0]
    x, y = (t.column("mass") for t in RESPONSE)
    checked = 0
    for i in range(len(edges) - 1):
        inside = (x >= edges[i]) & (x < edges[i + 1])
        seen = y[inside]
        if inside.sum() < 20:
            assert np.isnan(matrix[:, i]).all()
            continue
        for j in range(len(edges) - 1):
            part = ((seen >= edges[j]) & (seen < edges[j + 1])).mean()
            assert np.nan_to_num(matrix[j, i]) == pytest.approx(part)
        checked += 1
    assert checked > 5


def test_correlations_and_calibration(plates: dict[str, Plate], record: dict[str, Any]) -> None:
    images = [ax.images[0] for ax in figure_of(plates["correlations"]).axes if ax.images]
    assert len(images) == 5
    found = record["correlation"]
    wanted = np.subtract(found["candidates"]["Flow"]["matrix"], found["truth"])
    assert np.allclose(images[-1].get_array(), wanted)
    curve, counts = figure_of(plates["calibration"]).axes
    row = record["posteriors"]["Flow"]["mass"]
    line = curve.lines[-1]
    assert np.allclose(line.get_ydata(), np.subtract(row["curve"], row["levels"]))
    steps = counts.patches[-1]
    assert isinstance(steps, StepPatch) and np.allclose(steps.get_data().values, row["counts"])


def test_support_says_how_many(plates: dict[str, Plate], record: dict[str, Any]) -> None:
    titles = [ax.get_title(loc="right") for ax in figure_of(plates["support"]).axes]
    for title, row in zip(titles, record["support"]["columns"].values(), strict=True):
        outside = row["outside"]
        assert (
            title == "none outside" if not outside else title.startswith(f"{outside:,} outside (")
        )


def test_words() -> None:
    assert axis_label("mass", "GeV") == "Jet mass $m$ [GeV]"
    assert axis_label("width", "1", 0.4) == "Jet width $w$ / 0.4"
    assert axis_label("my_column", "rad") == "My column [rad]"
    assert label_of("z_g") == "Groomed momentum sharing"


def test_least_report(tmp_path: Path) -> None:
    """One observable, no baselines, no classifier, nothing further."""
    record = evaluate_unfolding(
        TRUTH, {"Flow": CANDIDATES["Flow"]}, ["mass"], bootstraps=5, splits=3, classifier=None
    )
    record |= {"command": None, "created": "2026-01-01", "hepbridge": "0"}
    page = write_unfolding(record, TRUTH, {"Flow": CANDIDATES["Flow"]}, tmp_path / "r")
    assert len(Page(page.read_text(encoding="utf-8")).all("img")) == 1
    with pytest.raises(OutputError, match="holds a report already"):
        write_unfolding(record, TRUTH, {"Flow": CANDIDATES["Flow"]}, tmp_path / "r")


def test_samples_of_another_record(record: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sample 'Flow' has 599 events, the record 600"):
        short = {**CANDIDATES, "Flow": CANDIDATES["Flow"][1:]}
        write_unfolding(record, TRUTH, short, tmp_path / "r", baselines=BASELINES)
    with pytest.raises(DataError, match=r"sample 'Other' has 600 events, the record none"):
        write_unfolding(record, TRUTH, {"Other": TRUTH}, tmp_path / "r")
    with pytest.raises(DataError, match="pairs, row by row"):
        pair = RESPONSE[0], RESPONSE[1][1:]
        write_unfolding(
            record, TRUTH, CANDIDATES, tmp_path / "r", baselines=BASELINES, response=pair
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1300])
def test_page_in_a_browser(report: Path, tmp_path: Path, width: int) -> None:
    title, _ = in_browser(report, tmp_path, width)
    assert title == "5 of 5 wide true"
