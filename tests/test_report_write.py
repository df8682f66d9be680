"""The report folder: complete or absent, self-contained, its numbers those of metrics.json."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepbridge.core.errors import DataError, OutputError
from hepbridge.data.showers import Showers
from hepbridge.metrics import evaluate
from hepbridge.report import check_directory, write, writer
from hepbridge.report.figures import draw_all
from hepbridge.report.samples import drawn_sets
from hepbridge.report.style import styles
from hepbridge.report.text import plus_minus
from pages import Page, in_browser


def toy(seed: int, width: float, energies: np.ndarray, weights: bool = False) -> Showers:
    """Blobs on 10×10 fluctuating cells; ``width`` is what candidates get wrong."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(10) - 4.5, np.arange(10) - 4.5, indexing="ij")
    shape = np.exp(-np.hypot(x, y) / width).reshape(-1)
    cells = rng.gamma(3.0, shape, (len(energies), 100))
    cells *= (energies * rng.normal(0.98, 0.01, len(energies)) / cells.sum(axis=1))[:, None]
    return Showers.from_arrays(
        cells,
        energies,
        weights=rng.uniform(0.5, 1.5, len(energies)) if weights else None,
        meta={"simulation": "toy & <test>", "particle": "e-"},
    )


FIXED = np.repeat([20_000.0, 50_000.0], 60)
MIXED = np.linspace(10_000.0, 100_000.0, 80)


@pytest.fixture(scope="module")
def samples() -> tuple[Showers, dict[str, Showers], Showers]:
    fast = toy(3, 0.7, FIXED)
    refined = fast.with_cells(toy(4, 0.81, FIXED).cells)
    return toy(1, 0.8, FIXED), {"gflash": fast, "refined": refined}, toy(2, 0.8, FIXED)


@pytest.fixture(scope="module")
def record(samples: tuple[Showers, dict[str, Showers], Showers]) -> dict[str, Any]:
    ref, candidates, ref2 = samples
    return evaluate(
        ref,
        candidates,
        ref2,
        bootstraps=5,
        splits=20,
        classifiers=(),
        command="hepbridge evaluate <x>",
    ).to_dict()


@pytest.fixture(scope="module")
def report(
    samples: tuple[Showers, dict[str, Showers], Showers],
    record: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    ref, candidates, ref2 = samples
    return write(record, ref, candidates, ref2, tmp_path_factory.mktemp("out") / "report")


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page(report.read_text(encoding="utf-8"))


def test_folder_holds_what_is_promised(report: Path, record: dict[str, Any]) -> None:
    folder = report.parent
    assert {p.name for p in folder.iterdir()} == {"report.html", "metrics.json", "figures"}
    assert not [p for p in folder.parent.iterdir() if p != folder]
    figures = {p.name for p in (folder / "figures").iterdir()}
    for key in (
        "fig1_energy_sum",
        "fig2_before_after",
        "fig3_sum_and_spectrum",
        "fig4_hits_and_maximum",
        "fig5_profiles",
        "average_shower",
        "event_displays",
    ):
        assert {f"{key}.png", f"{key}.pdf"} <= figures
    text = (folder / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text) == record
    assert list(json.loads(text)) == sorted(record)


def test_page_is_sound_and_self_contained(page: Page, report: Path) -> None:
    assert page.open == []
    assert page.all("html")[0]["lang"] == "en"
    assert not page.all("script") and not page.all("link")
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"url\(|@import", report.read_text(encoding="utf-8"))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in page.all("a")} <= {f"#{i}" for i in ids}


def test_page_can_be_read_without_seeing(page: Page) -> None:
    images = page.all("img")
    assert len(images) == 7
    assert all(len(image["alt"] or "") > 20 for image in images)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))


