"""HEPData submissions: numbers against NumPy, structure against the published JSON schema (1.1.1)."""

from __future__ import annotations

import re
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hepbridge.core.errors import ConfigError, DataError, OutputError
from hepbridge.data.tables import Table
from hepbridge.deploy.hepdata import Measurement, default_edges, spectrum, write_hepdata

EDGES = np.array([0.0, 0.5, 1.0, 2.0])


def events(n: int = 500) -> Table:
    rng = np.random.default_rng(0)
    return Table.from_columns(
        {"mass": rng.exponential(size=n), "z_g": rng.uniform(0.1, 0.5, n), "n": rng.poisson(9, n)},
        {"mass": "GeV", "z_g": "1", "n": "1"},
        defined={"mass": np.arange(n) % 10 > 0},
        weights=rng.uniform(0.5, 1.5, n),
    )


def measurement(column: str = "mass", kind: str = "normalised") -> Measurement:
    table, rng = events(), np.random.default_rng(1)
    how: dict[str, Any] = {"kind": kind, "luminosity": 2.0 if kind == "cross-section" else None}
    edges = EDGES if column == "mass" else np.linspace(0.1, 0.5, 5)
    value = spectrum(table, column, edges, **how)
    assert table.weights is not None
    replicas = [
        spectrum(table, column, edges, weights=table.weights * rng.poisson(1, 500), **how)
        for _ in range(40)
    ]
    variations = {"shower": (1.1 * value, 0.95 * value), "prior": 1.02 * value}
    return Measurement.of(
        column, edges, value, replicas, variations, unit=table.units[column], kind=kind
    )


def test_spectra() -> None:
    """By a loop over bins and events. Fails if undefined events or those outside leave the total."""
    table = events()
    x, w = table.column("mass"), table.weights
    assert w is not None
    counts = [sum(w[i] for i in range(500) if lo <= x[i] < hi) for lo, hi in pairwise(EDGES)]
    assert spectrum(table, "mass", EDGES, kind="events") == pytest.approx(counts)
    widths = np.array([0.5, 0.5, 1.0])
    assert spectrum(table, "mass", EDGES) == pytest.approx(counts / (w.sum() * widths))
    found = spectrum(table, "mass", EDGES, kind="cross-section", luminosity=4.0)
    assert found == pytest.approx(counts / (4.0 * widths))
    ones = spectrum(table, "mass", EDGES, kind="events", weights=np.ones(500))
    assert (ones == np.round(ones)).all()
    assert set(np.diff(default_edges(table, "n"))) == {1.0}
    assert default_edges(table, "n")[0] % 1 == 0.5


def test_covariance_is_that_of_the_replicas() -> None:
    """A sum over replicas, with R − 1. Fails if rows and columns are swapped."""
    rng = np.random.default_rng(2)
    replicas = rng.multivariate_normal([1, 2], [[1, 0.5], [0.5, 2]], 30)
    found = Measurement.of("x", [0, 1, 2], [1, 2], replicas).covariance
    slow = np.zeros((2, 2))
    for r in replicas:
        slow += np.outer(r - replicas.mean(0), r - replicas.mean(0)) / 29
    assert np.allclose(found, slow)


