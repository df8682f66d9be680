"""The page of a protocol: its numbers are those of the record, its figures show what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hepbridge.data.showers import Showers
from hepbridge.metrics.protocols import calochallenge
from hepbridge.metrics.protocols.base import Source
from hepbridge.report.protocol import numbers, places
from hepbridge.report.protocol_figures import protocol_plates
from hepbridge.report.protocol_page import write_protocol
from hepbridge.report.style import roles, styles
from pages import Page, in_browser

N = 200


@pytest.fixture(scope="module")
def record() -> Iterator[dict[str, Any]]:
    """Data set 1 on made-up showers: the fast ones have another shape."""
    with pytest.MonkeyPatch.context() as patch:
        both = {"value": 1.0, "error": 0.1, "unbiased": 0.9, "unbiased_error": 0.2}
        patch.setattr(calochallenge, "distances", lambda *_: {"fpd": both, "kpd": both})
        protocol = calochallenge.CaloChallenge(dataset="1-photons")

        def sample(name: str, seed: int, spread: float) -> Source:
            rng = np.random.default_rng(seed)
            energy = 2.0 ** (8 + np.arange(N) % 15)
            cells = rng.dirichlet(np.full(368, spread), N) * energy[:, None]
            showers = Showers.from_arrays(
                cells.astype(np.float32), energy, geometry=protocol.geometry
            )
            return Source.of_showers(name, showers, protocol.geometry)

        candidates = {"gflash": sample("gflash", 2, 0.1), "refined": sample("refined", 3, 0.3)}
        found = protocol.evaluate(sample("ref", 1, 0.3), candidates, sample("ref2", 4, 0.3))
    yield {
        **found,
        "sampling_fraction": None,
        "command": "hepbridge evaluate <x>",
        "created": "2026-01-01",
        "hepbridge": "0",
    }


@pytest.fixture(scope="module")
def report(record: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_protocol(record, tmp_path_factory.mktemp("out") / "report")


def test_page_is_sound_and_self_contained(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert all(str(i["src"]).startswith("data:") and i["alt"] for i in page.all("img"))
    assert not page.all("script") and not page.all("link")
    targets = {a["id"] for _, a in page.tags if "id" in a}
    assert {str(a["href"]).removeprefix("#") for a in page.all("a")} <= targets
    assert "hepbridge evaluate &lt;x&gt;" in text


def test_numbers_of_the_page_are_those_of_the_record(record: dict[str, Any], report: Path) -> None:
    text = re.sub(r"<[^>]+>", " ", report.read_text(encoding="utf-8"))
    stored = json.loads((report.parent / "metrics.json").read_text("utf-8"))
    for name in ("gflash", "refined"):
        group = stored["candidates"][name]["groups"]["e_layer"]
        row = next(r for r in numbers(record, name).rows if r[0] == "layer energies")
        assert float(row[1]) == pytest.approx(1e3 * group["separation"], rel=5e-3)
        assert float(row[3]) == pytest.approx(1e3 * group["separation_all"], rel=5e-3)
        assert re.search(r"\s+".join(map(re.escape, row[:6])), text)
        place = next(r for r in places(record, name).rows if r[0] == "layer energies")
        assert place[2] == "{rank} of {of}".format(
            **stored["candidates"][name]["ranking"]["e_layer"]
        )
    assert "1.00(10)" not in text and "1000(100)" in text  # FPD in units of 1e-3


def drawn(record: dict[str, Any]) -> dict[str, Any]:
    names = list(record["candidates"])
    return {p.key: p for p in protocol_plates(record, styles(names, *roles(names)))}


def test_histograms_are_those_of_the_counts(record: dict[str, Any]) -> None:
    """Every step of the first panel, and its ratio, against the counts themselves."""
    axes = drawn(record)["protocol_histograms"].figure.axes
    top, bottom = axes[0], axes[1]
    counts = record["candidates"]["refined"]["rows"]["e_tot"]["counts"]
    stored = next(h for h in record["histograms"] if h["name"] == "e_tot")
    values = [np.asarray(p.get_data().values) for p in top.patches]
    wanted = np.array(counts[1:-2]) / sum(counts)
    assert any(v.shape == wanted.shape and np.allclose(v, wanted) for v in values)
    ref = np.array(stored["counts"][1:-2]) / sum(stored["counts"])
    known = np.array(stored["counts"][1:-2]) >= 4
    points = [p for line in bottom.lines for p in np.asarray(line.get_xydata())]
    centres = (np.array(stored["edges"])[1:] + np.array(stored["edges"])[:-1]) / 2
    near = known & (np.abs(wanted / np.where(known, ref, 1) - 1) <= 0.5)
    for x, y in zip(centres[near], (wanted / np.where(known, ref, 1))[near], strict=True):
        assert any(np.allclose(p, (x, y)) for p in points)


def test_worst_layers_are_shown(record: dict[str, Any]) -> None:
    """The title of the panel of layer energies names the layer with the largest separation."""
    rows = record["candidates"]
    layers = {
        n: max(c["rows"][n]["separation_all"] for c in rows.values())
        for n in rows["gflash"]["rows"]
        if n.startswith("e_layer")
    }
    worst = max(layers, key=lambda n: layers[n]).split()[1]
    titles = [a.get_title(loc="left") for a in drawn(record)["protocol_histograms"].figure.axes]
    assert f"Layer {worst}: energy" in titles


def test_places_grow_with_the_value(record: dict[str, Any]) -> None:
    """On the line of layer energies a candidate stands right of all that are better."""
    plate = drawn(record)["protocol_places"]
    ax = plate.figure.axes[0]
    labels = [t.get_text() for t in ax.get_yticklabels()]
    line = labels.index("layer energies")
    at = [
        (float(p.get_xdata()[0]), p.get_marker())
        for p in ax.lines
        if len(p.get_ydata()) == 1 and p.get_ydata()[0] == line
    ]
    published = [x for x, marker in at if marker == "|"]
    (mine,) = (x for x, marker in at if marker == "s")
    row = record["candidates"]["gflash"]["ranking"]["e_layer"]
    assert sum(x < mine for x in published) == row["rank"] - 1
    assert len(published) == row["of"] - 1


@pytest.mark.parametrize("width", [500, 1280])
def test_browser_shows_the_page(report: Path, tmp_path: Path, width: int) -> None:
    title, shown = in_browser(report, tmp_path, width)
    assert title == "3 of 3 wide true"
    assert shown.shape[1] == width and 0.02 < (shown < 128).any(axis=2).mean() < 0.5
