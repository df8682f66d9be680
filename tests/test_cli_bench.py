"""``hepbridge bench``: the record, its files, and every way in which it refuses."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console
from typer.testing import CliRunner

import onnx_generators as toys
from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError
from hepbridge.data import sample
from hepbridge.deploy import bench as module
from hepbridge.deploy import paper_network, stages
from hepbridge.deploy.bench import bench, measure
from hepbridge.deploy.generator_stages import generators
from hepbridge.deploy.machine import on_one_core
from hepbridge.deploy.stages import Stage
from hepbridge.deploy.timer import interleaved
from hepbridge.report import speed
from hepbridge.systems.model_file import Model
from hepbridge.systems.train import train

run = CliRunner().invoke
BATCHES = [1, 20]


class World:
    """A clock that only moves when a stage says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        clocks = {"clock": lambda: self.now, "cpu_clock": lambda: self.now}
        monkeypatch.setattr(module, "interleaved", functools.partial(interleaved, **clocks))
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def stage(self, name: str, kind: str, per_row: float) -> Stage:
        """A stage that takes a known time per row."""

        def call(showers: Any) -> None:
            self.now += per_row * len(showers)

        return Stage(name, kind, 1 if kind == "refiner" else 40, "", call)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with a network of 2 x 4 evaluations, trained for one step."""
    few = sample.load("train_fast")[:300], sample.load("train_full")[:300]
    small = ["training.steps=1", "model.options.width=8", "model.options.depth=1", "model.nodes=5"]
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hepbridge.systems.train.gate", lambda *_: {})  # its judgement is not wanted
        options = ["model.transport=flow_matching", "model.options.steps=4", *small]
        train(*few, recipe="quantile", overrides=options, output=path)
    return path


@pytest.fixture(scope="module")
def record(model: Path) -> dict[str, Any]:
    """A bench of the tiny model beside the paper's network in torch; ONNX Runtime is hidden."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        return bench([model], batches=BATCHES, repeats=2)


# -- the record -------------------------------------------------------------------------------


def test_record_has_every_part(record: dict[str, Any]) -> None:
    """The schema of bench.json, version 1: what a program that reads it may rely on."""
    assert set(record) == {
        "kind", "format_version", "date", "seconds", "machine", "protocol", "noisy", "stages",
        "absent", "published",
    }  # fmt: skip
    assert (record["kind"], record["format_version"]) == ("bench", 1)
    assert {"cpu", "cores", "load_average", "versions", "core", "threads"} <= set(record["machine"])
    assert {"python", "torch", "numpy", "hepbridge"} <= set(record["machine"]["versions"])
    assert record["protocol"]["batches"] == BATCHES
    names = [stage["name"] for stage in record["stages"]]
    assert names == ["tiny", "tiny, NFE 4", "tiny, NFE 2", "paper, torch", "GFLASH"]
    assert [stage["nfe"] for stage in record["stages"]] == [8, 4, 2, 40, 0]
    for stage in record["stages"]:
        for batch, timing in zip(BATCHES, stage["timings"], strict=True):
            assert (timing["batch"], timing["rows"], timing["repeats"]) == (batch, batch, 2)
            us = timing["us_per_shower"]
            assert 0 < us["q25"] <= us["median"] <= us["q75"] and us["cpu"] > 0 <= us["mad"]
            assert set(timing["times_faster"]) == {"paper, torch"}
            assert isinstance(timing["noisy"], bool)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_ratios_are_those_of_the_times_per_shower(record: dict[str, Any]) -> None:
    """With two rounds the median ratio lies between the two quotients; the paper's own is 1."""
    *mine, paper, _ = record["stages"]
    for k in range(len(BATCHES)):
        own = paper["timings"][k]["times_faster"]["paper, torch"]
        assert (own["median"], own["sigma"], own["pairs"]) == (1.0, 0.0, 2)
        slow = paper["timings"][k]["us_per_shower"]
        for stage in mine:
            fast = stage["timings"][k]["us_per_shower"]
            low = (slow["median"] - slow["mad"]) / (fast["median"] + fast["mad"])
            high = (slow["median"] + slow["mad"]) / (fast["median"] - fast["mad"])
            ratio = stage["timings"][k]["times_faster"]["paper, torch"]["median"]
            assert low * (1 - 1e-9) <= ratio <= high * (1 + 1e-9)


