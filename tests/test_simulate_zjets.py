"""Z + jet events: physics that must be there, and files that do not depend on how they were made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("pythia8mc")
pytest.importorskip("fastjet")

from hepbridge.cli.app import app
from hepbridge.core.errors import ConfigError, MissingExtraError, OutputError, SimulationError
from hepbridge.data.formats.tables import load_tables, read_tables_manifest
from hepbridge.data.tables import Table
from hepbridge.simulate.zjets import generator, jets, produce
from hepbridge.simulate.zjets.calorimeter import detect
from hepbridge.simulate.zjets.generator import CONFIGURATIONS, Setup, generate
from hepbridge.simulate.zjets.noise import Noise
from hepbridge.simulate.zjets.produce import Selection, pair, produce_zjets

QUICK = Setup("monash", mpi=False)  # the fastest


def make(path: Path, n: int = 24, **options) -> bool:
    return produce_zjets(
        n, path, **{"setup": QUICK, "chunk": 10, "workers": 1, "seed": 3} | options
    )


def run(*words: str):
    return CliRunner().invoke(app, ["simulate", "zjets", *words])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zjets") / "plain.h5"
    assert make(path)
    return path


# Physics


@pytest.fixture(scope="module")
def events() -> dict[bool, dict[str, Table]]:
    """400 events with multiparton interactions, and without."""
    return {mpi: pair(Setup("a14", mpi), Selection(), 400, seed=1) for mpi in (True, False)}


@pytest.mark.slow
def test_z_boson(events: dict[bool, dict[str, Table]]) -> None:
    """A Breit–Wigner at 91.19 GeV, 2.495 GeV wide; fails if it is 0.5 GeV off.

    The median of n of them has the error π/2 Γ/2 / √n, and half of them lie within Γ/2."""
    mass = events[True]["particle"].column("z_mass")
    n, half = len(mass), 2.495 / 2
    assert abs(np.median(mass) - 91.19) < 4 * np.pi / 2 * half / np.sqrt(n)
    assert abs((np.abs(mass - 91.19) < half).mean() - 0.5) < 4 * 0.5 / np.sqrt(n)


@pytest.mark.slow
def test_jets_balance_the_z_and_fall(events: dict[bool, dict[str, Table]]) -> None:
    """Recoil, a falling spectrum, and nothing of the Z in the jet."""
    t = events[True]["particle"]
    z_pt, pt = t.column("z_pt"), t.column("pt")
    counts = np.histogram(z_pt, [150, 200, 250, 300, 350])[0]
    assert (np.diff(counts) < 0).all() and counts[0] > 4 * counts[3]
    assert 0.8 < np.median(pt / z_pt) < 1.1
    away = np.abs(np.mod(t.column("phi") - t.column("z_phi"), 2 * np.pi) - np.pi)
    assert np.median(away) < 0.3
    assert np.median(t.column("mass") / pt) < 0.2


@pytest.mark.slow
def test_multiparton_interactions_add_particles(events: dict[bool, dict[str, Table]]) -> None:
    """Two and a half in the jet, which is about three standard errors here, and many in the event."""
    on, off = (events[mpi]["particle"].column("multiplicity") for mpi in (True, False))
    error = np.hypot(on.std() / np.sqrt(len(on)), off.std() / np.sqrt(len(off)))
    assert on.mean() - off.mean() > error
    many, few = (len(generate(Setup("a14", mpi), 50, seed=2)[0]) for mpi in (True, False))
    assert many > 2 * few


@pytest.mark.slow
def test_detector_level(events: dict[bool, dict[str, Table]]) -> None:
    """Fewer particles, nearly the same energy, most events in both selections, misses and fakes."""
    particle, detector = events[True]["particle"], events[True]["detector"]
    np.testing.assert_array_equal(particle.event_ids, detector.event_ids)
    matched = particle.flag("matched")
    assert (matched == detector.flag("matched")).all() and matched.mean() > 0.9
    response = (detector.column("pt") / particle.column("pt"))[matched]
    assert 0.9 < np.median(response) < 1.05 and 0.03 < response.std() < 0.2
    ratio = (detector.column("multiplicity") / particle.column("multiplicity"))[matched]
    assert 0.5 < ratio.mean() < 0.9
    true, seen = particle.flag("pass"), detector.flag("pass")
    assert (true == (particle.filled("pt", 0.0) >= 150)).all()
    assert (seen == (detector.filled("pt", 0.0) >= 150)).all()
    assert (true & seen).sum() > 5 * (true & ~seen).sum() > 0 < (~true & seen).sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_every_configuration_starts(name: str) -> None:
    """Fails if Pythia does not know a setting; each makes other events."""
    final, z = generate(Setup(name, mpi=False), 3, seed=1)
    assert len(z) == 3 and set(final.event) == {0, 1, 2}
    assert not np.isin(np.abs(final.pdg_id), (12, 14, 16, 23)).any()
    energy = [final.e[final.event == i].sum() + z.e[i] for i in range(3)]
    assert max(energy) < 14_000 * (1 + 1e-6) and min(energy) > 5_000


def test_momentum_is_conserved() -> None:
    """Without the neutrinos something is missing, but seldom; fails if particles get lost."""
    final, z = generate(QUICK, 30, seed=4)
    for k in ("px", "py"):
        missing = np.bincount(final.event, getattr(final, k), 30) + getattr(z, k)
        assert np.median(np.abs(missing)) < 1e-6
    assert final.charge.sum() == pytest.approx(2 * 30)
    hadrons = final.charge[np.abs(final.pdg_id) == 211]
    assert set(hadrons) == {-1.0, 1.0}


def test_what_pythia_refuses_is_told(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    """The setting, the reason that it printed, and nothing on standard output."""
    monkeypatch.setitem(generator.CONFIGURATIONS, "odd", ("Tune:qq = 3",))
    with pytest.raises(SimulationError, match=r"does not take 'Tune:qq = 3'\nwhat it printed") as e:
        generate(Setup("odd"), 1, seed=1)
    assert "input string not found" in str(e.value)
    assert capfd.readouterr().out == ""


def test_leading_jets_match_within_half_a_radius() -> None:
    """Across φ = π, too; fails with a whole radius, or if a jet that was not found matches."""

    def found(rapidity, phi) -> jets.Jets:
        columns = {"rapidity": np.array(rapidity), "phi": np.array(phi)}
        return jets.Jets(columns, {"pt": ~np.isnan(columns["phi"])})

    nan = float("nan")
    one = found([0.0, 0.0, 0.0, 0.0, nan], [0.0, 0.0, 3.1, 3.1, nan])
    other = found([0.14, 0.15, 0.1, nan, 0.0], [0.14, 0.15, -3.1, nan, 0.0])
    matched = produce._matched(one, other, 0.4)
    assert matched.tolist() == [True, False, True, False, False]


# Seeds and chunks


def test_events_are_a_function_of_seed_and_row(plain: Path, tmp_path: Path) -> None:
    """Fails if a chunk starts with the seed of another, or the detector with that of the chunk."""
    assert make(tmp_path / "shorter.h5", 15)
    assert make(tmp_path / "other.h5", 15, seed=4)
    for level in ("particle", "detector"):
        all_, some, other = (
            load_tables(p)[level] for p in (plain, tmp_path / "shorter.h5", tmp_path / "other.h5")
        )
        np.testing.assert_array_equal(all_.column("mass")[:15], some.column("mass"))
        np.testing.assert_array_equal(all_.event_ids[:15], some.event_ids)
        assert np.isin(all_.column("mass"), other.column("mass")).sum() == 0
        assert len(np.unique(all_.column("pt"))) == 24
        assert all_.event_ids[0, 0] != other.event_ids[0, 0]
        assert all_.event_ids[:, 1].tolist() == list(range(24))


def test_seeds_of_pythia() -> None:
    """1 … 900 000 000, consecutive within a sample, elsewhere for another configuration."""
    setup = Setup()
    seeds = [setup.pythia_seed(7, k) for k in range(1000)]
    assert len(set(seeds)) == 1000 and min(seeds) >= 1 and max(seeds) <= 900_000_000
    assert setup.pythia_seed(8, 0) not in seeds
    assert Setup("monash").pythia_seed(7, 0) not in seeds


def test_detector_is_a_function_of_the_row(plain: Path) -> None:
    """The second chunk, made by hand from its generator and its rows."""
    uid = QUICK.uid(3)
    final, _ = generate(QUICK, 10, seed=3, chunk=1)
    found = jets.leading_jets(detect(final, Noise(3, uid, np.arange(10, 20))), 10, 0.4)
    table = load_tables(plain)["detector"]
    np.testing.assert_array_equal(found.columns["mass"], table.column("mass")[10:20])


# Files


def test_interrupted_is_undisturbed(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second of three pieces; fails if a finished piece is made again."""
    calls: list[int] = []

    def stops(setup, n, seed, chunk):
        calls.append(chunk)
        if calls == [0, 1]:
            raise SimulationError("stop")
        return generate(setup, n, seed, chunk)

    monkeypatch.setattr(produce, "generate", stops)
    path = tmp_path / "z.h5"
    with pytest.raises(SimulationError, match=r"stop\n1 of 3 pieces are finished and kept"):
        make(path)
    assert not path.exists()
    assert make(path)
    assert calls == [0, 1, 1, 2]
    assert path.read_bytes() == plain.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["z.h5"]
    assert not make(path)  # complete
    with pytest.raises(OutputError, match="of another request"):
        make(path, seed=9)
    assert calls == [0, 1, 1, 2]


