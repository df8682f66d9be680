"""``hepbridge generate``, and generators at the doors of the other commands."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import generation_toys as toy
import stand_in_engine as stand_in
from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError, DomainError, ModelFileError, OutputError
from hepbridge.data import io, sample
from hepbridge.data.showers import Showers
from hepbridge.deploy import generation
from hepbridge.deploy.generation import generate_file, gun_for
from hepbridge.simulate.beam_file import PIECE_BYTES
from hepbridge.simulate.detector import detectors, load_detector
from hepbridge.simulate.gun import Gun
from hepbridge.simulate.produce import produce
from hepbridge.systems.generation.draw import draw_cells
from hepbridge.systems.generation.model_file import load_generator

ROWS = 700
SPEC = "uniform:10-100"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator without networks, trained on real showers of the calorimeter ``squirels``."""
    full = sample.load("train_full")[:300]
    made = toy.marginal_model(
        full, reference=0, frame_options={"knots": 9, "nodes": 3, "shares": True}
    )
    return made.save(tmp_path_factory.mktemp("model") / "g.safetensors")


@pytest.fixture(scope="module")
def tilted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator that knows angles, impact points and particles."""
    rng, full = np.random.default_rng(0), toy.truth(300)
    given = {
        "theta_rad": rng.uniform(0, 0.3, 300),
        "phi_rad": rng.uniform(0, 2 * np.pi, 300),
        "x_mm": rng.uniform(0, 10, 300),
        "y_mm": rng.uniform(0, 10, 300),
        "pdg_id": rng.choice([11.0, 22.0], 300),
    }
    full.conditions.update(given)
    made = toy.marginal_model(
        full, conditions=list(given), symmetry="none", frame_options={"knots": 9, "nodes": 3}
    )
    made.domain = type(made.domain)(
        made.domain.energy_min, made.domain.energy_max, "e-,gamma", {}, {}, made.domain.conditions
    )
    return made.save(tmp_path_factory.mktemp("model") / "t.safetensors")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 256 rows: three of them."""
    monkeypatch.setattr(generation, "CHUNK", 256)


def make(model: Path, path: Path, n: int = ROWS, **options) -> str:
    how = {"energies": SPEC, "n": n, "workers": 1, "seed": 3, **options}
    return generate_file(model, output=path, **how)


