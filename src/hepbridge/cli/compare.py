"""``hepbridge compare``: the candidates of several reports in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["compare"]


def compare(
    ctx: typer.Context,
    reports: Annotated[
        list[Path], typer.Argument(metavar="METRICS.JSON...", help="Of reports, or their folders.")
    ],
) -> None:
    """Which model is best: candidates of several reports, the closest to full simulation first."""
    from hepbridge.report.selection import read_metrics, selection, selection_table

    found = selection({str(path): read_metrics(path) for path in reports})
    ctx.obj.result(found, selection_table(found))
