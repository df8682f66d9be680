"""Clumsy and hostile use: files, options and arrays that nobody should give, and what comes back."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from typer.main import get_command

import tiny
from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError, DataError, DomainError, ModelFileError, OutputError
from hepbridge.core.files import atomic_path, check_output
from hepbridge.data import io, sample
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.deploy.refine import refine_file
from hepbridge.metrics import evaluate
from hepbridge.systems.model_file import load
from hepbridge.systems.train import train

TINY = ["training.steps=4", *tiny.TINY]
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def pair() -> tuple[Showers, Showers]:
    return sample.load("train_fast")[:300], sample.load("train_full")[:300]


@pytest.fixture(scope="module")
def model(pair, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    train(*pair, overrides=TINY, output=path, device="cpu")
    return path


def run(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        get_command(app).main(args=[str(word) for word in words], prog_name="hepbridge")
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def rewritten(model: Path, path: Path, header: str | None = None, **changes: object) -> Path:
    """The model with another header and without a digest, as an attacker would write it."""
    with safe_open(model, framework="pt") as handle:
        record = json.loads(handle.metadata()["hepbridge"])
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    text = json.dumps({**record, **changes}) if header is None else header
    save_file(tensors, path, metadata={"hepbridge": text})
    return path


def test_one_flipped_bit_in_a_model_is_found(model: Path, tmp_path: Path) -> None:
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 0x10
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ModelFileError, match="does not match its digest"):
        load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {"members": 10**9},
        {"members": 0},
        {"members": -1},
        {"metrics": 3},
        {"provenance": [1]},
        {"recipe": 3},
        {"domain": {"incident_energy_mev": [np.nan] * 2, "particle": "", "fast": {}, "full": {}}},
        {"domain": {"incident_energy_mev": [1, 2], "particle": "", "fast": 3, "full": {}}},
        {"recipe": {"system": "squirels", "model": {"options": {"width": 10**12}}}},
        {"recipe": {"system": "squirels", "model": {"knots": -1, "symmetry": "none"}}},
        {"header": DEEP},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_hostile_header_is_a_damaged_model(model: Path, tmp_path: Path, changes) -> None:
    path = rewritten(model, tmp_path / "m.safetensors", **changes)
    with pytest.raises(ModelFileError, match="header of the model is damaged"):
        load(path)


def test_a_model_with_other_provenance_is_still_described(model, tmp_path, capsys) -> None:
    changes = {"provenance": {"date": "today"}, "metrics": {"n": 3}}
    path = rewritten(model, tmp_path / "m.safetensors", **changes)
    assert run(capsys, "info", path)[0] == 0


@pytest.mark.parametrize("words", ["model.knots=0", "model.nodes=1", "model.degree=-1"])
def test_impossible_tables_are_refused(pair, words: str) -> None:
    with pytest.raises(ConfigError, match="the recipe is not valid"):
        train(*pair, overrides=[*TINY, words])


@pytest.mark.parametrize("words", ["model.options.width=-4", "model.options.depth=-1"])
def test_impossible_networks_are_refused(pair, words: str) -> None:
    with pytest.raises(ConfigError, match=r"distilled: (width|depth) must be"):
        train(*pair, overrides=[*TINY, words])


def test_what_would_fail_after_the_training_fails_before(pair, tmp_path: Path) -> None:
    fast, full = pair
    with pytest.raises(ConfigError, match="too few to judge the training"):
        train(fast, full, overrides=[*TINY, "holdout=0.001"])
    fast.meta["particle"], full.meta["particle"] = "e-", "pi+"
    with pytest.raises(DataError, match=r"different particles: e-, pi\+"):
        train(fast, full, overrides=TINY)
    del fast.meta["particle"], full.meta["particle"]
    gev = fast.with_cells(fast.cells / 1000)
    with pytest.raises(DataError, match="is one file in GeV"):
        train(gev, full, overrides=TINY)
    weights = -np.ones(len(fast))
    weighted = Showers.from_arrays(fast.cells, fast.incident_energy, weights=weights)
    with pytest.raises(DataError, match="negative weights"):
        train(weighted, full, overrides=TINY)


def test_training_never_replaces_its_data(pair, tmp_path: Path) -> None:
    path = tmp_path / "fast.h5"
    io.save(pair[0], path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"ends in \.safetensors"):
        train(*pair, overrides=TINY, output=path, overwrite=True)
    assert path.read_bytes() == before


def test_refine_without_its_input_or_with_another_detector(model, pair, tmp_path, capsys) -> None:
    out = tmp_path / "out.h5"
    code, _, err = run(capsys, "refine", model, tmp_path / "none.h5", "-o", out)
    assert code == 3 and "there is no such file" in err
    line = Geometry("line", (5, 20), ("x", "y"), (30.0, 30.0))
    other = Showers.from_arrays(pair[0].cells, pair[0].incident_energy, geometry=line)
    io.save(other, tmp_path / "line.h5")
    with pytest.raises(ModelFileError, match=r"showers are of 'line' \(5, 20\)"):
        refine_file(model, tmp_path / "line.h5", out)
    assert [p.name for p in tmp_path.iterdir()] == ["line.h5"]


def test_a_refused_request_leaves_nothing(model: Path, pair, tmp_path: Path) -> None:
    io.save(pair[0], tmp_path / "fast.h5")
    with pytest.raises(ConfigError, match="no member 7"):
        refine_file(model, tmp_path / "fast.h5", tmp_path / "out.h5", member=7)
    assert [p.name for p in tmp_path.iterdir()] == ["fast.h5"]


@pytest.mark.parametrize(
    ("factor", "advice"), [(1e-3, "the cells by 1000"), (1e3, "incident energies by")]
)
def test_refining_other_units_is_refused(model, pair, tmp_path, caplog, factor, advice) -> None:
    fast = pair[0][:100]
    wrong = fast.with_cells(fast.cells * np.float32(factor))
    with pytest.raises(DataError, match=advice):
        load(model).refine(wrong)
    io.save(wrong, tmp_path / "wrong.h5")
    with pytest.raises(DataError, match=rf"wrong\.h5 hold .*{advice}"):
        refine_file(model, tmp_path / "wrong.h5", tmp_path / "o.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["wrong.h5"]
    with pytest.raises(DataError, match=rf"the cells of 'refined' hold .*{advice}"):
        evaluate(fast, {"refined": wrong}, classifiers=())
    with pytest.raises(DataError, match=rf"the cells of the fast showers hold .*{advice}"):
        train(wrong, wrong, overrides=TINY)
    with caplog.at_level(logging.WARNING, "hepbridge"):
        load(model).refine(wrong[:1])  # one shower may be like that
    assert advice in caplog.text


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "GeV"), (1e3, "MeV")])
def test_all_energies_far_outside_suggest_a_unit(model, pair, caplog, factor, unit) -> None:
    fast = pair[0][:20]
    far = Showers.from_arrays(fast.cells * factor, fast.incident_energy * factor)
    hint = f"say so in its HDF5 attribute 'units' ({unit}), or load it with unit='{unit}'"
    load(model).refine(far)
    assert hint in caplog.text
    with pytest.raises(DomainError, match="they would fit if the file was in"):
        load(model).refine(far, strict=True)
    caplog.clear()
    load(model).refine(Showers.from_arrays(fast.cells / 20, fast.incident_energy / 20))
    assert "outside the trained range" in caplog.text and "attribute" not in caplog.text


def test_flags_leave_the_input_alone(model, pair) -> None:
    fast = pair[0][:100]
    fast.conditions["incident_energy"][0] = 200_000.0  # which makes a column of flags
    columns = dict(fast.columns)
    assert load(model).refine(fast).columns["outside_domain"].sum() == 1
    assert fast.columns == columns


def test_arrays_where_showers_belong_are_refused(model: Path, pair) -> None:
    fast, full = pair
    with pytest.raises(DataError, match=r"must be Showers, got ndarray.*from_arrays"):
        load(model).refine(fast.cells)
    with pytest.raises(DataError, match="fast must be Showers, got ndarray"):
        train(fast.cells, full)
    with pytest.raises(DataError, match="'refined' must be Showers, got ndarray"):
        evaluate(full, {"refined": fast.cells})
    with pytest.raises(ConfigError, match=r'given by name, \{"refined": refined\}, got list'):
        evaluate(full, [fast])


def test_json_is_json_whatever_a_file_holds(pair, tmp_path: Path, capsys) -> None:
    path = tmp_path / "x.h5"
    io.save(pair[0], path)
    with h5py.File(path, "a") as file:
        file.attrs["foo"] = np.nan
    code, out, _ = run(capsys, "info", "--json", path)
    assert code == 0 and json.loads(out, parse_constant=pytest.fail)["provenance"]["foo"] is None
    with h5py.File(path, "a") as file:
        file.attrs["hepbridge_manifest"] = "[1]"
    code, out, _ = run(capsys, "info", "--json", path)
    assert code == 3 and "not a JSON object" in json.loads(out)["error"]
    code, out, _ = run(capsys, "info", "--json", path, path)
    assert code == 2 and json.loads(out)["exit_code"] == 2


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        OSError("100000 requested and 76768 written"),
    ],
    ids=["safetensors", "numpy"],
)
def test_a_full_disk_is_no_bug(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(OutputError, match="the disk is full"), atomic_path(tmp_path / "x") as part:
        part.write_bytes(b"half")
        raise error
    assert not list(tmp_path.iterdir())


def test_outputs_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no ordinary file"):
        check_output("/dev/null", overwrite=True)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="exists already"):
        check_output(tmp_path / "link")


def test_arrays_of_other_shapes_are_refused(pair) -> None:
    fast = pair[0]
    with pytest.raises(DataError, match="no array of numbers"):
        Showers.from_arrays([[1.0, 2.0], [3.0]], [1.0, 2.0])
    with pytest.raises(DataError, match="'run' has 1 rows"):
        Showers.from_arrays(fast.cells, fast.incident_energy, columns={"run": 3})


def test_no_showers_are_refined_to_no_showers(model: Path, pair) -> None:
    assert len(load(model).refine(pair[0][:0])) == 0
