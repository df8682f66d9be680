"""Are these the showers that a model was trained for? Detector, particle, conditions, calibration."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from hepbridge.core.errors import DataError, DomainError, ModelFileError
from hepbridge.data.geometry import Geometry
from hepbridge.data.showers import Showers
from hepbridge.systems.model_file import Domain, Model
from hepbridge.systems.refiner import varying

__all__ = [
    "LOOK",
    "MARGIN",
    "beyond_span",
    "check_domain",
    "check_response",
    "names_of",
    "needed_conditions",
    "outside_domain",
    "outside_spans",
    "reach",
    "wrong_geometry",
]

log = logging.getLogger(__name__)

LOOK = 1024  # first showers, which show units and calibration
MARGIN = 0.01  # a random training sample never quite reaches the ends of its range
_ENOUGH = 10  # showers that a statement about all of them needs
_UNFAMILIAR = 0.01  # of the showers
_ABOUT = 3  # within this factor of the range, other units are a likely reason


def check_domain(model: Model, showers: Showers) -> None:
    """Raise ModelFileError if the showers are of another detector or another particle.

    Raises DataError if they lack a condition that the model needs. Warns of conditions that vary and
    that the model knows nothing of.
    """
    if showers.geometry.digest() != model.geometry.digest():
        raise wrong_geometry(model, showers.geometry)
    particle = showers.meta.get("particle")
    if particle and model.domain.particle not in ("unknown", particle):
        raise ModelFileError(
            f"the model was trained for particle {model.domain.particle!r}, but the showers are of "
            f"{particle!r}; use a model for that particle"
        )
    needed_conditions(model, showers.conditions)
    known = ("incident_energy", *names_of(model))
    if unknown := sorted(name for name in varying(showers) if name not in known):
        log.warning(
            "the showers vary in %s, of which the model knows nothing: they are refined as if all "
            "were like those it was trained on",
            ", ".join(unknown),
        )


def check_response(model: Model, showers: Showers, name: str, *, strict: bool = False) -> None:
    """Warn of fast showers of another calibration than those of the training; ``strict``: refuse them.

    That is, if more than one in a hundred (and three) have an energy sum that the fast simulation of
    the training never had (`Refiner.unfamiliar`). What becomes of them is then no full simulation:
    the energy sum of a refined shower is that of the fast one, mapped, and they all lie at the end of
    the map. Fewer than ten showers are not looked at; ``name`` says whose they are.

    Raises DomainError with ``strict``, DataError if a condition that the model needs is missing.
    """
    if len(showers) < _ENOUGH:
        return
    needed_conditions(model, showers.conditions)
    with torch.inference_mode():
        strange = model.members[0].cpu().unfamiliar(showers)
    if strange.sum() < 3 or strange.mean() <= _UNFAMILIAR:
        return
    held = np.median(showers.e_sum[strange] / showers.incident_energy[strange])
    message = (
        f"{name}: {strange.mean():.0%} of the showers looked at have an energy sum that the fast "
        f"simulation of the training never had (median {held:.4g} of the incident energy): another "
        "calibration, detector or particle?"
    )
    if strict:
        raise DomainError(
            f"{message} Refine showers of the simulation that the model was trained with, or drop "
            "--strict (strict=True in Python)"
        )
    log.warning("%s They are refined, but not to full simulation", message)


def names_of(model: Model) -> list[str]:
    return model.members[0].config.named_conditions()


def needed_conditions(
    model: Model, conditions: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """The further conditions that the model works with. Raises DataError if one is missing."""
    missing = [name for name in names_of(model) if name not in conditions]
    if missing:
        raise DataError(
            f"the model needs the condition{'s' if len(missing) > 1 else ''} {', '.join(missing)} of "
            f"every shower, but these showers have only {', '.join(conditions) or 'none'}; add a "
            "column for each (0 for what is 0 in all showers), or use a model without them"
        )
    return {name: conditions[name] for name in names_of(model)}


def wrong_geometry(model: Model, geometry: Geometry) -> ModelFileError:
    """The error for showers of another detector than the model's."""
    return ModelFileError(
        f"the model was trained for geometry {model.geometry.name!r} {model.geometry.shape}, but "
        f"the showers are of {geometry.name!r} {geometry.shape}; use a model for that geometry"
    )


