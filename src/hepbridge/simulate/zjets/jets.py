"""The leading jet of each event and its observables, with FastJet and its contributions (extra ``pythia``).

FastJet: Cacciari, Salam and Soyez, Eur. Phys. J. C 72 (2012) 1896.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import MissingExtraError
from hepbridge.simulate.zjets.native_output import native_output_kept
from hepbridge.simulate.zjets.particles import Particles, summed

__all__ = ["OBSERVABLES", "Jets", "leading_jets", "library"]

Floats = NDArray[np.float64]

LEAST_PT_GEV = 20.0  # jets below are not looked at
MOST_ETA = 5.0
Z_CUT = 0.1  # of soft drop
ROUNDING = 1e-6  # a mass below this part of the energy is lost in the digits of E² - p²
WHOLE = 10.0  # a radius that makes one jet of all constituents

OBSERVABLES: dict[str, str] = {  # name -> unit
    "pt": "GeV",
    "rapidity": "1",
    "phi": "rad",
    "mass": "GeV",
    "width": "1",
    "multiplicity": "1",
    "ln_rho": "1",
    "z_g": "1",
    "tau21": "1",
    "tau1": "1",
    "tau2": "1",
}


@dataclass(frozen=True)
class Jets:
    """The leading jets of N events.

    Attributes:
        columns: name in `OBSERVABLES` -> (N,).
        defined: name -> (N,) bool: where the observable exists.
    """

    columns: dict[str, Floats]
    defined: dict[str, NDArray[np.bool_]]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Events (N,) with a jet."""
        return self.defined["pt"]


def leading_jets(particles: Particles, n: int, radius: float) -> Jets:
    """The anti-k_T jet of largest p_T of each of ``n`` events, above 20 GeV, of particles with ``|η| < 5``.

    With the sums over the constituents i of the jet, ΔR² = Δy² + Δφ² from its axis, R the radius:

    - ``mass`` √(E² - p²), GeV; ``pt`` GeV, ``rapidity``, ``phi`` of the jet (sum of four-momenta)
    - ``width`` Σ p_T,i ΔR_i / Σ p_T,i
    - ``multiplicity`` the number of constituents
    - ``z_g`` min(p_T,1, p_T,2) / (p_T,1 + p_T,2) of the splitting at which soft drop stops (β = 0,
      z_cut = 0.1, on the constituents clustered again with Cambridge/Aachen)
    - ``ln_rho`` ln(m_SD² / p_T²), m_SD the mass after soft drop, p_T that of the whole jet
    - ``tau1``, ``tau2`` N-subjettiness Σ p_T,i min_k ΔR_ik / (R Σ p_T,i): β = 1, the axes are found with
      exclusive k_T and one pass of minimisation; ``tau21`` τ2 / τ1

    A jet without any splitting that passes soft drop has no z_g and no ln ρ; one whose m_SD is lost in
    the rounding has no ln ρ; one of a single constituent has no τ21. An event without a jet has nothing.

    Raises MissingExtraError without FastJet.
    """
    with native_output_kept():  # a banner before the first jets
        return _leading(particles, n, radius)


def _leading(particles: Particles, n: int, radius: float) -> Jets:
    fastjet = library()
    import awkward as ak

    inputs = particles[np.abs(particles.eta) < MOST_ETA]
    events = _events(inputs, np.bincount(inputs.event, minlength=n))
    anti_kt = fastjet.JetDefinition(fastjet.antikt_algorithm, radius)
    cluster = fastjet.ClusterSequence(events, anti_kt)
    jets = cluster.inclusive_jets(min_pt=LEAST_PT_GEV)
    members = cluster.constituent_index(min_pt=LEAST_PT_GEV)
    pt = np.hypot(jets.px, jets.py)
    has = _numpy(ak.num(pt)) > 0
    columns = {name: np.full(n, np.nan) for name in OBSERVABLES}
    defined = {name: has.copy() for name in OBSERVABLES}
    if has.any():
        leading = ak.argmax(pt[has], axis=1, keepdims=True)
        index = ak.drop_none(ak.flatten(members[has][leading], axis=1), axis=0)
        found = _measure(ak.to_packed(events[has][index]), radius)
        for name, (values, exists) in found.items():
            columns[name][has] = np.where(exists, values, np.nan)
            defined[name][has] = exists
    return Jets(columns, defined)


