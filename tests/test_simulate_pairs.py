"""Pairs: the same particles through two engines, row by row, and independent showers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import stand_in_engine as stand_in
from hepbridge.core.errors import ConfigError, OutputError
from hepbridge.data import io
from hepbridge.data.pairs import match_by_energy
from hepbridge.simulate.detector import load_detector
from hepbridge.simulate.engines import GEANT4, GFLASH
from hepbridge.simulate.gun import Gun
from hepbridge.simulate.pairs import names, produce_pairs

SQUIRELS = load_detector("squirels")
FAST, FULL = stand_in.engine("quick"), stand_in.engine("thorough", chunk=30)


def pairs(output: Path, n: int | None = 100, *, seed: int = 5, **options) -> dict[Path, bool]:
    gun = Gun.of(SQUIRELS, "log:1-100", theta="uniform:0-10", impact="cell", seed=seed)
    how = {"fast": FAST, "full": FULL, "workers": 1, **options}
    return produce_pairs(SQUIRELS, gun, n, output, **how)


def test_rows_are_the_same_particle(tmp_path: Path) -> None:
    """Ids and every condition agree row by row, and both files say which engine made them."""
    assert list(pairs(tmp_path).values()) == [True, True]
    fast, full = io.load(tmp_path / "fast.h5"), io.load(tmp_path / "full.h5")
    assert np.array_equal(fast.event_ids, full.event_ids)
    assert fast.conditions.keys() == full.conditions.keys() > {"theta_rad", "x_mm"}
    for name, column in fast.conditions.items():
        assert np.array_equal(column, full.conditions[name]), name
    assert fast.meta["engine"] == "quick" and full.meta["engine"] == "thorough"
    assert fast.meta["seed"] == full.meta["seed"] == fast.meta["beam_seed"] == 5
    a, b = match_by_energy(fast, full)
    assert len(a) == len(b) == 100


def test_each_engine_has_its_own_options(tmp_path: Path) -> None:
    pairs(tmp_path, fast_options={"response": 0.8}, full_options={"response": 0.4})
    fast, full = io.load(tmp_path / "fast.h5"), io.load(tmp_path / "full.h5")
    assert np.allclose(full.e_sum, fast.e_sum / 2, rtol=1e-5)
    assert np.allclose(fast.e_sum, 0.8 * fast.incident_energy, rtol=0.01)


def test_other_seed_other_particles(tmp_path: Path) -> None:
    pairs(tmp_path / "a")
    pairs(tmp_path / "b", seed=6)
    a, b = io.load(tmp_path / "a_full.h5"), io.load(tmp_path / "b_full.h5")
    assert not np.isin(a.incident_energy, b.incident_energy).any()
    assert a.event_ids[0, 0] != b.event_ids[0, 0]


def test_an_interrupted_pair_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The full engine fails in its second piece: the fast file stays, the rest is made later."""
    calls = tmp_path / "calls"
    calls.mkdir()
    monkeypatch.setenv("STAND_IN_CALLS", str(calls))
    with monkeypatch.context() as patch:
        patch.setenv("STAND_IN_FAILS", "130")
        with pytest.raises(RuntimeError, match="4 of 7 pieces are finished and kept"):
            pairs(tmp_path, 200, fast=stand_in.engine("quick", target="stand_in_engine:calm"))
    before = len(list(calls.iterdir()))
    made = pairs(tmp_path, 200, fast=stand_in.engine("quick", target="stand_in_engine:calm"))
    assert list(made.values()) == [False, True]
    assert len(list(calls.iterdir())) - before == 3


def test_nothing_is_made_if_one_engine_cannot(tmp_path: Path) -> None:
    """Fails if the fast file is made before the full engine is asked."""
    with pytest.raises(ConfigError, match="must not be negative"):
        pairs(tmp_path, full_options={"response": -1.0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_real_engines_make_the_same_bits_in_any_cut(tmp_path: Path, geant4_data: Path) -> None:
    """Oblique electrons of 1–5 GeV through GFLASH and Geant4: two workers, and one with other pieces."""
    gun = Gun.of(SQUIRELS, "log:1-5", theta="uniform:0-10", impact="cell", seed=5)
    engines = {"fast": GFLASH, "full": GEANT4}
    produce_pairs(SQUIRELS, gun, 4, tmp_path / "a", **engines, workers=2, chunk=2)
    produce_pairs(SQUIRELS, gun, 4, tmp_path / "b", **engines, workers=1, chunk=4)
    for kind in ("fast", "full"):
        a, b = (tmp_path / f"{name}_{kind}.h5" for name in "ab")
        assert a.read_bytes() == b.read_bytes()
        response = io.load(a).e_sum / io.load(a).incident_energy
        assert (response > 0.9).all() and (response < 1.0).all()
    full = io.load(tmp_path / "a_full.h5")
    assert full.meta["cut_mm"] == 0.7 and full.meta["geant4"].startswith("11.")
    assert not np.array_equal(full.cells, io.load(tmp_path / "a_fast.h5").cells)


def test_names(tmp_path: Path) -> None:
    assert names(tmp_path) == (tmp_path / "fast.h5", tmp_path / "full.h5")
    new = tmp_path / "new"
    assert names(f"{new}/") == (new / "fast.h5", new / "full.h5")
    assert new.is_dir()
    assert names(tmp_path / "run1") == (tmp_path / "run1_fast.h5", tmp_path / "run1_full.h5")
    assert names(tmp_path / "v1.2") == (tmp_path / "v1.2_fast.h5", tmp_path / "v1.2_full.h5")
    with pytest.raises(OutputError, match="a pair is two files; give a folder, or a prefix"):
        names(tmp_path / "out.h5")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder"):
        names(f"{tmp_path / 'file' / 'below'}/")
