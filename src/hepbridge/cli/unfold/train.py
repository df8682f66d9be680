"""``hepbridge unfold train``: from a response, and data, to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hepbridge.cli.unfold.options import (
    DataWeights,
    Overwrite,
    Prefixes,
    Seed,
    Tables,
    Units,
    Weights,
)

__all__ = ["train"]


def train(
    ctx: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="sbunfold, cinn, fpcd: truths of single events; omnifold: weights of simulated ones.",
        ),
    ],
    response: Annotated[
        Path, typer.Option(metavar="FILE", help="Simulated events at both levels.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Model file (.safetensors).")
    ],
    response_detector: Annotated[
        Path | None,
        typer.Option(
            "--response-detector", metavar="FILE", help="Their detector level, if in another file."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measured events: for omnifold, and for iterations."),
    ] = None,
    background: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Background in the data, weighted as many as expected."),
    ] = None,
    observables: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="Columns to unfold (default: all of both levels)."),
    ] = None,
    further: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="Columns of the detector that help, not unfolded."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Model to start from: only its iterations are done anew.",
        ),
    ] = None,
    bootstrap: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="K",
            help="Train on replica K of the data, weighted with Poisson numbers.",
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="How often OmniFold improves the simulated spectrum; 0: draws keep it (default: the recipe's).",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML file that changes the recipe.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one entry of the recipe; repeat."),
    ] = None,
    units: Units = None,
    weights: Weights = None,
    data_weights: DataWeights = None,
    prefixes: Prefixes = None,
    tables: Tables = "particle,detector",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an interrupted training of this output.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train an unfolding and write one model file."""
    from hepbridge.cli.tables import Reader, names_of
    from hepbridge.systems.unfolding.data import Data
    from hepbridge.systems.unfolding.model_file import load_unfolding
    from hepbridge.systems.unfolding.response import Response
    from hepbridge.systems.unfolding.train import train_unfolding

    reader = Reader.of(units or [], weights, data_weights, prefixes, tables)
    simulated = Response.from_tables(
        reader.response(response, response_detector), names_of(observables), names_of(further)
    )
    measured = None
    if data is not None:
        measured = Data.from_table(
            reader.table(data, 1, measured=True), simulated.observables, str(data)
        )
    if background is not None:
        if measured is None:
            raise typer.BadParameter("a background is one of --data", param_hint="--background")
        taken = Data.from_table(reader.table(background, 1), simulated.observables, str(background))
        measured = measured.less(taken)
    reader.check()
    if bootstrap is not None:
        if measured is None:
            raise typer.BadParameter("a replica is one of --data", param_hint="--bootstrap")
        measured = measured.replica(bootstrap, seed)
    changes = list(overrides or [])
    if iterations is not None:
        changes.append(f"iterations={iterations}")
    model = train_unfolding(
        simulated,
        measured,
        recipe=recipe,
        config=config,
        overrides=changes,
        start=None if start is None else load_unfolding(start),
        output=output,
        device=device,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
    )
    found = model.summary["response"]
    ctx.obj.note(
        f"response: {found['pairs']:,} pairs, {found['misses']:,} misses, {found['fakes']:,} fakes "
        f"(efficiency {found['efficiency']:.3f}, purity {found['purity']:.3f})"
    )
    for step in model.summary.get("iterations", []):
        ctx.obj.note(_step(step))
    ctx.obj.result({"output": output, **model.describe()}, f"{output} is a trained unfolding")


def _step(step: dict[str, Any]) -> str:
    """One iteration in words."""
    return (
        f"iteration {step['iteration']}: data against simulation AUC {step['detector_auc']:.4f}, "
        f"reweighted {step['detector_auc_after']:.4f}"
    )