def test_what_is_not_here_says_why(record: dict[str, Any]) -> None:
    absent = {entry["name"]: entry["reason"] for entry in record["absent"]}
    assert set(absent) == {"paper, ONNX Runtime", "Geant4"}
    assert "pip install 'hepbridge[onnx]'" in absent["paper, ONNX Runtime"]


def test_planted_times_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 and 400 µs per row: these times, a ratio of 10, and repeats of 50 ms at least.

    Fails if rows or calls are not divided out.
    """
    world = World(monkeypatch)
    planted = [world.stage("mine", "refiner", 4e-5), world.stage("paper", "paper", 4e-4)]
    found = measure(planted, 50, 3)
    assert found["mine"]["us_per_shower"]["median"] == pytest.approx(40, rel=1e-9)
    assert found["paper"]["us_per_shower"]["median"] == pytest.approx(400, rel=1e-9)
    assert (found["mine"]["calls"], found["paper"]["calls"]) == (25, 3)
    assert found["mine"]["times_faster"]["paper"]["median"] == pytest.approx(10, rel=1e-9)
    assert found["paper"]["times_faster"]["paper"]["median"] == 1


def test_what_is_too_slow_gets_fewer_rows_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 ms per row, 2 repeats and 1.3 s each: 650 rows at most, so 512; the ratio is per row.

    Of 10 ms per row not even 256 rows fit, and only the first of their repeats of 2.56 s.
    """
    world = World(monkeypatch)
    planted = [world.stage("mine", "refiner", 1e-5), world.stage("paper", "paper", 1e-3)]
    found = measure(planted, 1000, 2, budget_s=2.6)
    assert (found["mine"]["rows"], found["paper"]["rows"]) == (1000, 512)
    assert found["paper"]["batch"] == 1000 and found["paper"]["repeats"] == 2
    assert found["mine"]["times_faster"]["paper"]["median"] == pytest.approx(100, rel=1e-9)
    planted[1] = world.stage("paper", "paper", 1e-2)
    slow = measure(planted, 1000, 2, budget_s=2.6)
    assert (slow["paper"]["rows"], slow["paper"]["repeats"]) == (256, 1)
    assert slow["mine"]["times_faster"]["paper"]["median"] == pytest.approx(1000, rel=1e-9)


def test_a_sleeping_stage_is_noisy() -> None:
    """A stage that does not have the core all the time is reported; sleep stands for other work."""
    lazy = Stage("lazy", "refiner", 1, "sleeps", lambda showers: time.sleep(0.02))
    assert measure([lazy], 1, 3)["lazy"]["noisy"] is True


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no pinning on this system")
def test_core_and_threads_are_given_back() -> None:
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with pytest.raises(KeyError), on_one_core() as core:
        assert os.sched_getaffinity(0) == {core} and torch.get_num_threads() == 1
        raise KeyError
    assert os.sched_getaffinity(0) == cores and torch.get_num_threads() == threads


# -- the competitor ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)  # the export is slow on a busy machine
def test_onnxruntime_makes_the_same_showers() -> None:
    """All 40 steps in torch and in ONNX Runtime, same noise, for numbers of rows that were not
    traced; and a weight that is changed in one of them is seen."""
    pytest.importorskip("onnxruntime")
    fast, full = sample.load("train_fast")[:200], sample.load("train_full")[:200]
    paper = paper_network.untrained(fast, full)
    ort = paper_network.in_onnxruntime(paper)
    for rows in (1, 7, 130):
        assert paper_network.disagreement(paper, ort, *stages._tensors(fast[:rows])) < 1e-5
    with torch.no_grad():
        next(paper.shower.forward_network.decode.parameters()).mul_(1.01)
    assert paper_network.disagreement(paper, ort, *stages._tensors(fast[:7])) > stages._AGREE


def test_a_competitor_that_disagrees_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "in_onnxruntime", lambda system: system)
    monkeypatch.setattr(stages, "disagreement", lambda *_: 0.5)
    timed, absent = stages.competitors()
    assert [stage.name for stage in timed] == ["paper, torch"]
    assert "differs from torch by 5.0e-01" in absent[0]["reason"]