def test_files_fulfil_the_schema(tmp_path: Path) -> None:
    """What the schemas demand of submission.yaml and tables: keys, types, lengths, nothing else."""
    path = tmp_path / "submission"
    keywords = {"reactions": ["P P --> Z0 JET X"], "cmenergies": [14000]}
    made = [measurement(), measurement("z_g", "cross-section")]
    assert write_hepdata(made, path, comment="Z + jet.", keywords=keywords) == path
    first, *tables = yaml.safe_load_all((path / "submission.yaml").read_text("utf-8"))
    assert first == {"comment": "Z + jet."}
    assert len({t["name"] for t in tables}) == len(tables) == 4
    for entry in tables:
        assert set(entry) == {"name", "description", "keywords", "data_file"}
        assert len(entry["name"]) <= 64
        for keyword in entry["keywords"]:
            assert set(keyword) == {"name", "values"}
            assert keyword["name"] in ("cmenergies", "observables", "reactions", "phrases")
        data = yaml.safe_load((path / entry["data_file"]).read_text("utf-8"))
        assert set(data) == {"independent_variables", "dependent_variables"}
        columns = [*data["independent_variables"], *data["dependent_variables"]]
        assert len({len(c["values"]) for c in columns}) == 1
        for column in columns:
            assert set(column) == {"header", "values"}
            assert set(column["header"]) <= {"name", "units"}
            assert all(isinstance(text, str) for text in column["header"].values())
        for value in (v for c in data["independent_variables"] for v in c["values"]):
            assert set(value) == {"low", "high"} and value["low"] < value["high"]
        for value in (v for c in data["dependent_variables"] for v in c["values"]):
            assert set(value) <= {"value", "errors"} and isinstance(value["value"], float)
            for error in value.get("errors", []):
                assert set(error) in ({"symerror", "label"}, {"asymerror", "label"})
                assert set(error.get("asymerror", {})) in (set(), {"plus", "minus"})
    assert {e.name for e in path.iterdir()} == {
        "submission.yaml", "mass.yaml", "mass_covariance.yaml", "z_g.yaml", "z_g_covariance.yaml",
    }  # fmt: skip


def test_numbers_of_the_tables(tmp_path: Path) -> None:
    """Values, errors and covariance are those of the measurement; fails if up and down are swapped."""
    m = measurement()
    write_hepdata([m], tmp_path / "s", comment="x")
    table = yaml.safe_load((tmp_path / "s" / "mass.yaml").read_text("utf-8"))
    (x,), (y,) = table["independent_variables"], table["dependent_variables"]
    assert x["header"] == {"name": "$m$", "units": "GeV"}
    assert y["header"]["units"] == "1/GeV"
    assert [v["low"] for v in x["values"]] == [0.0, 0.5, 1.0]
    for b, value in enumerate(y["values"]):
        assert value["value"] == pytest.approx(m.values[b], rel=1e-7)
        stat, shower, prior = value["errors"]
        assert (stat["label"], shower["label"], prior["label"]) == (
            "stat",
            "sys,shower",
            "sys,prior",
        )
        assert stat["symerror"] == pytest.approx(m.covariance[b, b] ** 0.5, rel=1e-7)
        assert shower["asymerror"]["plus"] == pytest.approx(0.1 * m.values[b], rel=1e-6)
        assert shower["asymerror"]["minus"] == pytest.approx(-0.05 * m.values[b], rel=1e-6)
        assert prior["asymerror"]["plus"] == -prior["asymerror"]["minus"]
    matrix = yaml.safe_load((tmp_path / "s" / "mass_covariance.yaml").read_text("utf-8"))
    (c,) = matrix["dependent_variables"]
    assert c["header"]["units"] == "(1/GeV)^2"
    found = np.array([v["value"] for v in c["values"]]).reshape(3, 3)
    assert np.allclose(found, m.covariance, rtol=1e-7)
    rows, columns = (v["values"] for v in matrix["independent_variables"])
    assert (rows[1]["low"], columns[1]["low"]) == (0.0, 0.5)


def test_archive_is_the_folder_and_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hepdata([measurement()], tmp_path / "s", comment="x")
    archive = write_hepdata([measurement()], tmp_path / "s.tar.gz", comment="x")
    with tarfile.open(archive) as tar:
        opened = {m.name: tar.extractfile(m) for m in tar.getmembers()}
        inside = {name: file.read() for name, file in opened.items() if file is not None}
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: 1e9)
        again = write_hepdata([measurement()], tmp_path / "t.tar.gz", comment="x")
    assert again.read_bytes() == archive.read_bytes()
    assert inside == {e.name: e.read_bytes() for e in (tmp_path / "s").iterdir()}


