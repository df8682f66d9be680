"""``hepbridge simulate``: from words to files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import stand_in_engine as stand_in
from hepbridge.cli.app import app
from hepbridge.data import io

COMMANDS = get_command(app).commands["simulate"].commands
GFLASH = ("simulate", "gflash", "--n", "20", "--energies", "uniform:10-100", "-o", "o.h5")
PAIRS = ("simulate", "pairs", "squirels", "--n", "20", "--energies", "fixed:50", "-o", "p")
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, and engines that take no time."""
    monkeypatch.chdir(tmp_path)
    own = {"target": "stand_in_engine:full", "described_by": "stand_in_engine:describe_full"}
    quick = {"target": "stand_in_engine:fast", "described_by": "stand_in_engine:describe_fast"}
    monkeypatch.setattr("hepbridge.simulate.engines.GFLASH", stand_in.engine("gflash", **quick))
    monkeypatch.setattr("hepbridge.simulate.engines.GEANT4", stand_in.engine("geant4", **own))


def run(*words: str):
    return CliRunner().invoke(app, list(words))


def test_commands() -> None:
    assert sorted(COMMANDS) == ["geant4", "gflash", "pairs", "zjets"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_has_help_and_documentation(command: str) -> None:
    assert run("simulate", command, "--help").exit_code == 0
    page = "unfolding-events.md" if command == "zjets" else "simulate.md"
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for parameter in COMMANDS[command].params:
        assert parameter.name == "help" or parameter.help, f"{command}: {parameter.name}"
        for option in parameter.opts:
            if option.startswith("--") and option != "--help":
                assert f"`{option}" in text, f"docs/{page} does not mention {command} {option}"


@pytest.mark.parametrize(
    "words", [["--help"], ["simulate", "--help"], ["simulate", "pairs", "--help"]]
)
def test_help_imports_no_engine(words: list[str]) -> None:
    code = f"""
import sys
from hepbridge.cli import main
try:
    main({words!r})
except SystemExit as end:
    assert not end.code, end.code
sys.exit(", ".join({{"torch", "numba", "numpy", "geant4_pybind", "h5py"}} & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["gflash", "geant4"])
def test_a_file_is_made_once(command: str) -> None:
    words = ("simulate", command, *GFLASH[2:])
    assert run(*words).stdout == "wrote o.h5\n"
    assert run(*words).stdout == "o.h5 is unchanged\n"
    found = io.load("o.h5")
    assert len(found) == 20 and found.meta["engine"] == command
    assert found.geometry.shape == (10, 10)
    assert found.incident_energy.min() > 10e3 and found.incident_energy.max() < 100e3


def test_every_option_arrives() -> None:
    words = "--particle gamma --theta uniform:0-10 --phi fixed:90 --impact 5,-2.5 --seed 7"
    assert run(*GFLASH, *words.split(), "--workers", "1", "--chunk", "6").exit_code == 0
    found = io.load("o.h5")
    assert found.meta["particle"] == "gamma" and found.meta["seed"] == 7
    assert set(found.conditions["pdg_id"]) == {22}
    assert 0 < found.conditions["theta_rad"].max() < np.radians(10)
    assert set(found.conditions["phi_rad"]) == {np.radians(90)}
    assert set(found.conditions["x_mm"]) == {5.0} and set(found.conditions["y_mm"]) == {-2.5}
    assert run(*GFLASH, "--overwrite").exit_code == 0


def test_geant4_has_options_of_its_own() -> None:
    words = ("simulate", "geant4", *GFLASH[2:], "--physics", "em_option2", "--cut-mm", "0.1")
    assert run(*words).exit_code == 0
    meta = io.load("o.h5").meta
    assert (meta["physics"], meta["cut_mm"]) == ("em_option2", 0.1)


def test_gflash_has_options_of_its_own() -> None:
    """What is not said is not in the file, so that files of before stay complete."""
    assert run(*GFLASH, "--published", "--resolution", "0.07").exit_code == 0
    meta = io.load("o.h5").meta
    assert (meta["published"], meta["resolution"]) == (True, 0.07)
    run(*GFLASH, "-o", "p.h5")
    assert not {"published", "resolution"} & io.load("p.h5").meta.keys()


def test_pairs_pass_options_to_the_engine_that_has_them() -> None:
    assert run(*PAIRS, "--physics", "em", "--resolution", "0.07").exit_code == 0
    fast, full = io.load("p_fast.h5").meta, io.load("p_full.h5").meta
    assert fast["resolution"] == 0.07 and full["physics"] == "em"
    assert "physics" not in fast and "resolution" not in full


def test_pairs_make_two_files() -> None:
    done = run(*PAIRS, "--physics", "em")
    assert done.stdout == "wrote p_fast.h5\nwrote p_full.h5\n"
    fast, full = io.load("p_fast.h5"), io.load("p_full.h5")
    assert np.array_equal(fast.event_ids, full.event_ids)
    assert (fast.meta["engine"], full.meta["engine"]) == ("gflash", "geant4")
    assert "physics" not in fast.meta and full.meta["physics"] == "em"
    answer = json.loads(run(*PAIRS, "--physics", "em", "--json").stdout)
    assert answer["files"] == [
        {"output": "p_fast.h5", "made": False},
        {"output": "p_full.h5", "made": False},
    ]
    assert run(*PAIRS[:-1], "new/").stdout == "wrote new/fast.h5\nwrote new/full.h5\n"


def test_the_same_particles_with_other_showers() -> None:
    run(*GFLASH, "--seed", "1")
    run(*GFLASH, "--seed", "2", "--beam-seed", "1", "-o", "p.h5")
    first, second = io.load("o.h5"), io.load("p.h5")
    assert np.array_equal(first.incident_energy, second.incident_energy)
    assert np.array_equal(first.event_ids, second.event_ids)
    assert (second.meta["seed"], second.meta["beam_seed"]) == (2, 1)
    assert not np.isclose(first.cells, second.cells, rtol=1e-3).all(axis=1).any()


def test_a_detector_may_be_a_file() -> None:
    from hepbridge.simulate.detector import load_detector

    text = load_detector("squirels").to_yaml().replace("10, 10", "4, 6")
    Path("mine.yaml").write_text(text, encoding="utf-8")
    assert run(*GFLASH, "--detector", "mine.yaml").exit_code == 0
    assert io.load("o.h5", geometry=None).geometry.shape == (4, 6)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--n", "0"], 5, "the number of showers must be at least 1, not 0"),
        (["--energies", "fixed:-5"], 5, "an energy must be positive, not -5 GeV"),
        (["--energies", "uniform:100-10"], 5, "from a smaller to a larger number"),
        (["--energies", "file:none.h5"], 3, "none.h5: there is no such file of energies"),
        (["--detector", "squirrels"], 5, "unknown detector 'squirrels'; available: "),
        (["--detector", "none.yaml"], 5, "cannot read the detector none.yaml"),
        (["--particle", "tau-"], 5, "unknown particle 'tau-'"),
        (["--particle", "pi+"], 5, "Stand-in does not simulate pi+"),
        (["--theta", "uniform:5-100"], 5, "less than 90 degrees"),
        (["--phi", "fixed:1e3"], 5, "an azimuth must be between"),
        (["--impact", "1000,0"], 5, "misses the front face"),
        (["-o", "o.npy"], 6, "go into a file that ends in .h5"),
        (["-o", "no/such/folder/o.h5"], 6, "the folder no/such/folder does not exist"),
        (["--workers", "0"], 2, "--workers"),
        (["--chunk", "0"], 2, "--chunk"),
        (["--seed", "x"], 2, "--seed"),
    ],
)
def test_bad_words_end_in_one_message(words: list[str], code: int, message: str) -> None:
    done = run(*GFLASH, *words)
    assert done.exit_code == code, done.output
    assert message in " ".join(done.stderr.split())
    assert done.stdout == "" and "Traceback" not in done.output
    assert list(Path().iterdir()) == []


def test_an_output_of_another_request_is_refused() -> None:
    run(*GFLASH)
    done = run(*GFLASH, "--seed", "1")
    assert done.exit_code == 6 and "is a file of another request" in done.stderr


def test_the_number_may_come_from_the_file_of_energies() -> None:
    run(*GFLASH)
    assert run("simulate", "gflash", "--energies", "file:o.h5", "-o", "p.h5").exit_code == 0
    assert len(io.load("p.h5")) == 20
    done = run("simulate", "gflash", "--energies", "fixed:1", "-o", "q.h5")
    assert done.exit_code == 5 and "pass --n, or energies file:E.h5" in done.stderr


def test_the_commands_of_the_page_run() -> None:
    """Every ``$ hepbridge simulate`` line of docs/simulate.md, here with 20 showers each."""
    text = (ROOT / "docs" / "simulate.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ hepbridge (simulate .*)$", text, re.M)
    assert len(lines) >= 5
    for line in lines:
        words = re.sub(r"--n \d+", "--n 20", line).split()
        done = run(*words, "--overwrite")
        assert done.exit_code == 0, (line, done.output)
    first, second = io.load("full.h5"), io.load("full2.h5")
    assert np.array_equal(first.incident_energy, second.incident_energy)


@pytest.mark.slow
def test_the_engine_of_the_page_runs() -> None:
    """The last Python block of docs/simulate.md."""
    pytest.importorskip("numba", reason="numba is not installed (extra gflash)")
    text = (ROOT / "docs" / "simulate.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.S)
    before, space = "from hepbridge.simulate.detector import load_detector\n", {}
    exec(before + "detector = load_detector('squirels')\n" + code[-1], space)  # our own page
    assert space["cells"].shape == (2, 100)


def test_a_failure_of_the_engine_is_told_with_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "12")
    done = run(*GFLASH, "--chunk", "5", "--workers", "1")
    assert done.exit_code == 9
    assert "track got stuck" in done.stderr and "2 of 4 pieces are finished and kept" in done.stderr


def test_check_needs_no_other_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hepbridge.simulate.geant4.check", lambda: "all is well")
    assert run("simulate", "geant4", "--check").stdout == "all is well\n"
    answer = run("simulate", "geant4", "--check", "--json").stdout
    assert json.loads(answer) == {"check": "all is well"}
