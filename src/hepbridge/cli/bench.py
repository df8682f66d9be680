"""``hepbridge bench``: how fast refiners are, beside the paper's network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["bench"]


def bench(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Shipped models or model files (default: the shipped model).",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the results.")
    ] = Path("bench-output"),
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Showers per call; repeatable (default 1, 100 and 10000)."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of every timing.")] = 10,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results if they exist.")
    ] = False,
) -> None:
    """Time refiners and the paper's network in turn on one core; write the ratios and a plot."""
    from hepbridge.deploy.bench import BATCHES
    from hepbridge.deploy.bench import bench as run
    from hepbridge.report.speed import check_files, speed_table, write_speed

    check_files(output, overwrite=overwrite)  # before the slow part
    record = run(models or (), batches=batch or BATCHES, repeats=repeats)
    path = write_speed(record, output, overwrite=overwrite)
    ctx.obj.result({"output": path, **record}, speed_table(record))
    ctx.obj.note(f"wrote {path} ({record['seconds']:.0f} s)")