def test_the_paper_has_its_own_network() -> None:
    """20 steps of 32 channels and no bias, whatever becomes of the defaults of other recipes."""
    few = sample.load("train_fast")[:50], sample.load("train_full")[:50]
    paper = paper_network.untrained(*few)
    assert (paper.energy.nfe, paper.shower.nfe) == (20, 20)
    weights = sum(p.numel() for p in paper.shower.forward_network.parameters() if p.dim() == 4)
    assert weights == 9 * (32 + 3 * 32 * 32 + (2 * 32 + 1 + 3) * 32 + 2 * 32 * 32 + 32)
    again = paper_network.untrained(*few)
    for one, other in zip(paper.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


# -- which models -----------------------------------------------------------------------------


def test_fewer_steps_are_the_same_weights_and_another_answer(model: Path) -> None:
    """Fails if a model is timed with fewer steps in name only."""
    own, _, four, two = stages.refiners([model])
    few = sample.load("gflash", 50)[:20]
    answers = [np.asarray(stage.call(few)) for stage in (own, four, two)]
    assert [stage.nfe for stage in (own, four, two)] == [8, 4, 2]
    assert not np.array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[1], answers[2])


def test_exported_model_gives_the_same_showers(model: Path) -> None:
    """The same noise, so the same showers as the model itself, to what the export promises."""
    pytest.importorskip("onnxruntime")
    own, exported, *_ = stages.refiners([model])
    few = sample.load("gflash", 50)[:20]
    wanted, found = np.asarray(own.call(few)), np.asarray(exported.call(few))
    assert exported.name == "tiny, ONNX Runtime" and exported.nfe == own.nfe
    np.testing.assert_allclose(found, wanted, atol=1e-3 * wanted.sum(axis=1).max(), rtol=0)
    assert not np.allclose(found, np.asarray(own.call(few[::-1])), rtol=1e-2)


def test_without_a_shipped_model_the_recipe_is_timed_untrained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The label says so; the shipped model, where there is one, is taken instead."""
    monkeypatch.setattr(stages, "_untrained", lambda: Model.__new__(Model))
    monkeypatch.setattr(stages, "DEFAULT", "no-such-model")
    label, _, note = stages._default()
    assert label == "no-such-model (untrained)" and "untrained" in note
    monkeypatch.setattr(stages, "locate", Path)
    monkeypatch.setattr(stages, "load", lambda path: path)
    assert stages._default() == ("no-such-model", Path("no-such-model"), "shipped model")


@pytest.mark.slow
def test_the_untrained_refiner_refines() -> None:
    model = stages._untrained()
    refined = np.asarray(stages._refiner("x", model, "").call(sample.load("gflash", 50)[:30]))
    assert np.isfinite(refined).all() and (refined >= 0).all() and refined.sum() > 0


def test_two_models_of_one_name(model: Path) -> None:
    with pytest.raises(ConfigError, match="models of one name: tiny"):
        bench([model, model], batches=[1], repeats=1)


def test_numbers_that_make_no_sense() -> None:
    for options in ({"repeats": 0}, {"batches": []}, {"batches": [0]}):
        with pytest.raises(ConfigError, match="must be at least 1"):
            bench(**options)


# -- generators -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator with angles, for a calorimeter of other cells than the bundled sample's."""
    step = toys.stage("distilled")
    made = toys.model(toys.LAYERS, step, step, conditions=["theta_rad", "phi_rad"])
    return made.save(tmp_path_factory.mktemp("generator") / "noisy.safetensors")


def test_a_generator_makes_as_many_showers_of_its_own_range(generator: Path) -> None:
    """In torch and exported: the same ones, each its own, inside the trained range."""
    pytest.importorskip("onnxruntime")
    torch_stage, exported = generators(generator)
    some = sample.load("gflash", 50)[:20]
    made, again = np.asarray(torch_stage.call(some)), np.asarray(exported.call(some))
    assert (exported.name, exported.kind) == ("noisy, ONNX Runtime", "generator")
    assert made.shape == (20, toys.LAYERS.n_cells) and len(np.unique(made, axis=0)) == 20
    np.testing.assert_allclose(again, made, atol=1e-4 * made.sum(axis=1).max(), rtol=0)
    assert np.asarray(torch_stage.call(sample.load("gflash", 50))).shape[0] > 20


