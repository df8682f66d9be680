"""A recipe, checked: every key known, every value in its range."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hepbridge import recipes
from hepbridge.core.errors import ConfigError
from hepbridge.core.protocols import Phase
from hepbridge.systems import SYSTEMS
from hepbridge.training import TrainingSettings

__all__ = ["Recipe", "RecipeTraining", "checked", "load_recipe"]


class RecipeTraining(TrainingSettings):
    """Settings of the loop, and what overrides the method's own plan.

    Attributes:
        steps: number of optimiser steps in all phases together; null keeps the method's plan.
        learning_rate: peak learning rate of every phase; null keeps the method's.
    """

    steps: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    def settings(self) -> TrainingSettings:
        return TrainingSettings(**self.model_dump(exclude={"steps", "learning_rate"}))

    def replanned(self, phases: Iterable[Phase], planned_steps: int) -> Iterator[Phase]:
        """The phases of a method that plans ``planned_steps`` in all, as the recipe wants them."""
        for phase in phases:
            change: dict[str, Any] = {}
            if self.steps is not None:
                change["steps"] = max(1, round(phase.steps * self.steps / planned_steps))
            if self.learning_rate is not None:
                change["learning_rate"] = self.learning_rate
            yield dataclasses.replace(phase, **change)


class Recipe(BaseModel):
    """A training described in full. ``ensemble`` trainings differ in their seed; with
    ``bootstrap`` each also draws its training showers with replacement."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str
    model: dict[str, Any] = {}
    training: RecipeTraining = RecipeTraining()
    holdout: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    ensemble: Annotated[int, Field(ge=1, le=100)] = 1
    bootstrap: bool = False

    def system_config(self) -> Any:
        """The configuration object of the system."""
        system = SYSTEMS[self.system]
        return checked(system.Config, self.model, "model")


def load_recipe(
    recipe: str, config: Path | None = None, overrides: list[str] | None = None
) -> Recipe:
    """The checked recipe of a name, a YAML file and overrides. Raises ConfigError."""
    found: Recipe = checked(Recipe, recipes.load(recipe, config, overrides), "")
    found.system_config()
    return found


def checked(model: type[BaseModel], record: dict[str, Any], prefix: str) -> Any:
    """The record as a ``model``. Raises ConfigError that names every wrong key below ``prefix``."""
    try:
        return model.model_validate(record)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            path = ".".join(str(p) for p in (prefix, *item["loc"]) if p != "")
            lines.append(f"{path}: {item['msg']} (got {item['input']!r})")
            if item["type"] == "extra_forbidden":
                lines[-1] += f"; allowed here: {', '.join(_keys(model, item['loc'][:-1]))}"
        raise ConfigError("the recipe is not valid:\n  " + "\n  ".join(lines)) from error


def _keys(model: type[BaseModel], block: tuple[Any, ...]) -> list[str]:
    """The keys that a block of a recipe may have."""
    for name in block:
        kind = model.model_fields[name].annotation
        for inner in (kind, *get_args(kind)):  # a block, or one that may be null
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return [*model.model_fields]
