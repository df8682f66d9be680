"""``hepbridge info`` on shower files, and joining files named on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import uproot
from typer.testing import CliRunner

from hepbridge import Geometry, Showers, save
from hepbridge.cli import describe, samples
from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError, DataError
from hepbridge.data.formats.points import save_points
from hepbridge.data.formats.tables import save_tables
from hepbridge.data.join import join
from hepbridge.data.points import PointShowers
from hepbridge.data.table_files import write_tables
from hepbridge.data.tables import Table

run = CliRunner().invoke


def showers(n: int, energy: float, seed: int = 0, **options: object) -> Showers:
    rng = np.random.default_rng(seed)
    cells = rng.exponential(0.009 * energy, size=(n, 100)) * (rng.random((n, 100)) < 0.6)
    return Showers.from_arrays(cells, np.full(n, energy), **options)  # type: ignore[arg-type]


def test_record_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a chunk is left out or counted twice."""
    monkeypatch.setattr(describe, "_CHUNK", 7)
    mine = showers(40, 50_000.0, meta={"simulation": "none at all"})
    save(mine, tmp_path / "mine.h5", manifest={"command": "test"})
    record = json.loads(run(app, ["info", str(tmp_path / "mine.h5"), "--json"]).stdout)
    assert record["kind"] == "showers"
    assert record["showers"] == 40
    assert record["incident_energy_gev"] == {"min": 50.0, "max": 50.0, "values": [50.0]}
    assert record["geometry"]["shape"] == [10, 10]
    assert record["empty_showers"] == 0
    cells = record["cells"]
    assert cells["filled_fraction"] == pytest.approx((mine.cells > 0).mean(), rel=1e-12)
    assert cells["largest_gev"] == pytest.approx(mine.cells.max() / 1000, rel=1e-6)
    assert cells["mean_e_sum_over_incident"] == pytest.approx((mine.e_sum / 50_000).mean())
    assert record["event_uids"] == [f"{int(mine.event_ids[0, 0]):016x}"]
    assert record["provenance"]["simulation"] == "none at all"
    assert record["made_by"] == {"command": "test"}


def test_words_of_a_file(tmp_path: Path) -> None:
    save(showers(40, 50_000.0, meta={"simulation": "none at all"}), tmp_path / "mine.h5")
    output = run(app, ["info", str(tmp_path / "mine.h5")]).stdout
    for words in ("40 showers", "50 GeV", "10×10 cells", "symmetry D4", "simulation: none at all"):
        assert words in output


def test_a_whole_detector_does_not_hide_the_rest() -> None:
    """Texts of several lines, lists of blocks and long texts take one line; --json has them whole."""
    block = {
        "yaml": "name: a\nlayers: 3\n",
        "layers": [{"cells": 1}] * 4,
        "about": "word " * 90,
        "n": 3,
    }
    lines = describe._blocks({"made by": block})
    assert lines[:3] == [
        "  made by",
        "    yaml: 2 lines (--json shows them)",
        "    layers: 4 entries (--json shows them)",
    ]
    assert len(lines[3]) < 240 and lines[3].endswith("word … (--json shows all)")
    assert lines[4:] == ["    n: 3"]


def test_event_tables(tmp_path: Path) -> None:
    """Undefined values are counted, and are in no mean."""
    mass = np.array([1.0, 2.0, 6.0, np.nan])
    table = Table.from_columns(
        {"mass": mass},
        {"mass": "GeV"},
        defined={"mass": np.isfinite(mass)},
        flags={"pass": np.array([True, False, True, False])},
    )
    save_tables({"particle": table}, tmp_path / "events.h5", manifest={"command": "test"})
    record = json.loads(run(app, ["info", str(tmp_path / "events.h5"), "--json"]).stdout)
    found = record["tables"]["particle"]
    assert (record["kind"], found["rows"], found["flags"]) == ("tables", 4, {"pass": 2})
    assert found["columns"]["mass"] == {
        "unit": "GeV", "undefined": 1, "mean": 3.0, "std": pytest.approx(14**0.5 / 3**0.5)
    }  # fmt: skip
    assert record["made_by"] == {"command": "test"}
    words = run(app, ["info", str(tmp_path / "events.h5")]).stdout
    assert "particle: 4 rows" in words and "3 ± 2.16 GeV, 3 defined" in words