@pytest.mark.usefixtures("_quick")
def test_a_generator_is_timed_beside_a_refiner_without_a_ratio(
    model: Path, generator: Path
) -> None:
    """It does another task, so its column of ratios is a dash; the figure has it, too."""
    record = bench([generator, model], batches=[1], repeats=1)
    kinds = [stage["kind"] for stage in record["stages"]]
    assert kinds == ["generator", "refiner", "refiner", "refiner", "paper", "simulation"]
    assert record["stages"][0]["timings"][0]["us_per_shower"]["median"] > 0
    assert "noisy 2 – " in shown(record)
    speed.speed_figure(record)


# -- table, figure, files ---------------------------------------------------------------------


def shown(record: dict[str, Any]) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(speed.speed_table(record))
    return " ".join(capture.get().split())


def test_table_shows_ratios_first_and_keeps_published_figures_apart(record: dict[str, Any]) -> None:
    timing = record["stages"][0]["timings"][0]
    timing["times_faster"]["paper, torch"] = {"median": 12.34, "sigma": 0.21}
    quiet = {**record, "noisy": False}
    text = shown(quiet)
    assert "12.3(2)" in text and "batch of 20" in text and "1 × 2" in text
    assert "Published elsewhere" in text and "404,800 ± 8,500" in text
    assert text.index("12.3(2)") < text.index("Published elsewhere") < text.index("404,800")
    assert "random weights" in text and "Geant4: " in text and "GFLASH 0 – " in text
    assert "noisy" not in text and "noisy" in shown({**record, "noisy": True})


def test_files_and_figure(record: dict[str, Any], tmp_path: Path) -> None:
    path = speed.write_speed(record, tmp_path / "out")
    assert sorted(p.name for p in path.parent.iterdir()) == ["bench.json", "bench.pdf", "bench.png"]
    assert json.loads(path.read_text("utf-8")) == record
    assert imread(path.with_suffix(".png")).std() > 0.05  # something is drawn
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_words_of_the_figure_stay_inside(record: dict[str, Any]) -> None:
    """Fails if a label is cut, or runs out of its panel, for one batch size or three."""
    long = json.loads(json.dumps(record))
    long["stages"][0]["name"] = "a_refiner_with_a_long_name"
    for batches in ([1], BATCHES):
        long["protocol"]["batches"] = batches
        figure = speed.speed_figure(long)
        figure.canvas.draw()
        inside = figure.bbox
        for panel in figure.axes:
            words = [*panel.texts, *panel.get_yticklabels(), panel.title, *figure.texts]
            for word in words:
                box = word.get_window_extent()
                assert inside.x0 <= box.x0 and box.x1 <= inside.x1, word.get_text()
            for word in panel.texts:
                assert panel.bbox.x0 <= word.get_window_extent().x0, word.get_text()
                assert word.get_window_extent().x1 <= panel.bbox.x1, word.get_text()


# -- the command ------------------------------------------------------------------------------


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the export, which has its own test."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


@pytest.mark.usefixtures("_quick")
def test_command(model: Path, tmp_path: Path) -> None:
    words = ["bench", str(model), "-o", str(tmp_path / "out"), "--batch", "1", "--repeats", "1"]
    done = run(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    stored = json.loads((tmp_path / "out" / "bench.json").read_text("utf-8"))
    assert found.pop("output") == str(tmp_path / "out" / "bench.json")
    assert found == stored and stored["protocol"]["batches"] == [1]

    again = run(app, words)
    assert again.exit_code == 6 and "--overwrite" in again.stderr and again.stdout == ""
    replaced = run(app, [*words, "--overwrite"])
    assert replaced.exit_code == 0 and replaced.stdout.startswith("Speed on one core")
    assert "wrote" in replaced.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["no-such-model"], 4, "no shipped model is called 'no-such-model'"),
        (["./none.safetensors"], 4, "there is no model file"),
        (["--batch", "0"], 2, ""),
        (["-o", "no/such/folder"], 6, "does not exist; make it first"),
        (["-o", "a-file"], 6, "a-file is a file"),
    ],
)
def test_bad_input_is_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    """Nothing is timed, nothing is written."""
    monkeypatch.chdir(tmp_path)
    Path("a-file").touch()
    monkeypatch.setattr(module, "measure", pytest.fail)
    done = run(app, ["bench", *words])
    assert done.exit_code == code and message in done.stderr and done.stdout == ""
    assert "Traceback" not in done.output
    assert [p.name for p in tmp_path.iterdir()] == ["a-file"]
