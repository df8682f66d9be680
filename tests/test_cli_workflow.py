"""The main job from the command line: info, train, refine, evaluate, on the bundled sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import hepbridge as hb
from hepbridge.cli.app import app
from hepbridge.data import sample

run = CliRunner().invoke
FAST, FULL = str(sample.path("train_fast")), str(sample.path("train_full"))


def good(*words: object) -> Any:
    """Run a command that must succeed; its result from ``--json``."""
    done = run(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def bad(code: int, *words: object) -> str:
    """Run a command that must fail with this exit code and nothing but one message."""
    done = run(app, [*map(str, words)])
    assert done.exit_code == code, done.output
    assert done.stdout == ""
    message = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(message) == 1 and "Traceback" not in done.stderr
    return message[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a network: seconds to make, and good enough to be told from GFLASH."""
    path = tmp_path_factory.mktemp("model") / "quantile.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        record = good("train", "quantile", "--fast", FAST, "--full", FULL, "-o", path, "-q")
    assert record["output"] == str(path)
    return path


@pytest.fixture(scope="module")
def refined(model: Path) -> Path:
    path = model.with_name("refined.h5")
    assert good("refine", model, sample.path("gflash", 20), "-o", path)["made"] is True
    return path


def test_info_of_the_model(model: Path) -> None:
    record = good("info", model)
    assert (record["kind"], record["system"], record["transport"]) == ("model", "squirels", None)
    words = run(app, ["info", str(model)]).stdout
    for part in ("a hepbridge model", "incident energy 10", "training pairs", "held out"):
        assert part in words


def test_refined_file_is_that_of_python(model: Path, refined: Path) -> None:
    """Fails if a command-line option changes what a model does."""
    fast = hb.load(sample.path("gflash", 20))
    expected = hb.load_model(model).refine(fast, seed=0)
    found = hb.load(refined)
    assert np.array_equal(found.cells, expected.cells)
    assert np.array_equal(found.event_ids, fast.event_ids)


def test_same_request_again_is_left_alone(model: Path, refined: Path) -> None:
    before = refined.stat().st_mtime_ns
    assert good("refine", model, sample.path("gflash", 20), "-o", refined)["made"] is False
    assert refined.stat().st_mtime_ns == before


def test_another_request_needs_overwrite(model: Path, refined: Path) -> None:
    words = ("refine", model, sample.path("gflash", 20), "-o", refined, "--seed", 1)
    assert "--overwrite" in bad(6, *words)


@pytest.mark.slow
def test_evaluate(refined: Path, tmp_path: Path) -> None:
    """The refined showers are closer to full simulation than GFLASH in every row."""
    out = tmp_path / "report"
    words = ["--ref", sample.path("full", 20), "--ref2", sample.path("full2", 20)]
    words += ["--cand", f"gflash={sample.path('gflash', 20)}", "--cand", f"refined={refined}"]
    record = good("evaluate", *words, "-o", out, "--no-classifier")
    assert (out / "report.html").exists() and list((out / "figures").iterdir())
    on_disk = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert on_disk["sets"] == record["sets"]
    (only,) = record["sets"]
    assert only["label"] == "20 GeV"
    for row in only["rows"]:
        emd = {name: cell["emd"] for name, cell in row["candidates"].items()}
        assert emd["refined"] < emd["gflash"], row["observable"]
    again = bad(6, "evaluate", *words, "-o", out)
    assert "--overwrite" in again
    table = run(
        app, ["evaluate", *map(str, words), "-o", str(out), "--no-classifier", "--overwrite"]
    )
    assert "gflash" in table.stdout and "20 GeV" in table.stdout
    assert "wrote" in table.stderr


def test_unknown_recipe(tmp_path: Path) -> None:
    words = ("train", "squirel", "--fast", FAST, "--full", FULL, "-o", tmp_path / "m.safetensors")
    assert "squirels" in bad(5, *words)


def test_bad_value_of_a_recipe(tmp_path: Path) -> None:
    words = ("--fast", FAST, "--full", FULL, "-o", tmp_path / "m.safetensors")
    assert (
        "training.stepz"
        in run(app, ["train", "squirels", *map(str, words), "--set", "training.stepz=1"]).stderr
    )
    assert "--set" in bad(5, "train", "squirels", *words, "--set", "training.steps")


def test_model_exists(model: Path) -> None:
    """Another recipe under the name of a complete model: refused, and the model stays."""
    before = model.read_bytes()
    words = ("--fast", FAST, "--full", FULL, "-o", model, "--seed", 5)
    assert "--overwrite" in bad(6, "train", "quantile", *words)
    assert model.read_bytes() == before


def test_mismatched_energies(tmp_path: Path) -> None:
    words = ("--fast", sample.path("gflash", 20), "--full", sample.path("full", 50))
    bad(3, "train", "quantile", *words, "-o", tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_corrupted_model(model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(model.read_bytes()[:5000])
    words = (sample.path("gflash", 20), "-o", tmp_path / "out.h5")
    assert "broken.safetensors" in bad(4, "refine", broken, *words)
    assert "shipped" in bad(4, "refine", "no-such-model", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.safetensors"]


def test_outside_the_trained_range(model: Path, tmp_path: Path) -> None:
    """Refused with --strict; flagged and warned about without."""
    fast = sample.load("gflash", 20)[:20]
    low = hb.Showers.from_arrays(fast.cells / 10, fast.incident_energy / 10)
    hb.save(low, tmp_path / "low.h5")
    words = ("refine", model, tmp_path / "low.h5", "-o", tmp_path / "out.h5")
    bad(7, *words, "--strict")
    done = run(app, [*map(str, words)])
    assert done.exit_code == 0 and "warning: " in done.stderr
    assert hb.load(tmp_path / "out.h5").columns["outside_domain"].all()


def test_cite_of_a_model(model: Path) -> None:
    assert list(good("cite", model)["bibtex"]) == ["hepbridge", "squirels"]


def test_candidate_name_is_reserved(tmp_path: Path) -> None:
    words = ("--ref", FULL, "--cand", f"ref={FAST}", "-o", tmp_path / "report")
    assert "reserved" in bad(5, "evaluate", *words)
