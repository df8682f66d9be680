"""The observables against values written out by hand and against loops over showers."""

from __future__ import annotations

import numpy as np
import pytest

from hepbridge.core.errors import DataError
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.metrics import OBSERVABLES, table_rows, wasserstein
from metrics_toys import toy_showers


def one_shower(**cells: float) -> Showers:
    values = np.zeros((1, 100), dtype=np.float32)
    for name, energy in cells.items():
        values[0, int(name[1:])] = energy
    return Showers.from_arrays(values, [10_000.0])


def test_seven_rows_and_the_ratio_at_mixed_energies() -> None:
    fixed = [o.name for o in table_rows(mixed=False)]
    assert fixed == ["e_sum", "e_max", "n_hit", "e_spec", "e_spec_log", "profile_x", "profile_y"]
    assert [o.name for o in table_rows(mixed=True)] == ["e_ratio", *fixed[1:]]


def test_definitions_by_hand() -> None:
    # Cell 10·ix + iy. Fails if the threshold is not strict, if GeV and MeV are mixed up, or if x
    # and y are exchanged.
    shower = one_shower(c25=8000.0, c35=1000.0, c70=1.0, c71=1.001, c99=0.0999)
    values = {name: o.entries(shower) for name, o in OBSERVABLES.items()}
    assert values["e_sum"].values == pytest.approx([9.0021009], rel=1e-6)
    assert values["e_ratio"].values == pytest.approx([0.90021009], rel=1e-6)
    assert values["e_max"].values == pytest.approx([8.0])
    assert values["n_hit"].values.tolist() == [3.0]  # 1.0 MeV is not a hit
    spectrum = np.sort(values["e_spec"].values)
    assert len(spectrum) == 100 and (spectrum[:96] == 0).all()  # 0.0999 MeV counts as 0
    assert spectrum[96:] == pytest.approx([0.001, 0.001001, 1.0, 8.0], rel=1e-6)
    logs = np.sort(values["e_spec_log"].values)
    assert logs == pytest.approx([0.0, np.log10(1.001), 3.0, np.log10(8000)], abs=1e-6)
    x, y = values["profile_x"], values["profile_y"]
    assert x.values.tolist() == y.values.tolist() == [k + 0.5 for k in range(10)]
    assert x.mass[[2, 3]] == pytest.approx([8000.0, 1000.0])
    assert y.mass[5] == pytest.approx(9000.0)


def test_profile_weighs_with_energy_over_the_whole_sample() -> None:
    # Two showers, 3:1 in energy, in columns 0.5 and 2.5: EMD to a point at 0.5 is 2 · 1/4.
    cells = np.zeros((2, 100), dtype=np.float32)
    cells[0, 0], cells[1, 20] = 300.0, 100.0
    profile = OBSERVABLES["profile_x"].entries(Showers.from_arrays(cells, [1e3, 1e3]))
    distance = wasserstein(profile.values, np.array([0.5]), profile.total_mass, np.ones(1))
    assert distance == pytest.approx(0.5)


def test_shower_weights_reach_every_point() -> None:
    toys = toy_showers(20, 1)
    weights = np.arange(20) % 2 + 0.0
    weighted = Showers.from_arrays(toys.cells, toys.incident_energy, weights=weights)
    for observable in OBSERVABLES.values():
        entries, half = observable.entries(weighted), observable.entries(toys[weights > 0])
        distance = wasserstein(entries.values, half.values, entries.total_mass, half.total_mass)
        assert distance == pytest.approx(0.0, abs=1e-9)
        assert entries.std() == pytest.approx(half.std(), rel=1e-6)


def test_spectrum_rows_are_whole_showers_up_to_100_000_cells() -> None:
    spectrum, geometry = OBSERVABLES["e_spec"], toy_showers(2, 1).geometry
    rows = spectrum.rows(4000, geometry, seed=3)
    assert len(rows) == len(set(rows.tolist())) == 1000 and rows.max() < 4000
    assert (rows == spectrum.rows(4000, geometry, seed=3)).all()
    assert (rows != spectrum.rows(4000, geometry, seed=4)).any()
    assert spectrum.rows(700, geometry, seed=3).tolist() == list(range(700))
    assert len(OBSERVABLES["e_max"].rows(4000, geometry, seed=3)) == 4000


def test_a_layered_geometry_has_profiles_too() -> None:
    geometry = Geometry("layers", (3, 4, 5), ("z", "x", "y"), (1.0, 1.0, 1.0))
    cells = np.random.default_rng(0).random((6, 60)).astype(np.float32)
    showers = Showers.from_arrays(cells, np.full(6, 100.0), geometry=geometry)
    profile = OBSERVABLES["profile_y"].entries(showers)
    expected = cells.reshape(6, 3, 4, 5).sum(axis=(1, 2)).reshape(-1)
    assert profile.mass == pytest.approx(expected, rel=1e-6)
    assert profile.values[:5].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]


def test_a_wrong_unit_is_noticed_where_it_empties_a_spectrum() -> None:
    with pytest.raises(DataError, match=r"no cell lies above 0.1 MeV.*unit"):
        OBSERVABLES["e_spec_log"].entries(one_shower(c5=0.01))
