"""Physics lists: which one a simulation uses, and its making in a worker."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from hepbridge.core.errors import ConfigError, HepbridgeError
from hepbridge.simulate.geant4.datasets import DATA_DIR, Found

__all__ = ["ELECTROMAGNETIC", "FULL", "choose", "physics_list"]

FULL = "FTFP_BERT"
"""What ``auto`` takes where the data sets of nuclear processes are installed."""

ELECTROMAGNETIC = {
    "em": "G4EmStandardPhysics",
    "em_option1": "G4EmStandardPhysics_option1",
    "em_option2": "G4EmStandardPhysics_option2",
    "em_option3": "G4EmStandardPhysics_option3",
    "em_option4": "G4EmStandardPhysics_option4",
}
"""Lists without nuclear processes; "em" is the electromagnetic part of FTFP_BERT."""

_WANT_SHELLS = ("em_option3", "em_option4")
_LIGHT = ("e-", "e+", "gamma")


def choose(physics: str, particles: Iterable[str], found: list[Found]) -> str:
    """The physics list for what was asked ("auto" or a name), checked against data and particles.

    "auto" is FTFP_BERT where its data sets are found, else "em".

    Raises:
        ConfigError: no electromagnetic data at all; a list of Geant4 without its nuclear data;
            other particles than electrons, positrons and photons with an electromagnetic list.
    """
    missing = [f for f in found if f.dataset.needed_for and not f.usable]
    if any(f.dataset.needed_for == "em" for f in missing):
        raise ConfigError(
            f"Geant4's electromagnetic data set G4EMLOW was not found; set {DATA_DIR} to the folder "
            "that holds G4EMLOW8.8 and the other data sets "
            "('hepbridge simulate geant4 --check' says more)"
        )
    chosen = physics
    if physics == "auto":
        chosen = "em" if missing else FULL
    names = ", ".join(f.dataset.name for f in missing)
    if chosen not in ELECTROMAGNETIC:
        if near := difflib.get_close_matches(chosen.lower(), ELECTROMAGNETIC, 1, 0.8):
            raise ConfigError(f"unknown physics list {physics!r}; did you mean {near[0]!r}?")
        if missing:
            raise ConfigError(
                f"physics list {physics!r} needs data sets that are not found: {names}; install "
                f"them (https://geant4.web.cern.ch/download), or use 'em' (no nuclear processes)"
            )
        return chosen
    if chosen in _WANT_SHELLS and any(f.reduced for f in found):
        raise ConfigError(
            f"physics list {chosen!r} needs atomic shells, which this G4EMLOW does not have; use 'em', "
            "'em_option1' or 'em_option2', or the official data set"
        )
    if heavy := sorted({str(p) for p in particles} - set(_LIGHT)):
        why = f"; its data sets are not found: {names}" if missing else ""
        raise ConfigError(
            f"{', '.join(heavy)}: physics list {chosen!r} has no nuclear processes and takes "
            f"{', '.join(_LIGHT)} only. Use a hadronic list such as {FULL}{why}"
        )
    return chosen


def physics_list(g4: Any, name: str) -> Any:
    """The `G4VModularPhysicsList` of a name.

    Raises ConfigError for a name that Geant4 does not know.
    """
    if name in ELECTROMAGNETIC:
        made = g4.G4VModularPhysicsList()
        made.RegisterPhysics(getattr(g4, ELECTROMAGNETIC[name])())
    else:
        factory = g4.G4PhysListFactory()
        if not factory.IsReferencePhysList(name):
            allowed = [*ELECTROMAGNETIC, *map(str, factory.AvailablePhysLists())]
            raise ConfigError(f"unknown physics list {name!r}; allowed: {', '.join(allowed)}")
        made = factory.GetReferencePhysList(name)
    if made is None:
        raise HepbridgeError(f"Geant4 did not make the physics list {name!r}")
    made.SetVerboseLevel(0)
    return made
