"""How an unfolding is trained, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hepbridge import recipes
from hepbridge.systems.recipe import RecipeTraining, checked
from hepbridge.systems.unfolding.classifier_training import ClassifierTraining

__all__ = ["GROUP", "UnfoldingRecipe", "load_unfolding_recipe"]

GROUP = "unfolding"


class UnfoldingRecipe(BaseModel):
    """A method in full.

    Attributes:
        kind: ``generate``: a transport draws the truth of each event; ``reweight``: simulated events
            get weights.
        transport, options: the registered transport of ``generate``, and its arguments.
        match_marginals: correct the marginals after the training (`Unfolder.finish`).
        iterations: of OmniFold's two steps. ``reweight``: the answer; ``generate``: the spectrum that
            then takes the place of the simulated one in the posteriors, 0: none.
        candidates: draws of each event among which an iterated spectrum chooses.
        classifier, classifier_training: of the density ratios of iterations and of backgrounds.
        acceptance: of those of what the detector misses and makes up.
        training: of the transport.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["generate", "reweight"]
    transport: str | None = None
    match_marginals: bool = False
    options: dict[str, Any] = Field(default_factory=dict)
    iterations: Annotated[int, Field(ge=0, le=100)] = 0
    candidates: Annotated[int, Field(ge=1, le=1000)] = 32
    classifier: dict[str, Any] = Field(default_factory=dict)
    acceptance: dict[str, Any] = Field(default_factory=dict)
    classifier_training: ClassifierTraining = ClassifierTraining()
    training: RecipeTraining = RecipeTraining()


def load_unfolding_recipe(
    recipe: str, config: Path | None = None, overrides: list[str] | None = None
) -> UnfoldingRecipe:
    """The checked recipe of a name, a YAML file and overrides. Raises ConfigError."""
    found: UnfoldingRecipe = checked(
        UnfoldingRecipe, recipes.load(recipe, config, overrides, group=GROUP), ""
    )
    return found
