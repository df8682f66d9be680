"""What a generator takes for granted: particle, angles and impact points that are no conditions of it.

It makes them as they were in its training, whatever is asked for, so others cannot be asked for. What
they were is in the attributes of the training files, as `Gun.record` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hepbridge.core.errors import ConfigError, ModelFileError
from hepbridge.simulate.beam import PDG
from hepbridge.simulate.energies import Distribution, distribution
from hepbridge.simulate.gun import Gun
from hepbridge.systems.checks import beyond_span
from hepbridge.systems.generation.model_file import GeneratorModel

__all__ = ["check_beam", "check_conditions", "particles_of"]

_RECORDED = {"theta_rad": "theta_deg", "phi_rad": "phi_deg", "x_mm": "x_mm", "y_mm": "y_mm"}
_STRAIGHT = "fixed:0"  # then there is no azimuth
_NAMES = {float(number): name for name, number in PDG.items()}


def particles_of(model: GeneratorModel) -> tuple[str, ...]:
    """The particles of the training; none if its files do not say, or name unknown ones."""
    names = tuple(model.domain.particle.split(","))
    return names if all(name in PDG for name in names) else ()


def check_beam(model: GeneratorModel, gun: Gun) -> None:
    """Raise an error if a beam is not that of the training in what the model takes for granted.

    Of what the training files say nothing, the beam must be straight and on the axis.

    Raises ModelFileError for another particle, ConfigError for anything else.
    """
    _check_particles(model, gun.particles)
    record = gun.record()
    for name, entry in _RECORDED.items():
        taught = str(model.domain.full.get(entry, "fixed:0"))
        if name not in model.recipe.model.named_conditions() and record[entry] != taught:
            raise _contradiction(name, entry, taught, f"the beam has {record[entry]}")


def check_conditions(model: GeneratorModel, conditions: Mapping[str, NDArray[np.float64]]) -> None:
    """`check_beam` of conditions (N,): those that the model does not work with.

    Values that the training had are allowed, and so is all of which its files say nothing.

    Raises ModelFileError for another particle, ConfigError for anything else.
    """
    taken = model.recipe.model.named_conditions()
    further = {name: values for name, values in conditions.items() if name not in taken}
    if "pdg_id" in further and particles_of(model):
        asked = [
            _NAMES.get(number, f"pdg_id {number:g}") for number in np.unique(further["pdg_id"])
        ]
        _check_particles(model, asked)
    full = model.domain.full
    for name, entry in _RECORDED.items():
        law = _law(full.get(entry))
        no_azimuth = name == "phi_rad" and full.get("theta_deg") == _STRAIGHT
        if name not in further or law is None or no_azimuth:
            continue
        unit = np.pi / 180 if name.endswith("_rad") else 1.0
        values = further[name]
        other = beyond_span(name, values, (law.low * unit, law.high * unit))
        if other.any():
            row = int(np.flatnonzero(other)[0])
            raise _contradiction(
                name, entry, str(law), f"the conditions have {name} {values[row]:.6g} (row {row})"
            )


def _check_particles(model: GeneratorModel, asked: Sequence[str]) -> None:
    trained = particles_of(model)
    if trained and (wrong := [name for name in asked if name not in trained]):
        raise ModelFileError(
            f"the model was trained for particle {model.domain.particle!r}, not for "
            f"{', '.join(wrong)}; use a model for that particle"
        )
    told_apart = "pdg_id" in model.recipe.model.named_conditions()
    if not told_apart and len(asked) != max(1, len(trained)):
        raise ConfigError(
            f"the model knows nothing of pdg_id, so it cannot make {', '.join(asked)} alone "
            f"or apart: it was trained for {model.domain.particle}"
        )


def _contradiction(name: str, entry: str, taught: str, asked: str) -> ConfigError:
    return ConfigError(
        f"the model knows nothing of {name}: it was trained with {entry} {taught}, and {asked}; ask "
        "for that, or train a generator with this condition (model.conditions)"
    )


def _law(entry: object) -> Distribution | None:
    """A distribution as a file has it; None if there is none, or something else of that name."""
    try:
        return distribution(
            str(entry), "", "", kinds=("fixed", "uniform"), allowed=lambda value: ""
        )
    except ConfigError:
        return None
