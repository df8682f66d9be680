"""Do the cells and the incident energies of showers have the same unit?"""

from __future__ import annotations

import logging

from hepbridge.core.errors import DataError
from hepbridge.data.showers import Showers

__all__ = ["UNITS_APART", "check_units", "response"]

log = logging.getLogger(__name__)

UNITS_APART = 100  # two energies of one shower never differ by this factor; MeV and GeV do
_ENOUGH = 10  # fewer showers may hold next to nothing by chance


def response(showers: Showers) -> float:
    """Mean of the energy in all cells over the incident energy."""
    return float((showers.e_sum / showers.incident_energy).mean())


def check_units(showers: Showers, name: str) -> None:
    """Raise DataError if the cells hold under 1/100 or over 100 times the incident energy.

    That is said as a warning of fewer than ten showers, and not at all of empty ones. ``name`` says
    whose cells they are.
    """
    held = response(showers) if len(showers) else 0.0
    if held == 0 or 1 / UNITS_APART <= held <= UNITS_APART:
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