def test_folders_are_written_whole_and_never_emptied_of_others(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_hepdata([measurement()], path, comment="first")
    with pytest.raises(OutputError, match="holds a submission already"):
        write_hepdata([measurement()], path, comment="x")
    write_hepdata([measurement("z_g")], path, comment="second", overwrite=True)
    assert sorted(e.name for e in path.iterdir()) == [
        "submission.yaml", "z_g.yaml", "z_g_covariance.yaml",
    ]  # fmt: skip
    (path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"no part of a submission \(thesis.tex\)"):
        write_hepdata([measurement()], path, comment="x", overwrite=True)
    assert (path / "thesis.tex").exists()
    with pytest.raises(OutputError, match="is a file"):
        write_hepdata([measurement()], path / "thesis.tex", comment="x")
    with pytest.raises(OutputError, match="does not exist"):
        write_hepdata([measurement()], tmp_path / "no" / "s", comment="x")
    assert [e.name for e in tmp_path.iterdir()] == ["s"]


def test_names_that_are_no_file_names(tmp_path: Path) -> None:
    made = [
        Measurement.of(name, [0, 1], [1.0], [[1.0], [2.0]]) for name in ("jet/pt", "jet pt", "π")
    ]
    write_hepdata(made, tmp_path / "s", comment="x")
    files = sorted(e.name for e in (tmp_path / "s").iterdir())
    assert len(files) == 7 and all(name.isascii() for name in files)
    _, *tables = yaml.safe_load_all((tmp_path / "s" / "submission.yaml").read_text("utf-8"))
    assert len({t["name"] for t in tables}) == len({t["data_file"] for t in tables}) == 6


def test_example_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    code = re.search(r"## HEPData.*?```python\n(.*?)```", text, re.S)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})  # our own page
    assert (tmp_path / "submission" / "mass.yaml").exists()


def test_bad_input(tmp_path: Path) -> None:
    table, m = events(), measurement()
    for act, error, words in (
        (lambda: spectrum(table, "mass", [0, 1], kind="pdf"), ConfigError, "no kind of spectrum"),
        (lambda: spectrum(table, "mass", [0, 1], luminosity=1.0), ConfigError, "nothing else"),
        (lambda: spectrum(table, "mass", [0, 1], kind="cross-section"), ConfigError, "luminosity"),
        (lambda: spectrum(table, "mass", [1, 0]), DataError, "that rise"),
        (lambda: spectrum(table, "mass", [0, np.inf]), DataError, "must be finite"),
        (lambda: spectrum(table, "mass", [0, 1], weights=np.ones(3)), DataError, "500 events"),
        (lambda: spectrum(table, "pt", [0, 1]), DataError, "no column 'pt'"),
        (lambda: Measurement.of("x", [0, 1], [1], [[1.0]]), DataError, "at least two replicas"),
        (lambda: Measurement.of("x", [0, 1], [1, 2], np.ones((3, 2))), DataError, r"got \(2,\)"),
        (
            lambda: Measurement.of("x", [0, 1], [1], np.ones((3, 1)), {"s": [1, 2]}),
            DataError,
            "variation 's'",
        ),
        (lambda: Measurement.of("x", [0, 1], [np.nan], np.ones((3, 1))), DataError, "finite"),
        (lambda: write_hepdata([m, m], tmp_path / "s", comment="x"), DataError, "another column"),
        (lambda: write_hepdata([], tmp_path / "s", comment="x"), DataError, "needs measurements"),
        (lambda: write_hepdata([m], tmp_path / "s", comment=" "), ConfigError, "needs a comment"),
        (
            lambda: write_hepdata([m], tmp_path / "s", comment="x", keywords={"energy": [1]}),
            ConfigError,
            "no keyword 'energy'; allowed: reactions",
        ),
        (
            lambda: write_hepdata([m], tmp_path / "s", comment="x", descriptions={"pt": "y"}),
            ConfigError,
            "description of 'pt'",
        ),
    ):
        with pytest.raises(error, match=words):
            act()
    assert not list(tmp_path.iterdir())
