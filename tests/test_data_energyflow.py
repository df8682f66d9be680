"""Files of EnergyFlow's Z + jets: made up here, with the names and shapes of the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hepbridge.core.errors import DataError
from hepbridge.data.catalogue import CATALOGUE
from hepbridge.data.formats.energyflow import is_energyflow, load_energyflow
from hepbridge.data.table_files import read_tables


def _write(path: Path, n: int = 50, seed: int = 0, **change: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for prefix in ("gen_", "sim_"):
        arrays |= {
            f"{prefix}jets": rng.uniform(1, 300, (n, 4)),
            f"{prefix}mults": rng.integers(2, 60, n),
            f"{prefix}widths": rng.uniform(0.01, 0.5, n),
            f"{prefix}tau2s": rng.uniform(0, 0.3, n),
            f"{prefix}sdms": np.where(np.arange(n) % 10, rng.uniform(1, 50, n), 0.0),
            f"{prefix}zgs": np.where(np.arange(n) % 10, rng.uniform(0.1, 0.5, n), 0.0),
        }
    arrays |= change
    np.savez(path, **arrays)
    return arrays


def test_columns_and_masks(tmp_path: Path) -> None:
    arrays = _write(tmp_path / "a.npz")
    assert is_energyflow(tmp_path / "a.npz")
    tables = load_energyflow(tmp_path / "a.npz")
    for level, prefix in (("particle", "gen_"), ("detector", "sim_")):
        table = tables[level]
        np.testing.assert_array_equal(
            table.column("pt", "MeV"), 1e3 * arrays[f"{prefix}jets"][:, 0]
        )
        np.testing.assert_allclose(table.column("width"), 0.4 * arrays[f"{prefix}widths"])
        np.testing.assert_array_equal(table.is_defined("z_g"), np.arange(50) % 10 > 0)
        row = 7
        rho = 2 * np.log(arrays[f"{prefix}sdms"][row] / arrays[f"{prefix}jets"][row, 0])
        assert table.column("ln_rho")[row] == pytest.approx(rho)
        tau = arrays[f"{prefix}tau2s"] / arrays[f"{prefix}widths"]
        np.testing.assert_allclose(table.column("tau21"), tau)
    np.testing.assert_array_equal(tables["particle"].event_ids, tables["detector"].event_ids)
    known = read_tables(tmp_path / "a.npz")["detector"]
    np.testing.assert_array_equal(known.column("mass"), tables["detector"].column("mass"))


def test_files_of_a_sample_are_joined(tmp_path: Path) -> None:
    for k in range(2):
        _write(tmp_path / f"{k}.npz", seed=k)
    joined = load_energyflow([tmp_path / "0.npz", tmp_path / "1.npz"])["particle"]
    assert len(joined) == 100 and len(np.unique(joined.event_ids, axis=0)) == 100


def test_what_is_no_such_file(tmp_path: Path) -> None:
    _write(tmp_path / "a.npz", sim_zgs=np.ones(3))
    with pytest.raises(DataError, match="unequal lengths"):
        load_energyflow(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.ones(3))
    assert not is_energyflow(tmp_path / "b.npz")
    with pytest.raises(DataError, match="has no array 'gen_jets'"):
        load_energyflow(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(b"PK\x03\x04 cut")
    assert not is_energyflow(tmp_path / "c.npz")
    with pytest.raises(DataError):
        load_energyflow(tmp_path / "c.npz")
    with pytest.raises(DataError, match="no such file"):
        load_energyflow(tmp_path / "none.npz")


def test_the_catalogue_lists_them() -> None:
    names = [file.name for file in CATALOGUE["energyflow-zjets"].files]
    assert len(names) == 4 * 17 and names[0] == "Pythia26_Zjet_pTZ-200GeV_0.npz"
