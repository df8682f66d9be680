"""``hepbridge unfold apply``: measured events unfolded, or simulated ones weighted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

__all__ = ["apply"]


def apply(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model of an unfolding.")],
    events: Annotated[
        Path, typer.Argument(metavar="EVENTS", help="Measured events, or simulated ones to weight.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help=".h5, .root, .parquet or .npz."),
    ],
    level: Annotated[
        str | None,
        typer.Option(
            help="detector: truths of measured events; particle: weights of simulated events "
            "(default: what the model is for)."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Truths drawn of each measured event.")] = 1,
    background: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Background, weighted as many as expected."),
    ] = None,
    replicas: Annotated[
        int, typer.Option(min=0, help="Columns of Poisson bootstrap numbers to add.")
    ] = 0,
    units: Units = None,
    weights: Weights = None,
    data_weights: DataWeights = None,
    prefixes: Prefixes = None,
    tables: Tables = "particle,detector",
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Unfold measured events, or weight simulated ones."""
    from hepbridge.cli.tables import Reader
    from hepbridge.core.files import check_output
    from hepbridge.data.table_files import write_tables
    from hepbridge.systems.unfolding.apply import reweight
    from hepbridge.systems.unfolding.apply import unfold as run
    from hepbridge.systems.unfolding.model_file import load_unfolding

    check_output(output, overwrite=overwrite)
    trained = load_unfolding(model)
    level = level or ("detector" if trained.unfolder else "particle")
    if level not in ("detector", "particle"):
        raise typer.BadParameter(f"{level!r} is not detector or particle", param_hint="--level")
    reader = Reader.of(units or [], weights, data_weights, prefixes, tables)
    if level == "particle":
        if background is not None or samples > 1:
            raise typer.BadParameter(
                "--background and --samples are for measured events (--level detector)"
            )
        made = reweight(trained, reader.table(events, 0), seed=seed, replicas=replicas)
    else:
        made = run(
            trained,
            reader.table(events, 1, measured=True),
            seed=seed,
            samples=samples,
            background=None if background is None else reader.table(background, 1),
            replicas=replicas,
        )
    reader.check()
    write_tables({"unfolded": made}, output, overwrite=overwrite)
    total = float(made.weights.sum()) if made.weights is not None else float(len(made))
    ctx.obj.result(
        {"output": output, "events": len(made), "sum_of_weights": total},
        f"{output}: {len(made):,} events, weights add up to {total:,.1f}",
    )
