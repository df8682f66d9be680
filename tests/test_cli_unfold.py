"""``hepbridge unfold``: train, apply, evaluate and bin, from an analyst's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from hepbridge.cli.app import app
from hepbridge.data.table_files import read_tables, write_tables
from hepbridge.data.tables import Table
from unfolding_toys import tables

run = CliRunner().invoke
QUICK = [
    "options.teacher_options.train_steps=300",
    "options.train_steps=300",
    "options.width=32",
    "options.depth=2",
    "options.teacher_options.width=32",
    "options.teacher_options.depth=2",
    "classifier.train_steps=100",
    "acceptance.train_steps=100",
]
OTHER = ["--set", "classifier.members=2"]  # the start need not have it
SET = [word for entry in QUICK for word in ("--set", entry)]


def good(*words: object) -> dict[str, Any]:
    done = run(app, ["unfold", *map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def bad(code: int, *words: object) -> str:
    done = run(app, ["unfold", *map(str, words)])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return str(done.stderr)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A response and data with misses and fakes, and a model."""
    made = tmp_path_factory.mktemp("unfold")
    options: dict[str, Any] = {"efficiency": True, "fakes": 0.1}
    write_tables(tables(4_000, 1, **options), made / "response.h5")
    write_tables(tables(2_000, 2, mean=0.3, **options), made / "data.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        good("train", "sbunfold", "--response", "response.h5", "-o", "m.safetensors", *SET)
    return made


@pytest.mark.slow
def test_from_response_to_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    record = good(
        "apply", "m.safetensors", "data.h5", "-o", "u.h5", "--samples", 4, "--replicas", 3
    )
    table = read_tables("u.h5")["unfolded"]
    assert record["events"] == len(table)
    assert {"x", "unfolded_x_0", "unfolded_x_3", "replica_2"} <= set(table.columns)
    assert table.weights is not None
    assert record["sum_of_weights"] == pytest.approx(table.weights.sum())
    words = ("--truth", "data.h5", "--prior", "response.h5", "--data", "data.h5")
    found = good("evaluate", "sb=u.h5", *words, "-o", "report")
    assert Path(found["report"]).is_file()
    assert {"prior", "data", "sb"} == set(found["samples"]) - {"truth"}
    assert found["posteriors"]["sb"]["x"]["samples"] == 4
    assert good("bin", "u.h5", "-o", "hep", "--bins", "x=-3:3:12")["bins"] == {"x": 12}
    spectra = yaml.safe_load(next(Path("hep").glob("*ovarian*.yaml")).read_text("utf-8"))
    assert len(spectra["dependent_variables"][0]["values"]) == 144


@pytest.mark.slow
def test_iterations_go_on_from_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    words = ("--response", "response.h5", "--data", "data.h5", "--from", "m.safetensors")
    found = good(
        "train", "sbunfold", *words, "--iterations", 2, "-o", "i.safetensors", *SET, *OTHER
    )
    assert [step["iteration"] for step in found["iterations"]] == [1, 2]
    weighted = good(
        "apply", "i.safetensors", "response.h5", "--level", "particle", "-o", "w.parquet"
    )
    assert weighted["sum_of_weights"] == pytest.approx(2_000, rel=0.2)
    told = run(app, ["info", "i.safetensors"])
    assert "iterated 2 times" in told.stdout and "x [GeV]" in told.stdout
    message = bad(5, "train", "cinn", *words, "--iterations", 2, "-o", "j.safetensors")
    assert "name the recipe that it was trained with" in message


@pytest.mark.slow
def test_an_ntuple_with_prefixes(folder: Path, tmp_path: Path) -> None:
    """One flat Parquet table, as from another framework: prefixes, units, weights and flags."""
    events = tables(4_000, 1, efficiency=True, fakes=0.1)
    flat = Table.from_columns(
        {
            f"{p}_x": events[level].column("x")
            for p, level in (("gen", "particle"), ("reco", "detector"))
        }
        | {"w": np.full(4_000, 2.0)},
        {"gen_x": "1", "reco_x": "1", "w": "1"},
        flags={
            "gen_pass": events["particle"].flag("pass"),
            "reco_pass": events["detector"].flag("pass"),
        },
    )
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = {**flat.columns, **flat.flags}
    pq.write_table(pa.table(plain), tmp_path / "n.parquet")
    words = ["--prefixes", "gen_,reco_", "--unit", "gen_x=GeV", "--unit", "reco_x=GeV"]
    found = good(
        "train", "sbunfold", "--response", tmp_path / "n.parquet", *words, "--weights", "w",
        "-o", tmp_path / "m.safetensors", *SET,
    )  # fmt: skip
    assert found["observables"]["units"] == {"x": "GeV"}
    assert found["response"]["misses"] > 0 < found["response"]["fakes"]
    done = good(
        "apply",
        tmp_path / "m.safetensors",
        tmp_path / "n.parquet",
        *words,
        "-o",
        tmp_path / "u.root",
    )
    assert done["events"] == int(events["detector"].flag("pass").sum())
    twice = good(
        "apply", tmp_path / "m.safetensors", tmp_path / "n.parquet", *words,
        "--data-weights", "w", "-o", tmp_path / "w.root",
    )  # fmt: skip
    assert twice["sum_of_weights"] == pytest.approx(2 * done["sum_of_weights"])
    words += ["--unit", "reco_y=GeV"]
    model, table = tmp_path / "m.safetensors", tmp_path / "n.parquet"
    message = bad(5, "apply", model, table, *words, "-o", tmp_path / "v.root")
    assert "--unit reco_y=GeV: no file has a column 'reco_y'" in message


@pytest.mark.slow
def test_omnifold_from_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    words = ("--response", "response.h5", "--data", "data.h5", "--iterations", 2)
    quick = ("--set", "classifier.train_steps=100")
    found = good("train", "omnifold", *words, *quick, "--bootstrap", 1, "-o", "o.safetensors")
    assert found["answers_with"] == "weights"
    done = good("apply", "o.safetensors", "response.h5", "-o", "ow.h5")
    assert done["sum_of_weights"] == pytest.approx(2_000, rel=0.2)


def test_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mistake is one sentence that says what to do."""
    monkeypatch.chdir(tmp_path)
    made = tables(1_000, 1)
    write_tables(made, "r.h5")
    write_tables({"particle": made["particle"]}, "p.h5")
    go = ("train", "cinn", "-o", "m.safetensors", "--response")
    assert "there is no such file" in bad(3, *go, "none.h5")
    assert "has no table 'detector'" in bad(3, *go, "p.h5")
    assert "no column 'y'" in bad(3, *go, "r.h5", "--observables", "y")
    for name, said in {
        "squirels": "'squirels' is a recipe of refiners",
        "none": "unknown recipe 'none'; available: cinn",
    }.items():
        assert said in bad(5, "train", name, "-o", "m.safetensors", "--response", "r.h5")
    assert "trained on data" in bad(
        5, "train", "omnifold", "-o", "m.safetensors", "--response", "r.h5"
    )
    assert "expected two different ones" in bad(5, *go, "r.h5", "--prefixes", "gen_")
    assert "is in 'GeV', as the file says" in bad(3, *go, "r.h5", "--unit", "x=MeV")
    assert "there is no model file" in bad(4, "apply", "no.safetensors", "r.h5", "-o", "u.h5")
    Path("m.safetensors").write_bytes(b"no model")
    assert "not a readable model" in bad(4, "apply", "m.safetensors", "r.h5", "-o", "u.h5")
    assert "expected NAME=VALUE" in bad(5, "evaluate", "u.h5", "--truth", "r.h5", "-o", "rep")
    assert not list(tmp_path.glob("u*"))
