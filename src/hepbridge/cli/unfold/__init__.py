"""``hepbridge unfold``: what events were, from what a detector saw of them."""

from __future__ import annotations

import typer

from hepbridge.cli.unfold import apply, results, train

__all__ = ["unfold"]

unfold = typer.Typer(no_args_is_help=True)
unfold.command()(train.train)
unfold.command()(apply.apply)
unfold.command()(results.evaluate)
unfold.command(name="bin")(results.bin_)