@pytest.mark.slow
def test_two_processes_make_the_same_file(plain: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "z.h5", workers=2)
    assert (tmp_path / "z.h5").read_bytes() == plain.read_bytes()


def test_file_says_what_it_is(plain: Path) -> None:
    tables, manifest = load_tables(plain), read_tables_manifest(plain)
    assert list(tables) == ["particle", "detector"]
    assert list(tables["detector"].columns) == list(jets.OBSERVABLES)
    for table in tables.values():
        assert table.units["mass"] == "GeV" and table.units["phi"] == "rad"
        assert {"pass", "matched"} == set(table.flags)
        assert table.meta["configuration"] == "monash" and table.meta["mpi"] is False
        assert "PartonLevel:MPI = off" in table.meta["generator_settings"]
        assert table.meta["pythia8mc"] == generator.pythia_version()
    assert manifest is not None and manifest["setup"]["pt_hat_min_gev"] == 150.0


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration 'herwig' of the generator; there are"):
        Setup("herwig")
    with pytest.raises(ConfigError, match="between 0 and half the energy"):
        Setup(pt_hat_min_gev=8000.0)
    with pytest.raises(ConfigError, match="between 0 and half the energy"):
        Setup(ecm_gev=float("inf"))
    with pytest.raises(ConfigError, match="jet radius"):
        Selection(radius=0.0)
    with pytest.raises(ConfigError, match="at least 20 GeV"):
        Selection(pt_gev=5.0)
    with pytest.raises(ConfigError, match="number of events must be at least 1"):
        make(tmp_path / "z.h5", 0)
    with pytest.raises(ConfigError, match="chunk must be at least 1"):
        make(tmp_path / "z.h5", chunk=0)
    with pytest.raises(OutputError, match=r"ends in \.h5"):
        make(tmp_path / "z.root")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pythia8mc", "fastjet"])
