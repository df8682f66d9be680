"""``hepbridge info``: what a file is, in words."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["info"]


def info(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="A file of showers, points or events, or a model.")],
) -> None:
    """Say what a file or a model is, in words."""
    from hepbridge.cli import describe

    record = describe.describe(file)
    ctx.obj.result(record, describe.words(record))