def test_user_text_is_escaped(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "toy &amp; &lt;test&gt;" in text
    assert "hepbridge evaluate &lt;x&gt;" in text


def test_numbers_of_the_page_are_those_of_the_metrics(page: Page, report: Path) -> None:
    """Fails if a table cell shows another candidate's number, or not the one it is tagged with."""
    record = json.loads((report.parent / "metrics.json").read_text(encoding="utf-8"))
    shown = {
        (a["data-set"], a["data-observable"], a["data-candidate"]): (
            float(a["data-emd"] or "nan"),
            float(a["data-sigma"] or "nan"),
        )
        for a in page.all("td")
        if "data-candidate" in a
    }
    wanted = {
        (s["label"], row["observable"], name): (cell["emd"], cell["sigma"])
        for s in record["sets"]
        for row in s["rows"]
        for name, cell in row["candidates"].items()
    }
    assert shown == wanted
    text = report.read_text(encoding="utf-8")
    for emd, sigma in wanted.values():
        assert f'data-emd="{emd!r}" data-sigma="{sigma!r}">{plus_minus(emd, sigma)}<' in text


def test_png_has_200_dpi_of_the_shown_size(page: Page, report: Path) -> None:
    from PIL import Image

    with Image.open(report.parent / "figures" / "fig1_energy_sum.png") as image:
        assert {str(image.width // 2)} <= {a["width"] for a in page.all("img")}
        assert round(image.info["dpi"][0]) == 200


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1280])
def test_browser_shows_every_image(report: Path, tmp_path: Path, width: int) -> None:
    """At the width of a phone (the least that Chromium has) and of a desk, and not a blank page."""
    title, shown = in_browser(report, tmp_path, width)
    assert title == "7 of 7 wide true"
    assert shown.shape[1] == width and 0.02 < (shown < 128).any(axis=2).mean() < 0.5


def test_existing_report_is_refused_then_replaced(
    samples: tuple[Showers, dict[str, Showers], Showers],
    record: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "draw_all", lambda *_: iter(()))
    ref, candidates, ref2 = samples
    out = tmp_path / "report"
    out.mkdir()  # an empty folder is welcome
    write(record, ref, candidates, ref2, out)
    (out / "metrics.json").write_text("old")
    with pytest.raises(
        OutputError, match="holds a report already; choose another folder or pass --overwrite"
    ):
        write(record, ref, candidates, ref2, out)
    assert (out / "metrics.json").read_text() == "old"
    write(record, ref, candidates, ref2, out, overwrite=True)
    assert (out / "metrics.json").read_text() != "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


def test_foreign_files_are_never_removed(tmp_path: Path) -> None:
    """Fails if --overwrite empties a folder that is not a report (a home directory, say)."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match=r"no part of a report \(thesis.tex\)"):
        check_directory(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        check_directory(tmp_path / "thesis.tex")
    with pytest.raises(OutputError, match="does not exist; make it first"):
        check_directory(tmp_path / "a" / "b")


@pytest.mark.parametrize("error", [RuntimeError("planted"), OSError(28, "No space left on device")])
def test_failure_leaves_nothing_and_keeps_the_old(
    error: Exception,
    samples: tuple[Showers, dict[str, Showers], Showers],
    record: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fails if files are written into the final folder before all of them exist."""

    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(writer, "draw_all", lambda *_: iter(()))
    monkeypatch.setattr(writer, "page", fail)
    ref, candidates, ref2 = samples
    expected = OutputError if isinstance(error, OSError) else RuntimeError
    with pytest.raises(expected, match=r"planted|cannot write the report .*No space left"):
        write(record, ref, candidates, ref2, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    old = tmp_path / "old"
    old.mkdir()
    (old / "report.html").write_text("kept")
    with pytest.raises(expected):
        write(record, ref, candidates, ref2, old, overwrite=True)
    assert (old / "report.html").read_text() == "kept"
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_other_showers_than_evaluated_are_refused(
    samples: tuple[Showers, dict[str, Showers], Showers], record: dict[str, Any], tmp_path: Path
) -> None:
    ref, candidates, ref2 = samples
    first = {name: s[:60] for name, s in candidates.items()}
    with pytest.raises(DataError, match="pass the showers that were evaluated"):
        write(record, ref[:60], first, ref2[:60], tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


def test_mixed_weighted_and_banded_samples_are_drawn(
    samples: tuple[Showers, dict[str, Showers], Showers], record: dict[str, Any]
) -> None:
    """Figure 2 has its response only with a mixed sample; bands are announced where drawn."""
    fast = toy(13, 0.7, MIXED, weights=True)
    mixed = (
        toy(11, 0.8, MIXED),
        {"gflash": fast, "refined": fast.with_cells(toy(14, 0.8, MIXED).cells)},
        None,
    )
    bands = {"refined": [toy(20, 0.8, FIXED), toy(21, 0.82, FIXED)]}
    look = styles(["gflash", "refined"], "gflash", "refined")
    plates = {
        p.key: p
        for p in draw_all(drawn_sets(record, samples, mixed, bands), look, "gflash", "refined")
    }
    assert plates["fig2_response"].figure is not None
    assert "mixed" in plates["fig2_before_after"].caption
    figure = plates["fig2_before_after"].figure
    assert figure is not None
    axes = figure.axes[2]  # after those of 20 and 50 GeV
    assert "E_\\mathrm{inc}" in axes.get_xlabel() and axes.get_xlim()[1] < 1.2  # E_sum / E_inc
    titles = [p.title for p in plates.values()]
    assert len(set(titles)) == len(titles)
    assert "over an ensemble of trainings: refined (2)" in plates["fig3_sum_and_spectrum"].caption
    without = {p.key: p for p in draw_all(drawn_sets(record, samples), look, "gflash", "refined")}
    assert "fig2_response" not in without
    assert "there is no mixed-energy sample" in without["fig2_before_after"].caption


def test_panels_of_a_figure_share_the_ratio_axis(
    samples: tuple[Showers, dict[str, Showers], Showers], record: dict[str, Any]
) -> None:
    look = styles(["gflash", "refined"], "gflash", "refined")
    for plate in draw_all(drawn_sets(record, samples), look, "gflash", "refined"):
        if plate.key.startswith(("fig1", "fig3", "fig4", "fig5")):
            assert plate.figure is not None
            assert len({ax.get_ylim() for ax in plate.figure.axes[1::2]}) == 1, plate.key


def test_caption_names_equal_sums(
    samples: tuple[Showers, dict[str, Showers], Showers],
) -> None:
    """Fails if other events with the same sums, or other sums of the same events, are called equal."""
    ref, candidates, ref2 = samples
    fast = candidates["gflash"]
    turned = {"gflash": fast, "turned": fast.with_cells(fast.cells[:, ::-1].copy())}
    record = evaluate(ref, turned, ref2, bootstraps=2, splits=20, classifiers=()).to_dict()
    look = styles(["gflash", "turned"], "gflash", "turned")

    def caption(chosen: dict[str, Showers]) -> str:
        sets = drawn_sets(record, (ref, chosen, ref2))
        return next(p.caption for p in draw_all(sets, look, "gflash", "turned"))

    assert "Equal energy sums, shower by shower: gflash and turned." in caption(turned)
    events = Showers.from_arrays(turned["turned"].cells, FIXED)
    assert "Equal energy sums" not in caption({"gflash": fast, "turned": events})
    sums = candidates["refined"]
    assert "Equal energy sums" not in caption({"gflash": fast, "turned": sums})


@pytest.mark.slow
def test_samples_of_the_mixed_figures_are_listed(
    samples: tuple[Showers, dict[str, Showers], Showers], record: dict[str, Any], tmp_path: Path
) -> None:
    ref, candidates, ref2 = samples
    fast = toy(13, 0.7, MIXED)
    mixed = (toy(11, 0.8, MIXED), {"gflash": fast, "refined": fast}, None)
    text = write(record, ref, candidates, ref2, tmp_path / "out", mixed=mixed).read_text("utf-8")
    listed = text[text.index('id="samples"') : text.index('id="definitions"')]
    assert listed.count("mixed (figures only)") == 3
    assert listed.count("10 to 100 GeV") == 3
    assert "Learning curve" not in text  # there is none


def test_one_mixed_candidate_is_enough() -> None:
    ref, cand = toy(1, 0.8, MIXED), toy(2, 0.7, MIXED)
    record = evaluate(ref, {"gflash": cand}, bootstraps=2, splits=20, classifiers=()).to_dict()
    look = styles(["gflash"], "gflash", None)
    plates = {
        p.key: p
        for p in draw_all(drawn_sets(record, (ref, {"gflash": cand}, None)), look, "gflash", None)
    }
    assert plates["fig1_energy_sum"].figure is None
    assert plates["fig2_before_after"].figure is None
    assert plates["fig5_profiles"].figure is not None
