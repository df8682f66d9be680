"""Materials by name: NIST elements and compounds, or a composition of one's own.

The constants of electromagnetic showers follow from density and composition: radiation length
(Tsai, Rev. Mod. Phys. 46 (1974) 815), critical energy (Rossi's approximation as GFLASH uses it) and
Molière radius.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import yaml

from hepbridge.core.errors import ConfigError

__all__ = ["Material", "material", "materials"]

ALPHA = 1 / 137.035999
_X0_CONSTANT = 716.405  # g/cm2 per g/mol: 1 / (4 α r_e² N_A)
_ELECTRON_EV = 510_998.95
_SCATTERING_ENERGY_MEV = 21.2  # E_s = sqrt(4π/α) m_e c²
# Tsai's radiation logarithms for Z = 1 … 4, where Thomas and Fermi's model of the atom fails.
_LIGHT = ((5.31, 6.144), (4.79, 5.621), (4.74, 5.805), (4.71, 5.924))


@dataclass(frozen=True)
class Material:
    """A homogeneous material.

    Attributes:
        name: its name in detector descriptions; names with ``G4_`` are those of Geant4.
        density_g_cm3: density.
        fractions: Z -> mass fraction; they add up to 1.
    """

    name: str
    density_g_cm3: float
    fractions: Mapping[int, float]

    @property
    def z_eff(self) -> float:
        """Σ wᵢ Zᵢ, the effective atomic number of GFLASH (w: mass fractions)."""
        return sum(w * z for z, w in self.fractions.items())

    @property
    def a_eff(self) -> float:
        """Σ wᵢ Aᵢ in g/mol, the effective mass number of GFLASH."""
        return sum(w * _nist()[0][z][1] for z, w in self.fractions.items())

    @cached_property
    def x0_g_cm2(self) -> float:
        """Radiation length in g/cm²: 1 / Σ wᵢ / X0ᵢ."""
        return 1 / sum(w / _radiation_length(z) for z, w in self.fractions.items())

    @property
    def x0_mm(self) -> float:
        """Radiation length in mm."""
        return 10 * self.x0_g_cm2 / self.density_g_cm3

    @property
    def critical_energy_mev(self) -> float:
        """E_c = 2.66 MeV (X0 Z/A)^1.1, X0 in g/cm² (Grindhammer & Peters, hep-ex/0001020, eq. 2)."""
        return 2.66 * math.pow(self.x0_g_cm2 * self.z_eff / self.a_eff, 1.1)

    @property
    def moliere_mm(self) -> float:
        """R_M = X0 · 21.2 MeV / E_c in mm."""
        return self.x0_mm * _SCATTERING_ENERGY_MEV / self.critical_energy_mev

    @cached_property
    def mip_mev_per_mm(self) -> float:
        """Loss of a minimum ionising particle: Bethe's formula at βγ = 3 without density effect,
        mean excitation energy 16 eV Z^0.9; within 6 % of the tables of the Particle Data Group."""
        elements = _nist()[0]
        loss = 0.0
        for z, w in self.fractions.items():
            excitation = math.log(2 * _ELECTRON_EV * 9 / (16 * z**0.9))
            loss += w * 0.307075 * z / elements[z][1] * (excitation - 0.9) / 0.9  # β² = 0.9
        return loss * self.density_g_cm3 / 10


def materials() -> tuple[str, ...]:
    """The names that `material` knows by itself."""
    elements, compounds = _nist()
    return (*(f"G4_{symbol}" for symbol, _, _ in elements.values()), *compounds)


def material(name: str, own: Mapping[str, Any] | None = None) -> Material:
    """The material ``name``, from ``own`` compositions or from the NIST table.

    Args:
        name: a key of ``own``, an element (``G4_Pb``) or a compound (``G4_PbWO4``).
        own: name -> ``{"density_g_cm3": …, "fractions": {…}}`` with mass fractions, or ``"atoms"``
            with numbers of atoms in their place. The keys of ``fractions`` are chemical symbols or
            names of materials, those of ``atoms`` chemical symbols. Fractions are normalised if
            they add up to 1 within 1 %.

    Raises:
        ConfigError: unknown name, or a composition that cannot be one.
    """
    own = own or {}
    if name in own:
        return _composed(name, own)
    elements, compounds = _nist()
    if name in compounds:
        density, parts = compounds[name]
        return Material(name, density, {_number(name, s): w for s, w in parts.items()})
    for z, (symbol, _, density) in elements.items():
        if name == f"G4_{symbol}":
            return Material(name, density, {z: 1.0})
    known = [*own, *materials()]
    folded = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), folded, 3, 0.6) or difflib.get_close_matches(
        f"g4_{name.lower()}", folded, 3, 0.5
    )
    hint = f"; did you mean {' or '.join(folded[k] for k in close)}?" if close else "."
    raise ConfigError(
        f"unknown material {name!r}{hint} Allowed are the elements G4_H to G4_Cf, "
        f"{', '.join(compounds)}, and the detector's own 'materials'"
    )


def _composed(name: str, own: Mapping[str, Any]) -> Material:
    record = own[name]
    if isinstance(record, Material):
        return record
    where = f"material {name!r}"
    if not isinstance(record, Mapping) or ("fractions" in record) == ("atoms" in record):
        raise ConfigError(
            f"{where}: expected density_g_cm3 and either fractions (by mass) or atoms (by number), "
            f"got {record!r}"
        )
    if extra := set(record) - {"density_g_cm3", "fractions", "atoms"}:
        raise ConfigError(f"{where}: unknown entries {', '.join(sorted(map(str, extra)))}")
    density = _positive(where, "density_g_cm3", record.get("density_g_cm3"))
    parts = record.get("atoms", record.get("fractions"))
    if not isinstance(parts, Mapping) or not parts:
        raise ConfigError(f"{where}: expected a list of elements with amounts, got {parts!r}")
    amounts = {str(k): _positive(where, str(k), v) for k, v in parts.items()}
    fractions: dict[int, float] = {}
    if "atoms" in record:
        for symbol, n in amounts.items():
            z = _number(name, symbol)
            fractions[z] = n * _nist()[0][z][1]
    else:
        if abs(sum(amounts.values()) - 1) > 0.01:
            raise ConfigError(
                f"{where}: mass fractions add up to {sum(amounts.values()):.6g}, not to 1"
            )
        rest = {k: v for k, v in own.items() if k != name}  # no material is made of itself
        for part, w in amounts.items():
            made_of = (
                material(part, rest).fractions
                if part in rest or part.startswith("G4_")
                else {_number(name, part): 1.0}
            )
            for z, v in made_of.items():
                fractions[z] = fractions.get(z, 0.0) + w * v
    total = sum(fractions.values())
    return Material(name, density, {z: w / total for z, w in fractions.items()})


def _positive(where: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigError(f"{where}: {key} must be a positive number, got {value!r}")
    return float(value)


def _number(name: str, symbol: str) -> int:
    """Z of a chemical symbol."""
    for z, (known, _, _) in _nist()[0].items():
        if symbol == known:
            return z
    raise ConfigError(
        f"material {name!r}: {symbol!r} is no chemical symbol from H to Cf; in fractions, names of "
        f"materials (G4_… or the detector's own) are allowed as well"
    )


def _radiation_length(z: int) -> float:
    """X0 of an element in g/cm²: A · 716.4 / (Z² (L_rad − f(Z)) + Z L'_rad), Tsai's eq. 3.66.

    f is the Coulomb correction of Davies, Bethe and Maximon.
    """
    a = (ALPHA * z) ** 2
    coulomb = a * (1 / (1 + a) + 0.20206 - 0.0369 * a + 0.0083 * a**2 - 0.002 * a**3)
    if z <= len(_LIGHT):
        elastic, inelastic = _LIGHT[z - 1]
    else:
        elastic = math.log(184.15) - math.log(z) / 3
        inelastic = math.log(1194.0) - 2 * math.log(z) / 3
    return _X0_CONSTANT * _nist()[0][z][1] / (z * z * (elastic - coulomb) + z * inelastic)


@cache
def _nist() -> tuple[
    dict[int, tuple[str, float, float]], dict[str, tuple[float, dict[str, float]]]
]:
    """(Z -> (symbol, A, density), name -> (density, symbol -> mass fraction))."""
    text = files("hepbridge.simulate").joinpath("nist.yaml").read_text(encoding="utf-8")
    table = yaml.safe_load(text)
    elements = {z: (str(s), float(a), float(d)) for z, (s, a, d) in table["elements"].items()}
    compounds = {k: (float(d), dict(parts)) for k, (d, parts) in table["materials"].items()}
    return elements, compounds