def bits(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


# -- what is in the file ------------------------------------------------------------------------


def test_file_holds_what_the_model_makes_of_the_beam(model: Path, tmp_path: Path) -> None:
    """Cells against the pure generator; ids, energies and conditions against the gun."""
    assert make(model, tmp_path / "o.h5") == "made"
    found, loaded = io.load(tmp_path / "o.h5"), load_generator(model)
    gun = Gun.of(load_detector("squirels"), SPEC, seed=3)
    beam = gun.beam(0, ROWS)
    assert np.array_equal(found.event_ids, beam.event_ids)
    assert np.array_equal(found.incident_energy, beam.energy_mev)
    cells = draw_cells(loaded, beam.conditions(), beam.event_ids, seed=3)
    assert np.array_equal(found.cells, cells)
    low, high = loaded.domain.energy_min * 0.99, loaded.domain.energy_max * 1.01
    outside = (beam.energy_mev < low) | (beam.energy_mev > high)
    assert np.array_equal(found.columns["outside_domain"], outside)
    assert found.conditions.keys() == {"incident_energy"}
    assert found.geometry.digest() == loaded.geometry.digest()


def test_rows_are_those_of_a_simulation_of_the_same_beam(
    model: Path, tilted: Path, tmp_path
) -> None:
    """Same event ids, energies and angles with equal options, of whatever particle and impact."""
    squirels = load_detector("squirels")
    produce(stand_in.engine(), squirels, Gun.of(squirels, SPEC, seed=3), 50, tmp_path / "full.h5")
    make(model, tmp_path / "o.h5", 50, seed=9, beam_seed=3)
    simulated, generated = io.load(tmp_path / "full.h5"), io.load(tmp_path / "o.h5")
    assert np.array_equal(simulated.event_ids, generated.event_ids)
    assert np.array_equal(simulated.incident_energy, generated.incident_energy)
    how = {"particle": "gamma", "theta": "uniform:0-10", "impact": "3,4"}
    beam = Gun.of(toy.TOY, SPEC, seed=3, **how).beam(0, 50)
    make(tilted, tmp_path / "t.h5", 50, **how)
    found = io.load(tmp_path / "t.h5")
    assert np.array_equal(found.event_ids, beam.event_ids)
    for name in ("theta_rad", "phi_rad", "x_mm", "y_mm"):
        assert np.array_equal(found.conditions[name], getattr(beam, name))
    assert set(found.conditions["pdg_id"]) == {22}


def test_file_says_everything_that_defines_it(model: Path, tmp_path: Path) -> None:
    make(model, tmp_path / "o.h5", 20, seed=5, beam_seed=6)
    meta = io.load(tmp_path / "o.h5").meta
    digest = hashlib.blake2b(model.read_bytes(), digest_size=16).hexdigest()
    assert (
        meta["generated_model"] == digest and meta["generated_by"] == "no network, frame quantile"
    )
    assert (meta["seed"], meta["beam_seed"], meta["particle"]) == (5, 6, "e-")
    assert meta["energies_gev"] == SPEC and meta["theta_deg"] == "fixed:0"
    with h5py.File(tmp_path / "o.h5") as file:
        manifest = json.loads(file.attrs["hepbridge_manifest"])
    assert manifest["command"] == "generate" and manifest["model"] == digest
    assert manifest["beam"]["seed"] == 6 and manifest["n"] == 20
    assert not {"chunk", "workers", "shard", "device"} & manifest.keys()


@pytest.mark.parametrize("name", detectors())
def test_a_geometry_is_shot_at_as_its_detector_is(name: str) -> None:
    """Fails if impact ``cell`` means another cell for a generator than for a simulation."""
    detector = load_detector(name)
    kind = detector.layers[0].cells.kind
    for impact in ("axis", "1.5,-2", *(["cell"] if kind == "xy" else [])):
        guns = [Gun.of(target, "fixed:10", impact=impact, theta="uniform:0-3", seed=1)
                for target in (detector, detector.geometry())]  # fmt: skip
        assert guns[0] == guns[1] and guns[0].uid == guns[1].uid
    first = Gun.of(toy.TOY, "fixed:10", impact="cell").x  # whose layers differ
    assert (first.low, first.high) == (0.0, 10.0)
    if kind != "xy":
        with pytest.raises(ConfigError, match="impact 'cell' needs cells in x and y, but geometry"):
            Gun.of(detector.geometry(), "fixed:10", impact="cell")


def test_beyond_the_trained_range(model: Path, tmp_path: Path, caplog) -> None:
    beam = Gun.of(load_detector("squirels"), "uniform:50-300", seed=3).beam(0, 300)
    high = load_generator(model).domain.energy_max * 1.01
    beyond = beam.energy_mev > high
    row = int(np.flatnonzero(beyond)[0])
    words = rf"outside the trained range \(incident energy .* to .* GeV; first: row {row}, "
    with pytest.raises(DomainError, match=words):
        generate_file(model, "uniform:50-300", 300, tmp_path / "o.h5", seed=3, strict=True)
    assert list(tmp_path.iterdir()) == []
    generate_file(model, "uniform:50-300", 300, tmp_path / "o.h5", seed=3, workers=1)
    assert f"{beyond.sum()} of 300 showers are outside" in caplog.text
    assert caplog.text.count("outside the trained range") == 1
    assert np.array_equal(io.load(tmp_path / "o.h5").columns["outside_domain"], beyond)


@pytest.mark.usefixtures("small")
def test_the_whole_beam_is_looked_at_in_parts(model, tmp_path, caplog, monkeypatch) -> None:
    """The count does not depend on how many rows are looked at at once."""
    monkeypatch.setattr(generation, "_LOOK", 64)
    generate_file(model, "uniform:50-300", 600, tmp_path / "o.h5", seed=3, workers=1)
    flagged = io.load(tmp_path / "o.h5").columns["outside_domain"].sum()
    assert f"{flagged} of 600 showers are outside" in caplog.text


# -- the same bits however it is made -----------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("chunk", [1, 100, 256, 699, 5000])
def test_pieces_change_no_bit_of_the_file(model: Path, tmp_path: Path, chunk: int) -> None:
    n = 40 if chunk == 1 else ROWS
    make(model, tmp_path / "a.h5", n, chunk=chunk)
    make(model, tmp_path / "b.h5", n)
    assert bits(tmp_path / "a.h5") == bits(tmp_path / "b.h5")


def test_a_longer_sample_begins_with_the_shorter_one(model: Path, tmp_path: Path) -> None:
    make(model, tmp_path / "a.h5", 70)
    make(model, tmp_path / "b.h5", 300)
    short, long = io.load(tmp_path / "a.h5"), io.load(tmp_path / "b.h5")
    assert np.array_equal(short.cells, long.cells[:70])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("count", "order"), [(1, 1), (2, 1), (3, -1), (7, 1)])
