"""How a generator is trained, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from hepbridge import recipes
from hepbridge.systems.generation.generator import GeneratorConfig
from hepbridge.systems.recipe import RecipeTraining, checked

__all__ = ["GROUP", "GenerationRecipe", "load_generation_recipe"]

GROUP = "generation"


class GenerationRecipe(BaseModel):
    """A training in full.

    Attributes:
        model: what to build.
        training: of all its networks.
        holdout: fraction of the showers kept for the comparison with the baseline.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: GeneratorConfig = GeneratorConfig()
    training: RecipeTraining = RecipeTraining()
    holdout: Annotated[float, Field(gt=0, le=0.5)] = 0.1


def load_generation_recipe(
    recipe: str, config: Path | None = None, overrides: list[str] | None = None
) -> GenerationRecipe:
    """The checked recipe of a name, a YAML file and overrides. Raises ConfigError."""
    found: GenerationRecipe = checked(
        GenerationRecipe, recipes.load(recipe, config, overrides, group=GROUP), ""
    )
    return found
