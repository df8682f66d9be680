"""Samples that the challenge's numbers would be wrong for: another unit, other incident energies."""

from __future__ import annotations

import logging

import numpy as np

from hepbridge.core.errors import DataError
from hepbridge.metrics.protocols.base import Source
from hepbridge.metrics.protocols.shower_features import ShowerFeatures

__all__ = ["check_energies", "check_response"]

log = logging.getLogger(__name__)

_RESPONSE = 0.1, 3.0  # median of E_tot / E_inc outside: cells are no calibrated energies in MeV
_STANDARD_ERRORS = 5.0  # apart: two samples have other incident energies


def check_response(ref: Source, features: ShowerFeatures) -> None:
    """Raise DataError for cells that are no calibrated energies in MeV."""
    response = float(np.median(features.e_tot / features.incident_energy))
    if not _RESPONSE[0] < response < _RESPONSE[1]:
        raise DataError(
            f"{ref.name!r}: the cells hold {response:.3g} of the incident energy (median). The "
            "CaloChallenge counts calibrated energies: divide visible energies by the sampling "
            "fraction (--sampling-fraction 0.033 for data sets 2 and 3), or check the unit"
        )


def check_energies(source: Source, features: ShowerFeatures, ref: ShowerFeatures) -> None:
    """Warn if a sample has other incident energies than the reference: that is no shower's fault."""
    a, b = np.log10(features.incident_energy), np.log10(ref.incident_energy)
    error = np.sqrt(a.var() / len(a) + b.var() / len(b))
    if abs(a.mean() - b.mean()) > _STANDARD_ERRORS * error:
        log.warning(
            "%r has other incident energies than the reference (mean log10(E/MeV) %.3f against "
            "%.3f): all numbers will be those of different energies",
            source.name,
            a.mean(),
            b.mean(),
        )
