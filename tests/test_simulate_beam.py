"""The beam and the particle gun: directions, draws that do not depend on how they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from hepbridge.core.errors import ConfigError, DataError
from hepbridge.simulate.beam import BEAM_SPOT_MM, Beam
from hepbridge.simulate.detector import Detector, load_detector
from hepbridge.simulate.gun import Gun

SQUIRELS = load_detector("squirels")
WIDE = dict(particle="e-,e+,gamma", theta="uniform:0-10", impact="cell")


def gun(energy: str = "uniform:10-100", **options) -> Gun:
    return Gun.of(SQUIRELS, energy, **options)


def polar() -> Detector:
    return Detector.from_dict(
        {
            "name": "disc",
            "layers": [
                {
                    "slices": [{"material": "G4_PbWO4", "mm": 10, "active": True}],
                    "cells": {"kind": "polar", "r_mm": [0, 10, 20], "n_phi": 4},
                }
            ],
        }
    )


def test_direction_is_that_of_spherical_coordinates() -> None:
    """Fails if θ is taken from the x-y plane or φ from the y axis."""
    beam = Beam.of([1.0, 1.0, 1.0], theta_rad=[0, 0.1, 0.1], phi_rad=[0.3, 0.0, np.pi / 2])
    along_x = [np.sin(0.1), 0, np.cos(0.1)]
    along_y = [0, np.sin(0.1), np.cos(0.1)]
    assert np.allclose(beam.direction(), [[0, 0, 1], along_x, along_y], atol=1e-15)


def test_energies_are_what_a_file_can_hold() -> None:
    beam = gun().beam(0, 100)
    assert np.array_equal(beam.energy_mev, beam.energy_mev.astype(np.float32).astype(np.float64))


def test_rows_are_those_of_the_whole() -> None:
    """Any cut of the rows, and any longer beam, gives the same particles to the bit."""
    whole = gun("log:1-100", **WIDE).beam(0, 300)
    for start, stop in ((0, 1), (17, 120), (299, 300)):
        part, same = gun("log:1-100", **WIDE).beam(start, stop), whole.rows(slice(start, stop))
        for name in Beam.__dataclass_fields__:
            assert np.array_equal(getattr(part, name), getattr(same, name)), name
    some = np.array([5, 200])
    assert np.array_equal(whole.rows(some).x_mm, whole.x_mm[some])


def test_draws_follow_their_distributions_independently() -> None:
    """Kolmogorov–Smirnov against the closed forms; fails if two quantities share a random number."""
    n = 20_000
    beam = gun("log:1-100", **WIDE, seed=3).beam(0, n)
    uniform = {
        "energy": np.log(beam.energy_mev / 1000) / np.log(100),
        "theta": np.degrees(beam.theta_rad) / 10,
        "phi": np.degrees(beam.phi_rad) / 360,
        "x": beam.x_mm / 30,
        "y": beam.y_mm / 30,
    }
    for name, value in uniform.items():
        assert kstest(value, "uniform").pvalue > 1e-3, name
    kinds = np.stack([beam.particle == p for p in ("e-", "e+", "gamma")])
    assert np.abs(kinds.mean(axis=1) - 1 / 3).max() < 4 * np.sqrt(2 / 9 / n)
    correlation = np.corrcoef([*uniform.values(), kinds[0]])
    assert np.abs(correlation - np.eye(6)).max() < 5 / np.sqrt(n)


def test_seed_and_settings_name_the_events() -> None:
    """Other seed, energies or angle: other event ids, so that no noise is ever shared."""
    guns = [gun(), gun(seed=1), gun("uniform:10-101"), gun(theta="fixed:1"), gun(impact="1,1")]
    assert len({int(g.beam(0, 1).event_ids[0, 0]) for g in guns}) == len(guns)
    assert gun().uid == gun("uniform:10.0-1e2").uid


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ()),
        ({"phi": "uniform:0-90"}, ()),  # without a polar angle it has no meaning
        ({"theta": "fixed:5"}, ("theta_rad", "phi_rad")),
        ({"theta": "uniform:0-5", "phi": "fixed:0"}, ("theta_rad",)),
        ({"impact": "cell"}, ("x_mm", "y_mm")),
        ({"impact": "3,0"}, ("x_mm",)),
        ({"particle": "gamma"}, ("pdg_id",)),
    ],
)
def test_conditions_are_those_that_vary_or_are_not_the_default(options, names) -> None:
    chosen = gun(**options)
    beam = chosen.beam(0, 50)
    assert chosen.conditions == names
    assert tuple(beam.conditions(chosen.conditions)) == ("incident_energy", *names)
    assert beam.conditions().keys() == beam.conditions(chosen.conditions).keys()


def test_particles_are_numbered_by_the_particle_data_group() -> None:
    beam = Beam.of([1, 1, 1], np.array(["e-", "e+", "gamma"]))
    assert beam.conditions()["pdg_id"].tolist() == [11, -11, 22]


def test_one_cell_is_one_cell() -> None:
    """Even numbers of cells: the one behind the axis; odd numbers: the middle one; polar: refused."""
    corner = gun(impact="cell").beam(0, 2000)
    assert corner.x_mm.min() >= 0 and 29.5 < corner.x_mm.max() <= 30
    assert corner.y_mm.min() >= 0 and 29.5 < corner.y_mm.max() <= 30
    record = SQUIRELS.to_dict()
    record["layers"][0]["cells"].update(n=[3, 4], pitch_mm=[10, 20])
    middle = Gun.of(Detector.from_dict(record), "fixed:1", impact="cell").beam(0, 2000)
    assert -5 <= middle.x_mm.min() < -4.9 and 4.9 < middle.x_mm.max() <= 5
    assert middle.y_mm.min() >= 0 and 19.8 < middle.y_mm.max() <= 20
    with pytest.raises(ConfigError, match="needs cells in x and y, but detector 'disc' has polar"):
        Gun.of(polar(), "fixed:1", impact="cell")


def test_spot_is_small_and_never_on_the_axis() -> None:
    beam = gun().beam(0, 1000)
    spread = beam.spread(0)
    moved = np.stack([spread.x_mm, spread.y_mm])
    assert np.abs(moved).max() <= BEAM_SPOT_MM and (moved != 0).all()
    assert np.abs(moved).mean() == pytest.approx(BEAM_SPOT_MM / 2, rel=0.1)
    part = beam.rows(slice(500, 600)).spread(0)
    assert np.array_equal(part.x_mm, spread.x_mm[500:600])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"particle": "pi0"}, "unknown particle 'pi0'; allowed: e-, e\\+, gamma"),
        ({"particle": "e-,e-"}, "names one of them twice"),
        ({"theta": "uniform:10-0"}, "from a smaller to a larger"),
        ({"theta": "fixed:90"}, "at least 0 and less than 90 degrees"),
        ({"theta": "uniform:-5-5"}, "at least 0 and less than 90 degrees"),
        ({"theta": "log:1-10"}, "write fixed:A or uniform:A-B \\(degrees\\)"),
        ({"phi": "uniform:0-400"}, "between -360 and 360"),
        ({"phi": "round"}, "phi 'round': write fixed:A or uniform:A-B \\(degrees\\)"),
        ({"impact": "150,0"}, "misses the front face of detector 'squirels'"),
        ({"impact": "nan,0"}, "misses the front face"),
        ({"impact": "corner"}, "write axis, cell or X,Y \\(mm\\)"),
        ({"impact": "1,2,3"}, "write axis, cell or X,Y \\(mm\\)"),
    ],
)
def test_bad_options_are_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        gun(**options)


def test_impact_on_a_disc_is_inside_its_radius() -> None:
    assert Gun.of(polar(), "fixed:1", impact="13,13").conditions == ("x_mm", "y_mm")
    with pytest.raises(ConfigError, match="misses the front face of detector 'disc'"):
        Gun.of(polar(), "fixed:1", impact="15,15")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"energy_mev": [0.0]}, "beam energies must be positive; got 0 MeV"),
        ({"energy_mev": [np.nan]}, "not finite"),
        ({"energy_mev": [1e50]}, "not finite"),
        ({"energy_mev": [1.0], "theta_rad": 2.0}, "got 114"),
        ({"energy_mev": [1.0], "x_mm": np.inf}, "not finite"),
        ({"energy_mev": [1.0, 2.0], "x_mm": [1.0, 2.0, 3.0]}, "a beam of 2 energies"),
        (
            {"energy_mev": [1.0], "event_ids": np.zeros((2, 2), np.uint64)},
            r"event ids of shape \(2, 2\)",
        ),
    ],
)
def test_bad_beams_are_refused(columns, message) -> None:
    with pytest.raises(DataError, match=message):
        Beam.of(**columns)


def test_unknown_conditions_are_refused() -> None:
    with pytest.raises(ConfigError, match="a beam has no condition 'eta'; it has incident_energy"):
        Beam.of([1.0]).conditions(("eta",))