def _measure(jets: Any, radius: float) -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
    """name -> (values, whether they exist) of jets given as lists of constituents."""
    import awkward as ak

    counts = _numpy(ak.num(jets.px))
    jet = np.repeat(np.arange(len(counts)), counts)
    px, py, pz, e = (_numpy(ak.flatten(jets[k])) for k in ("px", "py", "pz", "E"))
    total = [summed(k, jet, len(counts)) for k in (px, py, pz, e)]
    jet_pt = np.hypot(total[0], total[1])
    rapidity, phi = _rapidity(total[3], total[2]), np.arctan2(total[1], total[0])
    mass2 = total[3] ** 2 - total[0] ** 2 - total[1] ** 2 - total[2] ** 2
    d_phi = np.mod(np.arctan2(py, px) - phi[jet] + np.pi, 2 * np.pi) - np.pi
    d_r = np.hypot(_rapidity(e, pz) - rapidity[jet], d_phi)
    pt = np.hypot(px, py)
    width = summed(pt * d_r, jet, len(counts)) / summed(pt, jet, len(counts))
    z_g, groomed, groomed_e, tau = _substructure(jets, radius)
    every = np.ones(len(counts), bool)
    splits = z_g > 0
    several = (counts > 1) & (tau[:, 0] > 0)
    heavy = splits & (groomed > ROUNDING * groomed_e)
    return {
        "pt": (jet_pt, every),
        "rapidity": (rapidity, every),
        "phi": (phi, every),
        "mass": (np.sqrt(np.maximum(mass2, 0.0)), every),
        "width": (width, every),
        "multiplicity": (counts.astype(np.float64), every),
        "ln_rho": (2 * np.log(np.where(heavy, groomed, 1.0) / jet_pt), heavy),
        "z_g": (z_g, splits),
        "tau21": (tau[:, 1] / np.where(several, tau[:, 0], 1.0), several),
        "tau1": (tau[:, 0], every),
        "tau2": (tau[:, 1], every),
    }


def _substructure(jets: Any, radius: float) -> tuple[Floats, Floats, Floats, Floats]:
    """(z_g or -1, mass and energy after soft drop, τ1 and τ2 (N, 2))."""
    fastjet = library()
    again = fastjet.JetDefinition(fastjet.cambridge_algorithm, WHOLE)
    cluster = fastjet.ClusterSequence(jets, again)
    dropped = cluster.exclusive_jets_softdrop_grooming(
        njets=1, beta=0.0, symmetry_cut=Z_CUT, R0=radius
    )
    tau = cluster.njettiness(
        measure_definition="NormalizedMeasure",
        axes_definition="OnePass_KT_Axes",
        njets=[1, 2],
        beta=1.0,
        R0=radius,
    )
    return (
        _numpy(dropped.symmetrysoftdrop),
        _numpy(dropped.msoftdrop),
        _numpy(dropped.Esoftdrop),
        np.maximum(_numpy(tau), 0.0),
    )


def _events(particles: Particles, counts: NDArray[np.int64]) -> Any:
    """Four-momenta as one list for each event."""
    import awkward as ak

    vectors = ak.zip(
        {"px": particles.px, "py": particles.py, "pz": particles.pz, "E": particles.e},
        with_name="Momentum4D",
    )
    return ak.unflatten(vectors, counts)


def _rapidity(e: Floats, pz: Floats) -> Floats:
    return 0.5 * np.log((e + pz) / (e - pz))


def _numpy(values: Any) -> NDArray[Any]:
    import awkward as ak

    return np.asarray(ak.to_numpy(ak.drop_none(values, axis=0)))


def library() -> Any:
    """FastJet. Raises MissingExtraError."""
    try:
        import fastjet
    except ImportError as error:
        raise MissingExtraError.of("pythia", "fastjet", "The clustering of jets") from error
    return fastjet