def test_shards_in_any_order_give_the_same_file(
    model: Path, tmp_path: Path, count: int, order: int
) -> None:
    """Every piece is made once; whoever finds all of them writes the file, the others wait."""
    make(model, tmp_path / "whole.h5")
    out = tmp_path / "o.h5"
    done = [make(model, out, shard=(k, count)) for k in range(count)[::order]]
    written = done.index("made")
    assert set(done[:written]) <= {"left"} and set(done[written + 1 :]) <= {"complete"}
    assert bits(out) == bits(tmp_path / "whole.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.h5", "whole.h5"]
    assert make(model, out) == "complete"


@pytest.mark.usefixtures("small")
def test_a_run_without_shards_finishes_what_a_shard_left(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.h5"
    assert make(model, out, shard=(1, 3)) == "left"
    (folder,) = tmp_path.iterdir()
    (piece,) = folder.iterdir()
    before = piece.stat().st_mtime_ns
    assert make(model, out, shard=(1, 3)) == "left" and piece.stat().st_mtime_ns == before
    assert make(model, out) == "made"
    make(model, tmp_path / "whole.h5")
    assert bits(out) == bits(tmp_path / "whole.h5") and not folder.exists()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("how", ["cut", "other"])
def test_a_damaged_piece_is_removed_and_made_again(model: Path, tmp_path: Path, how: str) -> None:
    out = tmp_path / "o.h5"
    make(model, out, shard=(0, 3))
    (piece,) = tmp_path.glob(".o.h5.*/*.npy")
    if how == "cut":
        piece.write_bytes(piece.read_bytes()[:500])
    else:
        np.save(piece, np.zeros((300, 100), np.float32))
    with pytest.raises(OutputError, match=r"is damaged .* was removed; run the command again"):
        make(model, out)
    assert make(model, out) == "made"
    make(model, tmp_path / "whole.h5")
    assert bits(out) == bits(tmp_path / "whole.h5")


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_workers_change_no_bit_of_the_file(model: Path, tmp_path: Path) -> None:
    make(model, tmp_path / "one.h5", workers=1)
    make(model, tmp_path / "two.h5", workers=2)
    assert bits(tmp_path / "one.h5") == bits(tmp_path / "two.h5")


SCRIPT = """
import sys, time
from hepbridge.deploy import generation
from hepbridge.deploy.generation import generate_file
generation.CHUNK = 256
real = generation.draw_cells
def slow(*args, **options):
    time.sleep(0.3)
    return real(*args, **options)
generation.draw_cells = slow
generate_file(sys.argv[1], "uniform:10-100", 1500, sys.argv[2], seed=3, workers=1)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills differently on Windows")
@pytest.mark.usefixtures("small")
def test_kill_9_keeps_finished_pieces(model: Path, tmp_path: Path) -> None:
    """Killed after the first piece, run again: the bits of a run that was not disturbed."""
    out = tmp_path / "o.h5"
    command = [sys.executable, "-c", SCRIPT, str(model), str(out)]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob(".o.h5.*.parts/*.npy")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    done = {p: p.stat().st_mtime_ns for p in tmp_path.glob(".o.h5.*.parts/*.npy")}
    assert 1 <= len(done) < 6 and not out.exists()
    make(model, out, 1500, shard=(0, 2))
    assert all(p.stat().st_mtime_ns == when for p, when in done.items() if p.exists())
    make(model, out, 1500)
    make(model, tmp_path / "whole.h5", 1500)
    assert bits(out) == bits(tmp_path / "whole.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.h5", "whole.h5"]


@pytest.mark.slow
def test_two_processes_that_make_the_same_file_both_succeed(model: Path, tmp_path: Path) -> None:
    words = ["generate", model, "--energies", SPEC, "--n", 600, "-o", tmp_path / "o.h5"]
    words += ["--chunk", 64, "--workers", 1, "--seed", 3, "--device", "cpu"]
    command = [sys.executable, "-m", "hepbridge", *map(str, words)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [process.communicate(timeout=150) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    make(model, tmp_path / "whole.h5", 600)
    assert bits(tmp_path / "o.h5") == bits(tmp_path / "whole.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.h5", "whole.h5"]


# -- what is refused ----------------------------------------------------------------------------


def test_a_complete_file_is_left_alone_and_another_one_refused(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.h5"
    assert make(model, out, 30) == "made"
    before = bits(out)
    assert make(model, out, 30) == "complete"
    for changed in ({"seed": 4, "beam_seed": 3}, {"beam_seed": 4}, {"n": 31}):
        with pytest.raises(OutputError, match="exists already and is a file of another request"):
            make(model, out, **{"n": 30, **changed})
    assert bits(out) == before
    assert make(model, out, 30, seed=4, overwrite=True) == "made" and bits(out) != before
    (tmp_path / "x.h5").write_text("mine")
    with pytest.raises(OutputError, match="is a file that this command did not make"):
        make(model, tmp_path / "x.h5", 30)
    with pytest.raises(OutputError, match="exists already and is a file of another request"):
        make(model, out, 10**15)  # at once, before there are any pieces
    (tmp_path / "d.h5").mkdir()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"d.h5 is a folder; give the name of a file"):
            make(model, tmp_path / "d.h5", 30, overwrite=overwrite)
    with pytest.raises(ConfigError, match="shards cannot overwrite"):
        make(model, out, 30, shard=(0, 2), overwrite=True)


def test_a_replaced_model_makes_another_file(model: Path, tmp_path: Path) -> None:
    own = tmp_path / "g.safetensors"
    own.write_bytes(model.read_bytes())
    make(own, tmp_path / "o.h5", 30)
    other = load_generator(own)
    other.generator.mean.add_(0.1)
    other.save(own, overwrite=True)
    with pytest.raises(OutputError, match=r"of another request \(other: model\)"):
        make(own, tmp_path / "o.h5", 30)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"particle": "gamma"}, ModelFileError, "trained for particle 'e-', not for gamma"),
        ({"particle": "e-,e+"}, ModelFileError, r"not for e\+"),
        (
            {"theta": "fixed:5"},
            ConfigError,
            "knows nothing of theta_rad: .* theta_deg fixed:0, and",
        ),
        ({"impact": "cell"}, ConfigError, "knows nothing of x_mm: .* x_mm fixed:0, and"),
        ({"impact": "3,0"}, ConfigError, "and the beam has fixed:3; ask for that, or train"),
        ({"theta": "fixed:90"}, ConfigError, "at least 0 and less than 90 degrees"),
        ({"impact": "here"}, ConfigError, "write axis, cell or X,Y"),
        ({"n": 0}, ConfigError, "must be at least 1, not 0"),
        ({"n": None}, ConfigError, "pass --n, or energies file:E.h5"),
        ({"n": 2.5}, ConfigError, "must be a whole number, not 2.5"),
        ({"n": 10**15}, OutputError, "400,000,000 GB while they are made, and the disk of .* has"),
        ({"n": 10**7, "chunk": 2}, ConfigError, "are 5,000,000 pieces of work of 2 rows, and at"),
        ({"energies": 35}, ConfigError, "energies 35: write fixed:A or .* or file:E.h5"),
        ({"theta": 0}, ConfigError, "theta 0: write fixed:A or uniform:A-B"),
        ({"particle": 11}, ConfigError, "particle 11: write a name, or several with commas"),
        ({"impact": (3, 0)}, ConfigError, r"impact \(3, 0\): write axis, cell or X,Y"),
        ({"workers": 0}, ConfigError, "workers must be at least 1"),
        ({"chunk": 0}, ConfigError, "chunk must be at least 1"),
        ({"shard": (3, 3)}, ConfigError, "there is no shard 3 of 3"),
        ({"executor": "cluster"}, ConfigError, "unknown executor 'cluster'"),
        ({"device": "tpu"}, ConfigError, "unknown device 'tpu'"),
    ],
)
def test_bad_requests_are_refused(model: Path, tmp_path: Path, options, error, message) -> None:
    with pytest.raises(error, match=message):
        make(model, tmp_path / "o.h5", **options)
    assert not [p for p in tmp_path.iterdir() if p.is_file()]


def test_a_beam_that_was_trained_is_taken_for_granted(model: Path) -> None:
    """A constant angle of the training is the only one that the beam may have."""
    loaded = load_generator(model)
    loaded.domain.full.update(theta_deg="fixed:5", phi_deg="fixed:30", x_mm="fixed:0")
    gun = gun_for(loaded, SPEC, theta="fixed:5", phi="fixed:30")
    assert gun.conditions == ("theta_rad", "phi_rad")
    with pytest.raises(
        ConfigError, match="trained with theta_deg fixed:5, and the beam has fixed:0"
    ):
        gun_for(loaded, SPEC)


def test_several_particles_need_a_model_that_tells_them_apart(model: Path, tilted: Path) -> None:
    assert gun_for(load_generator(tilted), SPEC).particles == ("e-", "gamma")
    assert gun_for(load_generator(tilted), SPEC, particle="gamma").particles == ("gamma",)
    mixed = load_generator(model)
    mixed.domain = type(mixed.domain)(1.0, 2.0, "e-,gamma")
    assert gun_for(mixed, SPEC).particles == ("e-", "gamma")
    with pytest.raises(ConfigError, match="knows nothing of pdg_id, so it cannot make gamma alone"):
        gun_for(mixed, SPEC, particle="gamma")
    mixed.domain = type(mixed.domain)(1.0, 2.0, "unknown")
    assert gun_for(mixed, SPEC).particles == ("e-",)


def test_a_condition_that_no_beam_has(tilted: Path) -> None:
    loaded = load_generator(tilted)
    config = loaded.recipe.model.model_copy(update={"conditions": ["age"]})
    loaded.recipe = loaded.recipe.model_copy(update={"model": config})
    with pytest.raises(ConfigError, match=r"needs the condition age, which no beam has.*in Python"):
        gun_for(loaded, SPEC)


def test_a_file_of_energies(model: Path, tmp_path: Path) -> None:
    """The number of showers and their energies are those of another file; ids are not."""
    make(model, tmp_path / "first.h5", 40)
    generate_file(model, f"file:{tmp_path / 'first.h5'}", None, tmp_path / "second.h5", workers=1)
    first, second = io.load(tmp_path / "first.h5"), io.load(tmp_path / "second.h5")
    assert np.array_equal(first.incident_energy, second.incident_energy)
    assert not (first.event_ids == second.event_ids).all(axis=1).any()


def test_memory_is_bounded_by_the_cells_of_a_piece(model, tmp_path, monkeypatch) -> None:
    seen: list[int] = []
    real = generation.draw_cells
    monkeypatch.setattr("hepbridge.simulate.beam_file.PIECE_BYTES", 64 * 400)
    monkeypatch.setattr(
        generation,
        "draw_cells",
        lambda m, c, ids, **k: seen.append(len(ids)) or real(m, c, ids, **k),
    )
    make(model, tmp_path / "o.h5", 150)
    assert seen == [64, 64, 22] and PIECE_BYTES == 1 << 26


# -- the command line ---------------------------------------------------------------------------


def test_words(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.h5"
    words = ["generate", model, "--energies", SPEC, "--n", 30, "-o", out, "--device", "cpu"]
    assert run(*words).stdout == f"wrote {out}\n"
    assert run(*words).stdout == f"{out} is unchanged\n"
    answer = json.loads(run(*words, "--json").stdout)
    assert answer == {"output": str(out), "made": False, "left": False}
    more = [*words[:-4], "-o", tmp_path / "s.h5", "--chunk", 10, "--workers", 1]
    assert run(*more, "--shard", "0/2").stdout == f"{tmp_path / 's.h5'} waits for other shards\n"
    assert run(*more, "--shard", "1/2").stdout == f"wrote {tmp_path / 's.h5'}\n"
    assert bits(tmp_path / "s.h5") == bits(out)


def test_every_option_arrives(tilted: Path, tmp_path: Path) -> None:
    words = "--particle gamma --theta uniform:0-10 --phi fixed:90 --impact 5,2.5 --seed 7"
    more = "--beam-seed 8 --workers 1 --chunk 9 --executor local --shard 0/1 --device cpu"
    done = run(
        "generate", tilted, "--energies", "log:20-80", "--n", 20, "-o", tmp_path / "o.h5",
        *words.split(), *more.split(),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = io.load(tmp_path / "o.h5")
    assert (found.meta["seed"], found.meta["beam_seed"], found.meta["particle"]) == (7, 8, "gamma")
    assert set(found.conditions["phi_rad"]) == {np.radians(90)}
    assert set(found.conditions["x_mm"]) == {5.0} and set(found.conditions["y_mm"]) == {2.5}
    again = [*words.split(), *more.split()]
    done = run(
        "generate", tilted, "--energies", "fixed:35", "--n", 20, "-o", tmp_path / "o.h5", *again,
        "--overwrite",
    )  # fmt: skip
    assert done.exit_code == 0 and set(io.load(tmp_path / "o.h5").incident_energy) == {35e3}
    strict = ["--energies", "fixed:500", "--n", 1, "-o", tmp_path / "p.h5", "--strict"]
    assert run("generate", tilted, *strict).exit_code == 7


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["generate", "squirels-small"],
            4,
            "is a refiner, which takes fast showers: hepbridge ref",
        ),
        (["generate", "none.safetensors"], 4, "there is no model file"),
        (["generate", "nonsense"], 4, "no shipped model is called 'nonsense'"),
        (["generate", "{model}", "--shard", "2/2"], 5, "--shard is I/N"),
        (
            ["generate", "{model}", "-o", "o.npy"],
            6,
            "generated showers go into a file that ends in",
        ),
        (["generate", "{model}", "-o", "no/o.h5"], 6, "the folder no does not exist"),
        (["generate", "{model}", "--energies", "fixed:-5"], 5, "an energy must be positive"),
    ],
)
def test_bad_words_end_in_one_message(
    model: Path, tmp_path: Path, monkeypatch, words, code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [word.format(model=model) for word in words]
    done = run(*filled[:2], "--energies", "fixed:35", "--n", 5, "-o", "o.h5", *filled[2:])
    assert done.exit_code == code, done.output
    assert message in " ".join(done.stderr.split()) and done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["refine", "{model}", "{file}", "-o", "o.h5"], 4, "is a generator, .* hepbridge generate"),
        (["unfold", "apply", "{model}", "{file}", "-o", "o.h5"], 4, "is a generator"),
        (["evaluate", "--ref", "{file}", "--cand", "g={model}", "-o", "r"], 3, "hepbridge generate"),
        (["show", "{model}", "-o", "p.png"], 3, "a model, not showers; hepbridge generate"),
        (
            ["train", "squirels", "--fast", "{file}", "--full", "{file}", "-o", "m.safetensors",
             "--teacher", "{model}"], 4, "is a generator",
        ),
        (
            ["train", "calo-cfm", "--full", "{file}", "-o", "m.safetensors", "--teacher",
             "squirels-small.safetensors"], 4, "no model file squirels-small",
        ),
        (
            ["train", "calo-cfm", "--full", "{file}", "-o", "m.safetensors", "--teacher",
             "squirels-small"], 4, "is a refiner, .* hepbridge refine",
        ),
        (
            ["train", "calo-cfm", "--fast", "{file}", "--full", "{file}", "-o", "m.safetensors"],
            5, "recipe 'calo-cfm' trains a generator, .*: leave out --fast",
        ),
        (
            ["train", "squirels", "--full", "{file}", "-o", "m.safetensors"],
            5, "recipe 'squirels' trains a refiner, which needs fast showers: pass --fast",
        ),
        (
            ["train", "calo", "--full", "{file}", "-o", "m.safetensors"],
            5, "unknown recipe 'calo'; available: quantile, .*; generators: calo-cfm",
        ),
        (
            ["train", "sbunfold", "--full", "{file}", "-o", "m.safetensors"],
            5, "'sbunfold' is a recipe of unfoldings: hepbridge unfold train sbunfold",
        ),
    ],
)  # fmt: skip
def test_models_at_the_wrong_door(
    model: Path, tmp_path: Path, monkeypatch, words, code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(model, tmp_path / "f.h5", 60)
    done = run(*(word.format(model=model, file="f.h5") for word in words))
    assert done.exit_code == code, done.output
    assert re.search(message, " ".join(done.stderr.split())), done.stderr
    assert done.stdout == "" and [p.name for p in tmp_path.iterdir()] == ["f.h5"]


def test_a_generator_is_described_and_cited(tmp_path: Path, model: Path) -> None:
    text = run("info", model).stdout
    assert text.startswith(f"{model}: a hepbridge generator\n")
    assert "every coordinate by itself; frame quantile" in text
    assert "incident energy 10" in text and "particle e-" in text and "10×10 cells" in text
    record = json.loads(run("info", model, "--json").stdout)
    assert record["kind"] == "generator" and record["cells"] is None
    assert list(json.loads(run("cite", model, "--json").stdout)["bibtex"]) == ["hepbridge"]


def test_train_and_generate_from_the_command_line(tmp_path: Path, monkeypatch) -> None:
    """A recipe by name, with the final lines of a refiner; then showers, and a word about the model."""
    monkeypatch.chdir(tmp_path)
    showers: Showers = toy.truth(200)
    io.save(showers, "full.h5")
    step = {"width": 16, "depth": 1, "steps": 1, "windows": 1, "window": 16, "train_steps": 2}
    words = ["train", "calo-cfm-teacher", "--full", "full.h5", "-o", "g.safetensors"]
    for name in ("layers", "cells"):
        words += [w for k, v in step.items() for w in ("--set", f"model.{name}.options.{k}={v}")]
    words += ["--set", "model.frame_options.knots=9", "--set", "model.frame_options.nodes=3"]
    done = run(*words, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "on 20 held-out showers" in done.stderr
    assert "quantile " in done.stderr and "generated " in done.stderr
    assert done.stdout == "g.safetensors is a trained model\n"
    assert "layers by flow_matching, cells by flow_matching" in run("info", "g.safetensors").stdout
    keys = json.loads(run("cite", "g.safetensors", "--json").stdout)["bibtex"]
    assert {"caloflow", "calodream", "flow_matching"} <= keys.keys()
    words = ["generate", "g.safetensors", "--energies", "fixed:50", "--n", 12, "-o", "o.h5"]
    assert run(*words, "--workers", 1).exit_code == 0
    assert io.load("o.h5").geometry.digest() == toy.TOY.digest()
    student = ["train", "calo-cfm", "--full", "full.h5", "-o", "s.safetensors"]
    student += ["--teacher", "g.safetensors", "--set", "training.steps=2", "--device", "cpu"]
    for name in ("knots=9", "nodes=3"):
        student += ["--set", f"model.frame_options.{name}"]
    for name in ("layers", "cells"):
        student += ["--set", f"model.{name}.options.width=8"]
    done = run(*student)
    assert done.exit_code == 0, done.output
    assert "network evaluations per shower" in run("info", "s.safetensors").stdout


def test_help_and_documentation_name_every_option_and_recipe() -> None:
    from hepbridge.recipes import names

    root = Path(__file__).parents[1]
    page = (root / "docs" / "generation.md").read_text(encoding="utf-8")
    words = " ".join(run("train", "--help").stdout.replace("│", " ").split())
    for recipe in names("generation"):
        assert f"`{recipe}`" in page and recipe in words
    for parameter in get_command(app).commands["generate"].params:
        for option in parameter.opts:
            if option.startswith("--") and option != "--help":
                assert f"`{option}" in page, f"docs/generation.md does not mention {option}"
