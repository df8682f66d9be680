"""Showers of Geant4 against the rules of thumb of the Review of Particle Physics, and real samples.

PDG: S. Navas et al., Phys. Rev. D 110 (2024) 030001, section 34 and the tables of materials. The rules
are good to some per cent or some tenths of a radiation length; that is the part of each tolerance
that is not a standard error.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import gammaincinv

import hepbridge as hb
from hepbridge.data.showers import Showers
from hepbridge.simulate.beam import Beam
from hepbridge.simulate.detector import Detector, load_detector
from hepbridge.simulate.geant4 import simulate

pytestmark = pytest.mark.slow

# PDG: radiation length in mm, critical energy in Rossi's definition in MeV, Molière radius in mm.
X0_MM = {
    "G4_W": 3.504,
    "G4_Pb": 5.612,
    "G4_PbWO4": 8.903,
    "G4_Cu": 14.36,
    "G4_CESIUM_IODIDE": 18.60,
    "G4_Si": 93.70,
    "G4_lAr": 140.0,
}
CRITICAL_MEV = {"G4_Pb": 7.43, "G4_Cu": 19.42}
MOLIERE_MM = {"G4_W": 9.327, "G4_PbWO4": 19.59, "G4_CESIUM_IODIDE": 35.31}
OWN_LEAD = {"density_g_cm3": 11.35, "fractions": {"Pb": 1.0}}


def stack(layers: int, *slices: tuple[str, float, bool], **more: Any) -> Detector:
    """Equal layers, each of one cell of 1 m × 1 m."""
    made = [{"material": m, "mm": mm, "active": active} for m, mm, active in slices]
    cells = {"kind": "xy", "n": [1, 1], "pitch_mm": [1000, 1000]}
    layer = {"slices": made, "cells": cells, "repeat": layers}
    record = {"name": "stack", "world": "G4_Galactic", "layers": [layer], **more}
    return Detector.from_dict(record)


@cache
def profile(material: str, particle: str, mev: float, n: int) -> NDArray[np.float64]:
    """Deposits (n, 25) in slabs of one radiation length each."""
    detector = stack(25, (material, X0_MM[material], True))
    return simulate(detector, Beam.of(np.full(n, mev), particle), seed=1).astype(float)


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def depth(showers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre of gravity of each shower in radiation lengths."""
    return showers @ (np.arange(25) + 0.5) / showers.sum(axis=1)


def maximum(showers: NDArray[np.float64]) -> float:
    """Depth of the maximum of the mean profile, taken for a gamma distribution: mean - var / mean."""
    t, w = np.arange(25) + 0.5, showers.sum(axis=0) / showers.sum()
    mean = float(w @ t)
    return mean - float(w @ (t - mean) ** 2) / mean


@pytest.mark.parametrize("material", ["G4_Pb", "G4_Si", "lead of my own"])
def test_photons_convert_with_seven_ninths_per_radiation_length(
    material: str, geant4_data: Path
) -> None:
    """exp(-7/9) of the photons of 10 GeV cross one X0 (PDG eq. 34.32, good to 3 %).

    Two materials whose radiation lengths in mm differ by 17; fails if a density or a composition
    is off by 20 %.
    """
    n = 1500
    x0 = X0_MM.get(material, X0_MM["G4_Pb"])
    detector = stack(1, (material, x0, True), materials={"lead of my own": OWN_LEAD})
    cells = simulate(detector, Beam.of(np.full(n, 1e4), "gamma"), seed=2)
    crossed, expected = float((cells[:, 0] < 0.05).mean()), float(np.exp(-7 / 9))
    error = (expected * (1 - expected) / n) ** 0.5
    assert abs(crossed - expected) < 4 * error + 0.03 * 7 / 9 * expected


@pytest.mark.parametrize(("particle", "gain_mev"), [("e-", 0.0), ("gamma", 0.0), ("e+", 2 * 0.511)])
def test_no_shower_deposits_more_than_comes_in(
    particle: str, gain_mev: float, geant4_data: Path
) -> None:
    """A positron brings the energy of its annihilation; fails if a deposit is counted twice."""
    showers = profile("G4_Pb", particle, 500.0, 60).sum(axis=1)
    assert (showers <= (500 + gain_mev) * (1 + 1e-6)).all()
    assert showers.mean() > 0.93 * 500  # 25 X0 hold it but for what flies back and soft photons


def test_energy_behind_a_depth_grows_with_energy(geant4_data: Path) -> None:
    """The first ten radiation lengths hold less of a larger shower, and ever more layers hold more."""
    found = []
    for mev, n in ((500.0, 60), (8000.0, 25)):
        showers = profile("G4_Pb", "e-", mev, n)
        found.append(mean_and_error(showers[:, :10].sum(axis=1) / showers.sum(axis=1)))
        assert (np.cumsum(showers.mean(axis=0)) < mev).all()
    (low, dl), (high, dh) = found
    assert low - high > 3 * np.hypot(dl, dh)


def test_depth_grows_with_the_logarithm_of_the_energy(geant4_data: Path) -> None:
    """One radiation length per factor e (PDG eq. 34.36): 2 ln 4 from 0.5 to 8 GeV."""
    low, dl = mean_and_error(depth(profile("G4_Pb", "e-", 500.0, 60)))
    high, dh = mean_and_error(depth(profile("G4_Pb", "e-", 8000.0, 25)))
    assert abs(high - low - np.log(16)) < 4 * np.hypot(dl, dh) + 0.1 * np.log(16)


