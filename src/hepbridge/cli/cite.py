"""``hepbridge cite``: what to put in the bibliography."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["cite"]


def cite(
    ctx: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(metavar="[METHOD|MODEL]", help="A method, a recipe, or a model file."),
    ] = None,
) -> None:
    """Print BibTeX for hepbridge and for the papers behind a method or a model."""
    from hepbridge.core import citations

    if what is None:
        keys = citations.everything()
    elif what.endswith(".safetensors") or "/" in what:
        from hepbridge.systems.generation.model_file import is_generator, load_generator
        from hepbridge.systems.unfolding.model_file import is_unfolding_model, load_unfolding

        if is_generator(what):
            keys = citations.of_generator(load_generator(what).recipe.model.transports())
        elif is_unfolding_model(what):
            recipe = load_unfolding(what).recipe
            teacher = recipe.options.get("teacher")
            keys = citations.of_unfolding(recipe.transport, teacher, recipe.iterations)
        else:
            from hepbridge.systems.model_file import load

            about = load(what).describe()
            keys = citations.of_model(about["system"], about["transport"])
    else:
        keys = citations.of_methods([what])
    entries = {key: citations.BIBTEX[key] for key in keys}
    ctx.obj.result({"bibtex": entries}, "\n\n".join(entries.values()))
