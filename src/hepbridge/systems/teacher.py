"""Training a student of a model that exists: what it takes over from its teacher."""

from __future__ import annotations

import logging

from hepbridge.core.errors import ConfigError
from hepbridge.systems.model_file import Model
from hepbridge.systems.recipe import Recipe

__all__ = ["follow", "same_showers"]

log = logging.getLogger(__name__)


def follow(recipe: Recipe, teacher: Model) -> Recipe:
    """The recipe of a student, with the transforms and the transport of its teacher written in.

    Raises ConfigError if the recipe does not distil, or the teacher cannot be its teacher.
    """
    if recipe.model.get("transport") != "distilled":
        raise ConfigError(
            "a teacher needs a student: use recipe squirels, or set model.transport=distilled "
            f"(got {recipe.model.get('transport')!r})"
        )
    taught = teacher.recipe.model
    if teacher.recipe.system != recipe.system or taught.get("transport") in (None, "distilled"):
        raise ConfigError(
            f"a model of system {teacher.recipe.system!r} with transport "
            f"{taught.get('transport')!r} cannot be the teacher of system {recipe.system!r}"
        )
    if len(teacher.members) < recipe.ensemble:
        raise ConfigError(
            f"{recipe.ensemble} students need as many teachers; the model has "
            f"{len(teacher.members)} member(s)"
        )
    options = dict(recipe.model.get("options", {}))
    options |= {"teacher": taught["transport"], "teacher_options": taught.get("options", {})}
    return recipe.model_copy(
        update={"model": {**taught, "transport": "distilled", "options": options}}
    )


def same_showers(request: dict[str, object], teacher: Model) -> None:
    """Warn if the teacher learned from other showers than its student, or held out other ones."""
    before = teacher.provenance.get("request", {})
    differ = [key for key in ("fast", "full", "surplus", "seed") if request[key] != before.get(key)]
    if differ:
        log.warning(
            "the teacher was trained with other %s: showers that the student holds out may be "
            "known to it, and the held-out figures be flattering",
            ", ".join(differ),
        )
