"""Exported models at work: the callable in Python, the command line, and the host in C++."""

from __future__ import annotations

import json
import shutil
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

import onnx_models as toys
from cpp_host import CPP, compiled, run
from hepbridge.cli import main
from hepbridge.core.errors import DataError, ModelFileError
from hepbridge.data import sample
from hepbridge.data.showers import Showers
from hepbridge.deploy.onnx.contract import contract_path
from hepbridge.deploy.onnx.export import export_onnx
from hepbridge.deploy.onnx.refiner import OnnxRefiner
from hepbridge.systems.model_file import Model, load

pytest.importorskip("onnx", reason="the extra onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def small() -> Model:
    return load("squirels-small")


@pytest.fixture(scope="module")
def exported(small: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    export_onnx(small, path)
    return path


@pytest.fixture(scope="module")
def refiner(exported: Path) -> OnnxRefiner:
    return OnnxRefiner(exported)


@pytest.fixture(scope="module")
def tilted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model with angles and impact points."""
    path = tmp_path_factory.mktemp("onnx") / "tilted.onnx"
    export_onnx(toys.model(None, further=True), path)
    return path


def inputs(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    fast = sample.load("train_fast")[:n]
    noise = np.random.default_rng(seed).standard_normal((n, 105), dtype=np.float32)
    energy = fast.incident_energy.astype(np.float32)
    return {"cells": fast.cells, "incident_energy": energy, "noise": noise}


# -- in Python ----------------------------------------------------------------------------------


def test_refines_as_the_model_does(small: Model, refiner: OnnxRefiner) -> None:
    """The same noise by event id, the same flags and columns, cells within 1e-5 of the shower."""
    fast = sample.load("train_fast")[:1500]
    fast.incident_energy[7] *= 3
    expected, found = small.refine(fast, seed=5), refiner.refine(fast, seed=5)
    apart = np.abs(found.cells - expected.cells) / expected.cells.sum(axis=1, keepdims=True)
    assert apart.max() < 1e-5
    assert np.array_equal(found.columns["outside_domain"], expected.columns["outside_domain"])
    assert found.columns["outside_domain"].sum() == 1
    assert np.array_equal(found.event_ids, expected.event_ids)
    other = refiner.refine(fast, seed=6)
    assert (other.cells != found.cells).any(axis=1).all()


def test_threads_may_share_a_refiner(refiner: OnnxRefiner) -> None:
    """Six threads, batches of other sizes each, many times: every result is its own, to the bit."""
    work = [inputs(n, seed) for seed, n in enumerate((1, 3, 17, 64, 100, 5))]
    alone = [refiner(one)[0] for one in work]
    wrong: list[int] = []
    start = threading.Barrier(len(work))

    def run(k: int) -> None:
        start.wait()
        for _ in range(60):
            if not np.array_equal(refiner(work[k])[0], alone[k]):
                wrong.append(k)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": None}, "the model takes cells, incident_energy, noise"),
        ({"more": np.zeros(3, np.float32)}, "the model takes"),
        ({"cells": np.zeros((3, 99), np.float32)}, r"cells must be float32 of shape \(3, 100\)"),
        ({"incident_energy": np.zeros(2, np.float32)}, r"incident_energy must be .* \(3,\)"),
        ({"noise": np.zeros((3, 105))}, "noise must be float32 .* float64"),
        ({"cells": np.full((3, 100), np.nan, np.float32)}, "cells holds values that are negative"),
        ({"cells": np.full((3, 100), np.inf, np.float32)}, "cells holds .* infinite or no number"),
        ({"incident_energy": np.float32([1e4, -1, 1e4])}, "incident_energy holds values that are"),
    ],
)
def test_wrong_arrays(change: dict, message: str, refiner: OnnxRefiner) -> None:
    given = {k: v for k, v in {**inputs(3), **change}.items() if v is not None}
    with pytest.raises(DataError, match=message):
        refiner(given)


def test_wrong_showers_and_files(refiner: OnnxRefiner, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="use a model for that geometry"):
        refiner.refine(toys.showers(5, 0))
    with pytest.raises(DataError):
        refiner.refine(np.zeros((3, 100)))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match=r"m\.json cannot be read"):
        OnnxRefiner(tmp_path / "m.onnx")
    shutil.copy(contract_path(exported), tmp_path / "m.json")
    with pytest.raises(ModelFileError, match=r"m\.onnx cannot be read"):
        OnnxRefiner(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(exported.read_bytes() + b"\0")
    with pytest.raises(ModelFileError, match="not the file of its contract"):
        OnnxRefiner(tmp_path / "m.onnx")


@pytest.mark.slow
def test_a_missing_condition_is_named(tilted: Path) -> None:
    with pytest.raises(DataError, match="needs the condition"):
        OnnxRefiner(tilted).refine(toys.showers(5, 0, full=False))


WRONG = {
    "empty": (0.0, 1.0),
    "cells in GeV": (1e-3, 1.0),
    "energies in GeV": (1.0, 1e-3),
    "no energy": (1.0, 0.0),
}


def wrong(name: str) -> dict[str, np.ndarray]:
    """Five showers, of which the third is none."""
    given = {key: array.copy() for key, array in inputs(5).items()}
    cells, energy = WRONG[name]
    given["cells"][2] *= np.float32(cells)
    given["incident_energy"][2] *= np.float32(energy)
    return given


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_shower_in_mev_is_refused(name: str, refiner: OnnxRefiner) -> None:
    """A single one among others. Fails if only means are looked at."""
    with pytest.raises(DataError, match=r"shower 2 holds .* must be in MeV"):
        refiner(wrong(name))


def test_allowed_response_is_that_of_the_training(
    small: Model, refiner: OnnxRefiner, tilted: Path
) -> None:
    """Against the showers themselves: all lie in the range, which is not much wider than they are."""
    toy = toys.showers(400, 1, full=False, further=True)
    for contract, fast in (
        (refiner.contract, sample.load("train_fast")),
        (OnnxRefiner(tilted).contract, toy),
    ):
        held, found = fast.e_sum / fast.incident_energy, contract.response
        inside = (held >= found.min) & (held <= found.max)
        assert inside.mean() > 0.999
        assert held.min() - 0.03 < found.min and found.max < held.max() + 0.03
        assert found.refused_below == found.min / 10 and found.refused_above == found.max * 10


# -- on the command line ------------------------------------------------------------------------


@pytest.mark.slow
def test_command_says_how_well_the_two_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hepbridge.deploy.onnx import timing as onnx_timing

    monkeypatch.setattr(onnx_timing, "BATCHES", (1, 37))
    monkeypatch.setattr(onnx_timing.timings, "__defaults__", ((1, 37),))
    monkeypatch.setattr(onnx_timing, "_SECONDS", 0.1)
    output = tmp_path / "m.onnx"
    with pytest.raises(SystemExit) as ended:
        main(["export", "squirels-small", "-o", str(output), "--timing", "--json"])
    assert ended.value.code == 0
    record = json.loads(capsys.readouterr().out)
    assert record["agreement"]["worst"] < 1e-5
    assert [row["batch"] for row in record["timing"]] == [1, 37]
    assert all(row["onnxruntime"]["median_us"] > 0 for row in record["timing"])
    assert 0 < record["overhead_us"] < record["timing"][0]["onnxruntime"]["median_us"]
    assert output.exists() and contract_path(output).exists()
    with pytest.raises(SystemExit) as ended:
        main(["export", "squirels-small", "-o", str(output)])
    assert ended.value.code == 6  # it exists
    assert "pass --overwrite" in capsys.readouterr().err


def test_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in ((["--target", "par04"], 5), (["--target", "x"], 5), (["--member", "3"], 5)):
        with pytest.raises(SystemExit) as ended:
            main(["export", "squirels-small", "-o", str(tmp_path / "m.onnx"), *words])
        assert ended.value.code == code
        assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


# -- in C++ -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example."""
    return compiled(CPP / "refine.cpp", tmp_path_factory.mktemp("cpp"))


def written(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    with open(path, "wb") as handle:
        np.array([len(arrays["cells"])], "<i8").tofile(handle)
        for array in arrays.values():
            array.astype("<f4").tofile(handle)
    return path


@pytest.mark.slow
def test_host_in_cpp_refines_as_python(
    program: Path, refiner: OnnxRefiner, exported: Path, tilted: Path, tmp_path: Path
) -> None:
    """The same library, the same bits; with further conditions, too."""
    given = inputs(300)
    given["incident_energy"][3] *= 50
    given["cells"][3] *= 50
    for name, value in (("cells", np.nan), ("cells", -1), ("incident_energy", np.inf)):
        bad = {**given, name: given[name].copy()}
        bad[name].flat[-1] = value
        done = run(program, exported, written(tmp_path / "bad.bin", bad), tmp_path / "out.bin")
        assert done.returncode == 1 and f"{name} holds values that are negative" in done.stderr
    for name in WRONG:
        bad = written(tmp_path / "bad.bin", wrong(name))
        done = run(program, exported, bad, tmp_path / "out.bin")
        assert done.returncode == 1 and "shower 2 holds" in done.stderr, name
        assert "must be in MeV" in done.stderr
    done = run(program, exported, written(tmp_path / "in.bin", given), tmp_path / "out.bin")
    assert done.returncode == 0, done.stderr
    refined, outside = refiner(given)
    found = np.fromfile(tmp_path / "out.bin", "<f4").reshape(-1, 100)
    assert np.array_equal(found, refined)
    words = dict(line.split() for line in done.stdout.splitlines())
    assert words["showers"] == "300" and int(words["outside"]) == outside.sum() == 1

    python = OnnxRefiner(tilted)
    fast: Showers = toys.showers(50, 4, full=False, further=True)
    shapes = {t.name: t.shape for t in python.contract.inputs}
    noise = np.random.default_rng(1).standard_normal((50, shapes["noise"][1]))
    every = {"cells": fast.cells, **fast.conditions, "noise": noise}
    given = {name: every[name].astype(np.float32) for name in shapes}
    done = run(program, tilted, written(tmp_path / "in.bin", given), tmp_path / "out.bin")
    assert done.returncode == 0, done.stderr
    found = np.fromfile(tmp_path / "out.bin", "<f4").reshape(50, -1)
    assert np.array_equal(found, python(given)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"MeV"', '"GeV"', 1), "cells is in GeV, this program gives MeV"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "no contract of version 1"),
        (lambda text: text.replace('"response"', '"answer"'), "no entry 'response'"),
        (
            lambda text: text.replace('"refused_above": ', '"refused_above": "x", "y": '),
            "no numbers",
        ),
        (lambda text: text[:-3], "no valid JSON"),
        (lambda text: text.replace('"bytes": ', '"bytes": 1'), "not the file of its contract"),
        (lambda text: text.replace('"inputs"', '"outputs"', 1), "no valid JSON"),
    ],
)
def test_host_in_cpp_reads_strictly(
    change, message: str, program: Path, exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").symlink_to(exported)
    text = contract_path(exported).read_text(encoding="utf-8")
    (tmp_path / "m.json").write_text(change(text), encoding="utf-8")
    done = run(program, tmp_path / "m.onnx", tmp_path / "in.bin", tmp_path / "out.bin")
    assert done.returncode == 1 and message in done.stderr, done.stderr


@pytest.mark.slow
def test_host_in_cpp_says_what_is_missing(program: Path, exported: Path, tmp_path: Path) -> None:
    short = written(tmp_path / "in.bin", {"cells": np.ones((2, 40))})
    absurd, many = tmp_path / "absurd.bin", tmp_path / "many.bin"  # 2^62 overflows in bytes
    absurd.write_bytes(struct.pack("<q", 2**62) + bytes(4000))
    many.write_bytes(struct.pack("<q", 10**12) + bytes(10))
    for words, message in (
        ((exported, short, tmp_path / "out.bin"), "too short"),
        ((exported, tmp_path / "none", tmp_path / "out.bin"), "no showers"),
        ((tmp_path / "m.onnx", short, tmp_path / "out.bin"), "cannot read"),
        ((exported,), "usage"),
        ((exported, absurd, tmp_path / "out.bin"), "it says 4611686018427387904 showers, and has"),
        ((exported, many, tmp_path / "out.bin"), "1000000000000 showers, and has room for 0"),
    ):
        done = run(program, *words)
        assert done.returncode == 1 and message in done.stderr


MANY = """
#include <cstdio>
#include "hepbridge.hpp"

int main(int, char** words) try {
  const float number = 1;
  hepbridge::Refiner(words[1]).refine(std::size_t{1} << 60, &number, &number, &number);
} catch (const hepbridge::Error& error) {
  std::puts(error.what());
}
"""


@pytest.mark.slow
def test_host_in_cpp_refuses_more_showers_than_memory(exported: Path, tmp_path: Path) -> None:
    """Fails if products of sizes overflow, or if it reads beyond the arrays first."""
    source = tmp_path / "many.cpp"
    source.write_text(MANY)
    done = run(compiled(source, tmp_path), exported)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout == f"{2**60} showers in one call are too many; hand in at most {2**31 // 105}\n"
    )