@pytest.mark.parametrize("material", ["G4_Pb", "G4_Cu"])
def test_depth_of_the_maximum(material: str, geant4_data: Path) -> None:
    """ln(E / E_c) - 1/2 for electrons (PDG eq. 34.36); fails if lengths are not those of material."""
    found = maximum(profile(material, "e-", 2000.0, 40))
    error = profile(material, "e-", 2000.0, 40)
    expected = np.log(2000.0 / CRITICAL_MEV[material]) - 0.5
    assert abs(found - expected) < 4 * mean_and_error(depth(error))[1] + 0.4


@pytest.mark.parametrize("material", ["G4_Pb", "G4_Cu"])
def test_depth_that_holds_most_of_the_energy(material: str, geant4_data: Path) -> None:
    """95 % are in front of the depth at which the gamma distribution of PDG eq. 34.35 ends, with the
    maximum of eq. 34.36 and b = 0.5, to 1.2 radiation lengths: its b is between 0.45 and 0.6."""
    showers = profile(material, "e-", 2000.0, 40)
    inside = np.cumsum(showers.sum(axis=0)) / showers.sum()
    found = np.interp(0.95, np.r_[0.0, inside], np.arange(26.0))
    a = 1 + 0.5 * (np.log(2000.0 / CRITICAL_MEV[material]) - 0.5)
    error = 2 * mean_and_error(depth(showers))[1]  # the end of a profile moves more than its middle
    assert abs(found - gammaincinv(a, 0.95) / 0.5) < 4 * error + 1.2


def test_photons_go_deeper_than_electrons(geant4_data: Path) -> None:
    """By one radiation length (PDG eq. 34.36)."""
    electron, de = mean_and_error(depth(profile("G4_Pb", "e-", 2000.0, 40)))
    photon, dg = mean_and_error(depth(profile("G4_Pb", "gamma", 2000.0, 60)))
    assert abs(photon - electron - 1.0) < 4 * np.hypot(de, dg) + 0.2


@pytest.mark.parametrize(("material", "moliere_mm"), MOLIERE_MM.items())
def test_a_moliere_radius_holds_its_share(
    material: str, moliere_mm: float, geant4_data: Path
) -> None:
    """85 to 90 % of the energy, in materials whose Molière radii differ by a factor of four.

    Wigmans, Calorimetry, 2nd ed., section 2.1. Fails if a density is off by a factor of 1.5.
    """
    cells = {"kind": "polar", "r_mm": [0, moliere_mm, 15 * moliere_mm], "n_phi": 1}
    slices = [{"material": material, "mm": 25 * X0_MM[material], "active": True}]
    detector = Detector.from_dict({"name": "rod", "layers": [{"slices": slices, "cells": cells}]})
    found = simulate(detector, Beam.of(np.full(40, 2000.0)), seed=1).astype(float)
    inside, error = mean_and_error(found[:, 0] / found.sum(axis=1))
    assert 0.85 - 4 * error < inside < 0.90 + 4 * error


def test_sampling_calorimeter(geant4_data: Path) -> None:
    """Lead and liquid argon: linear, and σ/E = a / √E with an a that the number of crossings gives.

    Electrons cross the argon N = E / (E_c t) times, t being the thickness of lead and argon in
    radiation lengths. Counting them gives a = √(E_c t); the lengths of their paths and Landau's
    fluctuations come on top, but do not double it (Fabjan and Gianotti, Rev. Mod. Phys. 75 (2003)
    1243, section III). Fails if absorbers count as active.
    """
    detector = stack(90, ("G4_Pb", 1.5, False), ("G4_lAr", 4.0, True))
    t = 1.5 / X0_MM["G4_Pb"] + 4.0 / X0_MM["G4_lAr"]
    counting = (CRITICAL_MEV["G4_Pb"] * t / 1000) ** 0.5
    response, terms = [], []
    for mev, n in ((500.0, 300), (4500.0, 80)):
        visible = simulate(detector, Beam.of(np.full(n, mev)), seed=1).sum(axis=1, dtype=float)
        response.append(mean_and_error(visible / mev))
        a = float(visible.std(ddof=1) / visible.mean()) * (mev / 1000) ** 0.5
        terms.append((a, a / (2 * (n - 1)) ** 0.5))
        assert counting < a < 2 * counting
    (r0, d0), (r1, d1) = response
    assert abs(r1 / r0 - 1) < 4 * np.hypot(d0 / r0, d1 / r1) + 0.015
    (a0, e0), (a1, e1) = terms
    assert abs(a1 - a0) < 4 * np.hypot(e0, e1)


@pytest.mark.timeout(600)
def test_same_showers_as_a_sample_made_with_geant4(geant4_data: Path, sample_dir: Path) -> None:
    """150 of the real showers below 14 GeV, simulated again: no observable tells them apart.

    The floor comes from the two samples themselves: each row is swapped with its twin or not
    (`metrics.floor.half_splits`). GFLASH showers of the same energies fail the same test.
    """
    train = hb.load(sample_dir / "squirels_full_train.h5")
    rows = np.flatnonzero(train.incident_energy < 14_000)[:150]
    real, gflash = train[rows], hb.load(sample_dir / "squirels_gflash_train.h5")[rows]
    beam = Beam.of(real.incident_energy)
    cells = simulate(load_detector("squirels"), beam, seed=3, physics="em")
    again = Showers.from_arrays(cells, real.incident_energy, geometry=real.geometry)
    for showers, same in ((again, True), (gflash, False)):
        found = hb.evaluate(real, {"other": showers}, showers, classifiers=(), bootstraps=20)
        assert found.verdict is not None and (found.verdict["other"]["p"] > 0.01) == same
