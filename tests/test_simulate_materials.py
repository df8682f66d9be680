"""Materials against published tables, and against Geant4 where it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hepbridge.core.errors import ConfigError
from hepbridge.simulate.materials import material, materials


@pytest.mark.parametrize(
    ("name", "x0_g_cm2", "mip"),
    [  # Particle Data Group, atomic and nuclear properties of materials
        ("G4_H", 63.04, 4.103),
        ("G4_C", 42.70, 1.742),
        ("G4_Al", 24.01, 1.615),
        ("G4_Si", 21.82, 1.664),
        ("G4_Fe", 13.84, 1.451),
        ("G4_Cu", 12.86, 1.403),
        ("G4_lAr", 19.55, 1.508),
        ("G4_W", 6.76, 1.145),
        ("G4_Pb", 6.37, 1.122),
        ("G4_U", 6.00, 1.081),
        ("G4_PbWO4", 7.39, 1.229),
        ("G4_CESIUM_IODIDE", 8.39, 1.243),
        ("G4_POLYSTYRENE", 43.79, 1.936),
        ("G4_WATER", 36.08, 1.992),
    ],
)
def test_against_the_particle_data_group(name: str, x0_g_cm2: float, mip: float) -> None:
    """Within 0.5 % for X0 and 6 % for the loss of a minimum ionising particle; fails without the
    Coulomb correction (lead: 8 %)."""
    m = material(name)
    assert m.x0_g_cm2 == pytest.approx(x0_g_cm2, rel=5e-3)
    assert m.mip_mev_per_mm * 10 / m.density_g_cm3 == pytest.approx(mip, rel=0.06)


def test_moliere_radius_and_critical_energy() -> None:
    """Lead (Particle Data Group: E_c 7.43 MeV, R_M 16.0 mm) within the 10 % of the approximation."""
    lead = material("G4_Pb")
    assert lead.critical_energy_mev == pytest.approx(7.43, rel=0.1)
    assert lead.moliere_mm == pytest.approx(16.0, rel=0.1)
    assert lead.x0_mm == pytest.approx(5.612, rel=5e-3)


def test_fractions_add_up() -> None:
    for name in materials():
        assert sum(material(name).fractions.values()) == pytest.approx(1, abs=2e-5), name


def test_every_material_is_that_of_geant4(geant4_data: Path) -> None:
    """Density, effective Z and A and radiation length within 3e-5; asked in another process."""
    assert importlib.util.find_spec("geant4_pybind")
    code = """if True:
        import json, sys
        import geant4_pybind as g4
        nist, found = g4.G4NistManager.Instance(), {}
        for name in json.loads(sys.argv[1]):
            m = nist.FindOrBuildMaterial(name)
            w = list(m.GetFractionVector())
            z = [m.GetElement(i).GetZ() for i in range(len(w))]
            density = m.GetDensity() / (g4.g / g4.cm3)
            found[name] = density, sum(a * b for a, b in zip(w, z)), m.GetRadlen()
        print("FOUND" + json.dumps(found))
    """
    names = list(materials())
    out = subprocess.run(
        [sys.executable, "-c", code, json.dumps(names)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "GEANT4_DATA_DIR": str(geant4_data)},
    ).stdout
    found = json.loads(out[out.index("FOUND") + 5 :])
    assert list(found) == names
    for name, (density, z, x0_mm) in found.items():
        m = material(name)
        assert (m.density_g_cm3, m.z_eff, m.x0_mm) == pytest.approx((density, z, x0_mm), rel=3e-5)


def test_own_compositions() -> None:
    """A compound by atoms is the one of the table; a mixture of materials mixes their elements."""
    own = {
        "crystal": {"density_g_cm3": 8.28, "atoms": {"Pb": 1, "W": 1, "O": 4}},
        "glue": {"density_g_cm3": 1.2, "fractions": {"G4_WATER": 0.25, "crystal": 0.5, "C": 0.25}},
    }
    crystal, table = material("crystal", own), material("G4_PbWO4")
    assert crystal.x0_mm == pytest.approx(table.x0_mm, rel=1e-5)
    assert crystal.fractions == pytest.approx(dict(table.fractions), rel=1e-5)
    glue = material("glue", own).fractions
    assert glue[1] == pytest.approx(0.25 * 0.1119, rel=1e-3)
    assert glue[74] == pytest.approx(0.5 * table.fractions[74], rel=1e-3)
    assert sum(glue.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PbWO4", "G4_PbWO4"),
        ("G4_lar", "G4_lAr"),
        ("G4_POLYSTYREN", "G4_POLYSTYRENE"),
        ("glu", "glue"),
        ("", "G4_AIR"),
    ],
)
def test_unknown_names_get_near_ones(name: str, words: str) -> None:
    own = {"glue": {"density_g_cm3": 1.0, "atoms": {"C": 1}}}
    with pytest.raises(ConfigError, match="unknown material") as error:
        material(name, own)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"density_g_cm3": 1.0}, "either fractions"),
        ({"density_g_cm3": 1.0, "atoms": {"C": 1}, "fractions": {"C": 1}}, "either fractions"),
        ({"density_g_cm3": 0, "atoms": {"C": 1}}, "positive"),
        ({"density_g_cm3": True, "atoms": {"C": 1}}, "positive"),
        ({"density_g_cm3": float("nan"), "atoms": {"C": 1}}, "positive"),
        ({"atoms": {"C": 1}}, "density_g_cm3"),
        ({"density_g_cm3": 1.0, "atoms": {}}, "list of elements"),
        ({"density_g_cm3": 1.0, "atoms": {"Xx": 1}}, "no chemical symbol"),
        ({"density_g_cm3": 1.0, "atoms": {"C": -1}}, "positive"),
        ({"density_g_cm3": 1.0, "fractions": {"C": 0.6, "H": 0.3}}, "add up to 0.9"),
        ({"density_g_cm3": 1.0, "fractions": {"own": 1.0}}, "no chemical symbol"),
        ({"density_g_cm3": 1.0, "fractions": {"G4_Xx": 1.0}}, "unknown material"),
        ({"density_g_cm3": 1.0, "atoms": {"C": 1}, "colour": "red"}, "colour"),
        ("lead", "expected"),
    ],
)
def test_compositions_that_cannot_be(record: object, words: str) -> None:
    """ "own" made of itself ends in a message, not in a recursion."""
    with pytest.raises(ConfigError, match=words):
        material("own", {"own": record})
