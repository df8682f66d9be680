"""``hepbridge demo``: the whole path on the bundled sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    ctx: typer.Context,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the results.")
    ] = Path("demo-output"),
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results if they exist.")
    ] = False,
) -> None:
    """Train on the bundled sample, refine held-out showers at 20, 50 and 80 GeV, and report."""
    from hepbridge.deploy.demo import run
    from hepbridge.report import summary, table

    done = run(output, overwrite=overwrite, seed=seed)
    record = {"report": done.report, "seconds": done.seconds, **done.evaluation.to_dict()}
    ctx.obj.result(record, table(done.evaluation))
    ctx.obj.note(summary(done.evaluation.to_dict()))
    ctx.obj.note(f"wrote {done.report} ({done.seconds:.0f} s)")
