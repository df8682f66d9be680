"""The application: global options, and the list of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from hepbridge.cli import (
    bench,
    cite,
    compare,
    demo,
    detectors,
    evaluate,
    export,
    generate,
    info,
    refine,
    show,
    simulate,
    train,
    unfold,
)
from hepbridge.cli.group import Group
from hepbridge.cli.session import Session

__all__ = ["app"]

app = typer.Typer(
    name="hepbridge",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="--quiet, --json and --debug may also stand after the command.",
)


def _version(value: bool) -> None:
    if value:
        from hepbridge import __version__

        typer.echo(f"hepbridge {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    ctx: typer.Context,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Only the result, warnings and errors."),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="The result as one JSON object on standard output.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="More log output; on a bug, write the details to a file."),
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Learned maps between distributions of particle-physics data.

    Refine fast calorimeter showers to full simulation: train, refine, evaluate. Or generate showers
    from noise: train, generate, evaluate.
    """
    ctx.obj = Session(quiet=quiet, json=json, debug=debug)
    ctx.obj.configure()


for command in (
    info.info,
    train.train,
    refine.refine,
    generate.generate,
    evaluate.evaluate,
    compare.compare,
    export.export,
    bench.bench,
    demo.demo,
    detectors.detectors,
    show.show,
    cite.cite,
):
    app.command()(command)
app.add_typer(
    simulate.simulate,
    name="simulate",
    help="Make showers: fast, full, or pairs; or Z + jet events.",
)
app.add_typer(
    unfold.unfold,
    name="unfold",
    help="What events were, from what a detector saw of them.",
)
