"""Conditions and event ids that a user hands in: what they must look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hepbridge.core.errors import DataError

__all__ = ["check_values", "checked_ids", "floats", "given_conditions"]


def given_conditions(conditions: object, where: str) -> dict[str, NDArray[np.float64]]:
    """Conditions (N,) by name, from a mapping of names to N numbers; ``where`` says whose they are.

    Raises DataError if it is no mapping, holds something else than numbers, or is empty, and if the
    conditions differ in length.
    """
    if not isinstance(conditions, Mapping):
        raise DataError(
            f"{where}: conditions must be a mapping of names to arrays (N,), such as "
            f"{{'incident_energy': energies in MeV}}; got {type(conditions).__name__}"
        )
    found = {}
    for name, value in conditions.items():
        array = floats(value, f"condition {name!r}", where)
        if array.size != len(array):
            raise DataError(
                f"{where}: condition {name!r} must be one number for each shower, of shape (N,); got "
                f"shape {array.shape}"
            )
        found[name] = array.reshape(-1).astype(np.float64)
    sizes = {name: len(array) for name, array in found.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(
            f"{where}: all conditions must have the same length N, one number for each shower; got "
            f"{', '.join(f'{size} of {name}' for name, size in sizes.items())}"
        )
    if 0 in sizes.values():
        raise DataError(f"{where}: the conditions are empty, so there are no showers")
    return found


def check_values(
    conditions: Mapping[str, NDArray[np.float64]], where: str, first_row: int = 0
) -> None:
    """Raise DataError unless all are finite, and incident energies positive.

    ``first_row`` is the number that row 0 has in messages.
    """
    for name, value in conditions.items():
        bad = ~np.isfinite(value)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(
                f"{where}: {name} must be finite; row {first_row + row} is {value[row]}"
            )
    energy = conditions["incident_energy"]
    if (energy <= 0).any():
        row = int(np.flatnonzero(energy <= 0)[0])
        raise DataError(
            f"{where}: incident energies must be positive; row {first_row + row} is "
            f"{energy[row]:g} MeV"
        )


def checked_ids(event_ids: ArrayLike, n: int, where: str) -> NDArray[np.uint64]:
    """Event ids (n, 2) = (data-set uid, row). Raises DataError if they are something else."""
    try:
        given = np.asarray(event_ids)
    except ValueError as error:  # lists of different lengths
        raise DataError(f"{where}: event ids are no array ({error})") from error
    if given.shape != (n, 2) or given.dtype.kind not in "iu" or given.min() < 0:
        raise DataError(
            f"{where}: event ids must be integers >= 0 of shape ({n}, 2) = (data-set uid, row), got "
            f"shape {given.shape} of {given.dtype}"
        )
    return given.astype(np.uint64)


def floats(value: ArrayLike, name: str, where: str) -> NDArray[Any]:
    """Numbers as an array of at least one axis. Raises DataError, which says ``name``, if they are none."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise DataError(f"{where}: {name} is no array of numbers ({error})") from error
    if array.dtype.kind not in "fiu":
        raise DataError(f"{where}: {name} must be numbers, got dtype {array.dtype}")
    return np.atleast_1d(array)
