"""``hepbridge train``: from samples to a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["train"]


def train(
    ctx: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            help="Name of a recipe. Refiners: squirels, squirels-flow (its teacher), quantile (the "
            "baseline without a network), squirels-mmd, squirels-i2sb, squirels-dsbm, squirels-paper or "
            "squirels-paper-reduced. Generators: calo-cfm, calo-cfm-teacher, caloflow-student, "
            "caloflow-teacher, caloinn, caloinn-bayesian, calo-diffusion, marginals (no network)."
        ),
    ],
    full: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="Full-simulation file (repeat to join files)."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Model file to write (.safetensors)."),
    ],
    fast: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Fast-simulation file (repeat to join files); refiners need it, generators take none.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file laid over the recipe, value by value."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One value of the recipe: training.steps=2000 (repeatable).",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Trained model to distil a student from, instead of training a teacher first.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of all randomness in the training.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted training of this output.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists.")
    ] = False,
) -> None:
    """Train a refiner or a generator and write one model file."""
    from hepbridge.cli.samples import joined
    from hepbridge.core.errors import TrainingInterrupted

    run, load, paths = _kind(recipe, fast or [], full)
    try:
        model = run(
            *map(joined, paths),
            recipe=recipe,
            config=config,
            overrides=overrides or [],
            teacher=None if teacher is None else load(teacher),
            output=output,
            device=device,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
        )
    except KeyboardInterrupt as error:  # before the first step, after the last, or the second one
        checkpoint = output.with_name(f"{output.name}.checkpoint")
        if not checkpoint.exists():
            raise
        raise TrainingInterrupted(
            f"interrupted; the state of the training is in {checkpoint}: repeat the command with "
            "--resume"
        ) from error
    held = model.metrics
    if not held:  # one of several processes, but not the one that judges and writes
        return
    ctx.obj.note(
        f"on {held['n']} held-out showers, distance to full simulation, no floor (classifier AUC):"
    )
    for name, distance in held["distance"].items():
        ctx.obj.note(f"  {name:10} {distance:.4f} ({held['auc'][name]:.3f})")
    ctx.obj.result({"output": output, **model.describe()}, f"{output} is a trained model")


def _kind(recipe: str, fast: list[Path], full: list[Path]) -> tuple[Any, Any, list[list[Path]]]:
    """What trains a recipe, what reads its teacher, and which samples it takes."""
    from hepbridge import recipes
    from hepbridge.core.errors import ConfigError

    if recipe in recipes.names("generation"):
        if fast:
            raise ConfigError(
                f"recipe {recipe!r} trains a generator, which makes showers from noise: leave out "
                "--fast, or take a recipe of a refiner (squirels)"
            )
        from hepbridge.systems.generation.model_file import load_generator
        from hepbridge.systems.generation.train import train_generator

        return train_generator, load_generator, [full]
    if recipe not in recipes.names():
        both = f"{', '.join(recipes.names())}; generators: {', '.join(recipes.names('generation'))}"
        raise recipes.unknown(recipe, both)
    if not fast:
        raise ConfigError(
            f"recipe {recipe!r} trains a refiner, which needs fast showers: pass --fast, or take a "
            "recipe of a generator (calo-cfm)"
        )
    from hepbridge.systems.model_file import load
    from hepbridge.systems.train import train as train_refiner

    return train_refiner, load, [fast, full]