def test_point_clouds(tmp_path: Path) -> None:
    hits = np.array([[0.0, 0, 1, 5], [1, 0, 1, 7], [0, 2, 1, 9]])
    save_points(PointShowers.from_hits(hits, [0, 2, 3], [1e4, 2e4]), tmp_path / "points.h5")
    record = json.loads(run(app, ["info", str(tmp_path / "points.h5"), "--json"]).stdout)
    assert (record["kind"], record["showers"], record["points_per_shower"]) == ("points", 2, 1.5)
    assert record["incident_energy_gev"] == {"min": 10.0, "max": 20.0}
    assert "1.5 per shower" in run(app, ["info", str(tmp_path / "points.h5")]).stdout


def test_empty_showers_are_reported_not_refused(tmp_path: Path) -> None:
    cells = np.ones((5, 100))
    cells[3] = 0
    mine = Showers.from_arrays(cells, np.full(5, 2e4), allow_empty_showers=True)
    save(mine, tmp_path / "mine.h5")
    output = run(app, ["info", str(tmp_path / "mine.h5")]).stdout
    assert "1 showers have no energy at all" in output


def test_missing_file(tmp_path: Path) -> None:
    done = run(app, ["info", str(tmp_path / "no.h5")])
    assert done.exit_code == 3
    assert done.stderr.endswith("no.h5: there is no such file\n")


def test_unknown_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(app, ["info", "no-such-model"])
    assert done.exit_code == 4
    assert "no shipped model is called 'no-such-model'" in done.stderr


def test_what_counts_as_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "showers").touch()
    assert samples.is_model("folder/a.safetensors") and samples.is_model("squirels")
    assert not any(samples.is_model(name) for name in ("a.h5", "folder/a", "showers"))


def test_files_of_one_name_are_joined(tmp_path: Path) -> None:
    """Fails if an event loses its id, its weight or its columns, or the order changes."""
    one = showers(6, 2e4, 1, weights=np.full(6, 0.5), columns={"run": np.arange(6)}, meta={"a": 1})
    two = showers(4, 5e4, 2, columns={"run": np.arange(4), "more": np.ones(4)}, meta={"a": 1})
    paths = [tmp_path / "one.h5", tmp_path / "two.h5"]
    save(one, paths[0])
    save(two, paths[1])
    both = samples.joined(paths)
    assert np.array_equal(both.cells, np.concatenate([one.cells, two.cells]))
    assert np.array_equal(both.incident_energy, [2e4] * 6 + [5e4] * 4)
    assert np.array_equal(both.event_ids, np.concatenate([one.event_ids, two.event_ids]))
    assert both.weights is not None and np.array_equal(both.weights, [0.5] * 6 + [1.0] * 4)
    assert set(both.columns) == {"run"}
    assert both.meta["a"] == 1


def test_different_detectors_are_not_joined() -> None:
    other = Geometry("small", (2, 2), ("x", "y"), (30.0, 30.0))
    small = Showers.from_arrays(np.ones((3, 4)), np.full(3, 2e4), geometry=other)
    with pytest.raises(DataError, match="a and b cannot be joined: their geometries differ"):
        join([showers(3, 2e4), small], ["a", "b"])


def test_different_conditions_are_not_joined() -> None:
    tilted = showers(3, 2e4, conditions={"angle": np.zeros(3)})
    with pytest.raises(DataError, match="their conditions differ"):
        join([showers(3, 2e4), tilted], ["a", "b"])


@pytest.mark.parametrize("word", ["gflash", "=a.h5", "gflash="])
def test_candidate_without_name_or_file(word: str) -> None:
    with pytest.raises(ConfigError, match="write NAME=FILE"):
        samples.by_name([word])


@pytest.mark.parametrize("suffix", [".root", ".parquet", ".npz"])
def test_event_tables_of_any_kind_are_described(tmp_path: Path, suffix: str) -> None:
    """Of hepbridge and of others; a ROOT file of showers stays one."""
    table = Table.from_columns({"tau": np.arange(5.0)}, {"tau": "GeV"})
    path = tmp_path / f"a{suffix}"
    write_tables({"events": table}, path)
    assert "tau" in run(app, ["info", str(path)]).stdout
    if suffix == ".root":
        with uproot.recreate(tmp_path / "b.root") as file:
            file.mktree("ntuple", {"pt": "f8"}).extend({"pt": np.arange(3.0)})
        assert "pt" in run(app, ["info", str(tmp_path / "b.root")]).stdout
        save(showers(3, 50_000.0), tmp_path / "c.root")
        assert "3 showers" in run(app, ["info", str(tmp_path / "c.root")]).stdout


def test_bundled_events_are_described() -> None:
    assert "tau21" in run(app, ["info", "zjets-a14"]).stdout