def test_without_the_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence and exit code 8, before any work."""
    monkeypatch.setitem(sys.modules, name, None)
    for words in (("--check",), ("--n", "5", "-o", str(tmp_path / "z.h5"))):
        done = run(*words)
        assert done.exit_code == MissingExtraError.exit_code
        assert (
            f"needs the optional library '{name}': pip install 'hepbridge[pythia]'" in done.output
        )
    assert list(tmp_path.iterdir()) == []


# The command line


def test_check_names_versions_and_configurations() -> None:
    done = run("--check")
    assert done.exit_code == 0
    assert "Pythia 8.317.2" in done.output
    assert ", ".join(CONFIGURATIONS) in done.output


def test_help_names_every_configuration() -> None:
    from hepbridge.cli import zjets

    words = str(zjets.zjets.__annotations__["config"])
    assert all(name in words for name in CONFIGURATIONS)


def test_unknown_configuration(tmp_path: Path) -> None:
    done = run("--n", "5", "--config", "herwig", "-o", str(tmp_path / "z.h5"))
    assert done.exit_code == ConfigError.exit_code and "there are: monash, a14" in done.output


@pytest.mark.slow
def test_standard_output_is_the_answer_alone(tmp_path: Path) -> None:
    """A process of its own: Pythia, Vincia and FastJet print banners from compiled code."""
    command = [sys.executable, "-m", "hepbridge", "simulate", "zjets", "--config", "vincia"]
    options = ["--mpi", "off", "--n", "3", "--workers", "1", "-o", "z.h5", "--json", "--quiet"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"output": "z.h5", "made": True}
    assert done.stderr == ""
    assert len(load_tables(tmp_path / "z.h5")["particle"]) == 3