def outside_domain(
    model: Model, showers: Showers, *, strict: bool = False, warn: bool = True
) -> NDArray[np.bool_]:
    """Mask (N,) of showers more than 1 % outside the trained energies or other conditions.

    Of other conditions it is 1 % of their range; azimuths are compared on the circle. Logs a warning
    if there are any (unless not ``warn``); raises DomainError if ``strict``.
    """
    return outside_spans(model.domain, showers.conditions, "refined", strict=strict, warn=warn)


def outside_spans(
    domain: Domain,
    conditions: Mapping[str, NDArray[np.float64]],
    done: str,
    *,
    strict: bool = False,
    warn: bool = True,
) -> NDArray[np.bool_]:
    """`outside_domain` of conditions (N,); ``done`` says what becomes of such showers."""
    low, high = domain.energy_min, domain.energy_max
    energy = conditions["incident_energy"]
    outside = (energy < low * (1 - MARGIN)) | (energy > high * (1 + MARGIN))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        message = (
            f"{int(outside.sum())} of {len(energy)} showers have incident energies outside the "
            f"trained range {low / 1000:g} to {high / 1000:g} GeV (first: row {row}, "
            f"{energy[row] / 1000:g} GeV)"
        )
        if outside.all() and done == "refined":
            message += _other_unit(energy, low, high)
        _say(message, done, strict=strict, warn=warn)
    for name, span in domain.conditions.items():
        values = conditions[name]
        beyond = beyond_span(name, values, span)
        if beyond.any():
            row = int(np.flatnonzero(beyond)[0])
            message = (
                f"{int(beyond.sum())} of {len(values)} showers have {name} outside the trained "
                f"range {span[0]:.4g} to {span[1]:.4g} (first: row {row}, {values[row]:.4g})"
            )
            _say(message, done, strict=strict, warn=warn)
        outside |= beyond
    return outside


def _say(message: str, done: str, *, strict: bool, warn: bool) -> None:
    if strict:
        raise DomainError(
            f"{message}; train a model that covers them, or drop --strict (strict=True in Python)"
        )
    if warn:
        log.warning("%s; they are %s and flagged in the column 'outside_domain'", message, done)


def reach(span: tuple[float, float]) -> float:
    """How far from the middle of its trained range a condition may lie: 1 % of the range farther."""
    low, high = span
    # at least rounding: a condition that was constant in training has no range
    return (high - low) / 2 * (1 + 2 * MARGIN) + 1e-6 * max(abs(low), abs(high), 1e-6)


def beyond_span(
    name: str, values: NDArray[np.float64], span: tuple[float, float]
) -> NDArray[np.bool_]:
    """Mask (N,) of values outside a range; an azimuth may be written with any number of turns."""
    apart = values - (span[0] + span[1]) / 2
    if name == "phi_rad":
        apart = (apart + np.pi) % (2 * np.pi) - np.pi
    return np.asarray(np.abs(apart) > reach(span))


def _other_unit(energy: NDArray[np.float64], low: float, high: float) -> str:
    """Advice for energies that lie in or near the range if their unit is another one."""
    for factor, unit in ((1e3, "GeV"), (1e-3, "MeV")):
        seen = energy * factor
        if low / _ABOUT <= seen.min() and seen.max() <= high * _ABOUT:
            return (
                f"; they would fit if the file was in {unit}: if it is, say so in its HDF5 "
                f"attribute 'units' ({unit}), or load it with unit={unit!r}"
            )
    return ""
