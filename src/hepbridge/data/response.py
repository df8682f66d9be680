"""Do the cells and the incident energies of showers have the same unit?"""

from __future__ import annotations

import logging
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import DataError

__all__ = ["UNITS_APART", "Energies", "check_units", "response"]

log = logging.getLogger(__name__)

UNITS_APART = 100  # two energies of one shower never differ by this factor; MeV and GeV do
_ENOUGH = 10  # fewer showers may hold next to nothing by chance


class Energies(Protocol):
    """Showers, as far as their energies go."""

    @property
    def e_sum(self) -> NDArray[np.float64]: ...
    @property
    def incident_energy(self) -> NDArray[np.float64]: ...
    def __len__(self) -> int: ...


def response(showers: Energies) -> float:
    """Mean of the energy in all cells over the incident energy."""
    return float((showers.e_sum / showers.incident_energy).mean())


def check_units(showers: Energies, name: str, *, apart: float = UNITS_APART) -> None:
    """Raise DataError if the cells hold under 1/100 or over 100 times the incident energy.

    That is said as a warning of fewer than ten showers, and not at all of empty ones. ``name`` says
    whose cells they are; ``apart`` is the factor, where it is not 100.
    """
    held = response(showers) if len(showers) else 0.0
    if held == 0 or 1 / apart <= held <= apart:
        return
    if held < 1:
        advice = (
            "the cells seem to be GeV and the incident energies MeV: multiply the cells by 1000 "
            "(cells that hold only what is visible: divide them by the sampling fraction)"
        )
    else:
        advice = (
            "the incident energies seem to be GeV and the cells MeV: multiply the incident "
            "energies by 1000 (a .npy file with cells in MeV: load it with unit='MeV')"
        )
    words = f"the cells of {name} hold {held:.3g} of the incident energy; {advice}"
    if len(showers) >= _ENOUGH:
        raise DataError(words)
    log.warning("%s", words)
