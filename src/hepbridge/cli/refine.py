"""``hepbridge refine``: fast showers in, refined showers out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["refine"]


def refine(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(help="Model file (its name holds a / or ends in .safetensors)."),
    ],
    fast: Annotated[Path, typer.Argument(help="File of fast showers.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="File of showers to write.")
    ],
    seed: Annotated[int, typer.Option(help="Seed of the noise; each event has its own.")] = 0,
    member: Annotated[int, typer.Option(min=0, help="Which member of an ensemble.")] = 0,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Showers at a time (default 4096); changes no output bit."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes; their number changes no output bit.")
    ] = 1,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse showers outside the trained range.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists.")
    ] = False,
) -> None:
    """Refine a file of fast showers with a trained model."""
    from hepbridge.deploy.refine import refine_file

    chosen = {} if batch is None else {"batch": batch}
    made = refine_file(
        model,
        fast,
        output,
        seed=seed,
        member=member,
        workers=workers,
        strict=strict,
        overwrite=overwrite,
        device=device,
        **chosen,
    )
    words = f"wrote {output}" if made else f"{output} is unchanged"
    ctx.obj.result({"output": output, "made": made}, words)
